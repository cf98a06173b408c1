"""Kernel for float32 volumes of several channels: the channels are the lanes."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numba
import numpy as np

from sphere_reg_ros.drr.cpu.clip import cell_range, clip_axis


@numba.njit(inline="always", error_model="numpy")
def corner_and_weights(shape, x, y, z):
    """Lowest corner of the cell around a point of the padded grid, and the fractions within it."""
    i = min(max(int(x), 0), shape[2] - 2)
    j = min(max(int(y), 0), shape[1] - 2)
    k = min(max(int(z), 0), shape[0] - 2)
    return i, j, k, np.float32(x - i), np.float32(y - j), np.float32(z - k)


@numba.njit(inline="always", error_model="numpy", fastmath=True)
def add_sample(field, x, y, z, weight, lever, sums):
    """Add ``weight`` times value, gradient and ``lever`` times gradient at a point to ``sums`` (7, c)."""
    i, j, k, fx, fy, fz = corner_and_weights(field.shape, x, y, z)
    for c in range(field.shape[3]):
        v000, v001 = field[k, j, i, c], field[k, j, i + 1, c]
        v010, v011 = field[k, j + 1, i, c], field[k, j + 1, i + 1, c]
        v100, v101 = field[k + 1, j, i, c], field[k + 1, j, i + 1, c]
        v110, v111 = field[k + 1, j + 1, i, c], field[k + 1, j + 1, i + 1, c]
        x00, x01, x10, x11 = v001 - v000, v011 - v010, v101 - v100, v111 - v110
        y00, y01, y10, y11 = v000 + fx * x00, v010 + fx * x01, v100 + fx * x10, v110 + fx * x11
        d0, d1 = y01 - y00, y11 - y10
        z0, z1 = y00 + fy * d0, y10 + fy * d1
        e0, e1 = x00 + fy * (x01 - x00), x10 + fy * (x11 - x10)
        gx = e0 + fz * (e1 - e0)
        gy = d0 + fz * (d1 - d0)
        gz = z1 - z0
        sums[0, c] += weight * (z0 + fz * gz)
        sums[1, c] += weight * gx
        sums[2, c] += weight * gy
        sums[3, c] += weight * gz
        sums[4, c] += weight * lever * gx
        sums[5, c] += weight * lever * gy
        sums[6, c] += weight * lever * gz


@numba.njit(inline="always", error_model="numpy", fastmath=True)
def add_value(field, x, y, z, weight, sums):
    """Add ``weight`` times the value at a point to ``sums`` (c,)."""
    i, j, k, fx, fy, fz = corner_and_weights(field.shape, x, y, z)
    for c in range(field.shape[3]):
        v000, v001 = field[k, j, i, c], field[k, j, i + 1, c]
        v010, v011 = field[k, j + 1, i, c], field[k, j + 1, i + 1, c]
        v100, v101 = field[k + 1, j, i, c], field[k + 1, j, i + 1, c]
        v110, v111 = field[k + 1, j + 1, i, c], field[k + 1, j + 1, i + 1, c]
        y00, y01 = v000 + fx * (v001 - v000), v010 + fx * (v011 - v010)
        y10, y11 = v100 + fx * (v101 - v100), v110 + fx * (v111 - v110)
        z0, z1 = y00 + fy * (y01 - y00), y10 + fy * (y11 - y10)
        sums[c] += weight * (z0 + fz * (z1 - z0))


@numba.njit(inline="always", error_model="numpy")
def inside(field, x, y, z):
    """Whether a point of the padded grid lies where the field can differ from zero."""
    nz, ny, nx = field.shape[:3]
    return 1.0 < x < nx - 2.0 and 1.0 < y < ny - 2.0 and 1.0 < z < nz - 2.0


@numba.njit(inline="always", error_model="numpy")
def to_grid(matrix, direction):
    """A camera direction in voxels per millimetre."""
    return (
        matrix[0, 0] * direction[0] + matrix[0, 1] * direction[1] + matrix[0, 2] * direction[2],
        matrix[1, 0] * direction[0] + matrix[1, 1] * direction[1] + matrix[1, 2] * direction[2],
        matrix[2, 0] * direction[0] + matrix[2, 1] * direction[1] + matrix[2, 2] * direction[2],
    )


@numba.njit(inline="always", error_model="numpy")
def crossed_cells(shape, o, ex, ey, ez, length, step):
    """Range of whole steps of a ray that lie within the padded grid."""
    first, last = 0.0, np.floor(length / step) * step
    first, last = clip_axis(o[0], ex, 1.0, shape[2] - 2.0, first, last)
    first, last = clip_axis(o[1], ey, 1.0, shape[1] - 2.0, first, last)
    first, last = clip_axis(o[2], ez, 1.0, shape[0] - 2.0, first, last)
    return cell_range(first, last, step)


@numba.njit(inline="always", error_model="numpy")
def last_cell(length, step):
    """Midpoint and length of the shorter cell that ends at the detector."""
    whole = np.floor(length / step) * step
    return 0.5 * (whole + length), length - whole


@numba.njit(parallel=True, cache=True, error_model="numpy")
def render(field, matrix, origin, direction, length, step, image):
    """Images of every pose.

    Args:
        field: ``(z, y, x, c)`` float32, padded by two voxels of air.
        matrix, origin: ``(b, 3, 3)``, ``(b, 3)`` float64: camera mm to indices of the padded grid.
        direction, length: ``(h·w, 3)``, ``(h·w,)`` float64: unit rays and their lengths in mm.
        step: mm.
        image: ``(b, c, h·w)`` float32, written.
    """
    n = length.shape[0]
    chunk = 64
    chunks = (n + chunk - 1) // chunk
    for job in numba.prange(matrix.shape[0] * chunks):
        b = job // chunks
        sums = np.empty(field.shape[3], np.float32)
        o = origin[b]
        for p in range((job % chunks) * chunk, min(n, (job % chunks + 1) * chunk)):
            ex, ey, ez = to_grid(matrix[b], direction[p])
            begin, end = crossed_cells(field.shape, o, ex, ey, ez, length[p], step)
            sums[:] = 0.0
            for k in range(begin, end):
                s = (k + 0.5) * step
                add_value(
                    field, o[0] + s * ex, o[1] + s * ey, o[2] + s * ez, np.float32(step), sums
                )
            s, w = last_cell(length[p], step)
            x, y, z = o[0] + s * ex, o[1] + s * ey, o[2] + s * ez
            if inside(field, x, y, z):
                add_value(field, x, y, z, np.float32(w), sums)
            image[b, :, p] = sums


@numba.njit(parallel=True, cache=True, error_model="numpy")
def render_with_jacobian(
    field, matrix, origin, direction, length, centre, reference, step, image, jacobian
):
    """Images and six-column Jacobians of every pose; see `twist_jacobian` for the formula.

    Args:
        field, matrix, origin, direction, length, step, image: as in `render`.
        centre: ``(b, 3)`` float64, the point of the twist in camera mm.
        reference: ``(b,)`` float64, the distance that levers are counted from.
        jacobian: ``(b, c, 6, h·w)`` float32, written.
    """
    n = length.shape[0]
    chunk = 64
    chunks = (n + chunk - 1) // chunk
    for job in numba.prange(matrix.shape[0] * chunks):
        b = job // chunks
        sums = np.empty((7, field.shape[3]), np.float32)
        ends = np.empty(field.shape[3], np.float32)
        o = origin[b]
        for p in range((job % chunks) * chunk, min(n, (job % chunks + 1) * chunk)):
            ex, ey, ez = to_grid(matrix[b], direction[p])
            begin, end = crossed_cells(field.shape, o, ex, ey, ez, length[p], step)
            sums[:] = 0.0
            ends[:] = 0.0
            h = np.float32(step)
            for k in range(begin, end):
                s = (k + 0.5) * step
                lever = np.float32(s - reference[b])
                add_sample(field, o[0] + s * ex, o[1] + s * ey, o[2] + s * ez, h, lever, sums)
            s, w = last_cell(length[p], step)
            x, y, z = o[0] + s * ex, o[1] + s * ey, o[2] + s * ez
            if inside(field, x, y, z):
                add_sample(field, x, y, z, np.float32(w), np.float32(s - reference[b]), sums)
            s = length[p]
            x, y, z = o[0] + s * ex, o[1] + s * ey, o[2] + s * ez
            if inside(field, x, y, z):
                add_value(field, x, y, z, np.float32(1.0), ends)
            if inside(field, o[0], o[1], o[2]):
                add_value(field, o[0], o[1], o[2], np.float32(-1.0), ends)
            image[b, :, p] = sums[0]
            write_columns(
                sums, ends, matrix[b], direction[p], centre[b], reference[b], jacobian[b, :, :, p]
            )


@numba.njit(inline="always", error_model="numpy")
def write_columns(sums, ends, matrix, d, centre, reference, columns):
    """The six columns of one ray from its sums of gradients per voxel index."""
    m0, m1, m2 = matrix[0], matrix[1], matrix[2]
    l0, l1, l2 = (
        centre[0] - reference * d[0],
        centre[1] - reference * d[1],
        centre[2] - reference * d[2],
    )
    for c in range(ends.shape[0]):
        gx, gy, gz = sums[1, c], sums[2, c], sums[3, c]
        a0 = m0[0] * gx + m1[0] * gy + m2[0] * gz
        a1 = m0[1] * gx + m1[1] * gy + m2[1] * gz
        a2 = m0[2] * gx + m1[2] * gy + m2[2] * gz
        fix = ends[c] - (a0 * d[0] + a1 * d[1] + a2 * d[2])
        a0, a1, a2 = a0 + fix * d[0], a1 + fix * d[1], a2 + fix * d[2]
        gx, gy, gz = sums[4, c], sums[5, c], sums[6, c]
        b0 = m0[0] * gx + m1[0] * gy + m2[0] * gz
        b1 = m0[1] * gx + m1[1] * gy + m2[1] * gz
        b2 = m0[2] * gx + m1[2] * gy + m2[2] * gz
        columns[c, 0], columns[c, 1], columns[c, 2] = -a0, -a1, -a2
        columns[c, 3] = (l1 * a2 - l2 * a1) - (d[1] * b2 - d[2] * b1)
        columns[c, 4] = (l2 * a0 - l0 * a2) - (d[2] * b0 - d[0] * b2)
        columns[c, 5] = (l0 * a1 - l1 * a0) - (d[0] * b1 - d[1] * b0)
