"""Which rays leave the CT through anatomy that goes on: against marching each ray through an endless patient."""

from __future__ import annotations

import numpy as np
import torch

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import view_pose
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.registration.truncation import TruncationMap

SPACING_MM = 2.0
SIZE = (80, 60, 40)
"""Voxels along x, y, z: a slab, cut across the patient's long axis."""
SEMI_AXES_MM = (60.0, 45.0)


def slab(ends_in_air: bool) -> CtVolume:
    """An elliptic trunk that fills the slab from end to end, or stops short of both ends."""
    z, y, x = np.indices(SIZE[::-1]) * SPACING_MM
    middle = [(size - 1) * SPACING_MM / 2 for size in SIZE]
    inside = ((x - middle[0]) / SEMI_AXES_MM[0]) ** 2 + ((y - middle[1]) / SEMI_AXES_MM[1]) ** 2 < 1.0
    if ends_in_air:
        inside &= abs(z - middle[2]) < 25.0
    T = torch.diag(torch.tensor([SPACING_MM, SPACING_MM, SPACING_MM, 1.0], dtype=torch.float64))
    T[:3, 3] = -torch.tensor(middle, dtype=torch.float64)
    return CtVolume.from_array(torch.from_numpy(np.where(inside, 40, -1000).astype(np.int16)), T)


def marched_mm(T_camera_ct: np.ndarray, camera: Camera, step_mm: float = 0.5) -> np.ndarray:
    """Path through the trunk's continuation beyond both ends, sample by sample, without any renderer."""
    pixels = camera.pixel_points().numpy().reshape(-1, 3)
    length = np.linalg.norm(pixels, axis=1)
    T = np.linalg.inv(T_camera_ct)
    paths = np.zeros(len(pixels))
    for distance in np.arange(300.0, 1020.0, step_mm):
        points = pixels / length[:, None] * distance @ T[:3, :3].T + T[:3, 3]
        inside = (points[:, 0] / SEMI_AXES_MM[0]) ** 2 + (points[:, 1] / SEMI_AXES_MM[1]) ** 2 < 1.0
        paths += step_mm * (inside & (np.abs(points[:, 2]) > SIZE[2] * SPACING_MM / 2))
    return paths.reshape(camera.height, camera.width)


def test_the_path_outside_is_that_of_a_patient_that_goes_on() -> None:
    ct, camera = slab(ends_in_air=False), Camera.centred(64)
    views = ((0.0, 0.0), (40.0, 0.0), (10.0, 25.0))
    poses = torch.stack([view_pose(torch.zeros(3, dtype=torch.float64), *angles) for angles in views])
    found = TruncationMap(ct).outside_mm(poses, camera).numpy()
    for path, pose in zip(found, poses.numpy(), strict=True):
        expected = marched_mm(pose, camera)
        assert expected.max() > 60.0
        # Voxels and steps of 8 mm: a ray's path is right to about one of them, an edge may lie half of one off.
        assert np.abs(path - expected).mean() < 4.0
        assert path[expected > 40.0].min() > 15.0, "what misses much of the patient is noticed"
        assert path[expected == 0.0].mean() < 2.0, "what misses nothing is kept"
        assert np.corrcoef(path.ravel(), expected.ravel())[0, 1] > 0.98


def test_a_patient_that_ends_inside_the_ct_is_not_continued() -> None:
    camera = Camera.centred(64)
    poses = view_pose(torch.zeros(3, dtype=torch.float64), 20.0, 10.0)[None]
    assert float(TruncationMap(slab(ends_in_air=True)).outside_mm(poses, camera).max()) == 0.0


def test_it_does_not_depend_on_how_the_ct_is_stored() -> None:
    ct, camera = slab(ends_in_air=False), Camera.centred(48)
    turn = torch.zeros(4, 4, dtype=torch.float64)
    turn[2, 0] = turn[0, 1] = turn[1, 2] = turn[3, 3] = 1.0
    turned = CtVolume.from_array(ct.hu.permute(1, 2, 0).contiguous(), ct.T_ct_voxel @ turn)
    poses = view_pose(torch.zeros(3, dtype=torch.float64), 15.0, 10.0)[None]
    paths = [TruncationMap(one).outside_mm(poses, camera) for one in (ct, turned)]
    assert float((paths[0] - paths[1]).abs().max()) < 1.0
