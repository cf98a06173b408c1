"""The least-squares problem of one level: derivatives against finite differences, weights against their cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import view_pose
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.xray import to_line_integral
from sphere_reg_ros.registration.photometric import ViewProblem, normal_equations, tukey_weight_and_cost
from sphere_reg_ros.registration.pyramid import xray_level
from sphere_reg_ros.registration.settings import FINE

SMALL = np.array([0.05, 0.05, 0.3, 5e-4, 5e-4, 5e-4])
"""Steps of finite differences, mm and rad: moves of a fiftieth of a pixel."""


@pytest.fixture(scope="module", params=["the reference view", "a further view"])
def problem(request: pytest.FixtureRequest, phantom: CtVolume, frames: list, xray: Callable) -> ViewProblem:
    """Frame 1; as a further view, its camera is turned against the reference by 40 degrees and more."""
    frame = frames[1]
    line_integral, mask = to_line_integral(xray(frame))
    # The phantom is sharp, its derivatives need short steps along the ray.
    level = xray_level(line_integral, mask, frame.camera, replace(FINE, step_mm=0.5), torch.device("cpu"))
    relative = torch.eye(4, dtype=torch.float64)
    if request.param == "a further view":
        relative = se3.exp(torch.tensor([50.0, -20.0, 100.0, 0.3, -0.6, 0.2], dtype=torch.float64))
    renderer = make_renderer(AttenuationVolume.from_ct(phantom), backend="cpu")
    explained = torch.ones(1, level.camera.height, level.camera.width)
    return ViewProblem(level, renderer, phantom.reference_point(), relative, explained, 0.05)


def start(problem: ViewProblem, frames: list) -> torch.Tensor:
    """A pose of the reference camera that is 3 mm and a degree off."""
    truth = se3.inverse(problem.T_view_reference) @ frames[1].T_camera_ct
    twist = torch.tensor([2.0, -1.0, 3.0, 0.01, -0.02, 0.01], dtype=torch.float64)
    return se3.apply_twist(truth, twist, problem.centre_ct)


def test_the_jacobian_is_that_of_the_residual(problem: ViewProblem, frames: list) -> None:
    pose = start(problem, frames)
    comparison = problem.compare(pose[None])
    assert comparison.jacobian is not None
    for axis, step in enumerate(SMALL):
        twist = torch.zeros(6, dtype=torch.float64)
        twist[axis] = step
        both = torch.stack([se3.apply_twist(pose, sign * twist, problem.centre_ct) for sign in (1.0, -1.0)])
        forward, backward = problem.compare_values(both).residual
        expected = ((forward - backward) / (2 * step))[comparison.support[0] > 0]
        found = comparison.jacobian[0, axis][comparison.support[0] > 0]
        # Edges of voxels and of the body are where trilinear images have no second derivative.
        assert float(torch.corrcoef(torch.stack((found, expected)))[0, 1]) > 0.99, axis
        assert float((found * expected).sum() / expected.square().sum()) == pytest.approx(1.0, abs=0.03), axis


def test_values_and_derivatives_see_the_same_residual(problem: ViewProblem, frames: list) -> None:
    pose = start(problem, frames)[None]
    torch.testing.assert_close(problem.compare(pose).residual, problem.compare_values(pose).residual, atol=2e-3, rtol=0)


def test_the_gradient_is_that_of_the_robust_cost(problem: ViewProblem, frames: list) -> None:
    pose, cutoff = start(problem, frames), torch.tensor([0.8])
    equations = normal_equations(problem.compare(pose[None]), cutoff)
    for axis, step in enumerate(SMALL):
        twist = torch.zeros(6, dtype=torch.float64)
        twist[axis] = step
        costs = [
            float(normal_equations(problem.compare(se3.apply_twist(pose, sign * twist, problem.centre_ct)[None]), cutoff).cost[0])
            for sign in (1.0, -1.0)
        ]
        slope = (costs[0] - costs[1]) / (2 * step)
        scale = float(equations.hessian[0, axis, axis].sqrt())
        assert float(equations.gradient[0, axis]) / scale == pytest.approx(slope / scale, abs=0.01), axis


def test_the_normal_matrix_is_symmetric_and_views_of_any_size_weigh_the_same(problem: ViewProblem, frames: list) -> None:
    comparison = problem.compare(start(problem, frames)[None])
    equations = normal_equations(comparison, torch.tensor([20.0]))
    hessian = equations.hessian[0]
    torch.testing.assert_close(hessian, hessian.T, rtol=1e-5, atol=1e-9)
    assert float(torch.linalg.eigvalsh(hessian)[0]) > 0
    # Far below the cut-off, the cost is half the mean square of the residual.
    pixels = comparison.support.sum()
    assert float(equations.cost[0]) == pytest.approx(float(comparison.residual.square().sum() / pixels / 2), rel=2e-3)


def test_tukeys_weight_is_the_slope_of_its_cost() -> None:
    residual = torch.linspace(-2.0, 2.0, 801, dtype=torch.float64)[None, None]
    support, cutoff = torch.ones_like(residual), torch.tensor([1.3], dtype=torch.float64)
    weight, cost = tukey_weight_and_cost(residual, support, cutoff)
    slope = torch.gradient(cost[0, 0], spacing=4.0 / 800)[0]
    torch.testing.assert_close(slope[1:-1], (weight * residual)[0, 0, 1:-1], atol=1e-4, rtol=0)
    assert not weight[residual.abs() > 1.3].any()
    assert float(cost.max()) == pytest.approx(1.3**2 / 6)
    assert not any(one.any() for one in tukey_weight_and_cost(residual, torch.zeros_like(residual), cutoff))


def test_a_level_is_the_mean_of_the_valid_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(256, 256, generator=generator)
    mask = torch.rand(256, 256, generator=generator) > 0.3
    camera = Camera.centred(256)
    level = xray_level(image, mask, camera, FINE, torch.device("cpu"))
    assert (level.camera.width, level.camera.height) == (128, 128)
    blocks, valid = image.view(128, 2, 128, 2), mask.view(128, 2, 128, 2).float()
    share = valid.mean((1, 3))
    expected = (blocks * valid).sum((1, 3)) / valid.sum((1, 3)).clamp_min(1.0)
    kept = share >= 0.5
    assert torch.equal(level.mask[0] > 0, kept)
    torch.testing.assert_close(level.line_integral[0][kept], expected[kept], atol=1e-5, rtol=0)
    assert not level.line_integral[0][~kept].any()
    # What was at a place of the detector still is: the corner of the first pixel, and the axis.
    pose = view_pose(torch.zeros(3, dtype=torch.float64), 0.0, 0.0)
    point = se3.transform_points(pose, torch.tensor([[30.0, 20.0, -40.0]], dtype=torch.float64))
    fine, coarse = camera.project(point)[0], level.camera.project(point)[0]
    torch.testing.assert_close((fine + 0.5) / 2 - 0.5, coarse)
