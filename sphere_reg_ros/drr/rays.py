"""The rays of a camera, and how a pose carries them into a volume's grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sphere_reg_ros.geometry.camera import Camera


@dataclass(frozen=True)
class CameraRays:
    """One ray a pixel, from the source at the camera's origin to the pixel's centre on the detector.

    Attributes:
        direction: ``(h, w, 3)`` unit vectors in camera axes.
        length_mm: ``(h, w)`` from the source to the detector.
    """

    direction: Float[Tensor, "h w 3"]
    length_mm: Float[Tensor, "h w"]


def camera_rays(camera: Camera, device: torch.device, dtype: torch.dtype) -> CameraRays:
    """The rays of every pixel."""
    points = camera.pixel_points(device, dtype)
    length = torch.linalg.vector_norm(points, dim=-1)
    return CameraRays(points / length[..., None], length)


def voxel_from_camera(T_camera_ct: Float[Tensor, "b 4 4"], T_ct_voxel: Float[Tensor, "4 4"]) -> Float[Tensor, "b 4 4"]:
    """``T_voxel_camera``: camera millimetres to voxel indices, float64.

    A point ``s·d`` on a ray lies at ``M·d·s + o`` with ``M`` the upper left 3x3 block and ``o`` the last
    column: the source's own place on the grid.
    """
    rotation = T_camera_ct[:, :3, :3].double()
    inverse = torch.zeros_like(T_camera_ct, dtype=torch.float64)
    inverse[:, :3, :3] = rotation.mT
    inverse[:, :3, 3] = -(rotation.mT @ T_camera_ct[:, :3, 3:].double())[..., 0]
    inverse[:, 3, 3] = 1.0
    to_voxel: Tensor = torch.linalg.inv(T_ct_voxel.to(inverse)) @ inverse
    return to_voxel
