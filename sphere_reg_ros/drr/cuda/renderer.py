"""The fused renderer on CUDA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.drr.cuda.language import INSTALLED, interpreted
from sphere_reg_ros.drr.cuda.operators import drr_cuda_image, drr_cuda_image_and_jacobian
from sphere_reg_ros.drr.errors import BackendError, CameraBatchError, VolumeSizeError
from sphere_reg_ros.drr.interpolate import PADDING, padded
from sphere_reg_ros.drr.pose_gradient import twist_to_itself, with_pose_gradient
from sphere_reg_ros.drr.renderer import DrrWithJacobian, Renderer, check_request, check_shape_and_step
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera

MOST_ELEMENTS = 2**31
"""Offsets into a volume are 32-bit integers in the kernels."""


class CudaRenderer(Renderer):
    """Image and pose Jacobian in one pass of a Triton kernel.

    Volumes are kept as they are given, in float32, float16 or bfloat16; sums are float32. Rays are clipped to the part of the
    volume that is not zero. No call waits for the device, so poses that live on the device are not looked at: where one is no
    rigid motion, its image and Jacobian are NaN. The gradient of the volume is the same bits each time if
    `torch.use_deterministic_algorithms` asks for it. Under CUDA graph capture poses and centre must be on the device, and the
    camera must have been rendered with once.

    Raises:
        BackendError: no CUDA device, or no Triton.
        VolumeSizeError: 2³¹ elements or more.
    """

    def __init__(self, volume: AttenuationVolume) -> None:
        super().__init__(volume)
        _check_place(volume)
        values = volume.values
        sizes = [n + 2 * PADDING for n in values.shape[1:]]
        elements = len(values) * sizes[0] * sizes[1] * sizes[2]
        if elements >= MOST_ELEMENTS:
            raise VolumeSizeError(
                f"the volume has {elements} elements with its border of air ({len(values)} x {' x '.join(map(str, sizes))}), the "
                f"CUDA renderer's limit is 2^31 = {MOST_ELEMENTS}: downsample or crop it, or use backend 'torch'"
            )
        self._fixed = None if values.requires_grad else _stored(values)
        self._box = _whole_box(sizes, values.device) if self._fixed is None else _occupied_box(self._fixed)
        to_grid = torch.linalg.inv(volume.T_ct_voxel.double())
        to_grid[:3, 3] += PADDING
        self._grid = to_grid[:3].contiguous().to(values.device)
        self._centre = volume.centre_mm().to(values.device)
        self._views: dict[tuple[tuple[Camera, ...], float], Tensor] = {}

    def render(self, T_camera_ct: Float64[Tensor, "b 4 4"], camera: Camera, step_mm: float) -> Float[Tensor, "b c h w"]:
        """See `Renderer.render`."""
        return self.render_views(T_camera_ct, (camera,), step_mm)

    def render_with_jacobian(
        self,
        T_camera_ct: Float64[Tensor, "b 4 4"],
        camera: Camera,
        centre_ct: Float64[Tensor, "3"],
        step_mm: float,
    ) -> DrrWithJacobian:
        """See `Renderer.render_with_jacobian`."""
        return self.render_views_with_jacobian(T_camera_ct, (camera,), centre_ct, step_mm)

    def render_views(
        self, T_camera_ct: Float64[Tensor, "b 4 4"], cameras: Sequence[Camera], step_mm: float
    ) -> Float[Tensor, "b c h w"]:
        """As `Renderer.render`, with one camera for all poses or one for each.

        Raises:
            CameraBatchError: another number of cameras, or images of different sizes.
        """
        poses, views = self._request(T_camera_ct, cameras, step_mm)
        twist = None
        if T_camera_ct.requires_grad and torch.is_grad_enabled():
            twist = twist_to_itself(T_camera_ct.to(poses.device), self._centre).float()
        size = (cameras[0].height, cameras[0].width)
        image: Tensor = drr_cuda_image(self._field(), twist, poses, self._grid, self._box, views, self._centre, *size)
        return image

    def render_views_with_jacobian(
        self,
        T_camera_ct: Float64[Tensor, "b 4 4"],
        cameras: Sequence[Camera],
        centre_ct: Float64[Tensor, "3"],
        step_mm: float,
    ) -> DrrWithJacobian:
        """As `Renderer.render_with_jacobian`, with one camera for all poses or one for each.

        Raises:
            CameraBatchError: another number of cameras, or images of different sizes.
        """
        poses, views = self._request(T_camera_ct, cameras, step_mm)
        centre = centre_ct.detach().to(poses.device, torch.float64).contiguous()
        size = (cameras[0].height, cameras[0].width)
        image, jacobian = drr_cuda_image_and_jacobian(self._field(), poses, self._grid, self._box, views, centre, *size)
        return DrrWithJacobian(with_pose_gradient(image, jacobian, T_camera_ct.to(poses.device), centre), jacobian)

    def _request(self, T_camera_ct: Tensor, cameras: Sequence[Camera], step_mm: float) -> tuple[Tensor, Tensor]:
        if T_camera_ct.device.type != "cpu" or torch.compiler.is_compiling():
            check_shape_and_step(T_camera_ct, step_mm)
        else:
            check_request(T_camera_ct, step_mm)
        key = (tuple(cameras), float(step_mm))
        if key not in self._views:
            self._views[key] = _view_rows(cameras, step_mm, len(T_camera_ct)).to(self._grid.device)
        return T_camera_ct.detach().to(self._grid.device, torch.float64).contiguous(), self._views[key]

    def _field(self) -> Tensor:
        return _stored(self.volume.values) if self._fixed is None else self._fixed


def _check_place(volume: AttenuationVolume) -> None:
    if not INSTALLED:
        raise BackendError("the cuda renderer needs the package triton: install it, or use backend 'torch'")
    if volume.device.type != "cuda" and not interpreted():
        raise BackendError(f"the cuda renderer cannot run on {volume.device}: use backend 'cpu', or a CUDA device")


def _stored(values: Tensor) -> Tensor:
    half = values.dtype in (torch.float16, torch.bfloat16)
    return padded(values if half else values.float()).contiguous()


def _whole_box(sizes: Sequence[int], device: torch.device) -> Tensor:
    """Between the first and the last voxel of the border next to the volume."""
    return torch.tensor([[PADDING - 1.0, n - PADDING] for n in reversed(sizes)], dtype=torch.float64, device=device)


def _occupied_box(field: Tensor) -> Tensor:
    """The same around the voxels that are not zero in some channel; worked out on the device."""
    occupied = (field != 0).any(0)
    rows = []
    for dims in ((0, 1), (0, 2), (1, 2)):
        line = occupied.any(dims[1]).any(dims[0])
        index = torch.arange(len(line), device=field.device)
        first, last = torch.where(line, index, len(line)).amin(), torch.where(line, index, -1).amax()
        empty = last < 0
        rows.append(torch.stack([torch.where(empty, PADDING, first) - 1, torch.where(empty, PADDING - 1, last) + 1]))
    return torch.stack(rows).double()


def _view_rows(cameras: Sequence[Camera], step_mm: float, poses: int) -> Tensor:
    sizes = {(camera.height, camera.width) for camera in cameras}
    if len(cameras) not in (1, poses) or len(sizes) != 1:
        raise CameraBatchError(
            f"{len(cameras)} cameras of sizes {sorted(sizes)} for {poses} poses: give one for all or one for each, of one size"
        )
    rows = [[one.sdd_mm, *one.pixel_pitch_mm, *one.piercing_point_px, step_mm] for one in cameras]
    return torch.tensor(rows, dtype=torch.float64)
