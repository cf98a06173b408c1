"""What renderers refuse, and which one is made."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sphere_reg_ros.drr.errors import BackendError, PoseNotRigidError, PoseShapeError, RayStepError
from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.drr.volume import AttenuationVolume


@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
def test_bad_poses_and_steps_are_refused(channels_scene: Any, backend: str) -> None:
    scene = channels_scene
    renderer = make_renderer(scene.volume, backend)
    for pose in (scene.T_camera_ct[0], scene.T_camera_ct[:, :3], scene.T_camera_ct * float("nan")):
        with pytest.raises(PoseShapeError):
            renderer.render(pose, scene.camera, 1.0)
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
    for pose in (1.01 * scene.T_camera_ct, scene.T_camera_ct @ mirror):
        with pytest.raises(PoseNotRigidError):
            renderer.render(pose, scene.camera, 1.0)
    for step in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(RayStepError):
            renderer.render_with_jacobian(scene.T_camera_ct, scene.camera, scene.centre_ct, step)


def test_unknown_and_impossible_backends(channels_scene: Any) -> None:
    with pytest.raises(BackendError, match="choose"):
        make_renderer(channels_scene.volume, "gpu")
    with pytest.raises(BackendError, match="meta"):
        make_renderer(AttenuationVolume(torch.empty(1, 2, 2, 2, device="meta"), torch.eye(4, dtype=torch.float64)), "cpu")


def test_auto_is_the_fused_one_on_a_cpu(channels_scene: Any) -> None:
    assert type(make_renderer(channels_scene.volume)) is type(make_renderer(channels_scene.volume, "cpu"))
