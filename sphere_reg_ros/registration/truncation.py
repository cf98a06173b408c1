"""Which pixels of the X-ray the CT can explain.

A CT ends somewhere, the patient goes on: rays that leave the CT through a face where there is still tissue have
a DRR that is too bright, and rays past such a face have none at all. The tissue on the faces is continued
outwards, and the path of every ray through that continuation is rendered at low resolution. It tells, without
knowing the missing anatomy, which pixels must not be compared.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional

from sphere_reg_ros.drr.renderer import Renderer, make_renderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.registration.continuation import outside_tissue

VOXEL_MM = 8.0
GRID_PX = 48


class TruncationMap:
    """Renders the path length through the patient's continuation outside the CT."""

    def __init__(self, ct: CtVolume, backend: str = "auto", device: torch.device | str = "cpu") -> None:
        self._renderer: Renderer | None = None
        factors = tuple(max(1, round(VOXEL_MM / spacing)) for spacing in ct.spacing_mm)
        volume = outside_tissue(AttenuationVolume.from_ct(ct), (factors[0], factors[1], factors[2]))
        if bool(volume.values.any()):
            self._renderer = make_renderer(volume.to(device), backend=backend, device=device)
        self._device = torch.device(device)

    def outside_mm(self, T_camera_ct: Float64[Tensor, "b 4 4"], camera: Camera) -> Float[Tensor, "b h w"]:
        """Path of each pixel's ray through tissue that the CT lacks, in mm."""
        if self._renderer is None:
            return torch.zeros(len(T_camera_ct), camera.height, camera.width, device=self._device)
        scale = min(1.0, GRID_PX / max(camera.width, camera.height))
        coarse = camera.resampled(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))
        path = self._renderer.render(T_camera_ct, coarse, step_mm=VOXEL_MM)
        size = (camera.height, camera.width)
        if tuple(path.shape[-2:]) != size:
            path = functional.interpolate(path, size=size, mode="bilinear", align_corners=False)
        return path[:, 0]
