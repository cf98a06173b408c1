"""What every CUDA kernel does with its rays: aim them, clip them, sample the field along them.

Positions are 64-bit fixed point with 32 bits behind the point, as on the CPU: exact to 1e-6 of a voxel over a thousand
steps, and cheaper than float positions, whose rounding to a voxel is a conversion where a shift does here.
"""
# mypy: disable-error-code="no-untyped-def,no-any-return"

from __future__ import annotations

from sphere_reg_ros.drr.cuda.language import jit, tl


@jit
def grid_row(grid, axis, r00, r01, r02, r10, r11, r12, r20, r21, r22, tx, ty, tz):
    """One axis of T_grid_camera: the slopes by camera x, y, z, and the place of the source; float64 scalars."""
    g = grid + 4 * axis
    a, b, c, d = tl.load(g), tl.load(g + 1), tl.load(g + 2), tl.load(g + 3)
    mx, my, mz = a * r00 + b * r01 + c * r02, a * r10 + b * r11 + c * r12, a * r20 + b * r21 + c * r22
    return mx, my, mz, d - (mx * tx + my * ty + mz * tz)


@jit
def place_camera(poses, grid, centre, b):
    """T_grid_camera row by row, the centre in the camera and its distance, and zero, or NaN if the pose is no rigid motion."""
    p = poses + b * 16
    r00, r01, r02, tx = tl.load(p), tl.load(p + 1), tl.load(p + 2), tl.load(p + 3)
    r10, r11, r12, ty = tl.load(p + 4), tl.load(p + 5), tl.load(p + 6), tl.load(p + 7)
    r20, r21, r22, tz = tl.load(p + 8), tl.load(p + 9), tl.load(p + 10), tl.load(p + 11)
    strain = tl.abs(r00 * r00 + r01 * r01 + r02 * r02 - 1.0) + tl.abs(r00 * r10 + r01 * r11 + r02 * r12)
    strain += tl.abs(r10 * r10 + r11 * r11 + r12 * r12 - 1.0) + tl.abs(r10 * r20 + r11 * r21 + r12 * r22)
    strain += tl.abs(r20 * r20 + r21 * r21 + r22 * r22 - 1.0) + tl.abs(r20 * r00 + r21 * r01 + r22 * r02)
    turn = r00 * (r11 * r22 - r12 * r21) - r01 * (r10 * r22 - r12 * r20) + r02 * (r10 * r21 - r11 * r20)
    # Comparisons with NaN are false. The limit is that of renderer.check_request, here for the sum of six entries.
    rigid = (strain < 6e-3) & (turn > 0.0) & (tl.abs(tx) + tl.abs(ty) + tl.abs(tz) < 1e9)
    xx, xy, xz, ox = grid_row(grid, 0, r00, r01, r02, r10, r11, r12, r20, r21, r22, tx, ty, tz)
    yx, yy, yz, oy = grid_row(grid, 1, r00, r01, r02, r10, r11, r12, r20, r21, r22, tx, ty, tz)
    zx, zy, zz, oz = grid_row(grid, 2, r00, r01, r02, r10, r11, r12, r20, r21, r22, tx, ty, tz)
    x, y, z = tl.load(centre), tl.load(centre + 1), tl.load(centre + 2)
    c0, c1, c2 = r00 * x + r01 * y + r02 * z + tx, r10 * x + r11 * y + r12 * z + ty, r20 * x + r21 * y + r22 * z + tz
    reference = tl.sqrt(c0 * c0 + c1 * c1 + c2 * c2)
    flaw = tl.where(rigid, 0.0, float("nan")).to(tl.float32)
    return xx, xy, xz, ox, yx, yy, yz, oy, zx, zy, zz, oz, c0, c1, c2, reference, flaw


