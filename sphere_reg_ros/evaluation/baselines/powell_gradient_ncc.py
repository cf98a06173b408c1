"""Powell's method (The Computer Journal, 1964) on gradient-NCC, coarse to fine, by scipy."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import minimize

from sphere_reg_ros.evaluation.baselines.correlation import gradient_ncc
from sphere_reg_ros.evaluation.baselines.objective import COARSE, MIDDLE, Journey, Objective, moved
from sphere_reg_ros.evaluation.problem import Answer, Method, Problem
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.registration.pyramid import VolumePyramid

SCALE = np.array([30.0, 30.0, 60.0, *[math.radians(20.0)] * 3])
"""Units of the search: the standard deviations of the usual starts."""
STAGES = ((COARSE, 800, 2.0), (MIDDLE, 400, 0.3))
"""Resolution, renderings at most, and how far a stage may go from its start, in these units: its line searches start long."""


def powell_gradient_ncc(ct: CtVolume, volumes: VolumePyramid) -> Method:
    """The method bound to a CT."""
    centre_ct = ct.reference_point().double()

    def register(problem: Problem) -> Answer:
        pose, journey, done = problem.T_start, Journey(problem.T_start), 0
        for resolution, evaluations, reach in STAGES:
            objective = Objective(volumes, centre_ct, problem, resolution, gradient_ncc)
            start = pose

            def at(x: np.ndarray, start: torch.Tensor = start) -> torch.Tensor:
                return moved(start, torch.from_numpy(np.asarray(x) * SCALE)[None], centre_ct)

            solution = minimize(
                lambda x, at=at, objective=objective: -float(objective.values(at(x))[0]),
                np.zeros(6),
                method="Powell",
                bounds=[(-reach, reach)] * 6,
                options={"maxfev": evaluations, "xtol": 1e-3, "ftol": 1e-5},
                callback=lambda x, at=at, done=done, objective=objective: journey.note(done + objective.evaluations, at(x)[0]),
            )
            pose = at(solution.x)[0]
            done += objective.evaluations
        return journey.answer(pose, done)

    return register
