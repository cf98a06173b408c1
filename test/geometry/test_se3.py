"""Rigid motions against scipy, transforms3d and automatic differentiation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
import transforms3d
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from sphere_reg_ros.geometry import se3

TINY = (0.0, 1e-12, 1e-8, 1e-4, 1e-2)
NEAR_PI = (math.pi - 1e-2, math.pi - 1e-5, math.pi - 1e-9)
ANGLES = (*TINY, 0.5, 2.0, *NEAR_PI)

coordinate = st.floats(-1.7, 1.7, allow_nan=False)
length_mm = st.floats(-1000.0, 1000.0, allow_nan=False)
twists = st.tuples(length_mm, length_mm, length_mm, coordinate, coordinate, coordinate)


def random_twists(n: int, angle: float | None = None, seed: int = 0) -> torch.Tensor:
    """Translations of about 100 mm; rotations of the given angle, or up to pi."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=torch.float64), dim=-1)
    size = torch.rand(n, 1, generator=generator, dtype=torch.float64) * 3.1 if angle is None else angle
    return torch.cat((100.0 * torch.randn(n, 3, generator=generator, dtype=torch.float64), axis * size), -1)


@pytest.mark.parametrize("angle", ANGLES)
def test_exp_is_the_matrix_exponential(angle: float) -> None:
    for twist in random_twists(5, angle):
        generator = np.zeros((4, 4))
        generator[:3, :3] = [[0, -twist[5], twist[4]], [twist[5], 0, -twist[3]], [-twist[4], twist[3], 0]]
        generator[:3, 3] = twist[:3]
        # Rounding of 100 mm in float64, a few operations: 1e-11.
        np.testing.assert_allclose(se3.exp(twist).numpy(), scipy.linalg.expm(generator), atol=1e-11)


@pytest.mark.parametrize("angle", ANGLES)
def test_rotation_agrees_with_scipy_and_transforms3d(angle: float) -> None:
    vectors = random_twists(20, angle)[:, 3:]
    rotations = se3.so3_exp(vectors).numpy()
    np.testing.assert_allclose(rotations, Rotation.from_rotvec(vectors.numpy()).as_matrix(), atol=1e-14)
    for vector, rotation in zip(vectors.numpy(), rotations, strict=True):
        if angle > 0.0:
            np.testing.assert_allclose(transforms3d.axangles.axangle2mat(vector, angle), rotation, atol=1e-14)


@pytest.mark.parametrize(
    ("angle", "dtype", "tolerance"),
    [(angle, torch.float64, 1e-12) for angle in ANGLES[:-1]] + [(angle, torch.float32, 2e-5) for angle in ANGLES[:-2]],
)
def test_log_inverts_exp(angle: float, dtype: torch.dtype, tolerance: float) -> None:
    """Float32 has 7 digits of 300 mm; closer to pi than its rounding, two rotation vectors are the same rotation."""
    twist = random_twists(20, angle).to(dtype)
    found = se3.log(se3.exp(twist))
    assert (found[:, 3:] - twist[:, 3:]).abs().max() < tolerance
    assert (found[:, :3] - twist[:, :3]).abs().max() < 300.0 * tolerance


def test_at_exactly_pi_the_rotation_comes_back() -> None:
    for axis in torch.eye(3, dtype=torch.float64):
        vector = se3.so3_log(se3.so3_exp(math.pi * axis))
        assert math.isclose(float(vector.norm()), math.pi, rel_tol=1e-12)
        assert (se3.so3_exp(vector) - se3.so3_exp(math.pi * axis)).abs().max() < 1e-12


def test_tiny_rotations_keep_their_digits() -> None:
    """Not 1 - cos θ, which would be zero: relative accuracy, not absolute."""
    for angle in (1e-3, 1e-6, 1e-10, 1e-150):
        vector = torch.tensor([0.6, -0.8, 0.0], dtype=torch.float64) * angle
        found = se3.so3_log(se3.so3_exp(vector))
        assert float((found - vector).norm() / angle) < 1e-12


