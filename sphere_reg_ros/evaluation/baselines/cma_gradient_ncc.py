"""CMA-ES on gradient-NCC, coarse to fine, the usual derivative-free registration (Grupp et al., IPCAI 2020; ProST, TMI 2023)."""

from __future__ import annotations

import math

from torch import Tensor

from sphere_reg_ros.evaluation.baselines.correlation import gradient_ncc
from sphere_reg_ros.evaluation.baselines.objective import COARSE, MIDDLE, Journey, Objective, moved
from sphere_reg_ros.evaluation.problem import Answer, Method, Problem
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.optim.cma_es import CmaSettings, minimise
from sphere_reg_ros.registration.pyramid import VolumePyramid


def _spread(share: float) -> tuple[float, ...]:
    angle = math.radians(20.0 * share)
    return (30.0 * share, 30.0 * share, 60.0 * share, angle, angle, angle)


STAGES = (
    (COARSE, CmaSettings(_spread(0.5), population=40, generations=40)),
    (MIDDLE, CmaSettings(_spread(0.05), population=16, generations=40)),
)


def cma_gradient_ncc(ct: CtVolume, volumes: VolumePyramid) -> Method:
    """The method bound to a CT."""
    centre_ct = ct.reference_point().double()

    def search(problem: Problem, objective: Objective, settings: CmaSettings, T_start: Tensor, journey: Journey) -> Tensor:
        def values(twists: Tensor) -> Tensor:
            return -objective.values(moved(T_start, twists, centre_ct)).double()

        before = journey.iterations

        def note(_: int, twist: Tensor) -> None:
            journey.note(before + objective.evaluations, moved(T_start, twist[None], centre_ct)[0])

        solution = minimise(values, settings, problem.seed, note)
        return moved(T_start, solution.twist[None], centre_ct)[0]

    def register(problem: Problem) -> Answer:
        pose, journey = problem.T_start, Journey(problem.T_start)
        for resolution, settings in STAGES:
            objective = Objective(volumes, centre_ct, problem, resolution, gradient_ncc)
            pose = search(problem, objective, settings, pose, journey)
        return journey.answer(pose, journey.iterations)

    return register
