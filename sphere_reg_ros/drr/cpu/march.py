"""The inner loop: `LANES` neighbouring rays in lock-step through a float32 volume.

Positions in the padded grid are 64-bit fixed point numbers, 32 bits of them behind the point. That costs
less than float64 and is as good: with float32 positions one sample in some thousands lands on the wrong
side of a voxel's face, where the gradient jumps, and the Jacobian is off by half a per cent there.

A tile of rays is two arrays of rows of `LANES` numbers:

    places (int64)   0-2   position at the first step        3-5   its change a step
    sums (float32)   0     lever (s − s_ref) at count 0, mm  1     its change a step
                     2     Σ μ      3-5   Σ ∇μ      6-8   Σ lever·∇μ     (gradients per voxel index)

Cells are clamped to the outermost ones of the padding, which are zero throughout: a lane whose ray has
not entered the volume yet, or has left it, adds nothing.
"""
# mypy: disable-error-code="no-untyped-def,no-any-return,no-untyped-call,misc"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sphere_reg_ros.drr.cpu.lanes import BYTE, FLOAT, FLOATS, INT, INTS, LONG, LONGS, LaneBuilder

SUM_ROWS = 9
FIRST_SUM = 2
FRACTION_BITS = 32
LOOK_AHEAD = 8
"""Steps between asking for a cache line and using it."""


class _Grid:
    """A channel of the padded volume: where it lies and how it is indexed."""

    def __init__(self, lanes: LaneBuilder, array: Any, channel: Any) -> None:
        b = lanes.ir
        sizes = [b.extract_value(array.shape, i) for i in (3, 2, 1)]
        strides = [b.extract_value(array.strides, i) for i in range(4)]
        first = b.gep(b.bitcast(array.data, BYTE.as_pointer()), [b.mul(channel, strides[0])])
        slab, line = strides[1], strides[2]
        self.bases = [b.gep(first, [b.add(z, y)]) for z in (LONG(0), slab) for y in (LONG(0), line)]
        self.strides = [b.trunc(b.lshr(stride, LONG(2)), INT) for stride in (line, slab)]
        self.scales = [lanes.splat(stride, INTS) for stride in self.strides]
        self.last = [lanes.splat(b.sub(b.trunc(size, INT), INT(2)), INTS) for size in sizes]

    def cell(self, lanes: LaneBuilder, places: list[Any]) -> tuple[Any, list[Any]]:
        """Index of the lowest corner of every lane's cell, and the fractions within it."""
        corner, fractions = [], []
        for place, last in zip(places, self.last, strict=True):
            whole, fraction = lanes.split_fixed(place)
            corner.append(lanes.clamp_index(whole, last))
            fractions.append(fraction)
        b = lanes.ir
        y, z = (b.mul(c, scale) for c, scale in zip(corner[1:], self.scales, strict=True))
        return b.add(corner[0], b.add(y, z)), fractions

    def prefetch(self, lanes: LaneBuilder, places: list[Any]) -> None:
        """Ask for the lines around two points, given in fixed point."""
        b = lanes.ir
        half = ir.VectorType(LONG, 2)
        shift = ir.Constant(half, [LONG(FRACTION_BITS)] * 2)
        corner = [b.ashr(place, shift) for place in places]
        for slot in range(2):
            x, y, z = (b.extract_element(c, INT(slot)) for c in corner)
            line, slab = (b.sext(stride, LONG) for stride in self.strides)
            offset = b.shl(b.add(x, b.add(b.mul(y, line), b.mul(z, slab))), LONG(2))
            for base in self.bases:
                lanes.prefetch(b.gep(base, [offset]))


def _value(lanes: LaneBuilder, grid: _Grid, places: list[Any], _: Any) -> list[Any]:
    """Terms of the image: [μ]."""
    index, (fx, fy, fz) = grid.cell(lanes, places)
    offsets = lanes.lane_offsets(index)
    y = []
    for base in grid.bases:
        a, b = lanes.gather_pairs(base, offsets)
        y.append(lanes.mix(fx, a, lanes.sub(b, a)))
    z0 = lanes.mix(fy, y[0], lanes.sub(y[1], y[0]))
    z1 = lanes.mix(fy, y[2], lanes.sub(y[3], y[2]))
    return [lanes.mix(fz, z0, lanes.sub(z1, z0))]


