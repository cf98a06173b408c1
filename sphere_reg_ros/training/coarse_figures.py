"""How far Levenberg-Marquardt on the learned similarity alone brings starts of the full spread."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.drr.renderer import Renderer
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.optim.levenberg_marquardt import LevenbergMarquardtSettings, minimise
from sphere_reg_ros.registration.coarse import CoarseView, coarse_problem
from sphere_reg_ros.registration.settings import PoseGradient
from sphere_reg_ros.similarity.learned import LearnedSimilarity
from sphere_reg_ros.training.validation import ARRIVED_MM, Figures, HeldOut, percentiles

EVALUATIONS = 10


def coarse_poses(
    similarity: LearnedSimilarity,
    renderer: Renderer,
    camera: Camera,
    step_mm: float,
    data: HeldOut,
    evaluations: int = EVALUATIONS,
    pose_gradient: PoseGradient = "metric",
) -> Float64[Tensor, "n 4 4"]:
    """Where the starts of the held-out X-rays end.

    Args:
        renderer: of the volume that the model was trained on.
        camera: the canonical camera.
        step_mm: of the renderer.
        evaluations: renderings allowed for each.
    """
    with torch.no_grad():
        view = CoarseView(renderer, camera, data.centre_ct, step_mm)
        problem = coarse_problem(similarity, view, similarity.embed_xray(data.xray), pose_gradient)
        return minimise(problem, data.T_start, data.centre_ct, LevenbergMarquardtSettings(max_iterations=evaluations)).T


def coarse_figures(
    similarity: LearnedSimilarity,
    renderer: Renderer,
    camera: Camera,
    step_mm: float,
    data: HeldOut,
    figures: Figures,
) -> Figures:
    """The regressor's figures with those of the coarse stage added."""
    T = coarse_poses(similarity, renderer, camera, step_mm, data)
    errors = data.mtre_mm(T)
    share = float((errors < ARRIVED_MM).double().mean())
    return replace(figures, coarse_mm=percentiles(errors), coarse_under_10mm=share)
