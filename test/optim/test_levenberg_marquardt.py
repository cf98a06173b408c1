"""The solver on the pose of known points in a projection, where truth and derivatives are analytic."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.views import ap_pose
from sphere_reg_ros.optim.fixed_course import run_course, solution_of
from sphere_reg_ros.optim.levenberg_marquardt import (
    LevenbergMarquardtSettings,
    Linearise,
    Residuals,
    implicit_pose,
    minimise,
    units,
)
from sphere_reg_ros.optim.positive_systems import eliminated, solve_positive
from sphere_reg_ros.optim.robust import huber_weight, mad_scale, tukey_cost, tukey_weight

CENTRE = torch.tensor([4.0, -160.0, 1200.0], dtype=torch.float64)
TRUTH = ap_pose(CENTRE)
FOCAL_PX = 1000.0
TIGHT = LevenbergMarquardtSettings(max_iterations=40, step_tolerance=1e-11)


def points(n: int = 12) -> torch.Tensor:
    """Points of the CT around its centre, LPS mm."""
    generator = torch.Generator().manual_seed(0)
    return CENTRE + 60.0 * torch.randn(n, 3, generator=generator, dtype=torch.float64)


def pixels_of(T: torch.Tensor) -> torch.Tensor:
    """``(b, n, 2)`` projections of the points."""
    camera = se3.transform_points(T, points())
    return FOCAL_PX * camera[..., :2] / camera[..., 2:]


def problem(observed: torch.Tensor) -> Linearise:
    """Reprojection residuals, with the Jacobian of the pinhole: d(p)/d(twist) = [I, -[p - c]x]."""

    def linearise(T: torch.Tensor) -> Residuals:
        camera = se3.transform_points(T, points())
        centre = se3.transform_points(T, CENTRE[None])
        x, y, z = camera.unbind(-1)
        zero = torch.zeros_like(z)
        by_point = FOCAL_PX * torch.stack(
            (torch.stack((1 / z, zero, -x / z**2), -1), torch.stack((zero, 1 / z, -y / z**2), -1)), -2
        )
        by_twist = torch.cat((torch.eye(3, dtype=T.dtype).expand(*camera.shape, 3), -se3.hat(camera - centre)), -1)
        residual = (pixels_of(T) - observed).flatten(1)
        return Residuals(residual, (by_point @ by_twist).flatten(1, 2), torch.ones_like(residual))

    return linearise


def starts(n: int, size: float = 1.0) -> torch.Tensor:
    """Poses about 10 degrees and 30 mm away from the truth."""
    generator = torch.Generator().manual_seed(1)
    spread = torch.tensor([20.0, 20.0, 40.0, 0.15, 0.15, 0.15], dtype=torch.float64)
    twists = size * torch.randn(n, 6, generator=generator, dtype=torch.float64) * spread
    return se3.apply_twist(TRUTH.expand(n, 4, 4), twists, CENTRE)


def noise() -> torch.Tensor:
    """About a pixel on each coordinate: the cost's minimum is not zero."""
    return torch.randn(12, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_the_jacobian_of_this_test_is_right() -> None:
    linearise, T = problem(pixels_of(TRUTH)), starts(1)
    by_autograd = torch.autograd.functional.jacobian(
        lambda twist: linearise(se3.apply_twist(T, twist[None], CENTRE)).residual[0], torch.zeros(6, dtype=torch.float64)
    )
    assert (linearise(T).jacobian[0] - by_autograd).abs().max() < 1e-6


def test_every_start_of_the_batch_reaches_the_truth() -> None:
    solution = minimise(problem(pixels_of(TRUTH)), starts(16), CENTRE, TIGHT)
    assert solution.converged.all()
    assert se3.twist_between(solution.T, TRUTH.expand(16, 4, 4), CENTRE).abs().max() < 1e-7


def test_convergence_is_quadratic_where_residuals_vanish() -> None:
    """Each step near the end squares the error: with vanishing damping, error_next <= C error²."""
    settings = LevenbergMarquardtSettings(max_iterations=20, initial_damping=1e-12, step_tolerance=1e-10)
    solution = minimise(problem(pixels_of(TRUTH)), starts(1, 0.5), CENTRE, settings)
    scale = torch.tensor([1.0, 1.0, 1.0, 100.0, 100.0, 100.0], dtype=torch.float64)
    errors = [float((se3.twist_between(one.T, TRUTH[None], CENTRE) * scale).norm()) for one in solution.trace]
    # Below 1e-9 mm it is rounding; above 3 mm it has not begun.
    pairs = [(a, b) for a, b in itertools.pairwise(errors) if 1e-5 < a < 3.0]
    assert len(pairs) >= 2
    assert all(b < 0.1 * a**2 + 1e-9 for a, b in pairs), errors


def test_the_minimum_is_that_of_scipy() -> None:
    observed = pixels_of(TRUTH) + noise()
    solution = minimise(problem(observed), starts(1), CENTRE, TIGHT)

    def residual(twist: np.ndarray) -> np.ndarray:
        T = se3.apply_twist(TRUTH, torch.from_numpy(twist), CENTRE)
        return (pixels_of(T) - observed).flatten().numpy()

    found = least_squares(residual, np.zeros(6), x_scale=[1, 1, 1, 0.01, 0.01, 0.01], xtol=1e-14, ftol=1e-14, gtol=1e-14)
    expected = se3.apply_twist(TRUTH, torch.from_numpy(found.x), CENTRE)
    assert float(solution.cost) == pytest.approx(found.cost, rel=1e-9)
    assert se3.twist_between(solution.T[0], expected, CENTRE).abs().max() < 1e-4


def test_the_cost_never_rises_and_the_trace_tells_it() -> None:
    seen = []
    solution = minimise(problem(pixels_of(TRUTH) + noise()), starts(8, 2.0), CENTRE, TIGHT, seen.append)
    assert tuple(seen) == solution.trace
    assert len(solution.trace) == solution.iterations - 1
    costs = torch.stack([one.cost for one in solution.trace])
    assert (costs[1:] <= costs[:-1]).all()
    assert torch.equal(costs[-1], solution.cost)
    for one in solution.trace:
        assert torch.isfinite(one.damping).all()
        assert (one.step_norm >= 0.0).all()


def test_hypotheses_do_not_depend_on_their_company() -> None:
    together = minimise(problem(pixels_of(TRUTH) + noise()), starts(5), CENTRE, TIGHT)
    alone = minimise(problem(pixels_of(TRUTH) + noise()), starts(5)[3:4], CENTRE, TIGHT)
    assert (together.T[3] - alone.T[0]).abs().max() < 1e-8


def test_a_direction_without_information_stays_where_it_was() -> None:
    """One residual for six unknowns: no failure, no step along the other five that is not damped."""

    def linearise(T: torch.Tensor) -> Residuals:
        twist = se3.twist_between(TRUTH.expand_as(T), T, CENTRE)
        jacobian = torch.zeros(len(T), 1, 6, dtype=torch.float64)
        jacobian[:, 0, 2] = 1.0
        return Residuals(twist[:, 2:3], jacobian, torch.ones(len(T), 1, dtype=torch.float64))

    start = se3.apply_twist(TRUTH, torch.tensor([5.0, 6.0, 7.0, 0.0, 0.0, 0.0], dtype=torch.float64), CENTRE)[None]
    solution = minimise(linearise, start, CENTRE, TIGHT)
    left = se3.twist_between(TRUTH[None], solution.T, CENTRE)[0]
    assert left.tolist() == pytest.approx([5.0, 6.0, 0.0, 0.0, 0.0, 0.0], abs=1e-6)


def test_a_problem_that_is_not_finite_moves_nothing() -> None:
    def linearise(T: torch.Tensor) -> Residuals:
        good = problem(pixels_of(TRUTH))(T)
        return good if torch.equal(T, starts(1)) else good._replace(residual=good.residual * float("nan"))

    solution = minimise(linearise, starts(1), CENTRE, TIGHT)
    assert torch.equal(solution.T, starts(1))
    assert torch.isfinite(solution.cost).all()


def test_a_start_that_is_not_finite_has_not_converged() -> None:
    def linearise(T: torch.Tensor) -> Residuals:
        here = problem(pixels_of(TRUTH))(T)
        spoilt = here.residual.clone()
        spoilt[0] = float("nan")
        return here._replace(residual=spoilt)

    solution = minimise(linearise, starts(2), CENTRE, TIGHT)
    assert solution.converged.tolist() == [False, True]
    assert torch.equal(solution.T[0], starts(2)[0])


def test_gradient_through_all_iterations() -> None:
    settings = LevenbergMarquardtSettings(max_iterations=4, step_tolerance=0.0)

    def pose(observed: torch.Tensor) -> torch.Tensor:
        T = minimise(problem(observed), starts(1, 0.3), CENTRE, settings).T
        return se3.twist_between(TRUTH[None], T, CENTRE)

    observed = (pixels_of(TRUTH) + 0.01 * noise()).requires_grad_(True)
    # The damping's choice is constant in the derivative, as robust weights are: it matters by its own size, 1e-2 and less.
    assert torch.autograd.gradcheck(pose, (observed,), atol=1e-4, rtol=1e-2)


def test_gradient_at_the_optimum_by_the_implicit_function_theorem() -> None:
    def pose(observed: torch.Tensor) -> torch.Tensor:
        optimum = minimise(problem(observed.detach()), starts(1, 0.3), CENTRE, TIGHT).T
        return se3.twist_between(TRUTH[None], implicit_pose(problem(observed), optimum, CENTRE), CENTRE)

    # Residuals vanish here, where Gauss-Newton's H is the true one.
    observed = pixels_of(TRUTH).requires_grad_(True)
    assert torch.autograd.gradcheck(pose, (observed,), eps=1e-4, atol=1e-6, rtol=1e-3)


def test_robust_weights_follow_their_costs() -> None:
    residual = torch.linspace(-6.0, 6.0, 101, dtype=torch.float64).requires_grad_(True)
    cutoff = torch.tensor([2.5], dtype=torch.float64)
    (slope,) = torch.autograd.grad(tukey_cost(residual, cutoff).sum(), residual)
    with torch.no_grad():
        assert (slope - residual * tukey_weight(residual, cutoff)).abs().max() < 1e-12
        huber = torch.nn.functional.huber_loss
    value = huber(residual, torch.zeros_like(residual), delta=2.5, reduction="sum")
    (slope,) = torch.autograd.grad(value, residual)
    assert (slope - residual * huber_weight(residual, cutoff)).abs().max() < 1e-12


def test_the_robust_scale_ignores_a_third_of_outliers() -> None:
    values = torch.randn(30000, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 3.0
    # The median of 30000 is known to about 1 %.
    assert float(mad_scale(values)) == pytest.approx(3.0, rel=0.03)
    values[:5000] = 1e6
    assert float(mad_scale(values)) < 4.5


@pytest.mark.parametrize("most", [3, 40])
def test_a_course_of_fixed_length_is_the_same_solve(most: int) -> None:
    """Bit by bit, and with the same number of iterations, though some hypotheses and then all of them are done early."""
    settings = LevenbergMarquardtSettings(max_iterations=most, step_tolerance=1e-3)
    poses = starts(6)
    poses[2] = TRUTH
    poses[4, 0, 3] = float("nan")
    linearise = problem(pixels_of(TRUTH[None]) + noise())
    expected = minimise(linearise, poses, CENTRE, settings)
    found = solution_of(run_course(linearise, poses, CENTRE, units(settings, poses.device), settings))
    assert found.iterations == expected.iterations == len(expected.trace) + 1
    assert found.iterations < most or most == 3
    pairs = [(found, expected), *zip(found.trace, expected.trace, strict=True)]
    for one, other in pairs:
        for name, value in vars(other).items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(getattr(one, name), value, rtol=0, atol=0, equal_nan=True)


def test_elimination_solves_what_cholesky_solves() -> None:
    """As devices do it; normal matrices with conditions up to 1e8, and one that is not positive definite."""
    generator = torch.Generator().manual_seed(5)
    rotation = torch.linalg.qr(torch.randn(4, 6, 6, generator=generator, dtype=torch.float64))[0]
    values = torch.logspace(-4, 4, 6, dtype=torch.float64) * torch.tensor([1.0, 1e-3, 1e3, 1.0], dtype=torch.float64)[:, None]
    values[3, 2] *= -1.0
    matrix = rotation @ torch.diag_embed(values) @ rotation.mT
    truth = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    right = (matrix @ truth[..., None])[..., 0]
    for solve in (eliminated, solve_positive):
        solution, positive = solve(matrix, right)
        assert positive.tolist() == [True, True, True, False]
        # The digits that the condition leaves of sixteen.
        torch.testing.assert_close(solution[:3], truth[:3], rtol=0, atol=1e-6)
