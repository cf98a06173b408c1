"""How the kernels are laid over images, and their launches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sphere_reg_ros.drr.cuda import adjoint_kernels, image_kernels
from sphere_reg_ros.drr.cuda.language import cdiv, interpreted

THREADS_WANTED = 1 << 18
"""Threads that hide the latency of the memory; a ray is split until there are so many."""
MOST_SEGMENTS = 8
TILE_THREADS = 128


@dataclass(frozen=True)
class Tiling:
    """Pixels and threads of one program.

    Attributes:
        width, height: pixels of a tile; powers of two.
        segments: threads that share a ray; a power of two.
        warps: of 32 threads.
    """

    width: int
    height: int
    segments: int
    warps: int

    def across(self, image_width: int) -> int:
        """Tiles beside each other."""
        return cdiv(image_width, self.width)

    def tiles(self, image_height: int, image_width: int) -> int:
        """Tiles of an image."""
        return cdiv(image_height, self.height) * self.across(image_width)


def tiling(rays: int) -> Tiling:
    """The tile for a number of rays, of all poses and channels together.

    The interpreter's time goes by operations, whatever their size: its tiles are large.
    """
    if interpreted():
        return Tiling(32, 16, 2, 4)
    segments = 1
    while segments < MOST_SEGMENTS and rays * segments < THREADS_WANTED:
        segments *= 2
    pixels = TILE_THREADS // segments
    width = 8 if pixels >= 32 else 4
    return Tiling(width, pixels // width, segments, TILE_THREADS // 32)


@dataclass(frozen=True)
class Scene:
    """What the kernels read beside the field; tensors of float64 on the field's device.

    Attributes:
        poses: ``(b, 4, 4)``, T_camera_ct.
        grid: ``(3, 4)``, CT mm to indices of the padded grid.
        box: ``(3, 2)``, lowest and highest x, y, z between which the field is not zero.
        views: ``(b or 1, 6)``: sdd, du, dv, cx, cy, step, in mm and pixels.
        centre: ``(3,)``, the point of the twist, CT mm.
        height, width: of the images.
    """

    poses: Tensor
    grid: Tensor
    box: Tensor
    views: Tensor
    centre: Tensor
    height: int
    width: int


def render(field: Tensor, scene: Scene, mode: int, cotangent: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Launch `render_kernel`.

    Returns:
        Image and Jacobian; in mode PRODUCTS ``(b, c, tiles, 6)`` sums for the Jacobian; what a mode does not make is empty.
    """
    b, c = len(scene.poses), len(field)
    plan = tiling(b * c * scene.height * scene.width)
    tiles = plan.tiles(scene.height, scene.width)
    pixels = (scene.height, scene.width)
    image = field.new_empty((b, c, *pixels) if mode != image_kernels.PRODUCTS else (0,), dtype=torch.float32)
    jacobian = image.new_empty((b, c, 6, *pixels) if mode == image_kernels.JACOBIAN else (0,))
    products = image.new_empty((b, c, tiles, 6) if mode == image_kernels.PRODUCTS else (0,))
    pull = image if cotangent is None else cotangent
    with torch.cuda.device_of(field):
        image_kernels.render_kernel[(tiles * b * c,)](
            field, *_pointers(scene), pull, image, jacobian, products, *_sizes(scene, field.shape, plan),
            MODE=mode, **_constants(plan),
        )  # fmt: skip
    return image, products if mode == image_kernels.PRODUCTS else jacobian


def adjoint(image_gradient: Tensor, jacobian_gradient: Tensor | None, shape: list[int], scene: Scene, exact: bool) -> Tensor:
    """Launch `adjoint_kernel`: the gradient of the padded field of a shape ``(c, z, y, x)``, float32.

    Args:
        image_gradient: ``(b, c, h, w)``.
        jacobian_gradient: ``(b, c, 6, h, w)``, or None where it is zero.
        exact: sum integers, so that equal inputs give equal bits; takes twice the memory.
    """
    b, c, h, w = image_gradient.shape
    plan = tiling(b * c * h * w)
    gradient = torch.zeros(shape, dtype=torch.int64 if exact else torch.float32, device=image_gradient.device)
    scale = _integer_scale(image_gradient, jacobian_gradient, scene) if exact else scene.grid
    columns = image_gradient if jacobian_gradient is None else jacobian_gradient
    with torch.cuda.device_of(image_gradient):
        adjoint_kernels.adjoint_kernel[(plan.tiles(h, w) * b * c,)](
            image_gradient, columns, *_pointers(scene), scale, gradient, *_sizes(scene, shape, plan),
            JACOBIAN=jacobian_gradient is not None, EXACT=exact, **_constants(plan),
        )  # fmt: skip
    return (gradient / scale).float() if exact else gradient


def _integer_scale(image_gradient: Tensor, jacobian_gradient: Tensor | None, scene: Scene) -> Tensor:
    """Integers for a gradient of one, ``(1,)`` float64, so that no voxel's sum can leave 62 bits.

    A voxel gets from a ray at most the ray's length times what its value and its gradient are worth, see `adjoint_kernel`.
    """
    sdd, du, dv, cx, cy, _ = scene.views.unbind(-1)
    length = (sdd + (cx.abs() + scene.width) * du + (cy.abs() + scene.height) * dv).amax()
    bound = length * image_gradient.double().abs().sum()
    if jacobian_gradient is not None:
        centre = scene.poses[:, :3, :3] @ scene.centre + scene.poses[:, :3, 3]
        away = torch.linalg.vector_norm(centre, dim=-1).amax()
        per_voxel = torch.linalg.matrix_norm(scene.grid[:, :3])
        worth = 2.0 * per_voxel * (2.0 + 5.0 * away + length) * length + 2.0 + 4.0 * away
        bound = bound + worth * jacobian_gradient.double().abs().sum()
    return (2.0**62 / bound.clamp_min(2.0**-60))[None]


def _pointers(scene: Scene) -> tuple[Tensor, ...]:
    return scene.poses, scene.grid, scene.box, scene.views, scene.centre


def _sizes(scene: Scene, shape: torch.Size | list[int], plan: Tiling) -> tuple[int, ...]:
    c, nz, ny, nx = shape
    view_stride = 6 if len(scene.views) > 1 else 0
    across, tiles = plan.across(scene.width), plan.tiles(scene.height, scene.width)
    return view_stride, scene.height, scene.width, nx, ny, nx * ny * nz, c, across, tiles


def _constants(plan: Tiling) -> dict[str, Any]:
    return {"TILE_W": plan.width, "TILE_H": plan.height, "SEGMENTS": plan.segments, "num_warps": plan.warps}
