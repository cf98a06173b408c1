"""Rigid motions of space: exponential, logarithm, adjoint, and the twist about a point.

A twist is ``[t_x, t_y, t_z, w_x, w_y, w_z]`` in mm and rad. Formulas: Sola, Deray, Atchuthan, "A micro Lie theory
for state estimation in robotics" (2018), appendix D; the series near zero are Taylor expansions of the same. All
functions take any number of leading batch dimensions, float32 or float64, and are differentiable everywhere, at zero too.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

SMALL_SQUARED_ANGLE = {torch.float32: 2.5e-3, torch.float64: 1e-4}
"""Below this squared angle the series are more accurate than the closed forms: their first missing term is
``θ⁸ / 11!`` while the closed forms lose ``eps / θ²``."""


def hat(vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """The matrix of the cross product, ``hat(a) @ b = a × b``."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1)
    return rows.reshape(*rows.shape[:-1], 3, 3)


def so3_exp(rotation_vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrix of a rotation vector in rad (Rodrigues)."""
    squared = rotation_vector.square().sum(-1)
    sinc, versine, _ = _exponential_coefficients(squared)
    cross = hat(rotation_vector)
    identity = torch.eye(3, dtype=cross.dtype, device=cross.device)
    return identity + sinc[..., None, None] * cross + versine[..., None, None] * (cross @ cross)


def so3_log(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Rotation vector, in rad, of length at most pi.

    Through the unit quaternion with its largest component first, which keeps all digits near zero and near pi.
    """
    quaternion = quaternion_wxyz_from_rotation(rotation)
    w, vector = quaternion[..., 0], quaternion[..., 1:]
    # q and -q are the same rotation; the one with w >= 0 is the shorter way.
    sign = torch.where(w < 0.0, -1.0, 1.0).to(w.dtype)
    w, vector = w * sign, vector * sign[..., None]
    squared = vector.square().sum(-1)
    small = squared < SMALL_SQUARED_ANGLE[rotation.dtype]
    safe = torch.where(small, torch.ones_like(squared), squared)
    length = safe.sqrt()
    closed = 2.0 * torch.atan2(length, torch.where(small, torch.ones_like(w), w)) / length
    # 2·asin(s)/s for small s = |vector|.
    series = 2.0 * (1.0 + squared * (1 / 6 + squared * (3 / 40 + squared * (15 / 336 + squared * (105 / 3456)))))
    return torch.where(small, series, closed)[..., None] * vector


def quaternion_wxyz_from_rotation(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Unit quaternion ``(w, x, y, z)``, up to sign (Shepperd, J. Guidance and Control 1978)."""
    m = rotation
    d0, d1, d2 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = torch.stack((1 + d0 + d1 + d2, 1 + d0 - d1 - d2, 1 - d0 + d1 - d2, 1 - d0 - d1 + d2), dim=-1)
    a, b, c = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    d, e, f = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    # Row i is 4·q_i·q, exact for every i; the row of the largest component is the best conditioned.
    rows = torch.stack(
        (
            torch.stack((squares[..., 0], a, b, c), dim=-1),
            torch.stack((a, squares[..., 1], d, e), dim=-1),
            torch.stack((b, d, squares[..., 2], f), dim=-1),
            torch.stack((c, e, f, squares[..., 3]), dim=-1),
        ),
        dim=-2,
    )
    largest = squares.detach().argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    row: Tensor = rows.gather(-2, largest).squeeze(-2)
    unit: Tensor = row / torch.linalg.vector_norm(row, dim=-1, keepdim=True)
    return unit


def from_rotation_translation(
    rotation: Float[Tensor, "*b 3 3"], translation: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b 4 4"]:
    """Assemble a rigid transform."""
    upper = torch.cat((rotation, translation[..., None]), dim=-1)
    # Not a tensor made from numbers: that would be copied from the host, which a CUDA graph cannot hold.
    last = upper[..., :1, :]
    bottom = torch.cat((torch.zeros_like(last[..., :3]), torch.ones_like(last[..., 3:])), dim=-1)
    return torch.cat((upper, bottom), dim=-2)


def exp(twist: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 4 4"]:
    """Rigid transform of a twist (Sola et al., eq. 172)."""
    translation, rotation_vector = twist[..., :3], twist[..., 3:]
    squared = rotation_vector.square().sum(-1)
    sinc, versine, sine_rest = _exponential_coefficients(squared)
    cross = hat(rotation_vector)
    squared_cross = cross @ cross
    identity = torch.eye(3, dtype=cross.dtype, device=cross.device)
    rotation = identity + sinc[..., None, None] * cross + versine[..., None, None] * squared_cross
    left = identity + versine[..., None, None] * cross + sine_rest[..., None, None] * squared_cross
    return from_rotation_translation(rotation, (left @ translation[..., None]).squeeze(-1))


def log(T: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 6"]:
    """Twist of a rigid transform, its rotation at most pi (Sola et al., eq. 173)."""
    rotation_vector = so3_log(T[..., :3, :3])
    squared = rotation_vector.square().sum(-1)
    cross = hat(rotation_vector)
    identity = torch.eye(3, dtype=cross.dtype, device=cross.device)
    factor = _inverse_left_coefficient(squared)[..., None, None]
    inverse_left = identity - 0.5 * cross + factor * (cross @ cross)
    translation = (inverse_left @ T[..., :3, 3:]).squeeze(-1)
    return torch.cat((translation, rotation_vector), dim=-1)


def inverse(T: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """Inverse of a rigid transform."""
    transposed = T[..., :3, :3].transpose(-1, -2)
    return from_rotation_translation(transposed, -(transposed @ T[..., :3, 3:]).squeeze(-1))


def adjoint(T: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 6 6"]:
    """Change of frame of a twist: ``T · exp(x) · T⁻¹ = exp(adjoint(T) @ x)`` (Sola et al., eq. 175)."""
    rotation = T[..., :3, :3]
    coupling = hat(T[..., :3, 3]) @ rotation
    upper = torch.cat((rotation, coupling), dim=-1)
    lower = torch.cat((torch.zeros_like(rotation), rotation), dim=-1)
    return torch.cat((upper, lower), dim=-2)


def transform_points(
    T: Float[Tensor, "*b 4 4"], points: Float[Tensor, "*b n 3"]
) -> Float[Tensor, "*b n 3"]:
    """Move points, ``p_target = T_target_source @ p_source``."""
    return points @ T[..., :3, :3].transpose(-1, -2) + T[..., None, :3, 3]


def interpolate(
    T_start: Float[Tensor, "*b 4 4"], T_end: Float[Tensor, "*b 4 4"], share: float | Float[Tensor, "*b"]
) -> Float[Tensor, "*b 4 4"]:
    """The screw motion from one transform (share 0) to the other (share 1), at constant speed."""
    twist = log(inverse(T_start) @ T_end)
    scale = torch.as_tensor(share, dtype=twist.dtype, device=twist.device)
    return T_start @ exp(twist * scale[..., None])


def apply_twist(
    T_camera_ct: Float[Tensor, "*b 4 4"], twist: Float[Tensor, "*b 6"], centre_ct: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b 4 4"]:
    """Move the CT by a twist in camera axes about a point of the CT.

    ``T <- Tr(c_cam) · exp(twist) · Tr(-c_cam) · T`` with ``c_cam = T · c``.
    """
    motion, centre_ct = exp(twist), centre_ct.to(T_camera_ct)
    rotation = motion[..., :3, :3] @ T_camera_ct[..., :3, :3]
    # The centre moves by the motion's translation alone, which fixes where everything else goes.
    moved_centre = _transform_point(T_camera_ct, centre_ct) + motion[..., :3, 3]
    return from_rotation_translation(rotation, moved_centre - (rotation @ centre_ct[..., None]).squeeze(-1))


def twist_between(
    T_from: Float[Tensor, "*b 4 4"], T_to: Float[Tensor, "*b 4 4"], centre_ct: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b 6"]:
    """The twist about ``centre_ct`` that brings one pose to the other; the inverse of :func:`apply_twist`."""
    centre_ct = centre_ct.to(T_from)
    rotation = T_to[..., :3, :3] @ T_from[..., :3, :3].transpose(-1, -2)
    displacement = _transform_point(T_to, centre_ct) - _transform_point(T_from, centre_ct)
    return log(from_rotation_translation(rotation, displacement))


def _transform_point(T: Float[Tensor, "*b 4 4"], point: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    return (T[..., :3, :3] @ point[..., None]).squeeze(-1) + T[..., :3, 3]


def _exponential_coefficients(squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``sin θ / θ``, ``(1 - cos θ) / θ²`` and ``(θ - sin θ) / θ³`` as functions of ``θ²``."""
    small = squared < SMALL_SQUARED_ANGLE[squared.dtype]
    # Both branches are evaluated; the unused one must be finite or its gradient poisons the other.
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    sinc = torch.where(small, _series(squared, (1, -1 / 6, 1 / 120, -1 / 5040)), angle.sin() / angle)
    half_sinc = (0.5 * angle).sin() / (0.5 * angle)
    versine = torch.where(small, _series(squared, (1 / 2, -1 / 24, 1 / 720, -1 / 40320)), 0.5 * half_sinc.square())
    closed = (angle - angle.sin()) / (safe * angle)
    sine_rest = torch.where(small, _series(squared, (1 / 6, -1 / 120, 1 / 5040, -1 / 362880)), closed)
    return sinc, versine, sine_rest


def _inverse_left_coefficient(squared: Tensor) -> Tensor:
    """``1/θ² - (1 + cos θ) / (2 θ sin θ)``, which is finite at pi too when written with the half angle."""
    small = squared < SMALL_SQUARED_ANGLE[squared.dtype]
    safe = torch.where(small, torch.ones_like(squared), squared)
    half = 0.5 * safe.sqrt()
    closed = (1.0 - half * half.cos() / half.sin()) / safe
    return torch.where(small, _series(squared, (1 / 12, 1 / 720, 1 / 30240, 1 / 1209600)), closed)


def _series(squared: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    value = torch.zeros_like(squared)
    for coefficient in reversed(coefficients):
        value = value * squared + coefficient
    return value
