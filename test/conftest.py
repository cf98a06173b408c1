"""A small patient and X-rays of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

VOXEL_MM = 3.0
IMAGE_PX = 128


def phantom_hu() -> np.ndarray:
    """An ellipse of soft tissue with rods and blocks of bone, none like another, ``(z, y, x)``."""
    z, y, x = np.mgrid[0:80, 0:64, 0:90].astype(np.float32)
    hu = np.full(x.shape, -1000, dtype=np.int16)
    hu[((x - 45) / 42) ** 2 + ((y - 32) / 28) ** 2 < 1.0] = 20
    generator = np.random.default_rng(7)
    for _ in range(40):
        centre = generator.uniform((8, 14, 16), (72, 50, 74))
        radii = generator.uniform(2.0, 7.0, 3)
        inside = sum(((one - c) / r) ** 2 for one, c, r in zip((z, y, x), centre, radii, strict=True)) < 1.0
        hu[inside] = generator.integers(500, 1200)
    return hu


@pytest.fixture(scope="session")
def phantom_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom as a NIfTI file."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(phantom_hu())
    image.SetSpacing((VOXEL_MM,) * 3)
    path = tmp_path_factory.mktemp("ct") / "phantom.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture(scope="session")
def frames(phantom_path: Path) -> list:
    """Simulated X-rays of the phantom with their truth and a prior 5 degrees and a cm off."""
    import torch

    from sphere_reg_ros.geometry import se3
    from sphere_reg_ros.geometry.camera import Camera
    from sphere_reg_ros.geometry.views import sample_perturbation, view_pose
    from sphere_reg_ros.imaging.readers import read_ct
    from sphere_reg_ros.imaging.simulate import simulate_xray
    from sphere_reg_ros.imaging.simulate_settings import XraySettings
    from sphere_reg_ros.imaging.simulated_series import FULL_SCALE, SimulatedFrame

    ct, camera = read_ct(phantom_path), Camera.centred(IMAGE_PX)
    centre = ct.reference_point()
    made = []
    for index, angles in enumerate(((0.0, 0.0), (8.0, -5.0), (-6.0, 4.0))):
        pose = view_pose(centre, *angles)
        xray = simulate_xray(ct, camera, pose, XraySettings.ideal(), index)
        picture = np.clip(np.rint(xray.pixels.numpy() * FULL_SCALE), 0, FULL_SCALE).astype(np.uint16)
        error = sample_perturbation(torch.Generator().manual_seed(index), 4.0, 6.0, 10.0, 1)[0]
        made.append(SimulatedFrame(picture, camera, pose, se3.apply_twist(pose, error, centre)))
    return made
