"""One X-ray and one CT at the resolutions of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sphere_reg_ros.drr.renderer import Renderer, make_renderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.registration.continuation import continued
from sphere_reg_ros.registration.settings import LevelSettings

MIN_VALID_SHARE = 0.5
"""A coarse pixel is valid where at least this share of the pixels it averages is."""


@dataclass(frozen=True)
class XrayLevel:
    """The X-ray at one resolution.

    Attributes:
        settings: the level this was made for.
        camera: the camera at this resolution.
        line_integral: ``(1, h, w)``, dimensionless, 0 where the mask is.
        mask: ``(1, h, w)``, 1 where the X-ray can be compared.
    """

    settings: LevelSettings
    camera: Camera
    line_integral: Float[Tensor, "1 h w"]
    mask: Float[Tensor, "1 h w"]

    @property
    def window_px(self) -> int:
        """Side of the normalisation window, odd, at this resolution."""
        half = self.settings.window_mm / (2.0 * max(self.camera.pixel_pitch_mm))
        return 2 * max(1, round(half)) + 1

    def limited(self, max_iterations: int) -> XrayLevel:
        """The same with fewer iterations allowed."""
        return replace(self, settings=replace(self.settings, max_iterations=min(max_iterations, self.settings.max_iterations)))


def xray_level(
    line_integral: Float[Tensor, "h w"],
    mask: Bool[Tensor, "h w"],
    camera: Camera,
    settings: LevelSettings,
    device: torch.device,
) -> XrayLevel:
    """Average the valid pixels of an X-ray down to a level, never up."""
    scale = min(1.0, settings.longest_side_px / max(camera.width, camera.height))
    width, height = (max(8, round(size * scale)) for size in (camera.width, camera.height))
    weight = mask.to(torch.float32).cpu().numpy()
    values = line_integral.cpu().numpy() * weight
    if scale < 1.0:
        weight = cv2.resize(weight, (width, height), interpolation=cv2.INTER_AREA)
        values = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
    else:
        width, height = camera.width, camera.height
    valid = weight >= MIN_VALID_SHARE
    mean = np.where(valid, values / np.maximum(weight, MIN_VALID_SHARE), 0.0)
    return XrayLevel(
        settings,
        camera.resampled(width, height),
        torch.from_numpy(mean.astype(np.float32))[None].to(device),
        torch.from_numpy(valid.astype(np.float32))[None].to(device),
    )


class VolumePyramid:
    """The CT's attenuation at every voxel size that a pipeline asks for, each with its renderer."""

    def __init__(self, ct: CtVolume, backend: str, device: torch.device) -> None:
        self._full = AttenuationVolume.from_ct(ct)
        self._spacing_mm = ct.spacing_mm
        self._backend = backend
        self._device = device
        self._renderers: dict[tuple[tuple[int, int, int], bool], Renderer] = {}

    def renderer(self, voxel_mm: float, beyond_the_ct: bool = False) -> Renderer:
        """A renderer of the CT averaged to about ``voxel_mm``; 0 keeps the CT's own spacing.

        Args:
            beyond_the_ct: render the patient's continuation too, see :mod:`sphere_reg_ros.registration.continuation`.
        """
        x, y, z = (max(1, round(voxel_mm / spacing)) for spacing in self._spacing_mm)
        factors = (x, y, z)
        if (factors, beyond_the_ct) not in self._renderers:
            volume = continued(self._full, factors) if beyond_the_ct else self._averaged(factors)
            self._renderers[factors, beyond_the_ct] = make_renderer(
                volume.to(self._device), backend=self._backend, device=self._device
            )
        return self._renderers[factors, beyond_the_ct]

    def _averaged(self, factors: tuple[int, int, int]) -> AttenuationVolume:
        return self._full if factors == (1, 1, 1) else self._full.downsampled(factors)
