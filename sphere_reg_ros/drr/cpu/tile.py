"""Setting up a tile of rays, and what the lock-step loop leaves over."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numba
import numpy as np

from sphere_reg_ros.drr.cpu.clip import cell_range, clip_axis
from sphere_reg_ros.drr.cpu.lanes import LANES
from sphere_reg_ros.drr.cpu.march import FIRST_SUM, FRACTION_BITS

FIXED = 2.0**FRACTION_BITS


@numba.njit(cache=True, error_model="numpy")
def ray_to_pixel(view, column, row):
    """Unit direction and length of a pixel's ray; view is (sdd, du, dv, cx, cy)."""
    x = (column - view[3]) * view[1]
    y = (row - view[4]) * view[2]
    length = np.sqrt(x * x + y * y + view[0] * view[0])
    return x / length, y / length, view[0] / length, length


@numba.njit(cache=True, error_model="numpy")
def to_grid(matrix, dx, dy, dz):
    """A camera direction in voxels per millimetre."""
    return (
        matrix[0, 0] * dx + matrix[0, 1] * dy + matrix[0, 2] * dz,
        matrix[1, 0] * dx + matrix[1, 1] * dy + matrix[1, 2] * dz,
        matrix[2, 0] * dx + matrix[2, 1] * dy + matrix[2, 2] * dz,
    )


@numba.njit(cache=True, error_model="numpy")
def crossing(shape, origin, ex, ey, ez, length):
    """Distances between which a ray lies within the padded grid; first > last where it misses."""
    first, last = 0.0, length
    first, last = clip_axis(origin[0], ex, 1.0, shape[3] - 2.0, first, last)
    first, last = clip_axis(origin[1], ey, 1.0, shape[2] - 2.0, first, last)
    return clip_axis(origin[2], ez, 1.0, shape[1] - 2.0, first, last)


@numba.njit(cache=True, error_model="numpy")
def set_up(shape, matrix, origin, view, column, row, step, reference, sums, places, rays):
    """Aim a tile at `LANES` pixels from ``(column, row)`` on.

    Fills the inputs of `march`, and the rows of ``rays``: direction (0-2), length (3), first and last
    distance within the grid (4, 5).

    Returns:
        Counts ``begin, end`` of the lock-step loop, and the number of whole cells that every lane has.
    """
    begin, end, whole = np.int64(1 << 40), np.int64(0), np.int64(1 << 40)
    for lane in range(LANES):
        dx, dy, dz, length = ray_to_pixel(view, column + lane, row)
        ex, ey, ez = to_grid(matrix, dx, dy, dz)
        first, last = crossing(shape, origin, ex, ey, ez, length)
        own_begin, own_end = cell_range(first, last, step)
        whole = min(whole, np.int64(np.floor(length / step)))
        if own_end > own_begin:
            begin, end = min(begin, own_begin), max(end, own_end)
        rays[0, lane], rays[1, lane], rays[2, lane], rays[3, lane] = dx, dy, dz, length
        rays[4, lane], rays[5, lane] = first, last
    end = min(end, whole)
    if end <= begin:
        return np.int64(0), np.int64(0), whole
    s = (begin + 0.5) * step
    for lane in range(LANES):
        ex, ey, ez = to_grid(matrix, rays[0, lane], rays[1, lane], rays[2, lane])
        places[0, lane] = np.int64((origin[0] + s * ex) * FIXED)
        places[1, lane] = np.int64((origin[1] + s * ey) * FIXED)
        places[2, lane] = np.int64((origin[2] + s * ez) * FIXED)
        places[3, lane] = np.int64(ex * step * FIXED)
        places[4, lane] = np.int64(ey * step * FIXED)
        places[5, lane] = np.int64(ez * step * FIXED)
        sums[0, lane] = 0.5 * step - reference
        sums[1, lane] = step
    return begin, end, whole


@numba.njit(cache=True, error_model="numpy")
def sample(field, channel, origin, matrix, rays, lane, s):
    """Value and gradient (per voxel index) at a distance along a lane's ray; zero outside the grid."""
    ex, ey, ez = to_grid(matrix, rays[0, lane], rays[1, lane], rays[2, lane])
    x, y, z = origin[0] + s * ex, origin[1] + s * ey, origin[2] + s * ez
    _, nz, ny, nx = field.shape
    if not (1.0 < x < nx - 2.0 and 1.0 < y < ny - 2.0 and 1.0 < z < nz - 2.0):
        return 0.0, 0.0, 0.0, 0.0
    i, j, k = int(x), int(y), int(z)
    fx, fy, fz = x - i, y - j, z - k
    v = field[channel]
    x00, x01 = v[k, j, i + 1] - v[k, j, i], v[k, j + 1, i + 1] - v[k, j + 1, i]
    x10 = v[k + 1, j, i + 1] - v[k + 1, j, i]
    x11 = v[k + 1, j + 1, i + 1] - v[k + 1, j + 1, i]
    y00, y01 = v[k, j, i] + fx * x00, v[k, j + 1, i] + fx * x01
    y10, y11 = v[k + 1, j, i] + fx * x10, v[k + 1, j + 1, i] + fx * x11
    d0, d1 = y01 - y00, y11 - y10
    z0, z1 = y00 + fy * d0, y10 + fy * d1
    e0, e1 = x00 + fy * (x01 - x00), x10 + fy * (x11 - x10)
    return z0 + fz * (z1 - z0), e0 + fz * (e1 - e0), d0 + fz * (d1 - d0), z1 - z0


