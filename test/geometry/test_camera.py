"""The C-arm camera against similar triangles and OpenCV, and what it refuses."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.errors import CameraError, ContradictingIntrinsicsError, IntrinsicsError

CAMERA = Camera(320, 240, 1020.0, (0.9, 1.1), (150.3, 124.8))


def points(n: int = 50) -> torch.Tensor:
    """Points between source and detector, mm."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([80.0, 80.0, 100.0], dtype=torch.float64)
    return torch.randn(n, 3, generator=generator, dtype=torch.float64) * spread + torch.tensor([0.0, 0.0, 700.0])


def test_projection_agrees_with_opencv() -> None:
    expected, _ = cv2.projectPoints(points().numpy(), np.zeros(3), np.zeros(3), CAMERA.intrinsic.numpy(), None)
    np.testing.assert_allclose(CAMERA.project(points()).numpy(), expected[:, 0], atol=1e-9)


def test_pixels_lie_on_the_detector_and_project_onto_themselves() -> None:
    grid = CAMERA.pixel_points(torch.device("cpu"), torch.float64)
    assert grid.shape == (240, 320, 3)
    assert (grid[..., 2] == 1020.0).all()
    pixels = CAMERA.project(grid)
    assert (pixels[..., 0] - torch.arange(320)).abs().max() < 1e-9
    assert (pixels[..., 1] - torch.arange(240)[:, None]).abs().max() < 1e-9


@pytest.mark.parametrize("size", [(160, 120), (640, 480), (100, 77)])
def test_resampling_keeps_every_physical_point(size: tuple[int, int]) -> None:
    """Corners of the detector are the corners of its outermost pixels, half a pixel outside their centres."""
    other = CAMERA.resampled(*size)
    before = (CAMERA.project(points()) + 0.5) / torch.tensor([320.0, 240.0])
    after = (other.project(points()) + 0.5) / torch.tensor([float(size[0]), float(size[1])])
    assert (before - after).abs().max() < 1e-12
    assert math.isclose(other.width * other.pixel_pitch_mm[0], 320 * 0.9)


def test_cropping_moves_the_origin_only() -> None:
    cropped = CAMERA.cropped(20, 30, 100, 90)
    shift = CAMERA.project(points()) - cropped.project(points())
    assert (shift - torch.tensor([20.0, 30.0])).abs().max() < 1e-9
    assert (cropped.width, cropped.height, cropped.sdd_mm) == (100, 90, 1020.0)


def test_centred_camera_is_the_one_of_the_contract() -> None:
    camera = Camera.centred(256)
    assert camera.width * camera.pixel_pitch_mm[0] == 300.0
    assert camera.piercing_point_px == (127.5, 127.5)
    assert camera.sdd_mm == 1020.0


@pytest.mark.parametrize("pitch", [None, (0.9, 1.1)])
def test_intrinsic_round_trip(pitch: tuple[float, float] | None) -> None:
    found = Camera.from_intrinsic(CAMERA.intrinsic, 320, 240, 1020.0, pitch)
    assert (found.intrinsic - CAMERA.intrinsic).abs().max() < 1e-9
    assert found.pixel_pitch_mm == pytest.approx(CAMERA.pixel_pitch_mm, rel=1e-12)


def test_within_the_tolerance_the_matrix_decides() -> None:
    found = Camera.from_intrinsic(CAMERA.intrinsic, 320, 240, 1020.0, (0.902, 1.098))
    assert (found.intrinsic - CAMERA.intrinsic).abs().max() < 1e-9


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("place", [(0, 0), (1, 1)])
def test_impossible_focal_lengths_are_refused(value: float, place: tuple[int, int]) -> None:
    K = CAMERA.intrinsic.clone()
    K[place] = value
    with pytest.raises(IntrinsicsError) as caught:
        Camera.from_intrinsic(K, 320, 240, 1020.0)
    assert "\n" not in str(caught.value)


def test_skew_is_refused() -> None:
    K = CAMERA.intrinsic.clone()
    K[0, 1] = 3.0
    with pytest.raises(IntrinsicsError):
        Camera.from_intrinsic(K, 320, 240, 1020.0)


@pytest.mark.parametrize("pitch", [(0.9 * 1.01, 1.1), (0.9, 1.1 / 1.01)])
def test_contradiction_names_the_values(pitch: tuple[float, float]) -> None:
    with pytest.raises(ContradictingIntrinsicsError, match=r"imply .* mm"):
        Camera.from_intrinsic(CAMERA.intrinsic, 320, 240, 1020.0, pitch)
    with pytest.raises(ContradictingIntrinsicsError):
        Camera.from_intrinsic(CAMERA.intrinsic, 320, 240, 1031.0, (0.9, 1.1))


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 240, 1020.0, (0.9, 1.1), (1.0, 1.0)),
        (320, 240, 0.0, (0.9, 1.1), (1.0, 1.0)),
        (320, 240, math.nan, (0.9, 1.1), (1.0, 1.0)),
        (320, 240, 1020.0, (-0.9, 1.1), (1.0, 1.0)),
        (320, 240, 1020.0, (0.9, 1.1), (math.nan, 1.0)),
    ],
)
def test_cameras_that_cannot_exist_are_refused(arguments: tuple) -> None:
    with pytest.raises(CameraError):
        Camera(*arguments)
