"""One recorded image of a data set."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.xray import XrayImage


@dataclass(frozen=True)
class Projection:
    """An X-ray with the patient's pose.

    Attributes:
        T_camera_ct: ``(4, 4)``, mm.
        landmarks_px: ``(n, 2)`` column and row of the specimen's landmarks in this image, NaN where they are not annotated.
    """

    xray: XrayImage
    camera: Camera
    T_camera_ct: Float64[Tensor, "4 4"]
    landmarks_px: Float64[Tensor, "n 2"]