@numba.njit(cache=True, error_model="numpy")
def add_last_cells(field, channel, matrix, origin, rays, lane, step, reference, whole, sums, rows):
    """Add the cells near the detector that the lock-step loop left out: a ray that ends in the grid.

    These are the whole cells beyond those that every lane has, and the shorter cell at the detector.
    """
    length = rays[3, lane]
    own_whole = np.int64(np.floor(length / step))
    begin, end = cell_range(rays[4, lane], rays[5, lane], step)
    for cell in range(max(begin, whole), min(end, own_whole)):
        add_one(
            field,
            channel,
            matrix,
            origin,
            rays,
            lane,
            (cell + 0.5) * step,
            1.0,
            reference,
            sums,
            rows,
        )
    rest = length - own_whole * step
    add_one(
        field,
        channel,
        matrix,
        origin,
        rays,
        lane,
        length - 0.5 * rest,
        rest / step,
        reference,
        sums,
        rows,
    )


@numba.njit(cache=True, error_model="numpy")
def add_one(field, channel, matrix, origin, rays, lane, s, weight, reference, sums, rows):
    """Add one weighted sample to the sums of a lane."""
    value, gx, gy, gz = sample(field, channel, origin, matrix, rays, lane, s)
    sums[FIRST_SUM, lane] += weight * value
    if rows > 1:
        lever = weight * (s - reference)
        sums[FIRST_SUM + 1, lane] += weight * gx
        sums[FIRST_SUM + 2, lane] += weight * gy
        sums[FIRST_SUM + 3, lane] += weight * gz
        sums[FIRST_SUM + 4, lane] += lever * gx
        sums[FIRST_SUM + 5, lane] += lever * gy
        sums[FIRST_SUM + 6, lane] += lever * gz


@numba.njit(cache=True, error_model="numpy", fastmath=True)
def write_columns(sums, rays, matrix, centre, reference, step, ends, columns):
    """The six columns of a tile from its sums; formulas in `sphere_reg_ros.drr.twist_jacobian`."""
    m = (matrix * step).astype(np.float32)
    c0, c1, c2 = np.float32(centre[0]), np.float32(centre[1]), np.float32(centre[2])
    ref = np.float32(reference)
    for lane in range(LANES):
        d0, d1, d2 = np.float32(rays[0, lane]), np.float32(rays[1, lane]), np.float32(rays[2, lane])
        gx, gy, gz = sums[FIRST_SUM + 1, lane], sums[FIRST_SUM + 2, lane], sums[FIRST_SUM + 3, lane]
        a0 = m[0, 0] * gx + m[1, 0] * gy + m[2, 0] * gz
        a1 = m[0, 1] * gx + m[1, 1] * gy + m[2, 1] * gz
        a2 = m[0, 2] * gx + m[1, 2] * gy + m[2, 2] * gz
        fix = ends[lane] - (a0 * d0 + a1 * d1 + a2 * d2)
        a0, a1, a2 = a0 + fix * d0, a1 + fix * d1, a2 + fix * d2
        gx, gy, gz = sums[FIRST_SUM + 4, lane], sums[FIRST_SUM + 5, lane], sums[FIRST_SUM + 6, lane]
        b0 = m[0, 0] * gx + m[1, 0] * gy + m[2, 0] * gz
        b1 = m[0, 1] * gx + m[1, 1] * gy + m[2, 1] * gz
        b2 = m[0, 2] * gx + m[1, 2] * gy + m[2, 2] * gz
        l0, l1, l2 = c0 - ref * d0, c1 - ref * d1, c2 - ref * d2
        columns[0, lane], columns[1, lane], columns[2, lane] = -a0, -a1, -a2
        columns[3, lane] = (l1 * a2 - l2 * a1) - (d1 * b2 - d2 * b1)
        columns[4, lane] = (l2 * a0 - l0 * a2) - (d2 * b0 - d0 * b2)
        columns[5, lane] = (l0 * a1 - l1 * a0) - (d0 * b1 - d1 * b0)
