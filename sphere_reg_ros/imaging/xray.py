"""An X-ray image, and its line integrals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32
from numpy.typing import NDArray
from torch import Tensor

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.collimation_mask import collimation_mask
from sphere_reg_ros.imaging.errors import (
    ConstantXrayError,
    EmptyXrayError,
    NotFiniteXrayError,
    SaturatedXrayError,
    XrayFormatError,
    XraySizeError,
)

MIN_SIDE_PX = 16
MAX_SATURATED_SHARE = 0.7
"""An X-ray with more pixels than this at its brightest value is over-exposed: open background fills at most about half
of a usable one."""
DARK_SHARE = 0.0003
"""Pixels below this share of the open beam see a shutter or metal: a lateral lumbar spine still passes about as much."""


@dataclass(frozen=True)
class XrayImage:
    """One X-ray.

    Attributes:
        pixels: ``(h, w)`` float32, any scale; detected intensity (bright is unattenuated), or attenuation.
        is_attenuation: which of the two; attenuation means line integrals up to gain and offset.
        camera: from the file's geometry, where it has one.
        angles_deg: the C-arm's reported positioner primary and secondary angles (DICOM PS3.3 C.8.7.5), where known.
        source: where it was read from.
    """

    pixels: Float32[Tensor, "h w"]
    is_attenuation: bool = False
    camera: Camera | None = None
    angles_deg: tuple[float, float] | None = None
    source: str = ""


def validate_xray(xray: XrayImage, camera: Camera | None = None) -> None:
    """Refuse an X-ray that no registration can use.

    Raises:
        XrayFormatError: not two-dimensional, or tiny.
        XraySizeError: another size than the camera's.
        NotFiniteXrayError, EmptyXrayError, ConstantXrayError, SaturatedXrayError: by content.
    """
    name = xray.source or "X-ray"
    pixels = xray.pixels
    if pixels.ndim != 2 or min(pixels.shape) < MIN_SIDE_PX:
        raise XrayFormatError(
            f"{name}: shape {tuple(pixels.shape)} is no X-ray; "
            f"a single-channel image of at least {MIN_SIDE_PX} pixels a side is needed"
        )
    height, width = pixels.shape
    if camera is not None and (camera.width, camera.height) != (width, height):
        raise XraySizeError(
            f"{name}: the image is {width} x {height} pixels, its camera says {camera.width} x {camera.height}; "
            "give the calibration of this image size"
        )
    if not bool(torch.isfinite(pixels).all()):
        count = int((~torch.isfinite(pixels)).sum())
        raise NotFiniteXrayError(f"{name}: {count} pixels are NaN or infinite; export the image again")
    low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        if high == 0.0:
            raise EmptyXrayError(f"{name}: every pixel is zero; was the beam on?")
        raise ConstantXrayError(f"{name}: every pixel is {high:g}; the image shows nothing")
    if not xray.is_attenuation and _open_beam(pixels.cpu().numpy()) <= 0.0:
        raise EmptyXrayError(
            f"{name}: hardly a pixel is above zero (values {low:g} to {high:g}); detected intensity is needed, bright where "
            "nothing attenuates"
        )
    extreme = low if xray.is_attenuation else high
    share = float((pixels == extreme).to(torch.float32).mean())
    if share > MAX_SATURATED_SHARE:
        raise SaturatedXrayError(
            f"{name}: {share:.0%} of the pixels are saturated at {extreme:g} (limit {MAX_SATURATED_SHARE:.0%}); "
            "lower the exposure"
        )


def to_line_integral(xray: XrayImage) -> tuple[Float32[Tensor, "h w"], Bool[Tensor, "h w"]]:
    """Attenuation along each ray, ``-log(I / I0)``, and which pixels it can be trusted at.

    The open beam ``I0`` is the brightest level of the image; where the patient covers everything the result lacks an offset,
    which the local normalisation of the similarity removes. The collimator (by its edges, see `collimation_mask`), and black
    regions such as a shutter or metal that lets nothing through, are masked.

    Returns:
        ``(line_integral, mask)``; the line integral is 0 where the mask is false.
    """
    pixels = xray.pixels.to(torch.float32)
    if xray.is_attenuation:
        mask = torch.isfinite(pixels)
        return torch.where(mask, pixels - pixels[mask].min(), torch.zeros_like(pixels)), mask
    values = pixels.cpu().numpy()
    positive = np.maximum(values, 0.0)
    open_beam = _open_beam(positive)
    dark = positive <= DARK_SHARE * open_beam
    bright = ~(_grown(dark) if dark.any() else dark)
    attenuation = -np.log(np.maximum(positive, DARK_SHARE * open_beam) / open_beam)
    visible = bright & collimation_mask(attenuation)
    line_integral = np.where(visible, attenuation, 0.0).astype(np.float32)
    return torch.from_numpy(line_integral), torch.from_numpy(visible)


def _open_beam(pixels: Float32[NDArray[Any], "h w"]) -> float:
    """The brightest level of an image, but for a few pixels that are noise."""
    return float(np.percentile(pixels, 99.5))


def _grown(dark: Bool[NDArray[Any], "h w"]) -> Bool[NDArray[Any], "h w"]:
    """Dark regions with their blurred rim; single dark pixels are noise and stay as they are."""
    opened = cv2.morphologyEx(dark.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
    rim = 2 * max(2, round(max(dark.shape) / 100)) + 1
    grown = cv2.dilate(opened, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (rim, rim)))
    return np.asarray((grown > 0) | dark)
