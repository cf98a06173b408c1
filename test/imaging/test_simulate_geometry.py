"""Where things land on the detector, against the camera model alone."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import sphere_reg_ros.imaging.simulate as simulate
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.simulate import XraySettings, primary_intensity

CAMERAS = {
    "square": Camera.centred(128),
    "oblong, off centre": Camera(160, 96, 900.0, (1.6, 2.1), (70.3, 55.8)),
}


def bead_ct(handedness: float) -> tuple[CtVolume, np.ndarray]:
    """One dense voxel in air on an oblique, anisotropic grid, and its place in LPS mm."""
    hu = np.full((9, 14, 12), -1000, np.int16)
    hu[5, 8, 3] = 2000
    T = np.eye(4)
    rotation = Rotation.from_rotvec([0.5, 0.3, -0.9]).as_matrix()
    T[:3, :3] = rotation @ np.diag([2.2, 2.0, handedness * 3.0])
    T[:3, 3] = [20.0, -35.0, 110.0]
    ct = CtVolume(torch.from_numpy(hu), torch.from_numpy(T), "0" * 64, "test")
    return ct, (T @ [3.0, 8.0, 5.0, 1.0])[:3]


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS.keys())
@pytest.mark.parametrize("handedness", [1.0, -1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_bead_shows_where_the_camera_projects_it(
    camera: Camera, handedness: float, seed: int
) -> None:
    ct, bead_mm = bead_ct(handedness)
    generator = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(generator.normal(0.0, 0.6, 3)).as_matrix()
    target = np.array([*generator.uniform(-40.0, 40.0, 2), generator.uniform(600.0, 800.0)])
    T[:3, 3] = target - T[:3, :3] @ bead_mm
    settings = XraySettings.ideal(60.0, subpixels=4)
    image = primary_intensity(ct, camera, torch.from_numpy(T), settings)
    shadow = 1.0 - image
    assert shadow.max() > 0.05
    centroid = (
        np.array(
            [
                (shadow.sum(0) * np.arange(camera.width)).sum(),
                (shadow.sum(1) * np.arange(camera.height)).sum(),
            ]
        )
        / shadow.sum()
    )
    expected = camera.project(torch.from_numpy(target)).numpy()
    # The bead's tent is symmetric about its centre; 4 x 4 rays a pixel sample it.
    np.testing.assert_allclose(centroid, expected, atol=0.1)


def test_the_simulator_shares_no_code_with_the_registration() -> None:
    folder = Path(simulate.__file__).parent
    files = [*folder.glob("simulate*.py"), folder / "sample_poses.py"]
    assert len(files) > 5
    forbidden = ("sphere_reg_ros.drr", "sphere_reg_ros.imaging.attenuation")
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
            assert not [n for n in names if n.startswith(forbidden)], file.name
