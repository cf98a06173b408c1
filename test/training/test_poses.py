"""Training poses: where the patient may be, and what is refused before anything is rendered."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from sphere_reg_ros.geometry import se3, views
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.training.errors import BonelessCtError, PoseRangeError
from sphere_reg_ros.training.poses import ANY_VIEW, NEAR_AP, bone_points, check_range, lost_share, perturbed, sample_range

CAMERA = Camera.centred(64)


def test_the_spread_around_ap_is_the_one_asked_for(phantom: CtVolume) -> None:
    narrow = dataclasses.replace(NEAR_AP, depth_mm=20.0)
    poses = sample_range(phantom, CAMERA, narrow, 1500, torch.Generator().manual_seed(1)).numpy()
    centre = phantom.reference_point().numpy()
    place = poses[:, :3, :3] @ centre + poses[:, :3, 3]
    assert place.mean(0) == pytest.approx([0.0, 0.0, 760.0], abs=4.0)
    # Sampling error of a deviation from 1500 draws is 1.8 %; rejection near the detector takes a little more.
    assert place.std(0) == pytest.approx([30.0, 30.0, 20.0], rel=0.1)
    turn = Rotation.from_matrix(poses[:, :3, :3] @ views.ap_rotation().numpy().T).as_rotvec(degrees=True)
    assert turn.std(0) == pytest.approx([20.0] * 3, rel=0.1)


def test_any_view_covers_the_orbit(phantom: CtVolume) -> None:
    upright = dataclasses.replace(ANY_VIEW, rotation_deg=0.0)
    poses = sample_range(phantom, CAMERA, upright, 400, torch.Generator().manual_seed(2))
    angles = np.array([views.view_angles(T) for T in poses])
    assert angles[:, 0].min() == pytest.approx(-105.0, abs=4.0)
    assert angles[:, 0].max() == pytest.approx(105.0, abs=4.0)
    assert np.abs(angles[:, 1]).max() <= 30.0 + 1e-9


def test_nobody_stands_in_the_tube_or_the_detector(phantom: CtVolume) -> None:
    poses = sample_range(phantom, CAMERA, ANY_VIEW, 300, torch.Generator().manual_seed(3))
    near = perturbed(phantom, CAMERA, poses, ANY_VIEW, torch.Generator().manual_seed(4))
    for T in (poses, near):
        depth = se3.transform_points(T, phantom.body_corners()[None])[..., 2]
        assert float(depth.min()) > 10.0
        assert float(depth.max()) < CAMERA.sdd_mm - 10.0


def test_perturbations_are_near_and_far(phantom: CtVolume) -> None:
    T = sample_range(phantom, CAMERA, NEAR_AP, 600, torch.Generator().manual_seed(5))
    moved = perturbed(phantom, CAMERA, T, NEAR_AP, torch.Generator().manual_seed(6))
    angle = se3.twist_between(T, moved, phantom.reference_point())[:, 3:].norm(dim=1) * 180.0 / math.pi
    assert float(angle.quantile(0.1)) < 3.0
    assert float(angle.quantile(0.9)) > 15.0


def test_bone_points_are_bone(phantom: CtVolume) -> None:
    points = bone_points(phantom)
    voxel = torch.linalg.solve(phantom.T_ct_voxel[:3, :3], (points - phantom.T_ct_voxel[:3, 3]).T).T.round().long()
    assert bool((phantom.hu[voxel[:, 2], voxel[:, 1], voxel[:, 0]] >= 250).all())
    assert len(points) == 1000


def test_a_ct_without_bone_is_refused(phantom: CtVolume) -> None:
    soft = CtVolume(phantom.hu.clamp_max(60), phantom.T_ct_voxel, "0" * 64, "soft.nii.gz")
    with pytest.raises(BonelessCtError, match=r"soft\.nii\.gz: 0 voxels"):
        check_range(soft, CAMERA, NEAR_AP, 0)


def test_a_range_that_loses_the_ct_is_refused_with_its_share(phantom: CtVolume) -> None:
    far = dataclasses.replace(NEAR_AP, in_plane_mm=150.0)
    share = lost_share(phantom, CAMERA, far, 0)
    assert share > 0.2
    with pytest.raises(PoseRangeError, match=f"leaves the detector in {share:.1%} of the poses"):
        check_range(phantom, CAMERA, far, 0)
    check_range(phantom, CAMERA, NEAR_AP, 0)


def test_a_range_inside_the_detector_is_refused(phantom: CtVolume) -> None:
    with pytest.raises(PoseRangeError, match="narrow the range"):
        sample_range(phantom, Camera.centred(64, sdd_mm=200.0), NEAR_AP, 8, torch.Generator().manual_seed(0))
