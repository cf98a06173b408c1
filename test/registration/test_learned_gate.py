"""The learned distance in the gate: only where the model knows the view, and then as a reason with its value and limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.views import view_pose
from sphere_reg_ros.registration.quality import Verdict, with_learned_distance
from sphere_reg_ros.registration.settings import GateSettings
from sphere_reg_ros.registration.trained_range import TrainedRange

CENTRE = torch.tensor([10.0, -20.0, 30.0], dtype=torch.float64)
SPREAD = {"rotation_deg": 20.0, "in_plane_mm": 30.0, "depth_mm": 60.0}
NEAR_AP = TrainedRange.of({"pose_range": {"orbital_deg": [0.0, 0.0], "cranial_deg": [0.0, 0.0], **SPREAD}})
ANY_VIEW = TrainedRange.of(
    {"pose_range": {"orbital_deg": [-105.0, 105.0], "cranial_deg": [-30.0, 30.0], **SPREAD, "rotation_deg": 5.0}}
)


def moved(T: torch.Tensor, *twist: float) -> torch.Tensor:
    return se3.apply_twist(T[None], torch.tensor([twist], dtype=torch.float64), CENTRE)[0]


@pytest.mark.parametrize(
    ("orbital_deg", "near_ap", "any_view"), [(0.0, True, True), (45.0, True, True), (90.0, False, True), (180.0, False, False)]
)
def test_views_are_known_by_their_range(orbital_deg: float, near_ap: bool, any_view: bool) -> None:
    T = view_pose(CENTRE, orbital_deg, 10.0)
    assert NEAR_AP is not None and NEAR_AP.holds(T, CENTRE) == near_ap
    assert ANY_VIEW is not None and ANY_VIEW.holds(T, CENTRE) == any_view


def test_turned_images_and_far_shifts_are_unknown() -> None:
    T = view_pose(CENTRE, 30.0, 0.0)
    assert ANY_VIEW is not None
    assert ANY_VIEW.holds(moved(T, 80.0, -80.0, 150.0, 0.0, 0.0, np.radians(15.0)), CENTRE)
    assert not ANY_VIEW.holds(moved(T, 0.0, 0.0, 0.0, 0.0, 0.0, np.radians(90.0)), CENTRE)
    assert not ANY_VIEW.holds(moved(T, 100.0, 0.0, 0.0, 0.0, 0.0, 0.0), CENTRE)
    assert not ANY_VIEW.holds(moved(T, 0.0, 0.0, -200.0, 0.0, 0.0, 0.0), CENTRE)


def test_a_card_without_a_range_knows_nothing() -> None:
    assert TrainedRange.of({"voxel_mm": 4.0}) is None


def test_the_distance_is_a_score_and_beyond_its_limit_a_reason() -> None:
    verdict = Verdict((), np.eye(6), 0.99, 0.2, {"similarity": 0.9})
    gate = GateSettings()
    assert with_learned_distance(verdict, None, gate) is verdict
    near = with_learned_distance(verdict, 0.05, gate)
    assert near.reasons == () and near.scores == {"similarity": 0.9, "learned_distance_rad": 0.05}
    far = with_learned_distance(verdict, 0.71, gate)
    assert len(far.reasons) == 1 and "0.71" in far.reasons[0] and f"{gate.max_learned_distance_rad:.2f}" in far.reasons[0]
    assert with_learned_distance(verdict, float("nan"), gate).reasons
