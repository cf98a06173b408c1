"""Two independent ray marchers, the simulator's and the registration's, must see the same geometry.

They share no code, so a half-pixel or half-voxel slip in either shows here. The phantom stays
within the range where both make attenuation linear in HU.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.simulate import XraySettings, primary_intensity

WATER_60_KEV_PER_MM = 0.02059
CAMERAS = {
    "square": Camera.centred(96),
    "oblong, off centre": Camera(110, 80, 900.0, (2.4, 2.9), (48.3, 47.8)),
}


def soft_phantom(handedness: float) -> CtVolume:
    """Blurred random blobs in air on an oblique, anisotropic grid; -1000 to 100 HU."""
    generator = np.random.default_rng(11)
    blobs = gaussian_filter(generator.standard_normal((40, 70, 60)), (1.0, 2.0, 2.0))
    mask = np.zeros_like(blobs)
    mask[8:-8, 12:-12, 12:-12] = 1.0
    density = gaussian_filter(mask, 2.0) * np.clip(0.5 + 2.0 * blobs, 0.0, 1.0)
    T = np.eye(4)
    rotation = Rotation.from_rotvec([0.2, -0.1, 0.6]).as_matrix()
    T[:3, :3] = rotation @ np.diag([3.0, 2.6, handedness * 4.5])
    T[:3, 3] = -T[:3, :3] @ [29.5, 34.5, 19.5] + [30.0, -60.0, 200.0]
    hu = torch.from_numpy((1100.0 * density - 1000.0).astype(np.float32))
    return CtVolume(hu, torch.from_numpy(T), "0" * 64, "test")


def random_pose(seed: int) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(generator.normal(0.0, 0.7, 3)).as_matrix()
    target = [*generator.normal(0.0, 15.0, 2), generator.uniform(600.0, 750.0)]
    T[:3, 3] = target - T[:3, :3] @ [30.0, -60.0, 200.0]
    return torch.from_numpy(T)


def shift_px(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Translation (u, v) that carries ``b`` to ``a``, from the first-order expansion."""
    gradient_v, gradient_u = np.gradient(b)
    system = np.stack([gradient_u.ravel(), gradient_v.ravel()], axis=1)
    return -np.linalg.lstsq(system, (a - b).ravel(), rcond=None)[0]


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS.keys())
@pytest.mark.parametrize("handedness", [1.0, -1.0])
@pytest.mark.parametrize("seed", range(3))
def test_drr_and_simulated_line_integral_agree(
    camera: Camera, handedness: float, seed: int
) -> None:
    ct, pose = soft_phantom(handedness), random_pose(seed)
    beam = primary_intensity(ct, camera, pose, XraySettings.ideal(60.0))
    expected = -np.log(beam)
    mu = WATER_60_KEV_PER_MM * (1.0 + ct.hu / 1000.0)
    renderer = make_renderer(AttenuationVolume(mu[None], ct.T_ct_voxel), backend="cpu")
    drr = renderer.render(pose[None], camera, 0.7)[0, 0].numpy().astype(np.float64)
    assert expected.max() > 1.0 and (expected > 0.3).mean() > 0.1
    assert np.corrcoef(drr.ravel(), expected.ravel())[0, 1] > 0.99999
    np.testing.assert_allclose(drr, expected, atol=0.005 * expected.max())
    assert np.abs(shift_px(drr, expected)).max() < 0.005


def test_the_shift_estimate_sees_a_tenth_of_a_pixel() -> None:
    camera = CAMERAS["square"]
    cx, cy = camera.piercing_point_px
    moved = Camera(96, 96, camera.sdd_mm, camera.pixel_pitch_mm, (cx + 0.1, cy - 0.2))
    ct, pose = soft_phantom(1.0), random_pose(0)
    images = [
        -np.log(primary_intensity(ct, c, pose, XraySettings.ideal(60.0))) for c in (moved, camera)
    ]
    np.testing.assert_allclose(shift_px(images[0], images[1]), [0.1, -0.2], atol=0.02)
