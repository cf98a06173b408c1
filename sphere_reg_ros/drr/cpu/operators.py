"""The kernels as torch operators, with gradients of image and Jacobian with respect to the volume.

`fields` are volumes padded by two voxels of air. Gradients with respect to the pose do not pass through here, see
`sphere_reg_ros.drr.pose_gradient`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sphere_reg_ros.drr.cpu import kernels
from sphere_reg_ros.drr.cpu.adjoint import COEFFICIENT_ROWS, adjoint
from sphere_reg_ros.drr.cpu.schedule import share
from sphere_reg_ros.drr.twist_jacobian import twist_jacobian


@torch.library.custom_op("sphere_reg_ros::drr_image", mutates_args=())
def drr_image(field: Tensor, T_voxel_camera: Tensor, view: list[float], height: int, width: int, step_mm: float) -> Tensor:
    """``(b, c, h, w)`` images of a padded ``(c, z, y, x)`` field; ``view`` is (sdd, du, dv, cx, cy)."""
    image = field.new_empty(len(T_voxel_camera), len(field), height, width)
    matrix, origin = _split(T_voxel_camera)
    share(kernels.render, field.numpy(), matrix, origin, tuple(view), step_mm, image.numpy())
    return image


@torch.library.custom_op("sphere_reg_ros::drr_image_and_jacobian", mutates_args=())
def drr_image_and_jacobian(
    field: Tensor,
    T_voxel_camera: Tensor,
    centre_camera: Tensor,
    view: list[float],
    height: int,
    width: int,
    step_mm: float,
) -> tuple[Tensor, Tensor]:
    """``(b, c, h, w)`` images and ``(b, c, 6, h, w)`` Jacobians with respect to the twist about ``centre_camera``."""
    image = field.new_empty(len(T_voxel_camera), len(field), height, width)
    jacobian = field.new_empty(len(T_voxel_camera), len(field), 6, height, width)
    matrix, origin = _split(T_voxel_camera)
    centre = centre_camera.contiguous().numpy()
    reference = torch.linalg.vector_norm(centre_camera, dim=-1).numpy()
    arguments = (field.numpy(), matrix, origin, tuple(view), step_mm, centre, reference)
    share(kernels.render_with_jacobian, *arguments, image.numpy(), jacobian.numpy())
    return image, jacobian


@torch.library.custom_op("sphere_reg_ros::drr_adjoint", mutates_args=())
def drr_adjoint(
    image_gradient: Tensor,
    jacobian_gradient: Tensor,
    shape: list[int],
    T_voxel_camera: Tensor,
    centre_camera: Tensor,
    view: list[float],
    step_mm: float,
) -> Tensor:
    """Gradient of the padded field, of ``shape`` (c, z, y, x), from those of images and Jacobians."""
    matrix, origin = _split(T_voxel_camera)
    reference = torch.linalg.vector_norm(centre_camera, dim=-1)
    coefficients = _coefficients(image_gradient, jacobian_gradient, T_voxel_camera, centre_camera, reference, view)
    gradient = image_gradient.new_zeros(*shape[1:], shape[0])
    arguments = (matrix, origin, tuple(view), step_mm, reference.numpy(), coefficients.numpy(), gradient.numpy())
    for turn in range(2):
        share(adjoint, turn, *arguments)
    return gradient.movedim(-1, 0).contiguous()


def _split(T_voxel_camera: Tensor) -> tuple[Any, Any]:
    return T_voxel_camera[:, :3, :3].contiguous().numpy(), T_voxel_camera[:, :3, 3].contiguous().numpy()


def _coefficients(
    image_gradient: Tensor,
    jacobian_gradient: Tensor,
    T_voxel_camera: Tensor,
    centre_camera: Tensor,
    reference_mm: Tensor,
    view: list[float],
) -> Tensor:
    """What each ray's sums are worth, ``(b, h, w, 8, c)``: the adjoint of `twist_jacobian`, by autograd."""
    b, c, h, w = image_gradient.shape
    sdd, du, dv, cx, cy = view
    y = (torch.arange(h, dtype=torch.float64) - cy) * dv
    x = (torch.arange(w, dtype=torch.float64) - cx) * du
    points = torch.stack([x.expand(h, w), y[:, None].expand(h, w), torch.full((h, w), sdd, dtype=torch.float64)], dim=-1)
    direction = (points / torch.linalg.vector_norm(points, dim=-1, keepdim=True)).to(image_gradient)
    sums = [
        image_gradient.new_zeros(b, c, h, w, 3),
        image_gradient.new_zeros(b, c, h, w, 3),
        image_gradient.new_zeros(b, c, h, w),
    ]
    centre, reference = centre_camera.to(image_gradient), reference_mm.to(image_gradient)
    pull_back = torch.func.vjp(lambda g0, g1, ends: twist_jacobian(g0, g1, ends, direction, centre, reference), *sums)[1]
    g0, g1, ends = pull_back(jacobian_gradient)
    matrix = T_voxel_camera[:, :3, :3].to(image_gradient)
    g0, g1 = (torch.einsum("bij,bchwj->bchwi", matrix, g) for g in (g0, g1))
    rows = torch.cat([image_gradient[..., None], g0, g1, ends[..., None]], dim=-1)
    return rows.permute(0, 2, 3, 4, 1).reshape(b, h, w, COEFFICIENT_ROWS, c).contiguous()


