"""Errors of a pose, and figures of a set of them; each docstring is the definition, nothing is rescaled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera

SUBMILLIMETRE_MM = 1.0
WRONG_MM = 2.0
Pose = Float64[Tensor, "4 4"]


def mtre_mm(T_estimate: Pose, T_true: Pose, landmarks_mm: Float64[Tensor, "n 3"]) -> float:
    """Mean 3-D distance of the landmarks under the two poses, in mm; never projected."""
    apart = se3.transform_points(T_estimate, landmarks_mm) - se3.transform_points(T_true, landmarks_mm)
    return float(apart.norm(dim=1).mean())


def mean_projection_error_mm(T_estimate: Pose, T_true: Pose, landmarks_mm: Float64[Tensor, "n 3"], camera: Camera) -> float:
    """mPE: mean distance of the projected landmarks on the detector, in mm."""
    pitch = torch.tensor(camera.pixel_pitch_mm, dtype=torch.float64)
    pixels = [camera.project(se3.transform_points(T, landmarks_mm)) for T in (T_estimate, T_true)]
    return float(((pixels[0] - pixels[1]) * pitch).norm(dim=1).mean())


def mean_reprojection_distance_mm(T_estimate: Pose, T_true: Pose, landmarks_mm: Float64[Tensor, "n 3"]) -> float:
    """mRPE: mean distance from each true landmark to the ray through its estimated projection, mm (van de Kraats 2005)."""
    direction = torch.nn.functional.normalize(se3.transform_points(T_estimate, landmarks_mm), dim=1)
    true = se3.transform_points(T_true, landmarks_mm)
    along = (true * direction).sum(1, keepdim=True)
    return float((true - along * direction).norm(dim=1).mean())


def geodesic_mm(T_estimate: Pose, T_true: Pose, sdd_mm: float) -> float:
    """dGeo: ``sqrt((SDD/2 · θ)² + |t|²)`` in mm, of the rotation and the translation between the two poses."""
    motion = T_estimate @ se3.inverse(T_true)
    angle = float(se3.so3_log(motion[:3, :3]).norm())
    shift = float((T_estimate[:3, 3] - T_true[:3, 3]).norm())
    return float(np.hypot(0.5 * sdd_mm * angle, shift))


def capture_range_mm(
    starts_mm: Sequence[float], errors_mm: Sequence[float], width_mm: float = 20.0, share: float = 0.95
) -> float | None:
    """Farthest start from which registrations succeed (van de Kraats et al., IEEE TMI 24(9), 2005).

    The upper end of the last of the intervals of start mTRE, ``width_mm`` wide and ending at its multiples, up to which each one
    that holds images has at least ``share`` of them below 2 mm; 0 where the nearest has not. None without images.
    """
    starts, right = np.asarray(starts_mm, dtype=float), np.asarray(errors_mm, dtype=float) < WRONG_MM
    reached = None
    # Starts of a grid lie on the multiples, to rounding: they belong to the interval that ends there.
    intervals = np.ceil(starts / width_mm - 1e-3)
    for interval in np.unique(intervals):
        if right[intervals == interval].mean() < share:
            return 0.0 if reached is None else reached
        reached = float(interval * width_mm)
    return reached


def bootstrap_interval(
    values: Sequence[float], figure: Callable[[np.ndarray], np.ndarray], resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a figure, percentile bootstrap over images (Efron and Tibshirani, 1993, chapter 13).

    Args:
        figure: of the last axis of resampled values.
    """
    sample = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(seed).integers(0, len(sample), (resamples, len(sample)))
    low, high = np.percentile(figure(sample[drawn]), (2.5, 97.5))
    return float(low), float(high)


@dataclass(frozen=True)
class Summary:
    """Figures of a set of registrations; shares are percentages of all images, rejected ones count with their best estimate."""

    images: int
    percentiles_mm: tuple[float, float, float]
    smsr: float
    success_2mm: float
    success_10mm: float
    accepted: float
    wrongly_accepted: float
    wrongly_rejected: float
    median_time_ms: float


def summarise(errors_mm: Sequence[float], accepted: Sequence[bool], times_ms: Sequence[float]) -> Summary:
    """SMSR (share below 1 mm), the 50/75/95 percentiles, accepted, accepted above 2 mm, rejected below 1 mm.

    Raises:
        ValueError: no image, or lists of different length.
    """
    errors, decisions = np.asarray(errors_mm, dtype=float), np.asarray(accepted, dtype=bool)
    if len(errors) == 0 or not len(errors) == len(decisions) == len(times_ms):
        raise ValueError(f"{len(errors)} errors, {len(decisions)} decisions, {len(times_ms)} times; all must be equal and not 0")

    def percent(mask: np.ndarray) -> float:
        return float(100.0 * mask.mean())

    low, middle, high = (float(value) for value in np.percentile(errors, (50, 75, 95)))
    return Summary(
        images=len(errors),
        percentiles_mm=(low, middle, high),
        smsr=percent(errors < SUBMILLIMETRE_MM),
        success_2mm=percent(errors < WRONG_MM),
        success_10mm=percent(errors < 10.0),
        accepted=percent(decisions),
        wrongly_accepted=percent(decisions & ~(errors <= WRONG_MM)),
        wrongly_rejected=percent(~decisions & (errors < SUBMILLIMETRE_MM)),
        median_time_ms=float(np.median(times_ms)),
    )
