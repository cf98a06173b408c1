"""The adjoint kernel: from gradients of images and Jacobians to the gradient of the field.

Each sample adds to the eight voxels around it. With float32 the order of these atomic additions, and so the last digits,
differ from run to run; with 64-bit integers, whose sums do not depend on their order, the result is always the same.
"""
# mypy: disable-error-code="no-untyped-def,no-any-return"

from __future__ import annotations

from sphere_reg_ros.drr.cuda.language import jit, tl
from sphere_reg_ros.drr.cuda.ray_kernels import (
    aim,
    clip,
    cross,
    fixed_point,
    fraction,
    place_camera,
    place_tile,
    tile_range,
    to_grid,
    whole,
    whole_cells,
    within,
)


@jit
def add(target, offset, value, scale, wanted, EXACT: tl.constexpr):
    """Add values atomically: float32, or multiples of 1/scale in 64-bit integers."""
    if EXACT:
        tl.atomic_add(target + offset, tl.floor(value.to(tl.float64) * scale + 0.5).to(tl.int64), mask=wanted, sem="relaxed")
    else:
        tl.atomic_add(target + offset, value, mask=wanted, sem="relaxed")


@jit
def deposit(target, x, y, z, row, slab, t0, t1, t2, t3, scale, wanted, EXACT: tl.constexpr):
    """The adjoint of `sample`: ``t0`` is what the value is worth, ``t1`` to ``t3`` the components of the gradient."""
    fx, fy, fz = fraction(x), fraction(y), fraction(z)
    gx, gy, gz = 1.0 - fx, 1.0 - fy, 1.0 - fz
    p = target + (whole(z) * slab + whole(y) * row + whole(x))
    add(p, 0, gx * (gy * (gz * t0 - t3) - gz * t2) - gy * gz * t1, scale, wanted, EXACT)
    add(p, 1, fx * (gy * (gz * t0 - t3) - gz * t2) + gy * gz * t1, scale, wanted, EXACT)
    add(p, row, gx * (fy * (gz * t0 - t3) + gz * t2) - fy * gz * t1, scale, wanted, EXACT)
    add(p, row + 1, fx * (fy * (gz * t0 - t3) + gz * t2) + fy * gz * t1, scale, wanted, EXACT)
    add(p, slab, gx * (gy * (fz * t0 + t3) - fz * t2) - gy * fz * t1, scale, wanted, EXACT)
    add(p, slab + 1, fx * (gy * (fz * t0 + t3) - fz * t2) + gy * fz * t1, scale, wanted, EXACT)
    add(p, slab + row, gx * (fy * (fz * t0 + t3) + fz * t2) - fy * fz * t1, scale, wanted, EXACT)
    add(p, slab + row + 1, fx * (fy * (fz * t0 + t3) + fz * t2) + fy * fz * t1, scale, wanted, EXACT)


@jit
def deposit_at(
    target, box, ox, oy, oz, ex, ey, ez, distance, row, slab, t0, t1, t2, t3, scale, wanted, EXACT: tl.constexpr
):  # fmt: skip
    """`deposit` at one distance along each ray, where that lies in the box."""
    x, y, z = ox + distance * ex, oy + distance * ey, oz + distance * ez
    inside = wanted & within(box, x, y, z)
    deposit(target, fixed_point(x), fixed_point(y), fixed_point(z), row, slab, t0, t1, t2, t3, scale, inside, EXACT)


