"""Drawn poses: their distribution, and that nobody stands in the tube or the detector."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.sample_poses import sample_poses
from sphere_reg_ros.imaging.simulate_errors import PoseSamplingError


def box_ct(half_mm: float) -> CtVolume:
    """A cube of water in the middle of air, off the origin; its outer voxels lie at ± half_mm."""
    n = 20
    hu = np.full((n, n, n), -1000, np.int16)
    hu[5:15, 5:15, 5:15] = 0
    spacing = half_mm / 4.5
    T = np.diag([spacing, spacing, spacing, 1.0])
    T[:3, 3] = np.array([40.0, -70.0, 15.0]) - 0.5 * (n - 1) * spacing
    return CtVolume(torch.from_numpy(hu), torch.from_numpy(T), "0" * 64, "test")


CENTRE = np.array([40.0, -70.0, 15.0])
AP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def corners_camera(half_mm: float, poses: np.ndarray) -> np.ndarray:
    """``(n, 8, 3)``: the centres of the water cube's corner voxels in camera mm."""
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8)
    corners = CENTRE[:, None] + half_mm * signs
    return (poses[:, :3, :3] @ corners + poses[:, :3, 3:]).transpose(0, 2, 1)


def test_the_spread_has_the_moments_asked_for() -> None:
    camera = Camera.centred(64, sdd_mm=1520.0)
    poses = sample_poses(box_ct(20.0), camera, 1500, 1, 12.0, 30.0, 60.0).numpy()
    rotation = Rotation.from_matrix(poses[:, :3, :3] @ AP.T).as_rotvec(degrees=True)
    shift = poses[:, :3, :3] @ CENTRE + poses[:, :3, 3] - [0.0, 0.0, 760.0 / 1020.0 * 1520.0]
    # 1500 draws: 3 sigma is 7.7 % of a mean's scale and 5.5 % of a deviation.
    np.testing.assert_allclose(rotation.std(0), 12.0, rtol=0.06)
    np.testing.assert_allclose(rotation.mean(0), 0.0, atol=1.0)
    # The exponential bends a translation along with the rotation, by second order: 2 % and 4 %.
    np.testing.assert_allclose(shift.std(0), [30.0, 30.0, 60.0], rtol=0.1)
    np.testing.assert_allclose(shift.mean(0), 0.0, atol=6.0)
    assert np.abs(np.corrcoef(np.hstack([rotation, shift]).T) - np.eye(6)).max() < 0.1


def test_poses_in_which_the_patient_meets_source_or_detector_are_drawn_again() -> None:
    camera, half_mm = Camera.centred(64), 170.0
    ct = box_ct(half_mm)
    free = sample_poses(box_ct(20.0), camera, 60, 3).numpy()
    depth = corners_camera(half_mm, free)[..., 2]
    assert 0.1 < ((depth < 10.0) | (depth > 1010.0)).any(1).mean() < 0.9
    poses = sample_poses(ct, camera, 60, 3).numpy()
    depth = corners_camera(half_mm, poses)[..., 2]
    assert depth.min() > 10.0 and depth.max() < 1010.0
    assert len(poses) == 60


def test_the_seed_decides_and_the_first_poses_do_not_depend_on_how_many() -> None:
    ct, camera = box_ct(60.0), Camera.centred(64)
    five, two, other = (sample_poses(ct, camera, n, s) for n, s in ((5, 8), (2, 8), (2, 9)))
    torch.testing.assert_close(five[:2], two, rtol=0.0, atol=0.0)
    assert not torch.allclose(two, other)
    assert five.dtype == torch.float64 and five.shape == (5, 4, 4)
    assert sample_poses(ct, camera, 0, 1).shape == (0, 4, 4)


def test_a_base_view_moves_the_middle() -> None:
    base = np.eye(4)
    base[:3, :3] = Rotation.from_rotvec([0.0, 1.2, 0.0]).as_matrix() @ AP
    base[:3, 3] = [5.0, 6.0, 700.0] - base[:3, :3] @ CENTRE
    poses = sample_poses(
        box_ct(40.0), Camera.centred(64), 4, 1, 0.0, 0.0, 0.0, base=torch.from_numpy(base)
    )
    np.testing.assert_allclose(poses.numpy(), np.broadcast_to(base, (4, 4, 4)), atol=1e-9)


def test_a_patient_who_never_fits_is_an_error_in_one_line() -> None:
    with pytest.raises(PoseSamplingError) as error:
        sample_poses(box_ct(500.0), Camera.centred(64), 1, 1)
    assert "\n" not in str(error.value) and "1020" in str(error.value)
