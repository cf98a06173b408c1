"""The forward kernel: images, images with their Jacobians, or the Jacobian's products with a gradient of the image.

A program marches a tile of pixels for one pose and one channel. ``SEGMENTS`` neighbouring threads share a ray, each takes
every SEGMENTS-th cell: a single small image has too few rays to fill the device, and their samples lie side by side.
"""
# mypy: disable-error-code="no-untyped-def,no-any-return"

from __future__ import annotations

from sphere_reg_ros.drr.cuda.language import jit, tl
from sphere_reg_ros.drr.cuda.ray_kernels import (
    aim,
    clip,
    cross,
    fixed_point,
    place_camera,
    place_tile,
    sample,
    sample_at,
    tile_range,
    to_camera,
    whole_cells,
)

IMAGE, JACOBIAN, PRODUCTS = 0, 1, 2
"""What `render_kernel` writes."""


@jit
def render_kernel(
    field, poses, grid, box, views, centre, cotangent, image, jacobian, products,
    view_stride, height, width, nx, ny, channel_size, channels, tiles_x, tiles,
    MODE: tl.constexpr, TILE_W: tl.constexpr, TILE_H: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """One tile of pixels of one channel at one pose.

    Args:
        field: ``(c, z, y, x)`` float32, float16 or bfloat16, padded with air.
        poses: ``(b, 4, 4)`` float64, T_camera_ct.
        grid: ``(3, 4)`` float64, CT mm to indices of the padded grid.
        box: ``(3, 2)`` float64 by x, y, z: the part of the grid outside of which the field is zero.
        views: ``(b or 1, 6)`` float64: sdd, du, dv, cx, cy, step; ``view_stride`` apart.
        centre: ``(3,)`` float64, the point of the twist, CT mm.
        cotangent: ``(b, c, h, w)`` float32, read in mode PRODUCTS.
        image: ``(b, c, h, w)`` float32, written but in mode PRODUCTS.
        jacobian: ``(b, c, 6, h, w)`` float32, written in mode JACOBIAN.
        products: ``(b, c, tiles, 6)`` float32, written in mode PRODUCTS: sums over the tile.
    """
    b, channel, tile, line, column, shown, place = place_tile(tiles_x, tiles, channels, height, width, TILE_W, TILE_H)
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

    share = tl.arange(0, SEGMENTS)
    distance = ((begin + share).to(tl.float64) + 0.5)[None, :] * step
    x = fixed_point(ox + distance * ex[:, None])
    y = fixed_point(oy + distance * ey[:, None])
    z = fixed_point(oz + distance * ez[:, None])
    stride_x, stride_y, stride_z = (
        fixed_point(ex * step * SEGMENTS)[:, None],
        fixed_point(ey * step * SEGMENTS)[:, None],
        fixed_point(ez * step * SEGMENTS)[:, None],
    )
    lever = (distance - reference).to(tl.float32)
    lever_stride = (step * SEGMENTS).to(tl.float32)
    values = field + channel.to(tl.int64) * channel_size
    slab = nx * ny
    total = tl.zeros([TILE_W * TILE_H, SEGMENTS], tl.float32)
    gx, gy, gz = total, total, total
    hx, hy, hz = total, total, total
    for cell in range(begin, end, SEGMENTS):
        at = (cell + share)[None, :]
        inside = (at >= own_begin[:, None]) & (at < own_end[:, None])
        v, vx, vy, vz = sample(values, x, y, z, nx, slab, inside)
        total += v
        if MODE > 0:
            gx += vx
            gy += vy
            gz += vz
            hx += lever * vx
            hy += lever * vy
            hz += lever * vz
        x += stride_x
        y += stride_y
        z += stride_z
        lever += lever_stride

    i0 = tl.sum(total, axis=1)
    g0, g1, g2 = tl.sum(gx, axis=1), tl.sum(gy, axis=1), tl.sum(gz, axis=1)
    h0, h1, h2 = tl.sum(hx, axis=1), tl.sum(hy, axis=1), tl.sum(hz, axis=1)
    ends = tl.zeros_like(i0)
    # A ray that ends in the box has one more, shorter cell at the detector; one that starts in it, a value at the source.
    whole_mm = cells * step
    to_detector = met & (last >= whole_mm)
    if tl.max(to_detector.to(tl.int32), axis=0) > 0:
        rest = length - whole_mm
        weight = (rest / step).to(tl.float32)
        v, vx, vy, vz = sample_at(values, box, ox, oy, oz, ex, ey, ez, length - 0.5 * rest, nx, slab, to_detector)
        i0 += weight * v
        if MODE > 0:
            far = (weight * (length - 0.5 * rest - reference)).to(tl.float32)
            g0 += weight * vx
            g1 += weight * vy
            g2 += weight * vz
            h0 += far * vx
            h1 += far * vy
            h2 += far * vz
            v, vx, vy, vz = sample_at(values, box, ox, oy, oz, ex, ey, ez, length, nx, slab, to_detector)
            ends += v

    if MODE < 2:
        tl.store(image + place, i0 * step.to(tl.float32) + flaw, mask=shown)
    if MODE > 0:
        from_source = met & (first <= 0.0)
        if tl.max(from_source.to(tl.int32), axis=0) > 0:
            v, vx, vy, vz = sample_at(values, box, ox, oy, oz, ex, ey, ez, tl.zeros_like(length), nx, slab, from_source)
            ends -= v
        a0, a1, a2 = to_camera(g0, g1, g2, xx, xy, xz, yx, yy, yz, zx, zy, zz, step)
        b0, b1, b2 = to_camera(h0, h1, h2, xx, xy, xz, yx, yy, yz, zx, zy, zz, step)
        f0, f1, f2 = dx.to(tl.float32), dy.to(tl.float32), dz.to(tl.float32)
        amiss = ends - (a0 * f0 + a1 * f1 + a2 * f2) + flaw
        a0, a1, a2 = a0 + amiss * f0, a1 + amiss * f1, a2 + amiss * f2
        l0, l1, l2 = c0 - reference * dx, c1 - reference * dy, c2 - reference * dz
        w0, w1, w2 = cross(l0.to(tl.float32), l1.to(tl.float32), l2.to(tl.float32), a0, a1, a2)
        u0, u1, u2 = cross(f0, f1, f2, b0, b1, b2)
        if MODE == 1:
            plane = height * width
            first_column = jacobian + place + (b * channels + channel).to(tl.int64) * (5 * plane)
            tl.store(first_column, -a0, mask=shown)
            tl.store(first_column + plane, -a1, mask=shown)
            tl.store(first_column + 2 * plane, -a2, mask=shown)
            tl.store(first_column + 3 * plane, w0 - u0, mask=shown)
            tl.store(first_column + 4 * plane, w1 - u1, mask=shown)
            tl.store(first_column + 5 * plane, w2 - u2, mask=shown)
        else:
            pull = tl.load(cotangent + place, mask=shown, other=0.0)
            out = products + ((b * channels + channel).to(tl.int64) * tiles + tile) * 6
            tl.store(out, tl.sum(-pull * a0, axis=0))
            tl.store(out + 1, tl.sum(-pull * a1, axis=0))
            tl.store(out + 2, tl.sum(-pull * a2, axis=0))
            tl.store(out + 3, tl.sum(pull * (w0 - u0), axis=0))
            tl.store(out + 4, tl.sum(pull * (w1 - u1), axis=0))
            tl.store(out + 5, tl.sum(pull * (w2 - u2), axis=0))
