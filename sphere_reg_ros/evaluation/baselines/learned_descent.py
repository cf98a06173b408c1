"""A learned similarity minimised alone, by Levenberg-Marquardt or by gradient descent: the arms of the ablation.

ProST's (Gao et al., MICCAI 2020) is one of them, followed, as there, by gradient descent on gradient-NCC.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.evaluation.baselines.correlation import gradient_ncc
from sphere_reg_ros.evaluation.baselines.objective import MIDDLE, Journey, Objective
from sphere_reg_ros.evaluation.problem import Answer, Method, Problem
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.xray import to_line_integral
from sphere_reg_ros.models.canonical import canonical_camera, normalise, to_canonical
from sphere_reg_ros.models.checkpoint import LearnedModel
from sphere_reg_ros.optim import gradient_descent
from sphere_reg_ros.optim.gradient_descent import AdamSettings
from sphere_reg_ros.optim.levenberg_marquardt import LevenbergMarquardtSettings, Residuals, TraceStep, minimise
from sphere_reg_ros.registration.coarse import CoarseView, coarse_problem, drr_volume
from sphere_reg_ros.registration.pyramid import VolumePyramid
from sphere_reg_ros.registration.settings import PoseGradient
from sphere_reg_ros.similarity.learned import similarity_of

LM_SETTINGS = LevenbergMarquardtSettings(max_iterations=30, step_tolerance=0.05)
DESCENT = AdamSettings(iterations=250, translation_rate_mm=2.0, rotation_rate_rad=2e-2, patience=40)
REFINEMENT = AdamSettings(iterations=100, translation_rate_mm=0.5, rotation_rate_rad=5e-3)
"""On gradient-NCC, from where the network's similarity ends."""

Problems = Callable[[Problem], Callable[[Float64[Tensor, "n 4 4"]], Residuals]]


def by_levenberg_marquardt(ct: CtVolume, model: LearnedModel, gradient: PoseGradient = "metric") -> Method:
    """Levenberg-Marquardt on the vector residual, one hypothesis."""
    centre_ct, problems = ct.reference_point().double(), _problems(ct, model, gradient)

    def register(problem: Problem) -> Answer:
        journey = Journey(problem.T_start)

        def note(step: TraceStep) -> None:
            journey.note(journey.iterations + 1, step.T[0])

        with torch.no_grad():
            solution = minimise(problems(problem), problem.T_start[None].double(), centre_ct, LM_SETTINGS, note)
        return journey.answer(solution.T[0], int(solution.iterations))

    return register


def by_gradient_descent(ct: CtVolume, model: LearnedModel, gradient: PoseGradient = "metric") -> Method:
    """Adam on the distance."""
    centre_ct, problems = ct.reference_point().double(), _problems(ct, model, gradient)

    def register(problem: Problem) -> Answer:
        journey = Journey(problem.T_start)
        solution = _descend(problems(problem), problem.T_start, centre_ct, journey)
        return journey.answer(solution.T_camera_ct, solution.iterations)

    return register


def prost(ct: CtVolume, volumes: VolumePyramid, model: LearnedModel) -> Method:
    """Gradient descent on the network's Euclidean similarity, then on gradient-NCC."""
    centre_ct, problems = ct.reference_point().double(), _problems(ct, model, "encoder")

    def register(problem: Problem) -> Answer:
        journey = Journey(problem.T_start)
        coarse = _descend(problems(problem), problem.T_start, centre_ct, journey)
        objective = Objective(volumes, centre_ct, problem, MIDDLE, gradient_ncc)

        def loss(pose: Tensor) -> tuple[float, Tensor]:
            value, derivative = objective.value_and_gradient(pose)
            return -value, -derivative

        def note(iteration: int, pose: Tensor) -> None:
            journey.note(coarse.iterations + iteration, pose)

        fine = gradient_descent.minimise(loss, coarse.T_camera_ct, centre_ct, REFINEMENT, note)
        return journey.answer(fine.T_camera_ct, coarse.iterations + fine.iterations)

    return register


def _descend(
    residuals: Callable[[Tensor], Residuals], T_start: Tensor, centre_ct: Tensor, journey: Journey
) -> gradient_descent.AdamSolution:
    def distance(pose: Tensor) -> tuple[float, Tensor]:
        with torch.no_grad():
            found = residuals(pose[None])
        residual, jacobian = found.residual[0].double(), found.jacobian[0].double()
        length = residual.norm().clamp_min(1e-12)
        return float(length), jacobian.mT @ residual / length

    return gradient_descent.minimise(distance, T_start, centre_ct, DESCENT, journey.note)


def _problems(ct: CtVolume, model: LearnedModel, gradient: PoseGradient) -> Problems:
    similarity, step_mm = similarity_of(model), float(model.card.settings["voxel_mm"])
    volume = drr_volume(ct, step_mm)
    if model.volume is not None:
        volume = model.volume.applied(volume)
    view = CoarseView(make_renderer(volume), canonical_camera(), ct.reference_point().double(), step_mm)

    def bound(problem: Problem) -> Callable[[Float64[Tensor, "n 4 4"]], Residuals]:
        image, valid = to_canonical(*to_line_integral(problem.xray), problem.camera)
        with torch.no_grad():
            embedded = similarity.embed_xray(normalise(image, valid.to(image.dtype))[None, None])
        return coarse_problem(similarity, view, embedded, gradient)

    return bound
