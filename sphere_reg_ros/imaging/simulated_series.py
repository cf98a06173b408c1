"""A reproducible series of simulated X-rays with their ground truth and a prior each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, UInt16
from numpy.typing import NDArray
from torch import Tensor

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import SOURCE_TO_CENTRE_SHARE, sample_perturbation, view_pose
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.sample_poses import sample_poses
from sphere_reg_ros.imaging.simulate import simulate_xray
from sphere_reg_ros.imaging.simulate_settings import XraySettings

FULL_SCALE = 65535.0


@dataclass(frozen=True)
class SeriesSettings:
    """Camera, views with the spread around them, and error of the priors; see the parameters of the C-arm node.

    Attributes:
        orbital_deg, cranial_deg: least and largest angle of the view, drawn uniformly; AP where both are zero.
    """

    image_px: int = 256
    detector_mm: float = 300.0
    sdd_mm: float = 1020.0
    seed: int = 0
    pose_rotation_deg: float = 20.0
    pose_in_plane_mm: float = 30.0
    pose_depth_mm: float = 60.0
    orbital_deg: tuple[float, float] = (0.0, 0.0)
    cranial_deg: tuple[float, float] = (0.0, 0.0)
    prior_rotation_deg: float = 10.0
    prior_in_plane_mm: float = 15.0
    prior_depth_mm: float = 30.0


@dataclass(frozen=True)
class SimulatedFrame:
    """One X-ray.

    Attributes:
        picture: ``(h, w)`` uint16, detected intensity.
        camera: the C-arm.
        T_camera_ct: ground truth, mm.
        T_prior: the truth with the prior's error, mm.
    """

    picture: UInt16[NDArray[Any], "h w"]
    camera: Camera
    T_camera_ct: Float64[Tensor, "4 4"]
    T_prior: Float64[Tensor, "4 4"]


class SimulatedSeries:
    """X-rays by index; the same index of the same seed is the same X-ray."""

    def __init__(self, ct: CtVolume, settings: SeriesSettings) -> None:
        self._ct = ct
        self._settings = settings
        self.camera = Camera.centred(settings.image_px, settings.detector_mm, settings.sdd_mm)

    def frame(self, index: int) -> SimulatedFrame:
        """Simulate one X-ray; about a second at 256 pixels on two cores."""
        settings = self._settings
        pose = self._pose(index)
        # Far from the pose's own seeds, so that a prior never repeats a pose's draw.
        generator = torch.Generator().manual_seed(1_000_003 * (settings.seed + 1) + index)
        error = sample_perturbation(
            generator, settings.prior_rotation_deg, settings.prior_in_plane_mm, settings.prior_depth_mm, 1
        )[0]
        image_seed = 10_007 * settings.seed + index
        xray = simulate_xray(self._ct, self.camera, pose, XraySettings.realistic(image_seed), image_seed)
        picture = np.clip(np.rint(xray.pixels.numpy() * FULL_SCALE), 0, FULL_SCALE).astype(np.uint16)
        prior = se3.apply_twist(pose, error, self._ct.reference_point())
        return SimulatedFrame(picture, self.camera, pose, prior)

    def _pose(self, index: int) -> Float64[Tensor, "4 4"]:
        settings = self._settings
        spread = (settings.pose_rotation_deg, settings.pose_in_plane_mm, settings.pose_depth_mm)
        views = (settings.orbital_deg, settings.cranial_deg)
        if views == ((0.0, 0.0), (0.0, 0.0)):
            return sample_poses(self._ct, self.camera, index + 1, settings.seed, *spread)[index]
        seed = 2_000_003 * (settings.seed + 1) + index
        share = torch.rand(2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        orbital, cranial = (low + (high - low) * float(one) for (low, high), one in zip(views, share, strict=True))
        base = view_pose(self._ct.reference_point(), orbital, cranial, SOURCE_TO_CENTRE_SHARE * self.camera.sdd_mm)
        return sample_poses(self._ct, self.camera, 1, seed, *spread, base=base)[0]
