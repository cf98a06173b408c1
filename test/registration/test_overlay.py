"""Pictures for people: edges where the anatomy's edges are, in a colour that no X-ray has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.registration.overlay import convergence_figure, drr_to_uint8, overlay_rgb
from sphere_reg_ros.registration.pipeline import RegistrationPipeline

RADIUS_PX, CENTRE = 30.0, (50.0, 70.0)


def disc(centre: tuple[float, float] = CENTRE) -> np.ndarray:
    """Line integrals of a flat disc with a soft rim."""
    rows, columns = np.indices((120, 140))
    distance = np.hypot(rows - centre[0], columns - centre[1])
    return (3.0 / (1.0 + np.exp(distance - RADIUS_PX))).astype(np.float32)


def xray_of(drr: np.ndarray) -> XrayImage:
    return XrayImage(torch.from_numpy(60000.0 * np.exp(-drr)))


def coloured(picture: np.ndarray) -> np.ndarray:
    """Where the overlay is not grey."""
    return np.asarray(picture.max(2) != picture.min(2))


def test_the_edges_are_the_drrs_and_the_picture_is_the_xrays() -> None:
    xray = xray_of(disc())
    shifted = disc((CENTRE[0] + 15, CENTRE[1]))
    picture = overlay_rgb(xray, torch.from_numpy(shifted))
    assert picture.dtype == np.uint8 and picture.shape == (120, 140, 3)
    rows, columns = np.nonzero(coloured(picture))
    distance = np.hypot(rows - CENTRE[0] - 15, columns - CENTRE[1])
    assert len(rows) > RADIUS_PX * np.pi, "a whole ring"
    assert np.abs(distance - RADIUS_PX).max() < 4.0
    grey = picture[..., 0].astype(float)
    assert grey[int(CENTRE[0]) - 20, int(CENTRE[1])] < 30 < 220 < grey[5, 5], "bright is unattenuated, as in the X-ray"


def test_a_drr_without_edges_draws_none() -> None:
    assert not coloured(overlay_rgb(xray_of(disc()), torch.zeros(120, 140))).any()


def test_a_drr_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(120, 140\)"):
        overlay_rgb(xray_of(disc()), torch.zeros(60, 70))


def test_a_drr_becomes_a_picture_like_the_xray() -> None:
    picture = drr_to_uint8(torch.from_numpy(disc()))
    assert picture.dtype == np.uint8
    assert picture[0, 0] > 250 and picture[50, 70] < 5
    assert not drr_to_uint8(torch.zeros(20, 20)).std()


def test_the_convergence_figure_is_drawn(
    pipeline: RegistrationPipeline, frames: list, xray: Any, tmp_path: Path
) -> None:
    result = pipeline.register(xray(frames[0]), frames[0].camera, frames[0].T_prior)
    convergence_figure(result, tmp_path / "figure.png")
    picture = cv2.imread(str(tmp_path / "figure.png"))
    blue = (picture[..., 0].astype(int) - picture[..., 2] > 60).sum()
    assert picture.shape[0] > 300 and blue > 200, "matplotlib draws its first line in blue"
