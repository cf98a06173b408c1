"""The CUDA renderer against the float64 reference: on a GPU where there is one, else in Triton's interpreter.

Positions are exact, as on the CPU: what remains is float32 summation, so the same tolerance holds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sphere_reg_ros.drr.errors import BackendError, CameraBatchError, PoseNotRigidError, VolumeSizeError
from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera

TOLERANCE = 5e-6


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Largest error against the largest value, over the pixels of each image or column."""
    error = (found.cpu().double() - expected).abs().amax((-2, -1))
    scale = expected.abs().amax((-2, -1))
    assert bool((error <= TOLERANCE * scale.clamp(min=1e-9)).all()), f"{(error / scale.clamp(min=1e-9)).max():.1e}"


def test_image_and_jacobian(scene: Any, kernel_device: str) -> None:
    arguments = (scene.T_camera_ct, scene.camera, scene.centre_ct, 4.0)
    expected = make_renderer(scene.volume, "reference").render_with_jacobian(*arguments)
    found = make_renderer(scene.volume, "cuda", kernel_device).render_with_jacobian(*arguments)
    assert found.image.dtype == torch.float32
    assert_close(found.image, expected.image)
    assert_close(found.jacobian, expected.jacobian)


def test_image_alone_is_the_same_image(scene: Any, kernel_device: str) -> None:
    expected = make_renderer(scene.volume, "reference").render(scene.T_camera_ct, scene.camera, 4.3)
    assert_close(make_renderer(scene.volume, "cuda", kernel_device).render(scene.T_camera_ct, scene.camera, 4.3), expected)


def test_several_channels(channels_scene: Any, kernel_device: str) -> None:
    arguments = (channels_scene.T_camera_ct, channels_scene.camera, channels_scene.centre_ct, 4.7)
    expected = make_renderer(channels_scene.volume, "reference").render_with_jacobian(*arguments)
    found = make_renderer(channels_scene.volume, "cuda", kernel_device).render_with_jacobian(*arguments)
    assert found.jacobian.shape == (2, 3, 6, channels_scene.camera.height, channels_scene.camera.width)
    assert_close(found.image, expected.image)
    assert_close(found.jacobian, expected.jacobian)


