"""Small scenes that every renderer is held against."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

if not torch.cuda.is_available():
    # Triton's interpreter runs the CUDA kernels on the CPU; it is chosen before Triton is imported.
    os.environ["TRITON_INTERPRET"] = "1"

from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera


@dataclass(frozen=True)
class Scene:
    """A volume, a camera, poses and the point of the twist."""

    volume: AttenuationVolume
    camera: Camera
    T_camera_ct: torch.Tensor
    centre_ct: torch.Tensor


def smooth_volume(channels: int, seed: int) -> AttenuationVolume:
    """Noise, smoothed and positive, with full values up to the border; anisotropic voxels, oblique axes."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(channels, 18, 22, 26, generator=generator)
    smooth = torch.nn.functional.avg_pool3d(noise[None], 3, 1, 1, count_include_pad=False)[0]
    axes = se3.exp(torch.tensor([0.0, 0.0, 0.0, 0.1, -0.2, 0.15], dtype=torch.float64))
    scale = torch.diag(torch.tensor([5.0, 6.0, 8.0, 1.0], dtype=torch.float64))
    T_ct_voxel = axes @ scale
    T_ct_voxel[:3, 3] = torch.tensor([-40.0, 55.0, -20.0], dtype=torch.float64)
    return AttenuationVolume(0.02 * smooth.abs() + 0.005, T_ct_voxel)


def poses_at(volume: AttenuationVolume, depths_mm: list[float], sideways_mm: float, seed: int) -> torch.Tensor:
    """Random orientations with the middle of the volume at some depths in front of the source."""
    generator = torch.Generator().manual_seed(seed)
    poses = []
    for depth in depths_mm:
        w = torch.randn(3, generator=generator, dtype=torch.float64)
        rotation = se3.so3_exp(w)
        at = torch.tensor([sideways_mm, -0.3 * sideways_mm, depth], dtype=torch.float64)
        poses.append(se3.from_rotation_translation(rotation, at - rotation @ volume.centre_mm()))
    return torch.stack(poses)


SCENES = {
    "in front": ([250.0, 330.0], 0.0),
    "source inside": ([5.0, 60.0], 10.0),
    "detector inside": ([480.0, 510.0], 10.0),
    "grazed": ([250.0, 300.0], 130.0),
    "missed": ([250.0, 300.0], 900.0),
    "behind the source": ([-300.0, -150.0], 0.0),
}


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> Iterator[None]:
    """The scenes are small: a second thread only waits, for long where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=SCENES)
def scene(request: pytest.FixtureRequest) -> Scene:
    """Every relation of a ray to the volume; a detector of odd size, off centre, with pixels that are not square.

    The ray through the piercing point is 500 mm long, a whole number of steps of 4 mm: no shorter cell is left at its end.
    """
    depths, sideways = SCENES[request.param]
    volume = smooth_volume(1, seed=1)
    camera = Camera(35, 19, 500.0, (6.4, 10.3), (15.0, 9.0))
    return Scene(volume, camera, poses_at(volume, depths, sideways, seed=7), volume.centre_mm() + torch.tensor([5.0, -3.0, 2.0]))


@pytest.fixture
def channels_scene() -> Scene:
    """Three channels, two poses; one of the detectors cuts the volume."""
    volume = smooth_volume(3, seed=2)
    camera = Camera(21, 9, 500.0, (9.0, 12.0), (10.3, 4.4))
    return Scene(volume, camera, poses_at(volume, [290.0, 495.0], 12.0, seed=3), volume.centre_mm())


@pytest.fixture
def kernel_device() -> str:
    """Where the CUDA kernels can run: a GPU, or the CPU by Triton's interpreter."""
    pytest.importorskip("triton", reason="the CUDA kernels are written in Triton, which is not installed")
    return "cuda" if torch.cuda.is_available() else "cpu"
