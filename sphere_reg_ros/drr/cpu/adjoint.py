"""The adjoint of the renderer: from gradients on the detector to gradients of the volume.

The volume is cut into slabs along z, and a thread works on one slab at a time: first every other slab, then the ones in
between, so that no two threads touch the same voxels. The result does not depend on the number of threads.
"""
# mypy: disable-error-code="no-untyped-def,untyped-decorator,call-arg,var-annotated"

from __future__ import annotations

import numba
import numpy as np

from sphere_reg_ros.drr.cpu.clip import cell_range, clip_axis
from sphere_reg_ros.drr.cpu.schedule import take_next
from sphere_reg_ros.drr.cpu.tile import crossing, ray_to_pixel, to_grid

COEFFICIENT_ROWS = 8
SLAB = 4
"""Layers of cells in a slab; at least two, so that slabs of one turn have no voxel in common."""


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def deposit(gradient, x, y, z, weight, lever, coefficients, terms):
    """Add the adjoint of one sample, value and gradient, to the eight voxels around it.

    ``terms`` is room for four rows of channels: what the value and the three components of the gradient are worth.
    """
    i, j, k = int(x), int(y), int(z)
    fx, fy, fz = np.float32(x - i), np.float32(y - j), np.float32(z - k)
    one = np.float32(1.0)
    channels = gradient.shape[3]
    for c in range(channels):
        terms[0, c] = weight * coefficients[0, c]
        terms[1, c] = weight * (coefficients[1, c] + lever * coefficients[4, c])
        terms[2, c] = weight * (coefficients[2, c] + lever * coefficients[5, c])
        terms[3, c] = weight * (coefficients[3, c] + lever * coefficients[6, c])
    for dz in range(2):
        wz, sz = (fz, one) if dz else (one - fz, -one)
        for dy in range(2):
            wy, sy = (fy, one) if dy else (one - fy, -one)
            for dx in range(2):
                wx, sx = (fx, one) if dx else (one - fx, -one)
                a0, a1, a2, a3 = wx * wy * wz, sx * wy * wz, wx * sy * wz, wx * wy * sz
                for c in range(channels):
                    gradient[k + dz, j + dy, i + dx, c] += (
                        a0 * terms[0, c] + a1 * terms[1, c] + a2 * terms[2, c] + a3 * terms[3, c]
                    )


@numba.njit(cache=True, nogil=True, error_model="numpy")
def deposit_within(gradient, low, high, o, ex, ey, ez, s, weight, lever, coefficients, terms):
    """`deposit` at a distance along a ray, if the sample lies in the grid and in the slab."""
    nz, ny, nx, _ = gradient.shape
    x, y, z = o[0] + s * ex, o[1] + s * ey, o[2] + s * ez
    if 1.0 < x < nx - 2.0 and 1.0 < y < ny - 2.0 and 1.0 < z < nz - 2.0 and low <= z < high:
        deposit(gradient, x, y, z, np.float32(weight), np.float32(lever), coefficients, terms)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def adjoint(counter, turn, matrix, origin, view, step, reference, coefficients, gradient):
    """Add the adjoint of images and Jacobians to ``gradient``; one thread's share of one turn.

    Args:
        counter: ``(1,)`` int64, shared by the threads.
        turn: 0 for the even slabs, 1 for the odd ones.
        matrix, origin, view, step, reference: as for the kernels.
        coefficients: ``(b, h, w, 8, c)`` float32, by rows: of the integral of μ (0), of ∫∇μ (1-3) and ∫lever·∇μ (4-6) per
            voxel index, of μ(end) − μ(start) (7).
        gradient: ``(z, y, x, c)`` float32 of the padded grid.
    """
    poses, height, width = coefficients.shape[:3]
    nz, ny, nx, channels = gradient.shape
    ends = np.zeros((COEFFICIENT_ROWS, channels), np.float32)
    terms = np.zeros((4, channels), np.float32)
    slabs = (nz + SLAB - 1) // SLAB
    slab = 2 * take_next(counter) + turn
    while slab < slabs:
        low, high = float(slab * SLAB), float(slab * SLAB + SLAB)
        for b in range(poses):
            o = origin[b]
            for row in range(height):
                for column in range(width):
                    dx, dy, dz, length = ray_to_pixel(view, column, row)
                    ex, ey, ez = to_grid(matrix[b], dx, dy, dz)
                    first, last = crossing((channels, nz, ny, nx), o, ex, ey, ez, length)
                    first, last = clip_axis(o[2], ez, low - 0.01, high + 0.01, first, last)
                    if first > last:
                        continue
                    own = coefficients[b, row, column]
                    whole = np.floor(length / step) * step
                    begin, end = cell_range(first, min(last, whole), step)
                    for cell in range(begin, end):
                        s = (cell + 0.5) * step
                        deposit_within(gradient, low, high, o, ex, ey, ez, s, step, s - reference[b], own, terms)
                    rest = length - whole
                    s = length - 0.5 * rest
                    deposit_within(gradient, low, high, o, ex, ey, ez, s, rest, s - reference[b], own, terms)
                    ends[0] = own[7]
                    deposit_within(gradient, low, high, o, ex, ey, ez, length, 1.0, 0.0, ends, terms)
                    deposit_within(gradient, low, high, o, ex, ey, ez, 0.0, -1.0, 0.0, ends, terms)
        slab = 2 * take_next(counter) + turn