@pytest.mark.parametrize("tile", [(4, 4, 8), (8, 8, 1)])
def test_every_tiling_gives_the_same(
    channels_scene: Any, kernel_device: str, tile: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sphere_reg_ros.drr.cuda import launch

    monkeypatch.setattr(launch, "tiling", lambda rays: launch.Tiling(*tile, 4))
    camera = channels_scene.camera.resampled(9, 5)
    arguments = (channels_scene.T_camera_ct, camera, channels_scene.centre_ct, 9.0)
    expected = make_renderer(channels_scene.volume, "reference").render_with_jacobian(*arguments)
    found = make_renderer(channels_scene.volume, "cuda", kernel_device).render_with_jacobian(*arguments)
    assert_close(found.image, expected.image)
    assert_close(found.jacobian, expected.jacobian)


@pytest.mark.parametrize("rays", [1, 200 * 200, 8 * 200 * 200, 64 * 1024 * 1024])
def test_tilings_fit_their_programs(rays: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    from sphere_reg_ros.drr.cuda import launch

    monkeypatch.setattr(launch, "interpreted", lambda: False)
    plan = launch.tiling(rays)
    assert plan.width * plan.height * plan.segments == launch.TILE_THREADS == 32 * plan.warps
    assert (plan.segments == 1) == (rays >= launch.THREADS_WANTED)


@pytest.mark.parametrize("storage", [torch.float16, torch.bfloat16])
def test_half_precision_volumes_are_summed_in_float32(channels_scene: Any, kernel_device: str, storage: torch.dtype) -> None:
    """Against the reference on the same rounded values: no further digits may be lost."""
    volume = replace(channels_scene.volume, values=channels_scene.volume.values.to(storage))
    arguments = (channels_scene.T_camera_ct, channels_scene.camera, channels_scene.centre_ct, 4.7)
    expected = make_renderer(volume, "reference").render_with_jacobian(*arguments)
    found = make_renderer(volume, "cuda", kernel_device).render_with_jacobian(*arguments)
    assert found.image.dtype == torch.float32
    assert_close(found.image, expected.image)
    assert_close(found.jacobian, expected.jacobian)


def test_each_pose_can_have_its_own_camera(channels_scene: Any, kernel_device: str) -> None:
    cameras = (channels_scene.camera, replace(channels_scene.camera, sdd_mm=450.0, pixel_pitch_mm=(7.0, 9.0)))
    renderer = make_renderer(channels_scene.volume, "cuda", kernel_device)
    together = renderer.render_views_with_jacobian(channels_scene.T_camera_ct, cameras, channels_scene.centre_ct, 6.0)  # type: ignore[attr-defined]
    for index, camera in enumerate(cameras):
        pose = channels_scene.T_camera_ct[index : index + 1]
        alone = renderer.render_with_jacobian(pose, camera, channels_scene.centre_ct, 6.0)
        torch.testing.assert_close(together.image[index], alone.image[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(together.jacobian[index], alone.jacobian[0], rtol=1e-4, atol=1e-5)


def test_cameras_that_do_not_fit_are_refused(channels_scene: Any, kernel_device: str) -> None:
    renderer = make_renderer(channels_scene.volume, "cuda", kernel_device)
    with pytest.raises(CameraBatchError, match="3 cameras"):
        renderer.render_views(channels_scene.T_camera_ct, (channels_scene.camera,) * 3, 6.0)  # type: ignore[attr-defined]
    other = channels_scene.camera.resampled(11, 7)
    with pytest.raises(CameraBatchError, match=r"\(7, 11\)"):
        renderer.render_views(channels_scene.T_camera_ct, (channels_scene.camera, other), 6.0)  # type: ignore[attr-defined]


def test_empty_space_is_skipped_and_changes_nothing(channels_scene: Any, kernel_device: str) -> None:
    """The occupied boxes of two channels, side by side, and the air around both."""
    values = torch.zeros_like(channels_scene.volume.values)
    values[0, 5:8, 7:9, 3:20] = channels_scene.volume.values[0, 5:8, 7:9, 3:20]
    values[2, 6:11, 9:12, 10:11] = 0.03
    volume = replace(channels_scene.volume, values=values)
    arguments = (channels_scene.T_camera_ct, channels_scene.camera, channels_scene.centre_ct, 4.7)
    expected = make_renderer(volume, "reference").render_with_jacobian(*arguments)
    renderer = make_renderer(volume, "cuda", kernel_device)
    found = renderer.render_with_jacobian(*arguments)
    assert float(expected.image.abs().max()) > 0.0
    assert_close(found.image, expected.image)
    assert_close(found.jacobian, expected.jacobian)
    # One voxel around x 3-19, y 7-11, z 5-10, counted from two voxels of air.
    assert renderer._box.tolist() == [[4.0, 22.0], [8.0, 14.0], [6.0, 13.0]]  # type: ignore[attr-defined]


def test_a_volume_of_air_is_black(scene: Any, kernel_device: str) -> None:
    volume = replace(scene.volume, values=torch.zeros_like(scene.volume.values))
    renderer = make_renderer(volume, "cuda", kernel_device)
    found = renderer.render_with_jacobian(scene.T_camera_ct, scene.camera, scene.centre_ct, 4.0)
    assert not bool(found.image.any()) and not bool(found.jacobian.any())


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_poses_that_are_not_rigid(channels_scene: Any, kernel_device: str) -> None:
    """On the host they are refused; on the device, where looking would mean to wait, their images alone are NaN."""
    from sphere_reg_ros.drr.cuda.operators import drr_cuda_image_and_jacobian

    renderer = make_renderer(channels_scene.volume, "cuda", kernel_device)
    scaled, lost = 1.1 * channels_scene.T_camera_ct, channels_scene.T_camera_ct.clone()
    lost[1, 0, 3] = float("nan")
    with pytest.raises(PoseNotRigidError, match="rigid"):
        renderer.render(scaled, channels_scene.camera, 4.0)
    mirrored = channels_scene.T_camera_ct @ torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
    poses, views = renderer._request(channels_scene.T_camera_ct, (channels_scene.camera,), 20.0)  # type: ignore[attr-defined]
    batch = torch.cat((poses, scaled.to(poses), lost[1:].to(poses), mirrored.to(poses)))
    grid, box, field = renderer._grid, renderer._box, renderer._field()  # type: ignore[attr-defined]
    centre, size = channels_scene.centre_ct.to(poses), (channels_scene.camera.height, channels_scene.camera.width)
    image, jacobian = drr_cuda_image_and_jacobian(field, batch, grid, box, views, centre, *size)
    assert bool(torch.isfinite(image[:2]).all()) and bool(torch.isfinite(jacobian[:2]).all())
    assert bool(torch.isnan(image[2:]).all()) and bool(torch.isnan(jacobian[2:]).all())


def test_volumes_that_offsets_cannot_address_are_refused(kernel_device: str) -> None:
    """Expanded from one number: nothing of that size is in memory."""
    values = torch.zeros(1, 1, 1, 1).expand(2, 1020, 1030, 1040)
    volume = AttenuationVolume(values, torch.eye(4, dtype=torch.float64))
    with pytest.raises(VolumeSizeError, match=r"2210807808 elements .*downsample"):
        make_renderer(volume, "cuda", None if kernel_device == "cpu" else kernel_device)


def test_the_cuda_backend_without_a_gpu_is_one_clear_error(channels_scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendError, match="the cuda renderer cannot run on cpu"):
        make_renderer(channels_scene.volume, "cuda", "cpu")


def test_auto_takes_the_kernels_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from sphere_reg_ros.drr import renderer

    assert renderer.fused_backend(torch.device("cpu")) == "cpu"
    monkeypatch.setattr(renderer.importlib.util, "find_spec", lambda name: object())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert renderer.fused_backend(torch.device("cuda")) == "cuda"
    monkeypatch.setattr(renderer.importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="triton is not installed"):
        assert renderer.fused_backend(torch.device("cuda")) == "torch"


def test_the_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    """The interpreter takes more than the compiler does: every kernel is compiled for Hopper, in a process of its own."""
    pytest.importorskip("triton", reason="triton is not installed")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    program = Path(__file__).with_name("compile_kernels.py")
    outcome = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    assert outcome.stdout.split() == ["compiled", "13"]


def test_a_camera_is_uploaded_once(channels_scene: Any, kernel_device: str) -> None:
    """A copy from the host would wait for the device, and cannot be captured in a CUDA graph."""
    renderer = make_renderer(channels_scene.volume, "cuda", kernel_device)
    first = renderer._request(channels_scene.T_camera_ct, (channels_scene.camera,), 6.0)[1]  # type: ignore[attr-defined]
    equal = Camera(21, 9, 500.0, (9.0, 12.0), (10.3, 4.4))
    assert renderer._request(channels_scene.T_camera_ct, (equal,), 6.0)[1] is first  # type: ignore[attr-defined]
    assert renderer._request(channels_scene.T_camera_ct, (equal,), 6.5)[1] is not first  # type: ignore[attr-defined]
