"""The kernels as torch operators, with gradients with respect to the volume and the pose.

Seven arguments are the same for all, see `sphere_reg_ros.drr.cuda.launch.Scene`. ``twist`` is zero; its derivative stands for
that of the pose, see `sphere_reg_ros.drr.pose_gradient.twist_to_itself`. No operator waits for the device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sphere_reg_ros.drr.cuda import launch
from sphere_reg_ros.drr.cuda.image_kernels import IMAGE, JACOBIAN, PRODUCTS
from sphere_reg_ros.drr.cuda.launch import Scene


@torch.library.custom_op("sphere_reg_ros::drr_cuda_image", mutates_args=())
def drr_cuda_image(
    field: Tensor,
    twist: Tensor | None,
    poses: Tensor,
    grid: Tensor,
    box: Tensor,
    views: Tensor,
    centre: Tensor,
    height: int,
    width: int,
) -> Tensor:
    """``(b, c, h, w)`` images of a padded ``(c, z, y, x)`` field."""
    return launch.render(field, Scene(poses, grid, box, views, centre, height, width), IMAGE)[0]


@torch.library.custom_op("sphere_reg_ros::drr_cuda_image_and_jacobian", mutates_args=())
def drr_cuda_image_and_jacobian(
    field: Tensor,
    poses: Tensor,
    grid: Tensor,
    box: Tensor,
    views: Tensor,
    centre: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    """``(b, c, h, w)`` images and ``(b, c, 6, h, w)`` Jacobians."""
    return launch.render(field, Scene(poses, grid, box, views, centre, height, width), JACOBIAN)


@torch.library.custom_op("sphere_reg_ros::drr_cuda_pose_products", mutates_args=())
def drr_cuda_pose_products(
    image_gradient: Tensor,
    field: Tensor,
    poses: Tensor,
    grid: Tensor,
    box: Tensor,
    views: Tensor,
    centre: Tensor,
) -> Tensor:
    """``Jᵀg``, ``(b, 6)``, of gradients ``(b, c, h, w)`` of the images; J itself is never stored."""
    scene = Scene(poses, grid, box, views, centre, image_gradient.shape[2], image_gradient.shape[3])
    return launch.render(field, scene, PRODUCTS, image_gradient.contiguous())[1].sum((1, 2))


@torch.library.custom_op("sphere_reg_ros::drr_cuda_adjoint", mutates_args=())
def drr_cuda_adjoint(
    image_gradient: Tensor,
    jacobian_gradient: Tensor | None,
    shape: list[int],
    poses: Tensor,
    grid: Tensor,
    box: Tensor,
    views: Tensor,
    centre: Tensor,
    exact: bool,
) -> Tensor:
    """Gradient of the padded field, of ``shape`` (c, z, y, x), float32, from those of images and Jacobians."""
    scene = Scene(poses, grid, box, views, centre, image_gradient.shape[2], image_gradient.shape[3])
    columns = None if jacobian_gradient is None else jacobian_gradient.contiguous()
    return launch.adjoint(image_gradient.contiguous(), columns, shape, scene, exact)


@drr_cuda_image.register_fake
def _(
    field: Tensor,
    twist: Tensor | None,
    poses: Tensor,
    grid: Tensor,
    box: Tensor,
    views: Tensor,
    centre: Tensor,
    height: int,
    width: int,
) -> Tensor:
    return field.new_empty(poses.shape[0], field.shape[0], height, width, dtype=torch.float32)


@drr_cuda_image_and_jacobian.register_fake
def _(
    field: Tensor,
    poses: Tensor,
    grid: Tensor,
    box: Tensor,
    views: Tensor,
    centre: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    image = field.new_empty(poses.shape[0], field.shape[0], height, width, dtype=torch.float32)
    return image, image.new_empty(poses.shape[0], field.shape[0], 6, height, width)


@drr_cuda_pose_products.register_fake
def _(
    image_gradient: Tensor,
    field: Tensor,
    poses: Tensor,
    grid: Tensor,
    box: Tensor,
    views: Tensor,
    centre: Tensor,
) -> Tensor:
    return image_gradient.new_empty(poses.shape[0], 6)


@drr_cuda_adjoint.register_fake
def _(
    image_gradient: Tensor,
    jacobian_gradient: Tensor | None,
    shape: list[int],
    poses: Tensor,
    grid: Tensor,
    box: Tensor,
    views: Tensor,
    centre: Tensor,
    exact: bool,
) -> Tensor:
    return image_gradient.new_empty(shape, dtype=torch.float32)


def _save_image_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    field, _, *scene, _, _ = inputs
    # Only a gradient of the pose needs the field again.
    ctx.kept_field = bool(ctx.needs_input_grad[1])
    ctx.shape, ctx.dtype = list(field.shape), field.dtype
    ctx.save_for_backward(*scene, *((field,) if ctx.kept_field else ()))


def _image_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    scene = ctx.saved_tensors[:5]
    field_gradient = twist_gradient = None
    if ctx.needs_input_grad[0]:
        exact = torch.are_deterministic_algorithms_enabled()
        field_gradient = drr_cuda_adjoint(gradient, None, ctx.shape, *scene, exact).to(ctx.dtype)
    if ctx.kept_field:
        twist_gradient = drr_cuda_pose_products(gradient, ctx.saved_tensors[5], *scene)
    return field_gradient, twist_gradient, None, None, None, None, None, None, None


def _save_jacobian_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    field, *scene, _, _ = inputs
    ctx.shape, ctx.dtype = list(field.shape), field.dtype
    ctx.save_for_backward(*scene)


def _jacobian_backward(ctx: Any, image_gradient: Tensor, jacobian_gradient: Tensor) -> tuple[Any, ...]:
    exact = torch.are_deterministic_algorithms_enabled()
    gradient = drr_cuda_adjoint(image_gradient, jacobian_gradient, ctx.shape, *ctx.saved_tensors, exact)
    return gradient.to(ctx.dtype), None, None, None, None, None, None, None


drr_cuda_image.register_autograd(_image_backward, setup_context=_save_image_context)
drr_cuda_image_and_jacobian.register_autograd(_jacobian_backward, setup_context=_save_jacobian_context)
