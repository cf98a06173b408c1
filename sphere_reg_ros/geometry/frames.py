"""Anatomical frames, units, and what a covariance refers to.

The core computes in LPS millimetres and radians; ROS in metres. This is the one module that converts.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3

MM_PER_M = 1000.0

LPS_FROM_RAS = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
"""NIfTI's right-anterior-superior to DICOM's left-posterior-superior; its own inverse."""


def transform_to_metres(T_mm: Float64[Tensor, "*b 4 4"]) -> Float64[Tensor, "*b 4 4"]:
    """A rigid transform with its translation in metres."""
    return se3.from_rotation_translation(T_mm[..., :3, :3], T_mm[..., :3, 3] / MM_PER_M)


def transform_to_millimetres(T_m: Float64[Tensor, "*b 4 4"]) -> Float64[Tensor, "*b 4 4"]:
    """A rigid transform with its translation in millimetres."""
    return se3.from_rotation_translation(T_m[..., :3, :3], T_m[..., :3, 3] * MM_PER_M)


def covariance_at_origin(
    covariance: Float64[Tensor, "6 6"], T_camera_ct: Float64[Tensor, "4 4"], centre_ct: Float64[Tensor, "3"]
) -> Float64[Tensor, "6 6"]:
    """Covariance in the meaning of ``geometry_msgs/PoseWithCovariance``.

    Args:
        covariance: of the twist about ``centre_ct`` in camera axes, mm and rad.
        T_camera_ct: the pose, mm.

    Returns:
        Covariance of the position of the CT frame's origin (m) and of the rotation about the fixed camera axes (rad).
        To first order ``δp = t + w × (p_origin - c_camera)``.
    """
    jacobian = _origin_from_centre(T_camera_ct, centre_ct)
    return jacobian @ covariance @ jacobian.T


def covariance_at_centre(
    covariance: Float64[Tensor, "6 6"], T_camera_ct: Float64[Tensor, "4 4"], centre_ct: Float64[Tensor, "3"]
) -> Float64[Tensor, "6 6"]:
    """The inverse of :func:`covariance_at_origin`: ROS meaning (m, rad) to twist about ``centre_ct`` (mm, rad)."""
    jacobian: Tensor = torch.linalg.inv(_origin_from_centre(T_camera_ct, centre_ct))
    return jacobian @ covariance @ jacobian.T


def quaternion_xyzw(rotation: Float64[Tensor, "*b 3 3"]) -> Float64[Tensor, "*b 4"]:
    """Unit quaternion in ROS order, w not negative."""
    wxyz = se3.quaternion_wxyz_from_rotation(rotation)
    wxyz = torch.where(wxyz[..., :1] < 0.0, -wxyz, wxyz)
    return wxyz[..., [1, 2, 3, 0]]


def rotation_from_quaternion_xyzw(quaternion: Float64[Tensor, "*b 4"]) -> Float64[Tensor, "*b 3 3"]:
    """Rotation matrix of a quaternion in ROS order; its length does not matter, zero is not allowed."""
    unit: Tensor = quaternion / quaternion.norm(dim=-1, keepdim=True)
    vector, scalar = unit[..., :3], unit[..., 3:]
    cross = se3.hat(vector)
    identity = torch.eye(3, dtype=unit.dtype, device=unit.device)
    return identity + 2.0 * (scalar[..., None] * cross + cross @ cross)


def _origin_from_centre(
    T_camera_ct: Float64[Tensor, "4 4"], centre_ct: Float64[Tensor, "3"]
) -> Float64[Tensor, "6 6"]:
    offset = -(T_camera_ct[:3, :3] @ centre_ct.to(T_camera_ct))
    jacobian = torch.eye(6, dtype=torch.float64)
    jacobian[:3, :3] /= MM_PER_M
    jacobian[:3, 3:] = -se3.hat(offset) / MM_PER_M
    return jacobian