@drr_image.register_fake
def _(field: Tensor, T_voxel_camera: Tensor, view: list[float], height: int, width: int, step_mm: float) -> Tensor:
    return field.new_empty(T_voxel_camera.shape[0], field.shape[0], height, width)


@drr_image_and_jacobian.register_fake
def _(
    field: Tensor,
    T_voxel_camera: Tensor,
    centre_camera: Tensor,
    view: list[float],
    height: int,
    width: int,
    step_mm: float,
) -> tuple[Tensor, Tensor]:
    b, c = T_voxel_camera.shape[0], field.shape[0]
    return field.new_empty(b, c, height, width), field.new_empty(b, c, 6, height, width)


@drr_adjoint.register_fake
def _(
    image_gradient: Tensor,
    jacobian_gradient: Tensor,
    shape: list[int],
    T_voxel_camera: Tensor,
    centre_camera: Tensor,
    view: list[float],
    step_mm: float,
) -> Tensor:
    return image_gradient.new_empty(shape)


def _save_image_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    field, T_voxel_camera, ctx.view, _, _, ctx.step_mm = inputs
    ctx.shape = list(field.shape)
    ctx.save_for_backward(T_voxel_camera)


def _image_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    (T_voxel_camera,) = ctx.saved_tensors
    b, c, h, w = gradient.shape
    field = drr_adjoint(
        gradient.contiguous(),
        gradient.new_zeros(b, c, 6, h, w),
        ctx.shape,
        T_voxel_camera,
        T_voxel_camera.new_zeros(b, 3),
        ctx.view,
        ctx.step_mm,
    )
    return field, None, None, None, None, None


def _save_jacobian_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    field, T_voxel_camera, centre_camera, ctx.view, _, _, ctx.step_mm = inputs
    ctx.shape = list(field.shape)
    ctx.save_for_backward(T_voxel_camera, centre_camera)


def _jacobian_backward(ctx: Any, image_gradient: Tensor, jacobian_gradient: Tensor) -> tuple[Any, ...]:
    T_voxel_camera, centre_camera = ctx.saved_tensors
    field = drr_adjoint(
        image_gradient.contiguous(),
        jacobian_gradient.contiguous(),
        ctx.shape,
        T_voxel_camera,
        centre_camera,
        ctx.view,
        ctx.step_mm,
    )
    return field, None, None, None, None, None, None


drr_image.register_autograd(_image_backward, setup_context=_save_image_context)
drr_image_and_jacobian.register_autograd(_jacobian_backward, setup_context=_save_jacobian_context)