@settings(deadline=None, max_examples=60)
@given(twists, twists)
def test_group_laws(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    A, B = (se3.exp(torch.tensor(one, dtype=torch.float64)) for one in (first, second))
    identity = torch.eye(4, dtype=torch.float64)
    assert (A @ se3.inverse(A) - identity).abs().max() < 1e-10
    assert (se3.inverse(A @ B) - se3.inverse(B) @ se3.inverse(A)).abs().max() < 1e-9
    R = A[:3, :3]
    assert (R.T @ R - identity[:3, :3]).abs().max() < 1e-13
    assert math.isclose(float(torch.linalg.det(R)), 1.0, rel_tol=1e-12)


def test_adjoint_changes_the_frame_of_a_twist() -> None:
    T, twist = se3.exp(random_twists(10, seed=1)), random_twists(10, 0.7, seed=2)
    moved = se3.exp((se3.adjoint(T) @ twist[..., None]).squeeze(-1))
    assert (T @ se3.exp(twist) @ se3.inverse(T) - moved).abs().max() < 1e-10


def test_interpolation_is_a_screw_of_constant_speed() -> None:
    start, end = se3.exp(random_twists(4, seed=3)), se3.exp(random_twists(4, 0.4, seed=4))
    assert (se3.interpolate(start, end, 0.0) - start).abs().max() < 1e-12
    assert (se3.interpolate(start, end, 1.0) - end).abs().max() < 1e-9
    quarter, half = se3.interpolate(start, end, 0.25), se3.interpolate(start, end, 0.5)
    one, two = se3.inverse(start) @ quarter, se3.inverse(quarter) @ half
    assert (one - two).abs().max() < 1e-9
    rotations = Rotation.from_matrix(np.stack([start[0, :3, :3], end[0, :3, :3]]))
    np.testing.assert_allclose(half[0, :3, :3], Slerp([0, 1], rotations)(0.5).as_matrix(), atol=1e-12)


def test_a_twist_turns_about_the_centre() -> None:
    """The definition of the design, word for word."""
    T, twist = se3.exp(random_twists(6, seed=5)), random_twists(6, 0.3, seed=6)
    centre = torch.tensor([10.0, -200.0, 1300.0], dtype=torch.float64)
    there, back = torch.eye(4, dtype=torch.float64).repeat(6, 1, 1), torch.eye(4, dtype=torch.float64).repeat(6, 1, 1)
    c_camera = (T[:, :3, :3] @ centre) + T[:, :3, 3]
    there[:, :3, 3], back[:, :3, 3] = c_camera, -c_camera
    expected = there @ se3.exp(twist) @ back @ T
    moved = se3.apply_twist(T, twist, centre)
    assert (moved - expected).abs().max() < 1e-9
    assert (se3.twist_between(T, moved, centre) - twist).abs().max() < 1e-9


def test_a_pure_rotation_leaves_the_centre_where_it_is() -> None:
    T = se3.exp(random_twists(1, seed=7))
    centre = torch.tensor([[30.0, 40.0, -50.0]], dtype=torch.float64)
    twist = torch.tensor([[0.0, 0.0, 0.0, 0.2, -0.1, 0.3]], dtype=torch.float64)
    before = se3.transform_points(T, centre[:, None])
    after = se3.transform_points(se3.apply_twist(T, twist, centre), centre[:, None])
    assert (before - after).abs().max() < 1e-11


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1e-3, 1.0, 3.0])
def test_gradients(angle: float) -> None:
    """Where a closed form divides by the angle, gradients go wrong first."""
    twist = random_twists(2, angle, seed=8)
    twist[:, :3] /= 100.0
    twist.requires_grad_(True)
    assert torch.autograd.gradcheck(se3.exp, (twist,))
    centre = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    T = se3.exp(random_twists(2, seed=9))
    assert torch.autograd.gradcheck(lambda x: se3.apply_twist(T, x, centre), (twist,))
    assert torch.autograd.gradcheck(lambda x: se3.log(se3.exp(x)), (twist,))


def test_second_derivatives_at_zero() -> None:
    twist = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(se3.exp, (twist,))


def test_leading_dimensions_are_kept() -> None:
    twist = random_twists(6).reshape(2, 3, 6)
    T = se3.exp(twist)
    assert T.shape == (2, 3, 4, 4)
    assert (T[1, 2] - se3.exp(twist[1, 2])).abs().max() == 0.0
    assert se3.log(T).shape == (2, 3, 6)
    assert se3.adjoint(T).shape == (2, 3, 6, 6)
    points = torch.randn(2, 3, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert se3.transform_points(T, points).shape == points.shape


def test_quaternions_agree_with_scipy() -> None:
    for angle in (1e-6, 1.0, math.pi - 1e-6, math.pi):
        rotation = se3.so3_exp(random_twists(20, angle, seed=10)[:, 3:])
        found = se3.quaternion_wxyz_from_rotation(rotation).numpy()[:, [1, 2, 3, 0]]
        expected = Rotation.from_matrix(rotation.numpy()).as_quat()
        same = np.minimum(np.abs(found - expected).max(1), np.abs(found + expected).max(1))
        assert same.max() < 1e-12
