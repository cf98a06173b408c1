"""What the networks are trained for: a similarity shaped like a distance of poses, its gradient, and the regressor's pose.

The distance between the embeddings of an X-ray and of a DRR shall be that of their poses on SO(4) (McCarthy's embedding, length
scale R). SE(3) has no bi-invariant metric; its logarithm's norm is the alternative. Gradient matching, per sample and with both
parts of the gradient brought to length one, is ProST's (Gao et al., MICCAI 2020, equation 7). The similarity's gradient comes
through the image: ``∂d/∂θ = Jᵀ ∂d/∂I`` with the renderer's exact J.
"""

from __future__ import annotations

from typing import get_args

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3, so4
from sphere_reg_ros.similarity.anchors import LENGTH_SCALE_MM, PoseMetric, PoseMetricError, embedded

VALUE_SOFTENING_RAD = 0.15
"""Nearer pairs are weighted alike; farther ones by the inverse of their distance, or they would drown the near ones."""
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

    Raises:
        PoseMetricError: an unknown metric.
    """
    if metric == "so4":
        return so4.distance(embedded(T_from, centre_ct, R_mm), embedded(T_to, centre_ct, R_mm))
    if metric == "se3":
        start, end = torch.broadcast_tensors(T_from, T_to)
        twist = se3.twist_between(start, end, centre_ct)
        squared = twist[..., 3:].square().sum(-1) + twist[..., :3].square().sum(-1) / R_mm**2
        return squared.clamp_min(torch.finfo(squared.dtype).tiny).sqrt()
    raise PoseMetricError(f"unknown pose metric {metric!r}: choose one of {', '.join(get_args(PoseMetric))}")


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


def _unit(vector: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    return vector / vector.square().sum(-1, keepdim=True).add(1e-20).sqrt()
