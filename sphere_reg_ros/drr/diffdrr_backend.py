"""The renderers of the package diffdrr (https://github.com/eigenvivek/DiffDRR) behind the common interface: a second opinion."""

from __future__ import annotations

import importlib
import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.drr.errors import BackendError
from sphere_reg_ros.drr.rays import voxel_from_camera
from sphere_reg_ros.drr.renderer import DrrWithJacobian, Renderer, check_request
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.se3 import apply_twist

DIFFERENCE = (0.25, 0.25, 0.25, 1e-3, 1e-3, 1e-3)
"""Steps of the central differences, mm and rad."""


class DiffDrrRenderer(Renderer):
    """diffdrr's trilinear or Siddon renderer with the rays of our camera.

    The step of `render` sets the number of points that the trilinear one spreads over the volume; Siddon's is exact for
    voxels of constant value and has none.
    """

    def __init__(self, volume: AttenuationVolume, method: Literal["trilinear", "siddon"] = "trilinear") -> None:
        """Prepare the volume.

        Raises:
            BackendError: diffdrr is not installed, or the volume has several channels.
        """
        super().__init__(volume)
        if volume.channels != 1:
            raise BackendError(f"diffdrr renders one channel, the volume has {volume.channels}: use 'cpu' or 'torch'")
        try:
            renderers = importlib.import_module("diffdrr.renderers")
        except ImportError as error:
            raise BackendError("the diffdrr renderer needs the package diffdrr: pip install diffdrr==0.6.1") from error
        self._method = method
        self._module: Any = renderers.Trilinear() if method == "trilinear" else renderers.Siddon()

    def render(self, T_camera_ct: Float64[Tensor, "b 4 4"], camera: Camera, step_mm: float) -> Float[Tensor, "b c h w"]:
        """See `Renderer.render`; diffdrr's own autograd, so that the pose gradient is that of its quadrature."""
        check_request(T_camera_ct, step_mm)
        values = self.volume.values[0].float().permute(2, 1, 0)
        to_voxel = voxel_from_camera(T_camera_ct.to(values.device), self.volume.T_ct_voxel)
        points = camera.pixel_points(values.device, torch.float64).reshape(-1, 3)
        images = []
        for pose in to_voxel:
            source, target = pose[:3, 3], points @ pose[:3, :3].T + pose[:3, 3]
            length = torch.linalg.vector_norm(points, dim=-1)
            arguments = {} if self._method == "siddon" else {"n_points": self._points(source, target, length, step_mm)}
            image = self._module(
                values, source[None, None].float(), target[None].float(), length[None, None].float(), **arguments
            )
            images.append(image.reshape(1, camera.height, camera.width))
        return torch.stack(images)

    def render_with_jacobian(
        self,
        T_camera_ct: Float64[Tensor, "b 4 4"],
        camera: Camera,
        centre_ct: Float64[Tensor, "3"],
        step_mm: float,
    ) -> DrrWithJacobian:
        """See `Renderer.render_with_jacobian`; diffdrr has no Jacobian, this one is by central differences."""
        columns = []
        with torch.no_grad():
            for column, size in enumerate(DIFFERENCE):
                twist = torch.zeros(len(T_camera_ct), 6, dtype=torch.float64)
                twist[:, column] = size
                ahead, behind = (
                    self.render(apply_twist(T_camera_ct.detach(), sign * twist, centre_ct), camera, step_mm) for sign in (1, -1)
                )
                columns.append((ahead - behind) / (2.0 * size))
        return DrrWithJacobian(self.render(T_camera_ct, camera, step_mm), torch.stack(columns, dim=2))

    def _points(self, source: Tensor, target: Tensor, length: Tensor, step_mm: float) -> int:
        """Points that put diffdrr's step, over the stretch that it samples, at ``step_mm``."""
        source, target = source.detach(), target.detach()
        sizes = torch.tensor(self.volume.values.shape[:0:-1], dtype=torch.float64, device=source.device)
        ends = torch.stack([-0.5 - source, sizes + 0.5 - source])[:, None] / (target - source)
        first = ends.amin(0).amax(-1).clamp(min=0.0).min()
        last = ends.amax(0).amin(-1).clamp(max=1.0).max()
        return max(2, math.ceil(float((last - first) * length.mean()) / step_mm) + 1)
