"""The fused renderer on the CPU."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.drr.cpu import kernels
from sphere_reg_ros.drr.cpu.schedule import LAUNCH
from sphere_reg_ros.drr.interpolate import PADDING, padded
from sphere_reg_ros.drr.rays import voxel_from_camera
from sphere_reg_ros.drr.renderer import DrrWithJacobian, Renderer, check_request
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera


class CpuRenderer(Renderer):
    """Image and pose Jacobian in one pass of a compiled, parallel kernel."""

    def __init__(self, volume: AttenuationVolume) -> None:
        super().__init__(volume)
        self._field = padded(volume.values.detach().float()).contiguous().numpy()

    def render(
        self, T_camera_ct: Float64[Tensor, "b 4 4"], camera: Camera, step_mm: float
    ) -> Float[Tensor, "b c h w"]:
        """See `Renderer.render`."""
        check_request(T_camera_ct, step_mm)
        matrix, origin, view = self._rays(T_camera_ct, camera)
        image = torch.empty(len(matrix), self.volume.channels, camera.height, camera.width)
        with LAUNCH:
            kernels.render(self._field, matrix, origin, view, float(step_mm), image.numpy())
        return image

    def render_with_jacobian(
        self,
        T_camera_ct: Float64[Tensor, "b 4 4"],
        camera: Camera,
        centre_ct: Float64[Tensor, "3"],
        step_mm: float,
    ) -> DrrWithJacobian:
        """See `Renderer.render_with_jacobian`."""
        check_request(T_camera_ct, step_mm)
        matrix, origin, view = self._rays(T_camera_ct, camera)
        pose = T_camera_ct.detach().double()
        centre = pose[:, :3, :3] @ centre_ct.double() + pose[:, :3, 3]
        size = (camera.height, camera.width)
        image = torch.empty(len(matrix), self.volume.channels, *size)
        jacobian = torch.empty(len(matrix), self.volume.channels, 6, *size)
        reference = torch.linalg.vector_norm(centre, dim=-1)
        with LAUNCH:
            kernels.render_with_jacobian(
                self._field,
                matrix,
                origin,
                view,
                float(step_mm),
                centre.numpy(),
                reference.numpy(),
                image.numpy(),
                jacobian.numpy(),
            )
        return DrrWithJacobian(image, jacobian)

    def _rays(self, T_camera_ct: Tensor, camera: Camera):
        to_voxel = voxel_from_camera(T_camera_ct.detach(), self.volume.T_ct_voxel)
        view = tuple(map(float, (camera.sdd_mm, *camera.pixel_pitch_mm, *camera.piercing_point_px)))
        return (
            to_voxel[:, :3, :3].contiguous().numpy(),
            (to_voxel[:, :3, 3] + PADDING).contiguous().numpy(),
            view,
        )
