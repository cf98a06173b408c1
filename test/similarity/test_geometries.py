"""Distances and residuals of the three spaces: against float64, an analytic case, and each other's definition."""

from __future__ import annotations

import math

import pytest
import torch

from sphere_reg_ros.similarity.geometry import GeometryError, make_geometry

NAMES = ("spherical", "euclidean", "hyperbolic")


def points(name: str, count: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    raw = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return make_geometry(name).project(0.5 * raw).to(dtype)


@pytest.mark.parametrize("name", NAMES)
def test_the_residual_is_as_long_as_the_distance(name: str) -> None:
    geometry = make_geometry(name)
    u, v = points(name, 64, 0, torch.float64), points(name, 64, 1, torch.float64)
    torch.testing.assert_close(geometry.residual(u, v).norm(dim=-1), geometry.distance(u, v), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(geometry.distance(u, v), geometry.distance(v, u), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("apart", [0.0, 1e-7, 1e-5, 1e-3, 0.1])
def test_float32_agrees_with_float64_near_each_other(name: str, apart: float) -> None:
    geometry = make_geometry(name)
    u = points(name, 16, 2, torch.float64)
    direction = torch.randn(16, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    v = geometry.project(u + apart * direction) if name == "spherical" else u + 0.1 * apart * direction
    short_u, short_v = u.float(), v.float()
    # The rounding of the inputs, 6e-8 of a unit vector, is all that may differ; the ball stretches it by its conformal factor.
    tolerance = {"rtol": 1e-4, "atol": 1e-6}
    exact = geometry.residual(short_u.double(), short_v.double())
    torch.testing.assert_close(geometry.residual(short_u, short_v).double(), exact, **tolerance)
    torch.testing.assert_close(
        geometry.distance(short_u, short_v).double(), geometry.distance(short_u.double(), short_v.double()), **tolerance
    )


def test_spherical_distance_is_the_angle_up_to_the_antipode() -> None:
    sphere = make_geometry("spherical")
    u = torch.tensor([1.0, 0.0, 0.0])
    for angle in (0.0, 1e-4, 0.5, math.pi / 2, 3.0, math.pi - 1e-3, math.pi):
        v = torch.tensor([math.cos(angle), math.sin(angle), 0.0])
        assert float(sphere.distance(u, v)) == pytest.approx(angle, abs=2e-6)
    near_antipode = torch.tensor([math.cos(3.14), math.sin(3.14), 0.0])
    residual = sphere.residual(u, near_antipode)
    # sin(3.14) is 1.6e-3: of float32's 7 digits four are left for the direction.
    assert float(residual.norm()) == pytest.approx(3.14, abs=1e-3) and abs(float(residual[0])) < 5e-3


@pytest.mark.parametrize("name", NAMES)
def test_gradients_exist_where_both_points_are_one(name: str) -> None:
    geometry = make_geometry(name)
    u = points(name, 4, 5, torch.float32).requires_grad_()
    (geometry.distance(u, u.detach()).sum() + geometry.residual(u.detach(), u).sum()).backward()
    assert u.grad is not None and bool(torch.isfinite(u.grad).all())


@pytest.mark.parametrize("name", NAMES)
def test_the_residual_is_differentiated_exactly(name: str) -> None:
    geometry = make_geometry(name)
    u, v = points(name, 3, 6, torch.float64), points(name, 3, 7, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: geometry.residual(u, geometry.project(x)), (v,))


def test_hyperbolic_distance_from_the_centre_is_the_textbook_one() -> None:
    ball = make_geometry("hyperbolic")
    for radius in (0.0, 0.1, 0.5, 0.9):
        v = torch.tensor([radius, 0.0], dtype=torch.float64)
        expected = 2.0 * math.atanh(radius)
        assert float(ball.distance(torch.zeros(2, dtype=torch.float64), v)) == pytest.approx(expected, abs=1e-10)


def test_hyperbolic_distance_agrees_with_the_arcosh_form() -> None:
    u, v = points("hyperbolic", 32, 8, torch.float64), points("hyperbolic", 32, 9, torch.float64)
    squared = (u - v).square().sum(-1)
    expected = torch.acosh(1.0 + 2.0 * squared / ((1.0 - u.square().sum(-1)) * (1.0 - v.square().sum(-1))))
    torch.testing.assert_close(make_geometry("hyperbolic").distance(u, v), expected, rtol=1e-8, atol=1e-10)


def test_an_unknown_geometry_is_refused_with_the_choices() -> None:
    with pytest.raises(GeometryError, match="spherical, euclidean, hyperbolic"):
        make_geometry("flat")
