"""Whether a pose may be acted on: scores, covariance, decision."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.registration.covariance import (
    block_equations,
    block_sums,
    cluster_robust_covariance,
    expected_error_mm,
)
from sphere_reg_ros.registration.levels import StageSolution
from sphere_reg_ros.registration.photometric import Comparison, tukey_weight_and_cost
from sphere_reg_ros.registration.probability import RIGHT_MM, calibrated_gate
from sphere_reg_ros.registration.result import Matrix6
from sphere_reg_ros.registration.settings import GateSettings

BONE_HU = 250.0
BONE_POINTS = 256
CONSISTENT_CORRELATION = 0.25


@dataclass(frozen=True)
class Verdict:
    """The gate's answer; the fields are those of ``RegistrationResult``."""

    reasons: tuple[str, ...]
    covariance: Matrix6
    probability: float
    expected_error_mm: float
    scores: dict[str, float]


def bone_points(ct: CtVolume) -> Float64[Tensor, "n 3"]:
    """Some bone voxels of the CT, LPS mm, the same ones every time; the reference point where there is no bone."""
    stride = max(1, round((ct.hu.numel() / 2e6) ** (1.0 / 3.0)))
    indices = torch.nonzero(ct.hu[::stride, ::stride, ::stride] >= BONE_HU)
    if len(indices) == 0:
        return ct.reference_point()[None].to(torch.float64)
    chosen = torch.linspace(0, len(indices) - 1, min(BONE_POINTS, len(indices))).round().long()
    voxels = indices[chosen].flip(1).to(torch.float64) * stride
    T = ct.T_ct_voxel.to(torch.float64)
    return torch.addmm(T[:3, 3], voxels, T[:3, :3].T)


def judge(
    solution: StageSolution,
    centre_ct: Float64[Tensor, "3"],
    bone_points_mm: Float64[Tensor, "n 3"],
    gate: GateSettings,
) -> Verdict:
    """Score the best pose of the finest level, give it a covariance, and accept or reject it."""
    pose = solution.T_camera_ct[:1]
    equations = []
    view_scores = []
    for problem, cutoff in zip(solution.problems, solution.cutoffs, strict=True):
        comparison = problem.compare(pose)
        assert comparison.jacobian is not None
        weight, _ = tukey_weight_and_cost(comparison.residual, comparison.support, cutoff)
        equations.append(block_equations(comparison.residual[0], comparison.jacobian[0], weight[0]))
        view_scores.append(_view_scores(comparison, weight, problem.level.mask))
    # The worst view decides: one good projection does not excuse another that contradicts it.
    scores = {name: min(view[name] for view in view_scores) for name in view_scores[0]}
    covariance = cluster_robust_covariance(equations) * gate.covariance_scale
    offsets = (bone_points_mm - centre_ct) @ pose[0, :3, :3].T
    scores["expected_error_mm"] = expected_error_mm(covariance, offsets)
    scores["last_step_mm"] = solution.trace[-1].step_norm if solution.trace else math.inf
    probability = calibrated_gate().probability(scores)
    return Verdict(
        reasons=_reasons(scores, probability, gate),
        covariance=covariance.numpy(),
        probability=probability,
        expected_error_mm=scores["expected_error_mm"],
        scores=scores,
    )


def with_learned_distance(verdict: Verdict, distance_rad: float | None, gate: GateSettings) -> Verdict:
    """The verdict with the learned similarity's voice, which knows nothing of windows and correlations; as it is without one."""
    if distance_rad is None:
        return verdict
    reasons = verdict.reasons
    if not distance_rad <= gate.max_learned_distance_rad:
        reasons += (
            f"learned distance {distance_rad:.2f} rad is above {gate.max_learned_distance_rad:.2f}: to the model this is another "
            "view, or another patient",
        )
    return replace(verdict, reasons=reasons, scores={**verdict.scores, "learned_distance_rad": distance_rad})


def _view_scores(comparison: Comparison, weight: Float[Tensor, "1 h w"], shown: Float[Tensor, "1 h w"]) -> dict[str, float]:
    support = comparison.support
    drr = comparison.xray + comparison.residual
    return {
        "similarity": float(comparison.similarity()[0]),
        "gradient_similarity": float(_gradient_similarity(comparison.xray[0], drr[0], support[0])),
        "inlier_share": float(weight.sum() / support.sum().clamp_min(1.0)),
        "consistent_share": float(_consistent_share(comparison.xray[0], drr[0])),
        "overlap_share": float((support * (drr != 0.0)).sum() / shown.sum().clamp_min(1.0)),
    }


def _consistent_share(xray: Float[Tensor, "h w"], drr: Float[Tensor, "h w"]) -> Float[Tensor, ""]:
    """Share of the X-ray's blocks, by their structure, in which the two images correlate: at a wrong optimum only some do."""
    products, energy_xray, energy_drr = block_sums(torch.stack((xray * drr, xray.square(), drr.square())))
    correlation = products / (energy_xray * energy_drr).sqrt().clamp_min(1e-9)
    agreeing = energy_xray[correlation > CONSISTENT_CORRELATION]
    return torch.as_tensor(agreeing.sum() / energy_xray.sum().clamp_min(1e-9))


def _gradient_similarity(
    xray: Float[Tensor, "h w"], drr: Float[Tensor, "h w"], support: Float[Tensor, "h w"]
) -> Float[Tensor, ""]:
    """Correlation of the two images' gradients (Penney et al., IEEE TMI 1998, "gradient correlation")."""
    inside = support[1:-1, 1:-1]
    products = []
    for axis in (0, 1):
        first, second = (_central_difference(image, axis) * inside for image in (xray, drr))
        energy = (first.square().sum() * second.square().sum()).sqrt().clamp_min(1e-9)
        products.append((first * second).sum() / energy)
    return torch.stack(products).mean()


def _central_difference(image: Float[Tensor, "h w"], axis: int) -> Float[Tensor, "hh ww"]:
    inner = image[:, 1:-1] if axis == 0 else image[1:-1]
    length = image.shape[axis]
    return inner.narrow(axis, 2, length - 2) - inner.narrow(axis, 0, length - 2)


def _reasons(scores: dict[str, float], probability: float, gate: GateSettings) -> tuple[str, ...]:
    reasons = []
    if not scores["overlap_share"] >= gate.min_overlap_share:
        reasons.append(
            f"the CT explains {scores['overlap_share']:.2f} of the X-ray, at least {gate.min_overlap_share:.2f} are needed"
        )
    if not probability >= gate.min_probability:
        reasons.append(
            f"probability {probability:.2f} that the error is below {RIGHT_MM:g} mm is under {gate.min_probability:.2f}: "
            f"similarity {scores['similarity']:.2f}, of gradients {scores['gradient_similarity']:.2f}, "
            f"agreeing parts {scores['consistent_share']:.2f}"
        )
    if not scores["expected_error_mm"] <= gate.max_expected_error_mm:
        reasons.append(
            f"expected error {scores['expected_error_mm']:.2f} mm is above {gate.max_expected_error_mm:.2f} mm: the X-ray leaves "
            "a direction of the pose open"
        )
    if not scores["last_step_mm"] <= gate.max_last_step_mm:
        reasons.append(f"not converged: the last step was {scores['last_step_mm']:.2f} mm, over {gate.max_last_step_mm:.2f} mm")
    return tuple(reasons)
