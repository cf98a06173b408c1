"""A small patient, X-rays of it, and processes that talk over DDS in a domain of their own."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
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


@pytest.fixture(scope="module")
def domain_id() -> Iterator[int]:
    """A DDS domain that no other test module, and hopefully nobody else, is in."""
    chosen = 20 + (os.getpid() * 7 + domain_id_counter()) % 80
    before = os.environ.get("ROS_DOMAIN_ID")
    os.environ["ROS_DOMAIN_ID"] = str(chosen)
    yield chosen
    if before is None:
        del os.environ["ROS_DOMAIN_ID"]
    else:
        os.environ["ROS_DOMAIN_ID"] = before


_modules = 0


def domain_id_counter() -> int:
    """One more at every call."""
    global _modules
    _modules += 1
    return _modules


Starter = Callable[..., subprocess.Popen]


@pytest.fixture(scope="module")
def start(domain_id: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Start one of the package's nodes as a process; all are ended with the module."""
    running: list[subprocess.Popen] = []
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain_id), "ROS_LOG_DIR": str(tmp_path_factory.mktemp("log"))}

    def begin(module: str, *ros_args: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"sphere_reg_ros.ros.{module}", "--ros-args", *ros_args]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        running.append(process)
        return process

    yield begin
    for process in running:
        end(process)


@pytest.fixture(scope="module")
def client(domain_id: int) -> Iterator[Any]:
    """Everybody else on the graph; see client.py."""
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    path = Path(__file__).with_name("client.py")
    spec = importlib.util.spec_from_file_location("ros_test_client", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    one = module.Client(domain_id)
    yield one
    one.close()


@pytest.fixture(scope="session")
def end_process() -> Callable[[subprocess.Popen], tuple[int, str]]:
    """See :func:`end`."""
    return end


def end(process: subprocess.Popen) -> tuple[int, str]:
    """Interrupt a process as a terminal does; its exit code and output."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    return process.returncode, output or ""
