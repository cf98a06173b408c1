"""Adam on multiscale NCC, the refinement of DiffPose (CVPR 2024) with DiffDRR, here with an exact Jacobian of the renderer."""

from __future__ import annotations

from torch import Tensor

from sphere_reg_ros.evaluation.baselines.correlation import multiscale_ncc
from sphere_reg_ros.evaluation.baselines.objective import MIDDLE, Journey, Objective
from sphere_reg_ros.evaluation.problem import Answer, Method, Problem
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.optim.gradient_descent import AdamSettings, minimise
from sphere_reg_ros.registration.pyramid import VolumePyramid

SETTINGS = AdamSettings(iterations=250, translation_rate_mm=2.0, rotation_rate_rad=7.5e-3)
"""250 iterations, rates that fall by a tenth every 25; a first step is as long as the rates."""


def adam_ncc(ct: CtVolume, volumes: VolumePyramid) -> Method:
    """The method bound to a CT."""
    centre_ct = ct.reference_point().double()

    def register(problem: Problem) -> Answer:
        objective = Objective(volumes, centre_ct, problem, MIDDLE, multiscale_ncc)
        journey = Journey(problem.T_start)

        def loss(pose: Tensor) -> tuple[float, Tensor]:
            value, gradient = objective.value_and_gradient(pose)
            return -value, -gradient

        solution = minimise(loss, problem.T_start, centre_ct, SETTINGS, journey.note)
        return journey.answer(solution.T_camera_ct, objective.evaluations)

    return register
