"""The fused renderer on the CPU."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.drr.cpu.operators import drr_image, drr_image_and_jacobian
from sphere_reg_ros.drr.interpolate import PADDING, padded
from sphere_reg_ros.drr.pose_gradient import with_pose_gradient
from sphere_reg_ros.drr.rays import voxel_from_camera
from sphere_reg_ros.drr.renderer import DrrWithJacobian, Renderer, check_request
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera


class CpuRenderer(Renderer):
    """Image and pose Jacobian in one pass of a compiled, parallel kernel.

    Threads: as many as `numba.get_num_threads` says, see `sphere_reg_ros.drr.cpu.schedule`; safe to call from several threads.
    The first call in a fresh installation compiles the kernels, some seconds, and keeps them on disk.
    """

    def __init__(self, volume: AttenuationVolume) -> None:
        super().__init__(volume)
        self._fixed = None if volume.values.requires_grad else padded(volume.values.float()).contiguous()

    def render(self, T_camera_ct: Float64[Tensor, "b 4 4"], camera: Camera, step_mm: float) -> Float[Tensor, "b c h w"]:
        """See `Renderer.render`."""
        if T_camera_ct.requires_grad and torch.is_grad_enabled():
            return self.render_with_jacobian(T_camera_ct, camera, self.volume.centre_mm(), step_mm).image
        check_request(T_camera_ct, step_mm)
        image: Tensor = drr_image(
            self._field(), self._grid_pose(T_camera_ct), _view(camera), camera.height, camera.width, float(step_mm)
        )
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
        pose = T_camera_ct.detach().double()
        centre = pose[:, :3, :3] @ centre_ct.double() + pose[:, :3, 3]
        image, jacobian = drr_image_and_jacobian(
            self._field(), self._grid_pose(pose), centre, _view(camera), camera.height, camera.width, float(step_mm)
        )
        return DrrWithJacobian(with_pose_gradient(image, jacobian, T_camera_ct, centre_ct), jacobian)

    def _field(self) -> Tensor:
        return padded(self.volume.values.float()).contiguous() if self._fixed is None else self._fixed

    def _grid_pose(self, T_camera_ct: Tensor) -> Tensor:
        to_grid = voxel_from_camera(T_camera_ct.detach(), self.volume.T_ct_voxel)
        to_grid[:, :3, 3] += PADDING
        return to_grid


def _view(camera: Camera) -> list[float]:
    return [float(x) for x in (camera.sdd_mm, *camera.pixel_pitch_mm, *camera.piercing_point_px)]
