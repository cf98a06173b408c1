"""Errors against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sphere_reg_ros.evaluation import metrics
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import ap_pose

CENTRE = torch.tensor([0.0, -150.0, 1000.0], dtype=torch.float64)
TRUTH = ap_pose(CENTRE, 750.0)
CAMERA = Camera(300, 300, 1000.0, (1.0, 0.5), (149.5, 149.5))
LANDMARKS = CENTRE + torch.tensor([[30.0, 0, 0], [-30.0, 0, 0], [0, 0, 40.0], [0, 0, -40.0]], dtype=torch.float64)


def moved(*twist: float) -> torch.Tensor:
    return se3.apply_twist(TRUTH, torch.tensor(twist, dtype=torch.float64), CENTRE)


def test_the_truth_has_no_error() -> None:
    assert metrics.mtre_mm(TRUTH, TRUTH, LANDMARKS) == 0.0
    assert metrics.mean_projection_error_mm(TRUTH, TRUTH, LANDMARKS, CAMERA) == 0.0
    assert metrics.mean_reprojection_distance_mm(TRUTH, TRUTH, LANDMARKS) == pytest.approx(0.0, abs=1e-12)
    assert metrics.geodesic_mm(TRUTH, TRUTH, 1000.0) == pytest.approx(0.0, abs=1e-6)


def test_a_shift_in_the_plane() -> None:
    """3 mm at 750 of 1000 mm depth is 4 mm on the detector."""
    estimate = moved(3.0, 0, 0, 0, 0, 0)
    assert metrics.mtre_mm(estimate, TRUTH, LANDMARKS) == pytest.approx(3.0)
    assert metrics.mean_projection_error_mm(estimate, TRUTH, LANDMARKS, CAMERA) == pytest.approx(4.0)
    assert metrics.geodesic_mm(estimate, TRUTH, 1000.0) == pytest.approx(3.0)


def test_depth_is_not_hidden_by_the_projection() -> None:
    estimate = moved(0, 0, 5.0, 0, 0, 0)
    assert metrics.mtre_mm(estimate, TRUTH, LANDMARKS) == pytest.approx(5.0)
    assert metrics.mean_projection_error_mm(estimate, TRUTH, LANDMARKS, CAMERA) < 0.5
    axis = CENTRE[None]
    assert metrics.mean_reprojection_distance_mm(estimate, TRUTH, axis) == pytest.approx(0.0, abs=1e-9)


def test_reprojection_distance_is_measured_in_the_patient() -> None:
    """A point 3 mm aside: its ray passes at 3 mm times the cosine of the ray's slope."""
    estimate = moved(3.0, 0, 0, 0, 0, 0)
    found = metrics.mean_reprojection_distance_mm(estimate, TRUTH, CENTRE[None])
    assert found == pytest.approx(3.0 * math.cos(math.atan(3.0 / 750.0)))


def test_a_turn_about_the_centre() -> None:
    """About the camera's z, through the centre: 30 mm turn by 30·2·sin(θ/2), 40 mm likewise; dGeo's arm is SDD/2."""
    angle = 0.02
    estimate = moved(0, 0, 0, 0, 0, angle)
    assert metrics.mtre_mm(estimate, TRUTH, LANDMARKS) == pytest.approx(35.0 * 2.0 * math.sin(angle / 2.0))
    shift = float((estimate[:3, 3] - TRUTH[:3, 3]).norm())
    assert metrics.geodesic_mm(estimate, TRUTH, 1000.0) == pytest.approx(math.hypot(500.0 * angle, shift))


def test_summary_counts_rejected_images_too() -> None:
    errors = [0.1, 0.5, 0.999, 1.0, 1.5, 3.0, 12.0, 0.2]
    accepted = [True, True, False, True, True, True, False, True]
    summary = metrics.summarise(errors, accepted, [100.0] * 7 + [900.0])
    assert summary.images == 8
    assert summary.smsr == pytest.approx(50.0), "1.0 mm is not below 1 mm"
    assert summary.success_2mm == pytest.approx(75.0)
    assert summary.success_10mm == pytest.approx(87.5)
    assert summary.accepted == pytest.approx(75.0)
    assert summary.wrongly_accepted == pytest.approx(12.5), "the one of 3 mm"
    assert summary.wrongly_rejected == pytest.approx(12.5), "the one of 0.999 mm"
    assert summary.percentiles_mm == pytest.approx(tuple(np.percentile(errors, (50, 75, 95))))
    assert summary.median_time_ms == 100.0


def test_an_error_that_is_not_a_number_is_wrong() -> None:
    summary = metrics.summarise([math.nan, 0.1], [True, True], [1.0, 1.0])
    assert summary.wrongly_accepted == 50.0
    assert summary.smsr == 50.0


@pytest.mark.parametrize("lists", [([], [], []), ([1.0], [True, False], [1.0]), ([1.0], [True], [])])
def test_lists_that_do_not_belong_together(lists: tuple[list[float], list[bool], list[float]]) -> None:
    with pytest.raises(ValueError, match="must be equal"):
        metrics.summarise(*lists)
