"""How far Levenberg-Marquardt on the learned similarity alone brings starts of the full spread."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.drr.renderer import Renderer
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.models.encoder import Encoder
from sphere_reg_ros.optim.levenberg_marquardt import LevenbergMarquardtSettings, Residuals, minimise
from sphere_reg_ros.similarity.geometry import Geometry
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
) -> Float64[Tensor, "n 4 4"]:
    """Where the starts of the held-out X-rays end.

    Args:
        renderer: of the volume that the model was trained on.
        camera: the canonical camera.
        step_mm: of the renderer.
        evaluations: renderings allowed for each.
    """
    with torch.no_grad():
        xray = similarity.embed_xray(data.xray)

    def linearise(T: Float64[Tensor, "n 4 4"]) -> Residuals:
        with torch.no_grad():
            drr = renderer.render_with_jacobian(T, camera, data.centre_ct, step_mm)
            residual, jacobian = similarity.residual(xray, drr.image, drr.jacobian)
        return Residuals(residual, jacobian, torch.ones_like(residual))

    return minimise(linearise, data.T_start, data.centre_ct, LevenbergMarquardtSettings(max_iterations=evaluations)).T


def coarse_figures(
    encoder: Encoder,
    geometry: Geometry,
    renderer: Renderer,
    camera: Camera,
    step_mm: float,
    data: HeldOut,
    figures: Figures,
) -> Figures:
    """The regressor's figures with those of the coarse stage added."""
    T = coarse_poses(LearnedSimilarity(encoder, geometry), renderer, camera, step_mm, data)
    errors = data.mtre_mm(T)
    share = float((errors < ARRIVED_MM).double().mean())
    return replace(figures, coarse_mm=percentiles(errors), coarse_under_10mm=share)
