"""The fused renderer on the CPU."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.drr.cpu import channels
from sphere_reg_ros.drr.interpolate import PADDING, padded
from sphere_reg_ros.drr.rays import camera_rays, voxel_from_camera
from sphere_reg_ros.drr.renderer import DrrWithJacobian, Renderer, check_request
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera


class CpuRenderer(Renderer):
    """Image and pose Jacobian in one pass of a compiled, parallel kernel."""

    def __init__(self, volume: AttenuationVolume) -> None:
        super().__init__(volume)
        self._field = padded(volume.values.detach().float()).movedim(0, -1).contiguous()

    def render(
        self, T_camera_ct: Float64[Tensor, "b 4 4"], camera: Camera, step_mm: float
    ) -> Float[Tensor, "b c h w"]:
        """See `Renderer.render`."""
        check_request(T_camera_ct, step_mm)
        matrix, origin, direction, length = self._rays(T_camera_ct, camera)
        image = torch.empty(len(matrix), self.volume.channels, length.numel())
        channels.render(
            self._field.numpy(),
            matrix.numpy(),
            origin.numpy(),
            direction.numpy(),
            length.numpy(),
            float(step_mm),
            image.numpy(),
        )
        return image.unflatten(-1, (camera.height, camera.width))

    def render_with_jacobian(
        self,
        T_camera_ct: Float64[Tensor, "b 4 4"],
        camera: Camera,
        centre_ct: Float64[Tensor, "3"],
        step_mm: float,
    ) -> DrrWithJacobian:
        """See `Renderer.render_with_jacobian`."""
        check_request(T_camera_ct, step_mm)
        matrix, origin, direction, length = self._rays(T_camera_ct, camera)
        pose = T_camera_ct.detach().double()
        centre = pose[:, :3, :3] @ centre_ct.double() + pose[:, :3, 3]
        image = torch.empty(len(matrix), self.volume.channels, length.numel())
        jacobian = torch.empty(len(matrix), self.volume.channels, 6, length.numel())
        channels.render_with_jacobian(
            self._field.numpy(),
            matrix.numpy(),
            origin.numpy(),
            direction.numpy(),
            length.numpy(),
            centre.numpy(),
            torch.linalg.vector_norm(centre, dim=-1).numpy(),
            float(step_mm),
            image.numpy(),
            jacobian.numpy(),
        )
        size = (camera.height, camera.width)
        return DrrWithJacobian(image.unflatten(-1, size), jacobian.unflatten(-1, size))

    def _rays(self, T_camera_ct: Tensor, camera: Camera) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        to_voxel = voxel_from_camera(T_camera_ct.detach(), self.volume.T_ct_voxel)
        rays = camera_rays(camera, torch.device("cpu"), torch.float64)
        return (
            to_voxel[:, :3, :3].contiguous(),
            (to_voxel[:, :3, 3] + PADDING).contiguous(),
            rays.direction.reshape(-1, 3).contiguous(),
            rays.length_mm.reshape(-1).contiguous(),
        )
