"""The coarse problem: DRRs in the canonical camera against an embedded X-ray, linearised for the solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.drr.renderer import Renderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.optim.levenberg_marquardt import Residuals
from sphere_reg_ros.registration.settings import PoseGradient
from sphere_reg_ros.similarity.learned import LearnedSimilarity


@dataclass(frozen=True)
class CoarseView:
    """What renders the DRRs of the coarse stage.

    Attributes:
        renderer: of the CT, or of the learned field on it; autograd reaches its values.
        camera: the canonical camera.
        centre_ct: the CT's reference point, LPS mm.
        step_mm: along the ray.
    """

    renderer: Renderer
    camera: Camera
    centre_ct: Float64[Tensor, "3"]
    step_mm: float


def drr_volume(ct: CtVolume, voxel_mm: float) -> AttenuationVolume:
    """The attenuation that the learned similarity renders: the CT averaged to about ``voxel_mm``."""
    x, y, z = (max(1, round(voxel_mm / spacing)) for spacing in ct.spacing_mm)
    return AttenuationVolume.from_ct(ct).downsampled((x, y, z))


def coarse_problem(
    similarity: LearnedSimilarity, view: CoarseView, xray: Float[Tensor, "n d"], pose_gradient: PoseGradient = "metric"
) -> Callable[[Float64[Tensor, "n 4 4"]], Residuals]:
    """The problem of bringing DRRs to embedded X-rays, row by row.

    Args:
        xray: points of the X-rays.
        pose_gradient: a similarity without anchors has the encoder's only.
    """

    def by_metric(T_camera_ct: Float64[Tensor, "n 4 4"]) -> Residuals:
        drr = view.renderer.render(T_camera_ct, view.camera, view.step_mm)
        residual, jacobian = similarity.residual_by_metric(xray, drr, T_camera_ct, view.centre_ct)
        return Residuals(residual, jacobian, torch.ones_like(residual))

    def by_encoder(T_camera_ct: Float64[Tensor, "n 4 4"]) -> Residuals:
        drr = view.renderer.render_with_jacobian(T_camera_ct, view.camera, view.centre_ct, view.step_mm)
        residual, jacobian = similarity.residual(xray, drr.image, drr.jacobian)
        return Residuals(residual, jacobian, torch.ones_like(residual))

    return by_metric if pose_gradient == "metric" and similarity.anchors is not None else by_encoder