def _value_and_gradient(lanes: LaneBuilder, grid: _Grid, places: list[Any], lever: Any) -> list[Any]:
    """Terms of the image and of both gathered gradients."""
    index, (fx, fy, fz) = grid.cell(lanes, places)
    offsets = lanes.lane_offsets(index)
    x, y = [], []
    for base in grid.bases:
        a, b = lanes.gather_pairs(base, offsets)
        x.append(lanes.sub(b, a))
        y.append(lanes.mix(fx, a, x[-1]))
    d0, d1 = lanes.sub(y[1], y[0]), lanes.sub(y[3], y[2])
    z0, z1 = lanes.mix(fy, y[0], d0), lanes.mix(fy, y[2], d1)
    e0 = lanes.mix(fy, x[0], lanes.sub(x[1], x[0]))
    e1 = lanes.mix(fy, x[2], lanes.sub(x[3], x[2]))
    gradient = [
        lanes.mix(fz, e0, lanes.sub(e1, e0)),
        lanes.mix(fz, d0, lanes.sub(d1, d0)),
        lanes.sub(z1, z0),
    ]
    return [lanes.mix(fz, z0, gradient[2]), *gradient, *(lanes.mul(lever, g) for g in gradient)]


def _emit_loop(context: Any, builder: Any, signature: Any, args: Any, terms: Any, rows: int) -> Any:
    """``for count in range(begin, end): sums += terms(count)``, all of it in registers."""
    lanes = LaneBuilder(builder)
    field, sums_at, places_at = (context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 2, 3))
    grid = _Grid(lanes, field, args[1])
    lever_first, lever_step = (lanes.load(sums_at.data, row, FLOATS) for row in range(2))
    fixed = [lanes.load(places_at.data, row, LONGS) for row in range(6)]
    ahead = [lanes.look_ahead(fixed[axis], fixed[3 + axis], LOOK_AHEAD) for axis in range(3)]
    entry = builder.basic_block
    head, body, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    start = [args[4], *fixed[:3], *ahead, *[lanes.constant(0.0)] * rows]
    state = [builder.phi(value.type) for value in start]
    for variable, value in zip(state, start, strict=True):
        variable.add_incoming(value, entry)
    builder.cbranch(builder.icmp_signed("<", state[0], args[5]), body, done)
    builder.position_at_end(body)
    lever = lanes.fma(lanes.splat(builder.sitofp(state[0], FLOAT), FLOATS), lever_step, lever_first)
    grid.prefetch(lanes, state[4:7])
    change = [LONG(1), *fixed[3:], *(lanes.outer(step) for step in fixed[3:])]
    new = [builder.add(old, step) for old, step in zip(state[:7], change, strict=True)]
    new += [lanes.add(total, term) for total, term in zip(state[7:], terms(lanes, grid, state[1:4], lever), strict=True)]
    for variable, value in zip(state, new, strict=True):
        variable.add_incoming(value, builder.basic_block)
    builder.branch(head)
    builder.position_at_end(done)
    for row, total in enumerate(state[7:]):
        lanes.store(total, sums_at.data, FIRST_SUM + row)
    return context.get_dummy_value()


def _signature(field, channel, sums, places, begin, end):
    return types.void(field, types.int64, sums, places, types.int64, types.int64)


@intrinsic
def march_values(typing_context, field, channel, sums, places, begin, end):
    """Sum μ over counts ``[begin, end)`` of a tile, through one channel of a ``(c, z, y, x)`` field."""

    def emit(context, builder, signature, args):
        return _emit_loop(context, builder, signature, args, _value, 1)

    return _signature(field, channel, sums, places, begin, end), emit


@intrinsic
def march_gradients(typing_context, field, channel, sums, places, begin, end):
    """The same with both gathered gradients."""

    def emit(context, builder, signature, args):
        return _emit_loop(context, builder, signature, args, _value_and_gradient, 7)

    return _signature(field, channel, sums, places, begin, end), emit
