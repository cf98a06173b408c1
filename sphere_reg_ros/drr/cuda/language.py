"""Triton, if it is installed: the modules with kernels can be imported without it, but not launched."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None

__all__ = ["INSTALLED", "cdiv", "interpreted", "jit", "tl"]

INSTALLED = triton is not None


def jit(function: Callable[..., Any]) -> Any:
    """Compile a kernel at its first launch; without Triton the plain function stays, which nobody calls."""
    return function if triton is None else triton.jit(function)


def interpreted() -> bool:
    """Whether Triton runs its kernels on the CPU, one program at a time in NumPy: the variable TRITON_INTERPRET is 1."""
    return INSTALLED and os.environ.get("TRITON_INTERPRET") == "1"


def cdiv(count: int, size: int) -> int:
    """How many blocks of a size hold a count."""
    return -(-count // size)
