"""Trilinear interpolation and its gradient, in torch, for any device and precision."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

PADDING = 2
"""Voxels of air around a padded grid: the field falls to zero in the first, the second is for clamping."""


def padded(values: Float[Tensor, "c z y x"]) -> Float[Tensor, "c zp yp xp"]:
    """The values with air around them."""
    return torch.nn.functional.pad(values, (PADDING,) * 6)


def sample(
    padded_values: Float[Tensor, "c zp yp xp"], points: Float[Tensor, "... 3"]
) -> tuple[Float[Tensor, "c ..."], Float[Tensor, "c ... 3"]]:
    """The field and its gradient per voxel index at ``points`` (x, y, z) in indices of the unpadded grid."""
    sizes = torch.tensor(padded_values.shape[:0:-1], device=points.device)
    low = torch.full((3,), 0.5, dtype=points.dtype, device=points.device)
    inside = torch.minimum(torch.maximum(points + PADDING, low), sizes.to(points) - 1.5)
    corner = inside.floor()
    fx, fy, fz = (inside - corner).to(padded_values).unbind(-1)
    i, j, k = corner.long().unbind(-1)
    row, slab = int(sizes[0]), int(sizes[0] * sizes[1])
    base = i + j * row + k * slab
    flat = padded_values.flatten(1)

    def at(dx: int, dy: int, dz: int) -> Tensor:
        return flat[:, base + (dx + dy * row + dz * slab)]

    v00, v10, v01, v11 = at(0, 0, 0), at(0, 1, 0), at(0, 0, 1), at(0, 1, 1)
    x00, x10, x01, x11 = (at(1, dy, dz) - v for v, dy, dz in ((v00, 0, 0), (v10, 1, 0), (v01, 0, 1), (v11, 1, 1)))
    y00, y10, y01, y11 = v00 + fx * x00, v10 + fx * x10, v01 + fx * x01, v11 + fx * x11
    z0, z1 = y00 + fy * (y10 - y00), y01 + fy * (y11 - y01)
    value = z0 + fz * (z1 - z0)
    x0, x1 = x00 + fy * (x10 - x00), x01 + fy * (x11 - x01)
    gradient_x = x0 + fz * (x1 - x0)
    gradient_y = (y10 - y00) + fz * ((y11 - y01) - (y10 - y00))
    return value, torch.stack([gradient_x, gradient_y, z1 - z0], dim=-1)
