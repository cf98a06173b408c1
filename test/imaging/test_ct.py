"""The CT as a value: its geometry, its reference point, and its attenuation."""

from __future__ import annotations

import pytest
import torch

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import ap_pose
from sphere_reg_ros.imaging.attenuation import hu_to_mu
from sphere_reg_ros.imaging.ct import CtVolume, patient_clear_of_source_and_detector
from sphere_reg_ros.imaging.errors import CtContentError

T_CT_VOXEL = torch.tensor(
    [[2.0, 0, 0, -50], [0, 0, 3.0, -300], [0, -1.5, 0, 200], [0, 0, 0, 1]], dtype=torch.float64
)
"""A coronal CT: rows run downwards, slices backwards."""


def phantom() -> CtVolume:
    """Air with a block of tissue, and in it a block of bone of 12 x 10 x 10 voxels."""
    hu = torch.full((30, 40, 50), -1000, dtype=torch.int16)
    hu[5:25, 6:36, 7:47] = 40
    hu[8:18, 10:20, 30:42] = 700
    hu[9, 11, 31] = 3000
    return CtVolume.from_array(hu, T_CT_VOXEL, "phantom")


def to_lps(i: float, j: float, k: float) -> list[float]:
    return (T_CT_VOXEL @ torch.tensor([i, j, k, 1.0], dtype=torch.float64))[:3].tolist()


def test_size_spacing_and_middle() -> None:
    ct = phantom()
    assert ct.size == (50, 40, 30)
    assert ct.spacing_mm == (2.0, 1.5, 3.0)
    assert ct.centre_mm().tolist() == pytest.approx(to_lps(24.5, 19.5, 14.5))


def test_reference_point_is_the_one_of_the_contract() -> None:
    """Left and posterior from the bone's medians, superior from the middle; metal above 2500 HU is no bone."""
    ct = phantom()
    bone = to_lps(35.5, 14.5, 12.5)
    expected = [bone[0], bone[1], ct.centre_mm()[2].item()]
    # One voxel of metal among 1200 shifts a median by at most half a voxel.
    assert ct.reference_point().tolist() == pytest.approx(expected, abs=1.5)


def test_without_bone_the_middle_serves() -> None:
    ct = CtVolume.from_array(torch.zeros(10, 10, 10, dtype=torch.int16), T_CT_VOXEL)
    assert ct.reference_point().tolist() == ct.centre_mm().tolist()


def test_body_corners_enclose_the_tissue() -> None:
    corners = phantom().body_corners()
    expected = torch.tensor([to_lps(i, j, k) for i in (7, 46) for j in (6, 35) for k in (5, 24)], dtype=torch.float64)
    assert (corners.min(0).values - expected.min(0).values).abs().max() < 1e-9
    assert (corners.max(0).values - expected.max(0).values).abs().max() < 1e-9


def test_the_patient_must_fit_between_source_and_detector() -> None:
    ct, camera = phantom(), Camera.centred(64, sdd_mm=1020.0)
    assert patient_clear_of_source_and_detector(ct, camera, ap_pose(ct.reference_point(), 700.0))
    assert not patient_clear_of_source_and_detector(ct, camera, ap_pose(ct.reference_point(), 30.0))
    assert not patient_clear_of_source_and_detector(ct, camera, ap_pose(ct.reference_point(), 1000.0))


def test_what_is_no_volume_is_refused() -> None:
    with pytest.raises(CtContentError, match="2 voxels"):
        CtVolume.from_array(torch.zeros(1, 5, 5, dtype=torch.int16), T_CT_VOXEL)
    flat = T_CT_VOXEL.clone()
    flat[:3, 2] = 0.0
    with pytest.raises(CtContentError, match="spacing"):
        CtVolume.from_array(torch.zeros(5, 5, 5, dtype=torch.int16), flat)


def test_integers_and_floats_of_one_ct_have_one_hash() -> None:
    ct = phantom()
    assert CtVolume.from_array(ct.hu.to(torch.float32), T_CT_VOXEL).sha256 == ct.sha256
    other = ct.hu.clone()
    other[0, 0, 0] += 1
    assert CtVolume.from_array(other, T_CT_VOXEL).sha256 != ct.sha256


def test_attenuation_of_known_materials() -> None:
    """Water at 60 keV: 0.206 / cm (NIST XCOM); air and padding let everything through; bone rises faster than soft tissue."""
    hu = torch.tensor([-2048.0, -1024.0, -1000.0, -500.0, 0.0, 100.0, 1100.0])
    mu = hu_to_mu(hu)
    assert mu[:3].tolist() == [0.0, 0.0, 0.0]
    assert mu[3].item() == pytest.approx(0.0103)
    assert mu[4].item() == pytest.approx(0.0206)
    assert (mu[6] - mu[5]).item() == pytest.approx(1.15 * 0.0206, rel=1e-5)
    ramp = hu_to_mu(torch.arange(-1000.0, 4000.0))
    assert (ramp.diff() > 0.0).all()
    assert ramp.diff().max() < 0.03e-3, "no jump where the slope changes"
