"""A moving patient: followed while the motion is small, found again after a jump, and never mistaken for another patient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import view_pose
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.simulate import simulate_xray
from sphere_reg_ros.imaging.simulate_settings import XraySettings
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.registration.errors import InitialPoseError
from sphere_reg_ros.registration.pipeline import RegistrationPipeline
from sphere_reg_ros.registration.settings import HypothesisSettings, RegistrationSettings

TOLERANCE_MM = 0.3
"""A tenth of the phantom's voxel; its X-rays have neither noise nor scatter."""
BREATH_MM = 6.0
FRAMES = 5


@dataclass(frozen=True)
class Shot:
    """An X-ray with its truth."""

    xray: XrayImage
    camera: Camera
    T_camera_ct: Tensor


def shot(ct: CtVolume, twist: list[float], seed: int) -> Shot:
    camera = Camera.centred(128)
    centre = ct.reference_point()
    pose = se3.apply_twist(view_pose(centre, 4.0, -3.0), torch.tensor(twist, dtype=torch.float64), centre)
    return Shot(simulate_xray(ct, camera, pose, XraySettings.ideal(), seed), camera, pose)


@pytest.fixture(scope="module")
def breathing(phantom: CtVolume) -> list[Shot]:
    """Half a breath: up to 3 mm and 1 degree between two X-rays."""
    phases = [math.sin(math.pi / 2 * index / (FRAMES - 1)) for index in range(FRAMES)]
    return [
        shot(phantom, [0.5 * phase, BREATH_MM * phase, -2.0 * phase, 0.03 * phase, 0.0, -0.02 * phase], index)
        for index, phase in enumerate(phases)
    ]


def test_a_breathing_patient_is_followed(pipeline: RegistrationPipeline, breathing: list[Shot], error_mm: Callable) -> None:
    pose = np.asarray(breathing[0].T_camera_ct)
    for one in breathing[1:]:
        moved_mm = error_mm(pose, one.T_camera_ct)
        result = pipeline.register(one.xray, one.camera, T_tracked=pose)
        assert result.accepted, result.reasons
        assert result.scores["tracked"] == 1.0
        assert "32 px" not in result.timings_ms, "the level of the hypotheses is not needed"
        assert error_mm(result.T_camera_ct, one.T_camera_ct) < TOLERANCE_MM < moved_mm
        pose = result.T_camera_ct


def test_tracking_takes_fewer_renderings_than_a_prior(pipeline: RegistrationPipeline, breathing: list[Shot]) -> None:
    before, now = np.asarray(breathing[0].T_camera_ct), breathing[1]
    tracked = pipeline.register(now.xray, now.camera, T_tracked=before)
    whole = pipeline.register(now.xray, now.camera, before)
    assert tracked.iterations < whole.iterations
    assert "tracked" not in whole.scores


@pytest.mark.parametrize("far_mm", [25.0, 45.0])
def test_a_jump_is_caught_and_found_again(
    far_mm: float, phantom: CtVolume, pipeline: RegistrationPipeline, breathing: list[Shot], error_mm: Callable
) -> None:
    jumped = shot(phantom, [far_mm, -0.5 * far_mm, 0.0, 0.05, 0.1, 0.0], 11)
    result = pipeline.register(jumped.xray, jumped.camera, T_tracked=np.asarray(breathing[0].T_camera_ct))
    assert result.scores["tracked"] == 0.0
    assert {"32 px", "64 px"} <= set(result.timings_ms)
    assert result.accepted, result.reasons
    assert error_mm(result.T_camera_ct, jumped.T_camera_ct) < TOLERANCE_MM


def test_a_far_motion_is_confirmed_also_where_tracking_finds_it(
    phantom: CtVolume, breathing: list[Shot], error_mm: Callable
) -> None:
    settings = RegistrationSettings()
    careful = replace(settings, tracking=replace(settings.tracking, max_motion_mm=0.5))
    pipeline = RegistrationPipeline(phantom, careful, "cpu")
    now = breathing[1]
    result = pipeline.register(now.xray, now.camera, T_tracked=np.asarray(breathing[0].T_camera_ct))
    assert result.scores["tracked"] == 0.0
    assert result.accepted, result.reasons
    assert error_mm(result.T_camera_ct, now.T_camera_ct) < TOLERANCE_MM


def test_another_patient_is_not_followed(pipeline: RegistrationPipeline, phantom: CtVolume, breathing: list[Shot]) -> None:
    other = replace(phantom, hu=phantom.hu.flip(2))
    xray = shot(other, [0.0] * 6, 5)
    result = pipeline.register(xray.xray, xray.camera, T_tracked=np.asarray(breathing[0].T_camera_ct))
    assert not result.accepted
    assert result.scores["tracked"] == 0.0


def test_a_pose_that_cannot_be_is_refused(pipeline: RegistrationPipeline, breathing: list[Shot]) -> None:
    behind = np.asarray(breathing[0].T_camera_ct).copy()
    behind[2, 3] = -500.0
    with pytest.raises(InitialPoseError):
        pipeline.register(breathing[0].xray, breathing[0].camera, T_tracked=behind)


def test_a_single_level_with_many_hypotheses_is_judged_by_its_best(phantom: CtVolume, frames: list, xray: Callable) -> None:
    levels = RegistrationSettings().levels[1:2]
    settings = RegistrationSettings(levels=levels, hypotheses=HypothesisSettings(count=4, keep=3))
    frame: Any = frames[0]
    result = RegistrationPipeline(phantom, settings, "cpu").register(xray(frame), frame.camera, frame.T_prior)
    assert result.T_camera_ct.shape == (4, 4)
    np.testing.assert_array_equal(result.trace[-1].T_camera_ct, result.T_camera_ct)
