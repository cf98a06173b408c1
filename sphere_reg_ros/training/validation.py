"""How good the networks are on X-rays of the real simulator, from poses held out."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.simulate import XraySettings, simulate_xray
from sphere_reg_ros.imaging.xray import to_line_integral
from sphere_reg_ros.models.canonical import normalise, to_canonical
from sphere_reg_ros.models.pose_regressor import PoseRegressor
from sphere_reg_ros.training.poses import NEAR_AP, PoseRange, bone_points, sample_range

HELD_OUT_SEED = 1_000_000_007
"""Added to the training's seed: no training pose or effect comes from it."""
SIDE_PX = 128
ARRIVED_MM = 10.0


@dataclass(frozen=True)
class HeldOut:
    """Simulated X-rays as the networks see them, with what is true of them.

    Attributes:
        xray: canonical and normalised.
        T_true: ``T_camera_ct``.
        T_start: a start each, spread as the starts of the published evaluations are: N(0, 20°), N(0, 30 mm), N(0, 60 mm) depth.
        landmarks_mm: points of the CT's bone, LPS.
    """

    xray: Float[Tensor, "n 1 h w"]
    T_true: Float64[Tensor, "n 4 4"]
    T_start: Float64[Tensor, "n 4 4"]
    landmarks_mm: Float64[Tensor, "p 3"]
    centre_ct: Float64[Tensor, "3"]

    def mtre_mm(self, T_estimate: Float64[Tensor, "n 4 4"]) -> Float64[Tensor, " n"]:
        """Mean distance of the bone points under the estimated and the true poses."""
        estimated, true = (se3.transform_points(T, self.landmarks_mm[None]) for T in (T_estimate, self.T_true))
        return (estimated - true).norm(dim=-1).mean(-1)


@dataclass(frozen=True)
class Figures:
    """Validation of a model; mTRE over points of the bone, in mm.

    Attributes:
        images: held out.
        regressor_mm: 50, 75 and 95 % of the regressor's mTRE.
        coarse_mm: the same after the coarse Levenberg-Marquardt on the learned similarity, from full-spread starts.
        coarse_under_10mm: share of them.
        coarse_before_fine_tuning_mm: where the model was fine-tuned.
    """

    images: int
    regressor_mm: tuple[float, float, float]
    coarse_mm: tuple[float, float, float] | None = None
    coarse_under_10mm: float | None = None
    coarse_before_fine_tuning_mm: tuple[float, float, float] | None = None

    def as_json(self) -> dict[str, object]:
        """For the model card."""
        return asdict(self)


def held_out(
    ct: CtVolume, camera: Camera, pose_range: PoseRange, n: int, seed: int, realistic: bool = True
) -> HeldOut:
    """Simulate X-rays, with tools and blades in some of them, and bring them to the canonical camera."""
    generator = torch.Generator().manual_seed(seed + HELD_OUT_SEED)
    T_true = sample_range(ct, camera, pose_range, n, generator)
    detector = Camera.centred(SIDE_PX)
    images = []
    for i, T in enumerate(T_true):
        settings = XraySettings.realistic(seed + HELD_OUT_SEED + i) if realistic else XraySettings()
        xray = simulate_xray(ct, detector, T, settings, seed + i)
        image, mask = to_canonical(*to_line_integral(xray), detector)
        images.append(normalise(image[None], mask[None].to(image.dtype)))
    T_start = sample_starts(ct, camera, T_true, generator)
    return HeldOut(torch.stack(images), T_true, T_start, bone_points(ct), ct.reference_point())


def sample_starts(
    ct: CtVolume, camera: Camera, T_true: Float64[Tensor, "n 4 4"], generator: torch.Generator, scale: float = 1.0
) -> Float64[Tensor, "n 4 4"]:
    """A start for each pose, off by the near-AP spread times ``scale``."""
    from sphere_reg_ros.geometry.views import sample_perturbation

    spread = (scale * NEAR_AP.rotation_deg, scale * NEAR_AP.in_plane_mm, scale * NEAR_AP.depth_mm)
    return se3.apply_twist(T_true, sample_perturbation(generator, *spread, len(T_true)), ct.reference_point())


def regressor_figures(regressor: PoseRegressor, data: HeldOut) -> Figures:
    """Validate the regressor alone."""
    with torch.no_grad():
        T = regressor(data.xray).pose(data.centre_ct)
    return Figures(len(data.xray), percentiles(data.mtre_mm(T)))


def percentiles(errors_mm: Float64[Tensor, " n"]) -> tuple[float, float, float]:
    """50, 75 and 95 %."""
    a, b, c = np.percentile(errors_mm.numpy(), (50, 75, 95))
    return float(a), float(b), float(c)
