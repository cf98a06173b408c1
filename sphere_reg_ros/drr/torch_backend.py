"""The renderer in plain torch, for any device; serves where there is no fused kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sphere_reg_ros.drr.interpolate import PADDING, padded, sample
from sphere_reg_ros.drr.pose_gradient import with_pose_gradient
from sphere_reg_ros.drr.rays import CameraRays, camera_rays, voxel_from_camera
from sphere_reg_ros.drr.renderer import DrrWithJacobian, Renderer, check_request
from sphere_reg_ros.drr.twist_jacobian import twist_jacobian
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera

SAMPLES_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Samples times channels that are in memory together, by kind of device."""


@dataclass(frozen=True)
class _Scene:
    """Rays of some poses in a volume's grid; float64, because positions decide on which side of a voxel's face a sample lies."""

    rays: CameraRays
    matrix: Float64[Tensor, "b 3 3"]
    origin: Float64[Tensor, "b 3"]
    centre_camera: Float64[Tensor, "b 3"]
    reference_mm: Float64[Tensor, " b"]
    step_mm: float

    def points(self, distance: Float64[Tensor, "s h w"]) -> Float64[Tensor, "b s h w 3"]:
        """Where the rays are at some distances, in indices of the unpadded grid."""
        along = self.rays.direction * distance[..., None]
        return torch.einsum("bij,shwj->bshwi", self.matrix, along) + self.origin[:, None, None, None]

    def cells(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Midpoints and lengths ``(s, h, w)`` of some steps; the length is zero beyond the detector."""
        begin = counts[:, None, None] * self.step_mm
        length = (self.rays.length_mm - begin).clamp(0.0, self.step_mm)
        return begin + 0.5 * length, length


class TorchRenderer(Renderer):
    """Renders in chunks of steps with torch's own operators; positions in float64, values in float32."""

    def __init__(self, volume: AttenuationVolume) -> None:
        super().__init__(volume)
        self._fixed = None if volume.values.requires_grad else padded(volume.values.float())

    def render(self, T_camera_ct: Float64[Tensor, "b 4 4"], camera: Camera, step_mm: float) -> Float[Tensor, "b c h w"]:
        """See `Renderer.render`."""
        if T_camera_ct.requires_grad and torch.is_grad_enabled():
            return self.render_with_jacobian(T_camera_ct, camera, self.volume.centre_mm(), step_mm).image
        scene = self._scene(T_camera_ct, camera, self.volume.centre_mm(), step_mm)

        def images(field: Tensor, counts: Tensor) -> tuple[Tensor, ...]:
            distance, length = scene.cells(counts)
            grid = _normalised(scene.points(distance), field)
            inputs = field.expand(len(grid), *field.shape)
            values = torch.nn.functional.grid_sample(inputs, grid, align_corners=True)
            return ((values * length.to(values)).sum(2),)

        (image,) = self._march(scene, images)
        return image

    def render_with_jacobian(
        self,
        T_camera_ct: Float64[Tensor, "b 4 4"],
        camera: Camera,
        centre_ct: Float64[Tensor, "3"],
        step_mm: float,
    ) -> DrrWithJacobian:
        """See `Renderer.render_with_jacobian`."""
        scene = self._scene(T_camera_ct, camera, centre_ct, step_mm)

        def sums(field: Tensor, counts: Tensor) -> tuple[Tensor, ...]:
            distance, length = scene.cells(counts)
            value, gradient = sample(field, scene.points(distance))
            weight = length.to(value)
            lever = (distance - scene.reference_mm[:, None, None, None]).to(value)
            gradient = gradient * weight[..., None]
            return (value * weight).sum(2), gradient.sum(2), (gradient * lever[..., None]).sum(2)

        image, g0, g1 = self._march(scene, sums)
        far = scene.rays.length_mm[None]
        field = self._field()
        at_ends = [sample(field, scene.points(s))[0][:, :, 0] for s in (far, torch.zeros_like(far))]
        matrix = scene.matrix.to(g0)
        g0, g1 = (torch.einsum("bij,cbhwi->bchwj", matrix, g) for g in (g0, g1))
        ends = (at_ends[0] - at_ends[1]).transpose(0, 1)
        direction, centre, reference = (x.to(g0) for x in (scene.rays.direction, scene.centre_camera, scene.reference_mm))
        jacobian = twist_jacobian(g0, g1, ends, direction, centre, reference)
        image = image.transpose(0, 1).contiguous()
        return DrrWithJacobian(with_pose_gradient(image, jacobian, T_camera_ct, centre_ct), jacobian)

    def _field(self) -> Tensor:
        return padded(self.volume.values.float()) if self._fixed is None else self._fixed

    def _scene(self, T_camera_ct: Tensor, camera: Camera, centre_ct: Tensor, step_mm: float) -> _Scene:
        check_request(T_camera_ct, step_mm)
        device = self.volume.device
        pose = T_camera_ct.detach().to(device, torch.float64)
        to_voxel = voxel_from_camera(pose, self.volume.T_ct_voxel.to(device))
        centre = pose[:, :3, :3] @ centre_ct.to(pose) + pose[:, :3, 3]
        rays = camera_rays(camera, device, torch.float64)
        return _Scene(
            rays, to_voxel[:, :3, :3], to_voxel[:, :3, 3], centre, torch.linalg.vector_norm(centre, dim=-1), float(step_mm)
        )

    def _march(self, scene: _Scene, sums: Callable[[Tensor, Tensor], tuple[Tensor, ...]]) -> list[Tensor]:
        """Add up ``sums(field, counts)`` over all steps; its memory is freed after each chunk, also under autograd."""
        field = self._field()
        totals: list[Tensor] = []
        for counts in self._chunks(scene):
            if field.requires_grad and torch.is_grad_enabled():
                parts = checkpoint(sums, field, counts, use_reentrant=False)
            else:
                parts = sums(field, counts)
            totals = [t + p for t, p in zip(totals, parts, strict=True)] if totals else list(parts)
        return totals

    def _chunks(self, scene: _Scene) -> Iterator[Tensor]:
        """Counts of the steps that can meet the volume, some at a time; at least one chunk."""
        sizes = torch.tensor(self.volume.values.shape[:0:-1], dtype=torch.float64)
        corners = torch.cartesian_prod(*(torch.tensor([-1.0, float(n)], dtype=torch.float64) for n in sizes))
        inverse = torch.linalg.inv(scene.matrix)
        in_camera = torch.einsum("bij,bnj->bni", inverse, corners.to(inverse) - scene.origin[:, None])
        middle = in_camera.mean(1)
        radius = torch.linalg.vector_norm(in_camera - middle[:, None], dim=-1).max()
        distance = torch.linalg.vector_norm(middle, dim=-1)
        first = math.floor(max(0.0, float(distance.min() - radius)) / scene.step_mm)
        end = min(float(distance.max() + radius), float(scene.rays.length_mm.max()))
        last = max(first + 1, math.ceil(end / scene.step_mm))
        budget = SAMPLES_AT_ONCE.get(scene.matrix.device.type, SAMPLES_AT_ONCE["cpu"])
        at_once = max(1, budget // (scene.rays.length_mm.numel() * len(scene.matrix) * self.volume.channels))
        counts = torch.arange(first, last, device=scene.matrix.device, dtype=torch.float64)
        for begin in range(0, len(counts), at_once):
            yield counts[begin : begin + at_once]


def _normalised(points: Float64[Tensor, "*s 3"], field: Tensor) -> Float[Tensor, "*s 3"]:
    """Grid indices as `grid_sample` counts them: -1 and 1 are the first and last voxel of the padded field."""
    sizes = torch.tensor(field.shape[:0:-1], dtype=points.dtype, device=points.device)
    return ((points + PADDING) * (2.0 / (sizes - 1.0)) - 1.0).to(field.dtype)
