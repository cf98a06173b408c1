"""What the networks are trained for: a similarity shaped like a distance of poses, its gradient, and the regressor's pose.

The distance between the embeddings of an X-ray and of a DRR shall be that of their poses on SO(4) (McCarthy's embedding, length
scale R). SE(3) has no bi-invariant metric; its logarithm's norm is the alternative. Gradient matching, per sample and with both
parts of the gradient brought to length one, is ProST's (Gao et al., MICCAI 2020, equation 7). The similarity's gradient comes
through the image: ``∂d/∂θ = Jᵀ ∂d/∂I`` with the renderer's exact J.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3, so4
from sphere_reg_ros.geometry.views import SOURCE_TO_CENTRE_MM, view_pose
from sphere_reg_ros.training.errors import TrainingSettingsError

PoseMetric = Literal["so4", "se3"]
LENGTH_SCALE_MM = 250.0
"""R: what one radian weighs. At 250 mm in-plane shifts of 30 mm, depths of 60 mm and rotations of 20° all count."""
VALUE_SOFTENING_RAD = 0.15
"""Nearer pairs are weighted alike; farther ones by the inverse of their distance, or they would drown the near ones."""
SPHERE_SCALE = 0.5**0.5
"""Distance on the sphere of two near anchors over that of their poses."""
ROTATION_ARM_MM = 100.0
"""What a radian of the regressor's error weighs, the distance of a typical landmark from the CT's centre."""


def pose_distance(
    T_from: Float64[Tensor, "*b 4 4"],
    T_to: Float64[Tensor, "*b 4 4"],
    centre_ct: Float64[Tensor, "3"],
    metric: PoseMetric,
    R_mm: float = LENGTH_SCALE_MM,
) -> Float64[Tensor, "*b"]:
    """Distance of poses in rad; batches broadcast.

    The embedding is of the CT's centre about the place where it usually is: far from there, SO(4) would see little of a shift.

    Raises:
        TrainingSettingsError: an unknown metric.
    """
    if metric == "so4":
        return so4.distance(_embedded(T_from, centre_ct, R_mm), _embedded(T_to, centre_ct, R_mm))
    if metric == "se3":
        start, end = torch.broadcast_tensors(T_from, T_to)
        twist = se3.twist_between(start, end, centre_ct)
        squared = twist[..., 3:].square().sum(-1) + twist[..., :3].square().sum(-1) / R_mm**2
        return squared.clamp_min(torch.finfo(squared.dtype).tiny).sqrt()
    raise TrainingSettingsError(f"unknown pose metric {metric!r}: choose one of {', '.join(get_args(PoseMetric))}")


def pose_distance_gradient(
    T_xray: Float64[Tensor, "b 4 4"],
    T_drr: Float64[Tensor, "b 4 4"],
    centre_ct: Float64[Tensor, "3"],
    metric: PoseMetric,
    R_mm: float = LENGTH_SCALE_MM,
) -> Float64[Tensor, "b 6"]:
    """Derivative of :func:`pose_distance` by the twist of the DRR's pose about the CT's centre."""
    with torch.enable_grad():
        twist = torch.zeros(len(T_drr), 6, dtype=torch.float64, requires_grad=True)
        moved = se3.apply_twist(T_drr.detach(), twist, centre_ct)
        total = pose_distance(T_xray.detach(), moved, centre_ct, metric, R_mm).sum()
        (gradient,) = torch.autograd.grad(total, twist)
    return gradient


def anchors(
    T_camera_ct: Float64[Tensor, "n 4 4"], centre_ct: Float64[Tensor, "3"], metric: PoseMetric, R_mm: float = LENGTH_SCALE_MM
) -> Float64[Tensor, "n d"]:
    """Where poses belong on the unit sphere.

    SO(4) itself lies on one: ``vec(P)/2`` is a point of S¹⁵, and great circles between such points keep the bi-invariance:
    ``cos φ = tr(PᵀQ)/4 = (cos θ1 + cos θ2)/2``, so that ``φ ≈ d/√2``. An embedding that only knows distances has to find such a
    place by itself; told it, it needs a fifth of the steps. For SE(3)'s logarithm, which no sphere can hold without distortion:
    the exponential map of ``(t/R, w)/√2`` at a pole of S⁶.
    """
    if metric == "so4":
        return 0.5 * _embedded(T_camera_ct, centre_ct, R_mm).flatten(1)
    usual = view_pose(centre_ct.double(), 0.0, 0.0, SOURCE_TO_CENTRE_MM).expand_as(T_camera_ct)
    twist = se3.twist_between(usual, T_camera_ct, centre_ct)
    tangent = SPHERE_SCALE * torch.cat((twist[:, :3] / R_mm, twist[:, 3:]), dim=1)
    angle = tangent.norm(dim=1, keepdim=True)
    return torch.cat((torch.cos(angle), torch.sinc(angle / torch.pi) * tangent), dim=1)


def value_loss(similarity: Float[Tensor, "*b"], distance: Float[Tensor, "*b"]) -> Float[Tensor, ""]:
    """Weighted mean square of the difference between the distance of the embeddings and that of the poses.

    Square on purpose: with absolute differences, or more weight on near pairs, the embedding gave up the direction that an X-ray
    shows least (a singular value of its Jacobian fell from 0.54 to 0.10), and the solver lost its way.
    """
    weight = 1.0 / (distance + VALUE_SOFTENING_RAD)
    return (weight * (similarity - distance).square()).mean()


def gradient_loss(similarity: Float[Tensor, "b 6"], distance: Float[Tensor, "b 6"]) -> Float[Tensor, ""]:
    """``|ĝ_t − ĝ*_t|² + |ĝ_r − ĝ*_r|²`` of the translational and rotational parts, each of length one; mean over the batch."""
    parts = []
    for part in (slice(0, 3), slice(3, 6)):
        ours, wanted = similarity[:, part], distance[:, part].to(similarity.dtype)
        parts.append((_unit(ours) - _unit(wanted)).square().sum(-1))
    return torch.stack(parts).sum(0).mean()


def similarity_gradient(
    similarity: Float[Tensor, " b"],
    drr: Float[Tensor, "b c h w"],
    jacobian: Float[Tensor, "b c 6 h w"],
) -> Float[Tensor, "b 6"]:
    """``Jᵀ ∂d/∂I``, itself differentiable by the encoder's weights and, through J and the image, by the volume's values.

    Args:
        similarity: distance of each DRR's embedding to its X-ray's; a function of ``drr``.
    """
    (by_image,) = torch.autograd.grad(similarity.sum(), drr, create_graph=True)
    return torch.einsum("bchw,bckhw->bk", by_image, jacobian)


def regressor_loss(
    rotation: Float[Tensor, "b 3 3"],
    translation_mm: Float[Tensor, "b 3"],
    log_sigma: Float[Tensor, "b 6"],
    T_camera_ct: Float64[Tensor, "b 4 4"],
    centre_ct: Float64[Tensor, "3"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Error of a predicted pose, and how well its uncertainty fits.

    Returns:
        Mean of ``100 mm·|ΔR|_F/√2 + |Δt|``, in units of 100 mm; and the negative log-likelihood ``√2|e|/σ + log σ`` (Laplace)
        of the twist's components, in which the error counts as constant: a regressor cannot excuse a bad pose by a large σ.
    """
    target = T_camera_ct.to(rotation.dtype)
    place = (T_camera_ct[:, :3, :3] @ centre_ct + T_camera_ct[:, :3, 3]).to(rotation.dtype)
    # |ΔR|_F/√2 = 2 sin(θ/2) is the angle where it is small, and smooth where it is not.
    turn = (rotation - target[:, :3, :3]).square().sum((1, 2)).add(1e-6).sqrt() / 2.0**0.5
    shift = (translation_mm - place).square().sum(1).add(1e-2).sqrt() / ROTATION_ARM_MM
    with torch.no_grad():
        angle = se3.so3_log(target[:, :3, :3] @ rotation.mT)
        error = torch.cat((place - translation_mm, angle), dim=1).abs()
    likelihood = (2.0**0.5 * error * torch.exp(-log_sigma) + log_sigma).mean()
    return (turn + shift).mean(), likelihood


def _embedded(T: Float64[Tensor, "*b 4 4"], centre_ct: Float64[Tensor, "3"], R_mm: float) -> Float64[Tensor, "*b 4 4"]:
    usual = T.new_tensor([0.0, 0.0, SOURCE_TO_CENTRE_MM])
    place = (T[..., :3, :3] @ centre_ct.to(T)[:, None]).squeeze(-1) + T[..., :3, 3]
    return so4.embed_mccarthy(se3.from_rotation_translation(T[..., :3, :3], place - usual), R_mm)


def _unit(vector: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    return vector / vector.square().sum(-1, keepdim=True).add(1e-20).sqrt()
