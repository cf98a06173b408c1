"""The most that the device does: bytes copied, and values gathered from the nearest cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from gpu_tools import timed

COPIED_BYTES = 2**31
WINDOW = 4096
"""Floats that a program gathers from; they stay in its processor's first cache."""
PROGRAMS, THREADS, ROUNDS = 1 << 14, 128, 64


@triton.jit
def gather_kernel(source, target, WINDOW: tl.constexpr, THREADS: tl.constexpr, ROUNDS: tl.constexpr):
    """Eight gathers a round, of neighbouring values by neighbouring threads; nothing else to do."""
    window = source + tl.program_id(0) % 512 * WINDOW
    at = tl.arange(0, THREADS)
    total = tl.zeros([THREADS], tl.float32)
    for _ in range(ROUNDS):
        for corner in tl.static_range(8):
            total += tl.load(window + ((at + 37 * corner) & (WINDOW - 1)))
        at += 301
    tl.store(target + tl.program_id(0) * THREADS + tl.arange(0, THREADS), total)


@dataclass(frozen=True)
class Ceilings:
    """Bytes a second, read and written, of a copy in the device's memory; and gathers a second of 4 bytes each."""

    copied_per_s: float
    gathered_per_s: float


def measure() -> Ceilings:
    """Measure both, medians of 20."""
    block = torch.zeros(COPIED_BYTES // 4, device="cuda")
    copy = torch.empty_like(block)
    copy_ms = timed(lambda: copy.copy_(block), 20).median_ms
    source = torch.zeros(512 * WINDOW, device="cuda")
    target = torch.empty(PROGRAMS * THREADS, device="cuda")
    gather_ms = timed(lambda: gather_kernel[(PROGRAMS,)](source, target, WINDOW, THREADS, ROUNDS), 20).median_ms
    return Ceilings(2e3 * COPIED_BYTES / copy_ms, 8e3 * PROGRAMS * THREADS * ROUNDS / gather_ms)
