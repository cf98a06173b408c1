"""Pictures that let a person judge a registration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from sphere_reg_ros.imaging.xray import XrayImage, to_line_integral
from sphere_reg_ros.registration.result import RegistrationResult

EDGE_COLOUR_RGB = (255, 200, 0)
EDGE_SHARE = 0.08
"""Share of the pixels drawn as edges: the strongest gradients of the DRR."""


def drr_to_uint8(drr: Float[Tensor, "h w"]) -> UInt8[NDArray[Any], "h w"]:
    """A DRR as a picture like the X-ray: bright is unattenuated, 1st to 99th percentile stretched."""
    return _stretch(-drr.detach().cpu().to(torch.float32).numpy())


def overlay_rgb(xray: XrayImage, drr: Float[Tensor, "h w"]) -> UInt8[NDArray[Any], "h w 3"]:
    """The edges of the DRR over the X-ray: where they lie on the X-ray's own edges, the pose is right.

    Raises:
        ValueError: the two differ in size.
    """
    if tuple(drr.shape) != tuple(xray.pixels.shape):
        raise ValueError(f"DRR is {tuple(drr.shape)}, X-ray is {tuple(xray.pixels.shape)}")
    line_integral, _ = to_line_integral(xray)
    picture = cv2.cvtColor(_stretch(-line_integral.cpu().numpy()), cv2.COLOR_GRAY2RGB)
    picture[_edges(drr.detach().cpu().to(torch.float32).numpy())] = EDGE_COLOUR_RGB
    return picture


def convergence_figure(result: RegistrationResult, path: str | Path) -> None:
    """Cost, step and damping of every iteration, stage by stage, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    iterations = range(len(result.trace))
    upper.plot(iterations, [step.cost for step in result.trace], "o-", markersize=3)
    upper.set_ylabel("robust cost per pixel")
    lower.semilogy(iterations, [max(step.step_norm, 1e-6) for step in result.trace], "o-", markersize=3)
    lower.set_ylabel("step [mm, 1 rad = 100 mm]")
    lower.set_xlabel("iteration")
    for index, step in enumerate(result.trace):
        if index == 0 or step.stage != result.trace[index - 1].stage:
            for axes in (upper, lower):
                axes.axvline(index - 0.5, color="0.7", linewidth=0.8)
            upper.annotate(step.stage, (index, 1.0), xycoords=("data", "axes fraction"), fontsize=8, va="bottom")
    figure.savefig(path, dpi=120)


def _stretch(values: Float[NDArray[Any], "h w"]) -> UInt8[NDArray[Any], "h w"]:
    low, high = np.percentile(values, (1.0, 99.0))
    scaled = (values - low) / max(float(high - low), 1e-6)
    return np.asarray(np.clip(scaled * 255.0, 0.0, 255.0), dtype=np.uint8)


def _edges(drr: Float[NDArray[Any], "h w"]) -> NDArray[Any]:
    smooth = cv2.GaussianBlur(drr, (0, 0), max(0.8, max(drr.shape) / 320.0))
    horizontal = cv2.Sobel(smooth, cv2.CV_32F, 1, 0)
    vertical = cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    strength = np.hypot(horizontal, vertical)
    # Ridges of the gradient, one or two pixels wide, hide less of the X-ray than a threshold alone.
    ridge = strength >= cv2.dilate(strength, np.ones((3, 3), np.uint8)) * 0.9
    return np.asarray(ridge & (strength > np.quantile(strength, 1.0 - 2.0 * EDGE_SHARE)) & (strength > 0.0))
