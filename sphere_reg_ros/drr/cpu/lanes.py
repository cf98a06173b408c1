"""Vector registers in compiled kernels: one lane a ray.

Numba's loops leave it to the compiler whether gathers become vector code, and on the processors measured
it does not find the fast form (docs/decisions on the layout of the CPU renderer). Here the vector code is
spelled out as LLVM vectors, which the back end maps to whatever the processor has.
"""
# mypy: disable-error-code="no-untyped-def,no-any-return,no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.binding
from llvmlite import ir

LANES = 16 if llvmlite.binding.get_host_cpu_features().get("avx512f", False) else 8
"""Rays that are marched together."""

FLOAT = ir.FloatType()
BYTE = ir.IntType(8)
INT = ir.IntType(32)
LONG = ir.IntType(64)
FLOATS = ir.VectorType(FLOAT, LANES)
INTS = ir.VectorType(INT, LANES)
LONGS = ir.VectorType(LONG, LANES)
_FAST = ("fast",)


class LaneBuilder:
    """Emits arithmetic on vectors of `LANES` floats."""

    def __init__(self, builder: Any) -> None:
        self.ir = builder

    def constant(self, value: float) -> Any:
        """The same number in every lane."""
        return ir.Constant(FLOATS, [ir.Constant(FLOAT, value)] * LANES)

    def splat(self, scalar: Any, kind: Any) -> Any:
        """A scalar register in every lane."""
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.ir.insert_element(undefined, scalar, INT(0))
        return self.shuffle(first, undefined, [0] * LANES)

    def shuffle(self, a: Any, b: Any, order: Sequence[int]) -> Any:
        """Elements of ``a`` and ``b``, concatenated, in a given order."""
        mask = ir.Constant(ir.VectorType(INT, len(order)), [INT(i) for i in order])
        return self.ir.shuffle_vector(a, b, mask)

    def add(self, a: Any, b: Any) -> Any:
        """``a + b``."""
        return self.ir.fadd(a, b, flags=_FAST)

    def sub(self, a: Any, b: Any) -> Any:
        """``a − b``."""
        return self.ir.fsub(a, b, flags=_FAST)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """``a·b + c``."""
        return self.ir.fadd(self.ir.fmul(a, b, flags=_FAST), c, flags=_FAST)

    def mix(self, fraction: Any, a: Any, difference: Any) -> Any:
        """``a + fraction·difference``."""
        return self.fma(fraction, difference, a)

    def mul(self, a: Any, b: Any) -> Any:
        """``a·b``."""
        return self.ir.fmul(a, b, flags=_FAST)

    def split_fixed(self, a: Any) -> tuple[Any, Any]:
        """Integer part and fraction (as a float) of 64-bit fixed point with 32 bits behind the point."""
        halves = self.ir.bitcast(a, ir.VectorType(INT, 2 * LANES))
        low = self.shuffle(halves, halves, list(range(0, 2 * LANES, 2)))
        high = self.shuffle(halves, halves, list(range(1, 2 * LANES, 2)))
        digits = self.ir.lshr(low, ir.Constant(INTS, [INT(8)] * LANES))
        return high, self.mul(self.ir.sitofp(digits, FLOATS), self.constant(2.0**-24))

    def clamp_index(self, a: Any, last: Any) -> Any:
        """Integers held within ``[0, last]``."""
        zero = ir.Constant(INTS, [INT(0)] * LANES)
        above = self.ir.select(self.ir.icmp_signed(">", a, zero), a, zero)
        return self.ir.select(self.ir.icmp_signed("<", above, last), above, last)

    def outer(self, a: Any) -> Any:
        """The first and the last lane of a vector."""
        return self.shuffle(a, a, [0, LANES - 1])

    def look_ahead(self, place: Any, step: Any, count: int) -> Any:
        """Where the first and the last lane are ``count`` steps later."""
        counts = ir.Constant(ir.VectorType(LONG, 2), [LONG(count)] * 2)
        return self.ir.add(self.outer(place), self.ir.mul(self.outer(step), counts))

    def load(self, pointer: Any, row: int, kind: Any) -> Any:
        """A row of `LANES` numbers of an array."""
        address = self.ir.gep(pointer, [LONG(row * LANES)])
        loaded = self.ir.load(self.ir.bitcast(address, kind.as_pointer()))
        loaded.align = 4
        return loaded

    def store(self, value: Any, pointer: Any, row: int) -> None:
        """Write a row of `LANES` numbers."""
        address = self.ir.gep(pointer, [LONG(row * LANES)])
        self.ir.store(value, self.ir.bitcast(address, value.type.as_pointer())).align = 4

    def lane_offsets(self, index: Any) -> list[Any]:
        """Each lane's index as a scalar; two lanes leave the vector registers at a time."""
        halves = self.ir.bitcast(index, ir.VectorType(LONG, LANES // 2))
        offsets: list[Any] = []
        for pair in range(LANES // 2):
            both = self.ir.extract_element(halves, INT(pair))
            offsets.append(self.ir.and_(both, LONG(0xFFFFFFFF)))
            offsets.append(self.ir.lshr(both, LONG(32)))
        return offsets

    def gather_pairs(self, base: Any, offsets: Sequence[Any]) -> tuple[Any, Any]:
        """Floats ``[offset]`` and ``[offset + 1]`` of every lane, with one 64-bit load a lane."""
        quads = []
        for lane in range(0, LANES, 2):
            both = ir.Constant(ir.VectorType(LONG, 2), ir.Undefined)
            for slot in range(2):
                address = self.ir.gep(base, [self.ir.shl(offsets[lane + slot], LONG(2))])
                loaded = self.ir.load(self.ir.bitcast(address, LONG.as_pointer()))
                loaded.align = 4
                both = self.ir.insert_element(both, loaded, INT(slot))
            quads.append(self.ir.bitcast(both, ir.VectorType(FLOAT, 4)))
        low = self._concatenate(quads[: LANES // 4])
        high = self._concatenate(quads[LANES // 4 :])
        return (
            self.shuffle(low, high, list(range(0, 2 * LANES, 2))),
            self.shuffle(low, high, list(range(1, 2 * LANES, 2))),
        )

    def prefetch(self, address: Any) -> None:
        """Ask for a cache line ahead of its use."""
        kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), INT, INT, INT])
        function = self.ir.module.declare_intrinsic("llvm.prefetch", [BYTE.as_pointer()], kind)
        self.ir.call(function, [address, INT(0), INT(3), INT(1)])

    def _concatenate(self, vectors: list[Any]) -> Any:
        while len(vectors) > 1:
            count = vectors[0].type.count
            vectors = [self.shuffle(a, b, list(range(2 * count))) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
        return vectors[0]