@jit
def adjoint_kernel(
    image_gradient, jacobian_gradient, poses, grid, box, views, centre, scale, gradient,
    view_stride, height, width, nx, ny, channel_size, channels, tiles_x, tiles,
    JACOBIAN: tl.constexpr, EXACT: tl.constexpr, TILE_W: tl.constexpr, TILE_H: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """The share of one tile of pixels, of one channel at one pose, in the field's gradient.

    Args:
        image_gradient: ``(b, c, h, w)`` float32.
        jacobian_gradient: ``(b, c, 6, h, w)`` float32, read where JACOBIAN.
        poses, grid, box, views, centre: as in `render_kernel`.
        scale: ``(1,)`` float64, read where EXACT: integers for a gradient of one.
        gradient: ``(c, z, y, x)`` float32, or int64 where EXACT; added to.
    """
    b, channel, _, line, column, shown, place = place_tile(tiles_x, tiles, channels, height, width, TILE_W, TILE_H)
    xx, xy, xz, ox, yx, yy, yz, oy, zx, zy, zz, oz, c0, c1, c2, reference, flaw = place_camera(poses, grid, centre, b)
    view = views + b * view_stride
    step = tl.load(view + 5)
    dx, dy, dz, length = aim(view, line, column)
    ex, ey, ez = xx * dx + xy * dy + xz * dz, yx * dx + yy * dy + yz * dz, zx * dx + zy * dy + zz * dz
    first, last = clip(box, 0, ox, ex, tl.zeros_like(length), length)
    first, last = clip(box, 1, oy, ey, first, last)
    first, last = clip(box, 2, oz, ez, first, last)
    own_begin, own_end, cells = whole_cells(first, last, length, step)
    met = shown & (first + flaw <= last)
    own_end = tl.where(met, own_end, own_begin)
    begin, end = tile_range(own_end > own_begin, own_begin, own_end)

    value = tl.load(image_gradient + place, mask=shown, other=0.0)
    none = tl.zeros_like(value)
    p0, p1, p2, q0, q1, q2, ends = none, none, none, none, none, none, none
    if JACOBIAN:
        plane = height * width
        columns = jacobian_gradient + place + (b * channels + channel).to(tl.int64) * (5 * plane)
        t0 = tl.load(columns, mask=shown, other=0.0)
        t1 = tl.load(columns + plane, mask=shown, other=0.0)
        t2 = tl.load(columns + 2 * plane, mask=shown, other=0.0)
        w0 = tl.load(columns + 3 * plane, mask=shown, other=0.0)
        w1 = tl.load(columns + 4 * plane, mask=shown, other=0.0)
        w2 = tl.load(columns + 5 * plane, mask=shown, other=0.0)
        f0, f1, f2 = dx.to(tl.float32), dy.to(tl.float32), dz.to(tl.float32)
        l0, l1, l2 = c0 - reference * dx, c1 - reference * dy, c2 - reference * dz
        e0, e1, e2 = cross(w0, w1, w2, l0.to(tl.float32), l1.to(tl.float32), l2.to(tl.float32))
        e0, e1, e2 = e0 - t0, e1 - t1, e2 - t2
        ends = e0 * f0 + e1 * f1 + e2 * f2
        p0, p1, p2 = to_grid(e0 - ends * f0, e1 - ends * f1, e2 - ends * f2, xx, xy, xz, yx, yy, yz, zx, zy, zz)
        q0, q1, q2 = cross(f0, f1, f2, w0, w1, w2)
        q0, q1, q2 = to_grid(q0, q1, q2, xx, xy, xz, yx, yy, yz, zx, zy, zz)

    units = 1.0
    if EXACT:
        units = tl.load(scale)
    target = gradient + channel.to(tl.int64) * channel_size
    slab = nx * ny
    weight = step.to(tl.float32)
    share = tl.arange(0, SEGMENTS)
    distance = ((begin + share).to(tl.float64) + 0.5)[None, :] * step
    x = fixed_point(ox + distance * ex[:, None])
    y = fixed_point(oy + distance * ey[:, None])
    z = fixed_point(oz + distance * ez[:, None])
    stride_x = fixed_point(ex * step * SEGMENTS)[:, None]
    stride_y = fixed_point(ey * step * SEGMENTS)[:, None]
    stride_z = fixed_point(ez * step * SEGMENTS)[:, None]
    lever = (distance - reference).to(tl.float32) * weight
    lever_stride = (step * SEGMENTS).to(tl.float32) * weight
    by_value = (weight * value)[:, None]
    for cell in range(begin, end, SEGMENTS):
        at = (cell + share)[None, :]
        inside = (at >= own_begin[:, None]) & (at < own_end[:, None])
        by_x = weight * p0[:, None] + lever * q0[:, None]
        by_y = weight * p1[:, None] + lever * q1[:, None]
        by_z = weight * p2[:, None] + lever * q2[:, None]
        deposit(target, x, y, z, nx, slab, by_value, by_x, by_y, by_z, units, inside, EXACT)
        x += stride_x
        y += stride_y
        z += stride_z
        lever += lever_stride

    whole_mm = cells * step
    to_detector = met & (last >= whole_mm)
    if tl.max(to_detector.to(tl.int32), axis=0) > 0:
        rest = length - whole_mm
        s = length - 0.5 * rest
        near, far = rest.to(tl.float32), (rest * (s - reference)).to(tl.float32)
        v, vx, vy, vz = near * value, near * p0 + far * q0, near * p1 + far * q1, near * p2 + far * q2
        deposit_at(target, box, ox, oy, oz, ex, ey, ez, s, nx, slab, v, vx, vy, vz, units, to_detector, EXACT)
        deposit_at(target, box, ox, oy, oz, ex, ey, ez, length, nx, slab, ends, none, none, none, units, to_detector, EXACT)
    if JACOBIAN:
        from_source = met & (first <= 0.0)
        if tl.max(from_source.to(tl.int32), axis=0) > 0:
            s = tl.zeros_like(length)
            deposit_at(target, box, ox, oy, oz, ex, ey, ez, s, nx, slab, -ends, none, none, none, units, from_source, EXACT)
