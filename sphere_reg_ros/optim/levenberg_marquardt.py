"""Levenberg-Marquardt over rigid poses: batched over hypotheses, differentiable, traced.

Each iteration solves ``(H + λD) δ = -g`` with ``H = JᵀWJ`` and ``g = JᵀWr`` in the twist about a point of the CT, scaled so
that millimetres and radians weigh alike. The damping follows the gain ratio (Nielsen, "Damping parameter in
Marquardt's method", 1999; Madsen, Nielsen, Tingleff, "Methods for non-linear least squares problems", 2004, algorithm 3.16).
The problem is linearised once an iteration: the trial point's linearisation is the next iteration's, if it is accepted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.optim.positive_systems import solve_positive


class Residuals(NamedTuple):
    """A least-squares problem at some poses.

    Attributes:
        residual: ``(b, n)``.
        jacobian: ``(b, n, 6)``, derivative by the twist about the centre.
        weight: ``(b, n)``, robust weights; constant in the derivative.
    """

    residual: Float[Tensor, "b n"]
    jacobian: Float[Tensor, "b n 6"]
    weight: Float[Tensor, "b n"]


class NormalEquations(NamedTuple):
    """The same, already summed; for costs other than half the weighted square, and for fused kernels.

    Attributes:
        cost: ``(b,)``.
        gradient: ``(b, 6)``, ``JᵀWr``.
        hessian: ``(b, 6, 6)``, ``JᵀWJ``.
    """

    cost: Float[Tensor, " b"]
    gradient: Float[Tensor, "b 6"]
    hessian: Float[Tensor, "b 6 6"]


Linearise = Callable[[Float64[Tensor, "b 4 4"]], Residuals | NormalEquations]


@dataclass(frozen=True)
class LevenbergMarquardtSettings:
    """When to stop, and how to start.

    Attributes:
        max_iterations: linearisations, the first one included.
        initial_damping: λ relative to the diagonal of H.
        step_tolerance: a shorter accepted step ends a hypothesis; in scaled units, mm with the default scale.
        gradient_tolerance: so does a smaller largest component of the scaled gradient.
        cost_tolerance: and a smaller relative decrease of the cost.
        scale: size of one unit of each twist component in mm; 1 rad counts as 100 mm.
    """

    max_iterations: int = 20
    initial_damping: float = 1e-2
    step_tolerance: float = 1e-3
    gradient_tolerance: float = 0.0
    cost_tolerance: float = 0.0
    scale: tuple[float, float, float, float, float, float] = (1.0, 1.0, 1.0, 100.0, 100.0, 100.0)


@dataclass(frozen=True)
class TraceStep:
    """State of every hypothesis after one iteration.

    Attributes:
        cost: ``(b,)`` at ``T``.
        damping: ``(b,)`` that the step was computed with.
        step_norm: ``(b,)`` scaled length of the proposed step.
        gradient_norm: ``(b,)`` scaled length of the gradient that it came from.
        accepted: ``(b,)`` whether it lowered the cost.
        T: ``(b, 4, 4)`` pose.
    """

    cost: Float64[Tensor, " b"]
    damping: Float64[Tensor, " b"]
    step_norm: Float64[Tensor, " b"]
    gradient_norm: Float64[Tensor, " b"]
    accepted: Bool[Tensor, " b"]
    T: Float64[Tensor, "b 4 4"]


@dataclass(frozen=True)
class Solution:
    """Where every hypothesis ended.

    Attributes:
        T: ``(b, 4, 4)``.
        cost: ``(b,)``.
        normal_matrix: ``(b, 6, 6)``, ``JᵀWJ`` at ``T``, in mm and rad.
        converged: ``(b,)``, a tolerance was met.
        iterations: linearisations, each of all hypotheses.
        trace: one entry an iteration.
    """

    T: Float64[Tensor, "b 4 4"]
    cost: Float64[Tensor, " b"]
    normal_matrix: Float64[Tensor, "b 6 6"]
    converged: Bool[Tensor, " b"]
    iterations: int
    trace: tuple[TraceStep, ...]


class State(NamedTuple):
    """Where a solve stands between two iterations.

    Attributes:
        T: ``(b, 4, 4)``.
        equations: at ``T``, in scaled units.
        damping, growth: ``(b,)``, λ and what the next rejection multiplies it by.
        done: ``(b,)``, hypotheses that stay where they are.
    """

    T: Float64[Tensor, "b 4 4"]
    equations: NormalEquations
    damping: Float64[Tensor, " b"]
    growth: Float64[Tensor, " b"]
    done: Bool[Tensor, " b"]


def minimise(
    linearise: Linearise,
    T_initial: Float64[Tensor, "b 4 4"],
    centre_ct: Float64[Tensor, "3"],
    settings: LevenbergMarquardtSettings | None = None,
    on_iteration: Callable[[TraceStep], None] | None = None,
) -> Solution:
    """Minimise a batch of independent problems.

    The iterations are ordinary torch operations: gradients flow through all of them to whatever ``linearise`` and the
    start depend on (the unrolled form). :func:`implicit_pose` gives the same gradient at the optimum for one solve.

    Args:
        linearise: the problem at ``(b, 4, 4)`` poses.
        T_initial: starts; hypotheses that end early keep their pose while others go on.
        centre_ct: the point that twists turn about, LPS mm.
        on_iteration: told of every iteration; an exception raised in it ends the solve.
    """
    settings = settings or LevenbergMarquardtSettings()
    unit = units(settings, T_initial.device)
    state = begin(linearise, T_initial, unit, settings)
    trace: list[TraceStep] = []
    iterations = 1
    while iterations < settings.max_iterations and not bool(state.done.all()):
        state, entry = iterate(linearise, state, unit, centre_ct, settings)
        iterations += 1
        trace.append(entry)
        if on_iteration is not None:
            on_iteration(entry)
    return Solution(
        T=state.T,
        cost=state.equations.cost,
        normal_matrix=in_mm_and_rad(state.equations.hessian, unit),
        converged=state.done & torch.isfinite(state.equations.cost),
        iterations=iterations,
        trace=tuple(trace),
    )


def units(settings: LevenbergMarquardtSettings, device: torch.device) -> Float64[Tensor, "6"]:
    """Twist components, in mm and rad, that one scaled unit stands for."""
    return 1.0 / torch.tensor(settings.scale, dtype=torch.float64, device=device)


def in_mm_and_rad(hessian: Float64[Tensor, "b 6 6"], unit: Float64[Tensor, "6"]) -> Float64[Tensor, "b 6 6"]:
    """A scaled normal matrix in units of the twist."""
    return hessian / (unit[:, None] * unit[None, :])


def begin(
    linearise: Linearise, T_initial: Float64[Tensor, "b 4 4"], unit: Float64[Tensor, "6"], settings: LevenbergMarquardtSettings
) -> State:
    """The state before the first iteration."""
    start = _scaled(linearise(T_initial), unit)
    ones = torch.ones_like(start.cost)
    # A start that is not finite has nothing to descend; it stays, and has not converged.
    return State(T_initial, start, settings.initial_damping * ones, 2.0 * ones, ~torch.isfinite(start.cost))


def iterate(
    linearise: Linearise,
    state: State,
    unit: Float64[Tensor, "6"],
    centre_ct: Float64[Tensor, "3"],
    settings: LevenbergMarquardtSettings,
) -> tuple[State, TraceStep]:
    """One iteration of every hypothesis that is not done; waits for no device if ``linearise`` does not."""
    step = _damped_step(state.equations, state.damping)
    trial_T = se3.apply_twist(state.T, step * unit, centre_ct)
    trial = _scaled(linearise(trial_T), unit)
    following, accepted = _advance(state, step, trial_T, trial)
    entry = _trace_step(state, following, step, accepted)
    done = state.done | _is_done(settings, state.equations, following.equations, entry)
    return following._replace(done=done), entry


def implicit_pose(
    linearise: Linearise, T_optimal: Float64[Tensor, "b 4 4"], centre_ct: Float64[Tensor, "3"]
) -> Float64[Tensor, "b 4 4"]:
    """The optimum with a gradient by the implicit function theorem, whatever solver found it.

    At the optimum ``g(T, p) = 0``, so ``dT/dp = -H⁻¹ ∂g/∂p``. One Gauss-Newton step from the detached optimum, its H
    detached, has exactly this derivative and moves the pose by nothing. Exact where residuals are small, and elsewhere
    with the Gauss-Newton approximation of H (Gould et al., "Deep declarative networks", TPAMI 2021, proposition 4.5).
    """
    fixed = T_optimal.detach()
    equations = _normal_equations(linearise(fixed))
    step = -torch.linalg.lstsq(equations.hessian.detach(), equations.gradient[..., None]).solution[..., 0]
    return se3.apply_twist(fixed, step, centre_ct)


def _normal_equations(problem: Residuals | NormalEquations) -> NormalEquations:
    if isinstance(problem, NormalEquations):
        return problem
    weighted = problem.jacobian * problem.weight[..., None]
    gradient = (weighted * problem.residual[..., None]).to(torch.float64).sum(1)
    hessian = (weighted.transpose(1, 2) @ problem.jacobian).to(torch.float64)
    cost = 0.5 * (problem.weight * problem.residual.square()).to(torch.float64).sum(1)
    return NormalEquations(cost, gradient, hessian)


def _scaled(problem: Residuals | NormalEquations, unit: Float64[Tensor, "6"]) -> NormalEquations:
    equations = _normal_equations(problem)
    hessian = equations.hessian * unit[:, None] * unit[None, :]
    return NormalEquations(equations.cost, equations.gradient * unit, hessian)


def _damped_step(equations: NormalEquations, damping: Float64[Tensor, " b"]) -> Float64[Tensor, "b 6"]:
    diagonal = equations.hessian.diagonal(dim1=-2, dim2=-1)
    # A direction that the problem does not see at all still gets some damping, or the system would be singular.
    floor = 1e-3 * diagonal.mean(-1, keepdim=True) + torch.finfo(torch.float64).tiny ** 0.5
    system = equations.hessian + torch.diag_embed(damping[:, None] * (diagonal + floor))
    solution, positive = solve_positive(system, equations.gradient)
    step = -solution
    usable = positive & torch.isfinite(step).all(-1)
    # An unusable system proposes no motion: no gain, so the damping grows and the next one is better conditioned.
    return torch.where(usable[:, None], step, torch.zeros_like(step))


def _advance(
    state: State, step: Float64[Tensor, "b 6"], trial_T: Float64[Tensor, "b 4 4"], trial: NormalEquations
) -> tuple[State, Bool[Tensor, " b"]]:
    old = state.equations
    quadratic = (step[:, None, :] @ old.hessian @ step[..., None]).flatten()
    predicted = -(old.gradient * step).sum(-1) - 0.5 * quadratic
    gain = ((old.cost - trial.cost) / predicted.clamp_min(1e-300)).detach()
    finite = torch.isfinite(trial.cost) & torch.isfinite(trial.gradient).all(-1)
    accepted = (gain > 0.0) & finite & ~state.done
    moved = accepted.view(-1, 1, 1)
    shrink = (1.0 - (2.0 * gain.clamp(0.0, 1.0) - 1.0).pow(3)).clamp(1.0 / 3.0, 1.0)
    equations = NormalEquations(
        torch.where(accepted, trial.cost, old.cost),
        torch.where(accepted[:, None], trial.gradient, old.gradient),
        torch.where(moved, trial.hessian, old.hessian),
    )
    following = State(
        torch.where(moved, trial_T, state.T),
        equations,
        torch.where(accepted, state.damping * shrink, state.damping * state.growth),
        torch.where(accepted, torch.full_like(state.growth, 2.0), 2.0 * state.growth),
        state.done,
    )
    return following, accepted


def _trace_step(
    before: State, after: State, step: Float64[Tensor, "b 6"], accepted: Bool[Tensor, " b"]
) -> TraceStep:
    return TraceStep(
        cost=after.equations.cost.detach(),
        damping=before.damping.detach(),
        step_norm=step.norm(dim=-1).detach(),
        gradient_norm=before.equations.gradient.norm(dim=-1).detach(),
        accepted=accepted,
        T=after.T.detach(),
    )


def _is_done(
    settings: LevenbergMarquardtSettings,
    before: NormalEquations,
    after: NormalEquations,
    entry: TraceStep,
) -> Bool[Tensor, " b"]:
    # A rejected step that is already shorter than the tolerance cannot be improved on either.
    # A step of exactly zero says that the system was unusable, and more damping may cure that.
    short = (entry.step_norm > 0.0) & (entry.step_norm < settings.step_tolerance)
    flat = after.gradient.abs().amax(-1) <= settings.gradient_tolerance
    decrease = before.cost - after.cost
    level = entry.accepted & (decrease <= settings.cost_tolerance * before.cost) & (settings.cost_tolerance > 0.0)
    stuck = entry.damping > 1.0 / math.sqrt(torch.finfo(torch.float64).eps)
    return short | flat | level | stuck
