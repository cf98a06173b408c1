"""Levenberg-Marquardt with a fixed number of iterations: nothing is decided on the host, so a device never waits for it.

The same iterations as :func:`sphere_reg_ros.optim.levenberg_marquardt.minimise`; hypotheses that are done stay where they are, so
that the result is the same too. Everything that comes out is a tensor, as CUDA graphs need it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from sphere_reg_ros.optim.levenberg_marquardt import (
    LevenbergMarquardtSettings,
    Linearise,
    Solution,
    TraceStep,
    begin,
    in_mm_and_rad,
    iterate,
)


class Course(NamedTuple):
    """A solve of ``n`` iterations as tensors.

    Attributes:
        T, cost, normal_matrix, converged: as in ``Solution``.
        working: ``(n,)``, whether any hypothesis was not yet done when an iteration began.
        costs, dampings, step_norms, gradient_norms, accepted: ``(n, b)``, see ``TraceStep``.
        poses: ``(n, b, 4, 4)`` after each iteration.
    """

    T: Float64[Tensor, "b 4 4"]
    cost: Float64[Tensor, " b"]
    normal_matrix: Float64[Tensor, "b 6 6"]
    converged: Bool[Tensor, " b"]
    working: Bool[Tensor, " n"]
    costs: Float64[Tensor, "n b"]
    dampings: Float64[Tensor, "n b"]
    step_norms: Float64[Tensor, "n b"]
    gradient_norms: Float64[Tensor, "n b"]
    accepted: Bool[Tensor, "n b"]
    poses: Float64[Tensor, "n b 4 4"]


def run_course(
    linearise: Linearise,
    T_initial: Float64[Tensor, "b 4 4"],
    centre_ct: Float64[Tensor, "3"],
    unit: Float64[Tensor, "6"],
    settings: LevenbergMarquardtSettings,
) -> Course:
    """Take ``settings.max_iterations`` linearisations, at least two.

    Args:
        unit: of :func:`sphere_reg_ros.optim.levenberg_marquardt.units`, on the device of the poses.
    """
    state = begin(linearise, T_initial, unit, settings)
    entries: list[TraceStep] = []
    working = []
    for _ in range(max(1, settings.max_iterations - 1)):
        working.append(~state.done.all())
        state, entry = iterate(linearise, state, unit, centre_ct, settings)
        entries.append(entry)
    return Course(
        T=state.T,
        cost=state.equations.cost,
        normal_matrix=in_mm_and_rad(state.equations.hessian, unit),
        converged=state.done & torch.isfinite(state.equations.cost),
        working=torch.stack(working),
        costs=torch.stack([entry.cost for entry in entries]),
        dampings=torch.stack([entry.damping for entry in entries]),
        step_norms=torch.stack([entry.step_norm for entry in entries]),
        gradient_norms=torch.stack([entry.gradient_norm for entry in entries]),
        accepted=torch.stack([entry.accepted for entry in entries]),
        poses=torch.stack([entry.T for entry in entries]),
    )


def solution_of(course: Course) -> Solution:
    """What ``minimise`` would have returned; iterations in which nothing moved any more are left out.

    Args:
        course: on the host.
    """
    count = int(course.working.sum())
    trace = tuple(
        TraceStep(*figures)
        for figures in zip(
            course.costs[:count],
            course.dampings[:count],
            course.step_norms[:count],
            course.gradient_norms[:count],
            course.accepted[:count],
            course.poses[:count],
            strict=True,
        )
    )
    return Solution(course.T, course.cost, course.normal_matrix, course.converged, count + 1, trace)
