"""Where a registration starts, what is refused, on which device, and which points stand for the bone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import view_pose
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.registration import quality, starts
from sphere_reg_ros.registration.device import DeviceError, choose_device
from sphere_reg_ros.registration.errors import InitialPoseError
from sphere_reg_ros.registration.settings import HypothesisSettings, SearchSettings

CENTRE = torch.tensor([10.0, -20.0, 130.0], dtype=torch.float64)


def test_hypotheses_are_spread_as_asked_around_the_given_one() -> None:
    settings = HypothesisSettings(count=3001, rotation_deg=8.0, in_plane_mm=12.0, depth_mm=25.0, keep=3)
    given = view_pose(CENTRE, 30.0, 10.0)
    poses = starts.hypotheses(given, CENTRE, settings, 4)
    assert torch.equal(poses[0], given)
    twists = se3.twist_between(given.expand(3000, 4, 4), poses[1:], CENTRE).numpy()
    expected = np.array([12.0, 12.0, 25.0, *[np.radians(8.0)] * 3])
    # A deviation of 3000 draws is known to 1.3 %.
    np.testing.assert_allclose(twists.std(0) / expected, 1.0, atol=0.06)
    assert (np.abs(twists.mean(0)) < 0.08 * expected).all()
    assert torch.equal(poses, starts.hypotheses(given, CENTRE, settings, 4))
    assert not torch.equal(poses, starts.hypotheses(given, CENTRE, settings, 5))


def test_the_search_looks_at_the_patient_from_all_its_angles() -> None:
    camera = Camera.centred((200, 160))
    settings = SearchSettings((-90.0, 0.0, 90.0), (0.0, 30.0), roll_deg=(0.0,), source_to_centre_share=(0.7,))
    poses = starts.search_views(camera, CENTRE, settings)
    assert len(poses) == 6
    middle = camera.project(se3.transform_points(poses, CENTRE.expand(6, 1, 3))[:, 0])
    np.testing.assert_allclose(middle, [[99.5, 79.5]] * 6, atol=1e-9)
    # Rows of the rotation are the camera's axes in the patient: the third one looks at the detector.
    directions = {tuple(round(float(value), 3) for value in pose[2, :3]) for pose in poses}
    assert {(0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)} <= directions and len(directions) == 6
    rolled = starts.search_views(camera, CENTRE, replace(settings, roll_deg=(0.0, 90.0)))
    assert torch.allclose(rolled[:6], poses)
    # A quarter turn about the optical axis: what was the camera's x is its y.
    assert torch.allclose(rolled[6:, 1, :3], poses[:, 0, :3]) and torch.allclose(rolled[6:, 2], poses[:, 2])


@pytest.mark.parametrize("axis, by_mm", [(0, 900.0), (1, -900.0), (2, -1500.0), (2, 1500.0)])
def test_a_start_that_looks_past_the_ct_is_refused_with_figures(axis: int, by_mm: float, phantom: CtVolume) -> None:
    camera = Camera.centred(128)
    pose = view_pose(phantom.reference_point(), 0.0, 0.0)
    assert torch.equal(starts.check_initial_pose(pose, phantom, camera), pose)
    pose[axis, 3] += by_mm
    with pytest.raises(InitialPoseError, match=r"looks past the CT.*-?\d+") as caught:
        starts.check_initial_pose(pose, phantom, camera)
    assert "\n" not in str(caught.value)


def test_bone_points_are_bone(phantom: CtVolume) -> None:
    points = quality.bone_points(phantom)
    assert len(points) > 100 and torch.equal(points, quality.bone_points(phantom))
    voxels = np.rint((points.numpy() - phantom.T_ct_voxel[:3, 3].numpy()) / 3.0).astype(int)
    assert (phantom.hu.numpy()[tuple(voxels.T[::-1])] >= 250).all()
    # Spread over the whole skeleton, not its first slices.
    bone = np.argwhere(phantom.hu.numpy() >= 250)[:, ::-1] * 3.0
    np.testing.assert_allclose(points.numpy().std(0), bone.std(0), rtol=0.25)


def test_without_bone_the_reference_point_stands_in() -> None:
    water = CtVolume.from_array(torch.zeros(8, 8, 8, dtype=torch.int16), torch.eye(4, dtype=torch.float64))
    np.testing.assert_allclose(quality.bone_points(water), [[3.5, 3.5, 3.5]])


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(DeviceError, match="auto, cpu or cuda"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no usable GPU"):
            choose_device("cuda")
