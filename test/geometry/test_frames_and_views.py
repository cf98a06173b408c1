"""Frames, units, covariances, standard views and start spreads, against definitions and Monte Carlo."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from sphere_reg_ros.geometry import frames, se3, views

CENTRE = torch.tensor([5.0, -170.0, 1250.0], dtype=torch.float64)


def pose() -> torch.Tensor:
    """Some pose with every component away from zero."""
    return se3.apply_twist(views.ap_pose(CENTRE), torch.tensor([9.0, -4.0, 20.0, 0.2, -0.3, 0.1], dtype=torch.float64), CENTRE)


def test_units_convert_translations_only() -> None:
    T = pose()
    metres = frames.transform_to_metres(T)
    assert (metres[:3, :3] == T[:3, :3]).all()
    assert (metres[:3, 3] * 1000.0 - T[:3, 3]).abs().max() < 1e-12
    assert (frames.transform_to_millimetres(metres) - T).abs().max() < 1e-12


def test_quaternions_have_the_order_of_ros() -> None:
    rotation = pose()[:3, :3]
    found = frames.quaternion_xyzw(rotation).numpy()
    expected = Rotation.from_matrix(rotation.numpy()).as_quat()
    np.testing.assert_allclose(found, expected if expected[3] >= 0 else -expected, atol=1e-12)
    assert (frames.rotation_from_quaternion_xyzw(torch.from_numpy(3.0 * found)) - rotation).abs().max() < 1e-12


def test_covariance_of_the_origin_is_what_samples_show() -> None:
    """The CT's origin lies 1.3 m from the centre: rotations move it by far more than the translation does."""
    T, generator = pose(), torch.Generator().manual_seed(0)
    spread = torch.tensor([0.1, 0.1, 0.5, 1e-3, 1e-3, 2e-3], dtype=torch.float64)
    twists = torch.randn(40000, 6, generator=generator, dtype=torch.float64) * spread
    moved = se3.apply_twist(T.expand(40000, 4, 4), twists, CENTRE)
    shift_m = (moved[:, :3, 3] - T[:3, 3]) / 1000.0
    turn = se3.so3_log(moved[:, :3, :3] @ T[:3, :3].T)
    sampled = torch.cov(torch.cat((shift_m, turn), -1).T)
    found = frames.covariance_at_origin(torch.diag(spread.square()), T, CENTRE)
    size = found.diagonal().sqrt()
    # Correlations of 40000 samples have a standard deviation of 0.005.
    assert ((sampled - found) / (size[:, None] * size[None])).abs().max() < 0.03
    back = frames.covariance_at_centre(found, T, CENTRE)
    assert (back - torch.diag(spread.square())).abs().max() < 1e-9


def test_ap_view_is_the_one_of_the_contract() -> None:
    T = views.ap_pose(CENTRE)
    expected = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
    assert (T[:3, :3] - expected).abs().max() < 1e-15
    assert (T @ torch.cat((CENTRE, torch.ones(1, dtype=torch.float64))))[:3].tolist() == pytest.approx([0.0, 0.0, 760.0])


@pytest.mark.parametrize(
    ("orbital", "cranial", "detector_lps"),
    [
        (0, 0, (0, 1, 0)),
        (90, 0, (1, 0, 0)),
        (-90, 0, (-1, 0, 0)),
        (180, 0, (0, -1, 0)),
        (0, 90, (0, 0, 1)),
        (30, -90, (0, 0, -1)),
    ],
)
def test_the_detector_is_where_the_angles_say(orbital: float, cranial: float, detector_lps: tuple[int, int, int]) -> None:
    T = views.view_pose(CENTRE, orbital, cranial)
    assert T[2, :3].tolist() == pytest.approx(detector_lps, abs=1e-12)
    assert float(torch.linalg.det(T[:3, :3])) == pytest.approx(1.0)
    source = se3.inverse(T)[:3, 3] - CENTRE
    assert source.tolist() == pytest.approx([-760.0 * value for value in detector_lps], abs=1e-9)


@pytest.mark.parametrize(("orbital", "cranial"), [(0, 0), (35, 20), (-100, -30), (170, 45)])
def test_angles_are_read_back_and_heads_stay_up(orbital: float, cranial: float) -> None:
    T = views.view_pose(CENTRE, orbital, cranial)
    assert views.view_angles(T) == pytest.approx((orbital, cranial))
    superior_in_image = T[:3, :3] @ torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert superior_in_image[0].abs() < 1e-12, "columns lie in the transverse plane"
    assert superior_in_image[1] < 0.0, "rows run downwards, so the head is at negative y"


def test_dicom_zero_has_the_detector_above_the_chest() -> None:
    assert views.positioner_pose(CENTRE, 0.0, 0.0)[2, :3].tolist() == pytest.approx([0.0, -1.0, 0.0], abs=1e-12)
    assert views.positioner_pose(CENTRE, 90.0, 0.0)[2, :3].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-12)


def test_start_spreads_have_the_stated_size_and_seed() -> None:
    drawn = views.sample_perturbation(torch.Generator().manual_seed(3), 10.0, 15.0, 30.0, 20000)
    expected = torch.tensor([15.0, 15.0, 30.0, *[np.deg2rad(10.0)] * 3], dtype=torch.float64)
    # The standard deviation of 20000 samples is known to 0.5 %; five of that.
    assert ((drawn.std(0) / expected) - 1.0).abs().max() < 0.025
    assert (drawn.mean(0) / expected).abs().max() < 0.04
    again = views.sample_perturbation(torch.Generator().manual_seed(3), 10.0, 15.0, 30.0, 20000)
    assert torch.equal(drawn, again)
