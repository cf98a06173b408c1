"""The reference: float64, every sample of every ray, nothing skipped. Slow and obviously right."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.drr.interpolate import padded, sample
from sphere_reg_ros.drr.rays import camera_rays, voxel_from_camera
from sphere_reg_ros.drr.renderer import DrrWithJacobian, Renderer, check_request
from sphere_reg_ros.drr.twist_jacobian import twist_jacobian
from sphere_reg_ros.geometry.camera import Camera


class ReferenceRenderer(Renderer):
    """Renders in float64, one step of all rays at a time; images and Jacobians are float64 too."""

    def render(self, T_camera_ct: Float64[Tensor, "b 4 4"], camera: Camera, step_mm: float) -> Float[Tensor, "b c h w"]:
        """See `Renderer.render`; float64. Autograd reaches the volume only."""
        centre = torch.zeros(3, dtype=torch.float64)
        return self.render_with_jacobian(T_camera_ct, camera, centre, step_mm).image

    def render_with_jacobian(
        self,
        T_camera_ct: Float64[Tensor, "b 4 4"],
        camera: Camera,
        centre_ct: Float64[Tensor, "3"],
        step_mm: float,
    ) -> DrrWithJacobian:
        """See `Renderer.render_with_jacobian`; float64. Autograd reaches the volume only."""
        check_request(T_camera_ct, step_mm)
        device = self.volume.device
        pose = T_camera_ct.detach().to(device, torch.float64)
        values = padded(self.volume.values.double())
        rays = camera_rays(camera, device, torch.float64)
        to_voxel = voxel_from_camera(pose, self.volume.T_ct_voxel.to(device))
        matrix, origin = to_voxel[:, :3, :3], to_voxel[:, :3, 3]
        centre = pose[:, :3, :3] @ centre_ct.to(pose) + pose[:, :3, 3]
        reference = torch.linalg.vector_norm(centre, dim=-1)

        def field(distance: Tensor) -> tuple[Tensor, Tensor]:
            points = torch.einsum("bij,hwj->bhwi", matrix, rays.direction * distance[..., None])
            value, gradient = sample(values, points + origin[:, None, None])
            return value.transpose(0, 1), torch.einsum("bij,cbhwi->bchwj", matrix, gradient)

        image: Tensor = torch.zeros((), dtype=torch.float64, device=device)
        g0, g1 = image.clone(), image.clone()
        for k in range(math.ceil(float(rays.length_mm.max()) / step_mm)):
            weight = (rays.length_mm - k * step_mm).clamp(0.0, step_mm)
            distance = k * step_mm + 0.5 * weight
            value, gradient = field(distance)
            lever = distance - reference[:, None, None]
            image = image + weight * value
            g0 = g0 + weight[..., None] * gradient
            g1 = g1 + (weight * lever)[:, None, ..., None] * gradient
        ends = field(rays.length_mm)[0] - field(torch.zeros_like(rays.length_mm))[0]
        jacobian = twist_jacobian(g0, g1, ends, rays.direction, centre, reference)
        return DrrWithJacobian(image, jacobian)
