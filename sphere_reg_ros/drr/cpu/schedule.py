"""Sharing a kernel's jobs among threads.

The kernels release the interpreter lock and take jobs from a counter until none is left. The calling
thread works too, and waits only for helpers that have begun: on a busy machine, or in a process that was
forked, it simply does more of the work itself. OpenMP's barrier made small renders on a busy machine
twenty times slower, and Numba's own thread pool ends the process when two threads render at once.
"""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic


@intrinsic
def take_next(typing_context, counter):
    """The value of ``counter[0]`` before adding one to it, atomically."""

    def emit(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        one = context.get_constant(types.int64, 1)
        return builder.atomic_rmw("add", data, one, "monotonic")

    return types.int64(counter), emit


@functools.cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS, thread_name_prefix="drr")  # type: ignore[attr-defined]


def share(kernel: Callable[..., None], *args: Any) -> None:
    """Run ``kernel(counter, *args)`` on as many threads as `numba.get_num_threads` allows.

    Safe to call from several threads at once.
    """
    counter = np.zeros(1, np.int64)
    helpers = [_helpers().submit(kernel, counter, *args) for _ in range(numba.get_num_threads() - 1)]
    kernel(counter, *args)
    for helper in helpers:
        if not helper.cancel():
            helper.result()