@jit
def place_tile(tiles_x, tiles, channels, height, width, TILE_W: tl.constexpr, TILE_H: tl.constexpr):
    """Pose, channel, tile, lines, columns of this program, which of its pixels the image has, and their place in a batch."""
    tile = tl.program_id(0) % tiles
    channel = (tl.program_id(0) // tiles) % channels
    b = tl.program_id(0) // (tiles * channels)
    pixel = tl.arange(0, TILE_W * TILE_H)
    column = (tile % tiles_x) * TILE_W + pixel % TILE_W
    line = (tile // tiles_x) * TILE_H + pixel // TILE_W
    place = (b * channels + channel).to(tl.int64) * height * width + line * width + column
    return b, channel, tile, line, column, (column < width) & (line < height), place


@jit
def aim(view, row, column):
    """Unit directions and lengths of the rays to some pixels, float64."""
    sdd = tl.load(view)
    x = (column.to(tl.float64) - tl.load(view + 3)) * tl.load(view + 1)
    y = (row.to(tl.float64) - tl.load(view + 4)) * tl.load(view + 2)
    length = tl.sqrt(x * x + y * y + sdd * sdd)
    # Divisions of float64 are long subroutines, here and below: one a ray where there could be many.
    inverse = 1.0 / length
    return x * inverse, y * inverse, sdd * inverse, length


@jit
def clip(box, axis, origin, slope, first, last):
    """Cut intervals of distances to where one coordinate lies in the box; an empty one comes back with first > last."""
    low, high = tl.load(box + 2 * axis), tl.load(box + 2 * axis + 1)
    flat = slope == 0.0
    inverse = 1.0 / tl.where(flat, 1.0, slope)
    near, far = (low - origin) * inverse, (high - origin) * inverse
    outside = flat & ((near >= 0.0) | (far <= 0.0))
    first = tl.maximum(first, tl.where(flat, first, tl.minimum(near, far)))
    last = tl.minimum(last, tl.where(flat, last, tl.maximum(near, far)))
    return tl.where(outside, 1.0, first), tl.where(outside, 0.0, last)


@jit
def whole_cells(first, last, length, step):
    """Indices ``[begin, end)`` of the whole cells whose midpoints lie in ``[first, last]``, and the ray's number of cells."""
    inverse = 1.0 / step
    whole = tl.floor(length * inverse)
    begin = tl.ceil(first * inverse - 0.5)
    end = tl.minimum(tl.floor(last * inverse - 0.5) + 1.0, whole)
    empty = (first > last) | (end <= begin)
    return tl.where(empty, 0.0, begin).to(tl.int32), tl.where(empty, 0.0, end).to(tl.int32), whole


@jit
def fixed_point(x):
    """A coordinate as 64-bit fixed point."""
    return (x * 4294967296.0).to(tl.int64)


@jit
def whole(x):
    """The voxel that a fixed-point coordinate lies in."""
    return (x >> 32).to(tl.int32)


@jit
def fraction(x):
    """How far into its voxel a fixed-point coordinate lies: the upper 23 bits become the mantissa of a number from 1 to 2."""
    return ((((x.to(tl.int32)) >> 9) & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True) - 1.0


@jit
def sample(field, x, y, z, row, slab, inside):
    """Value and gradient per voxel index at fixed-point places, float32; zero where not inside."""
    fx, fy, fz = fraction(x), fraction(y), fraction(z)
    p = field + (whole(z) * slab + whole(y) * row + whole(x))
    v00 = tl.load(p, mask=inside, other=0.0).to(tl.float32)
    x00 = tl.load(p + 1, mask=inside, other=0.0).to(tl.float32) - v00
    v10 = tl.load(p + row, mask=inside, other=0.0).to(tl.float32)
    x10 = tl.load(p + row + 1, mask=inside, other=0.0).to(tl.float32) - v10
    v01 = tl.load(p + slab, mask=inside, other=0.0).to(tl.float32)
    x01 = tl.load(p + slab + 1, mask=inside, other=0.0).to(tl.float32) - v01
    v11 = tl.load(p + slab + row, mask=inside, other=0.0).to(tl.float32)
    x11 = tl.load(p + slab + row + 1, mask=inside, other=0.0).to(tl.float32) - v11
    y00, y10, y01, y11 = v00 + fx * x00, v10 + fx * x10, v01 + fx * x01, v11 + fx * x11
    d0, d1 = y10 - y00, y11 - y01
    z0, z1 = y00 + fy * d0, y01 + fy * d1
    e0, e1 = x00 + fy * (x10 - x00), x01 + fy * (x11 - x01)
    return z0 + fz * (z1 - z0), e0 + fz * (e1 - e0), d0 + fz * (d1 - d0), z1 - z0


@jit
def within(box, x, y, z):
    """Whether coordinates lie in the box."""
    inside = (x > tl.load(box)) & (x < tl.load(box + 1))
    inside = inside & (y > tl.load(box + 2)) & (y < tl.load(box + 3))
    return inside & (z > tl.load(box + 4)) & (z < tl.load(box + 5))


@jit
def sample_at(field, box, ox, oy, oz, ex, ey, ez, distance, row, slab, wanted):
    """`sample` at one distance along each ray."""
    x, y, z = ox + distance * ex, oy + distance * ey, oz + distance * ez
    inside = wanted & within(box, x, y, z)
    return sample(field, fixed_point(x), fixed_point(y), fixed_point(z), row, slab, inside)


@jit
def tile_range(wanted, begin, end):
    """Cells from the first of any ray to the last of any ray."""
    past = tl.max(tl.where(wanted, end, 0), axis=0)
    return tl.minimum(tl.min(tl.where(wanted, begin, 2147483647), axis=0), past), past


@jit
def cross(ax, ay, az, bx, by, bz):
    """``a × b``."""
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


@jit
def to_camera(g0, g1, g2, xx, xy, xz, yx, yy, yz, zx, zy, zz, scale):
    """Gradients per voxel index as gradients per camera mm, times a scale; float32."""
    a0 = (xx * scale).to(tl.float32) * g0 + (yx * scale).to(tl.float32) * g1 + (zx * scale).to(tl.float32) * g2
    a1 = (xy * scale).to(tl.float32) * g0 + (yy * scale).to(tl.float32) * g1 + (zy * scale).to(tl.float32) * g2
    a2 = (xz * scale).to(tl.float32) * g0 + (yz * scale).to(tl.float32) * g1 + (zz * scale).to(tl.float32) * g2
    return a0, a1, a2


@jit
def to_grid(a0, a1, a2, xx, xy, xz, yx, yy, yz, zx, zy, zz):
    """A camera vector in grid axes, the adjoint of `to_camera`; float32."""
    g0 = xx.to(tl.float32) * a0 + xy.to(tl.float32) * a1 + xz.to(tl.float32) * a2
    g1 = yx.to(tl.float32) * a0 + yy.to(tl.float32) * a1 + yz.to(tl.float32) * a2
    g2 = zx.to(tl.float32) * a0 + zy.to(tl.float32) * a1 + zz.to(tl.float32) * a2
    return g0, g1, g2
