"""Handing out jobs to threads as they become free."""
# mypy: disable-error-code="no-untyped-def,misc"

from __future__ import annotations

import threading

from numba import types
from numba.extending import intrinsic

LAUNCH = threading.Lock()
"""Held while a parallel kernel runs.

Numba's fall-back threading layer ends the process when two threads enter it at once, and two renders at
once on the same cores gain nothing.
"""


@intrinsic
def take_next(typing_context, counter):
    """The value of ``counter[0]`` before adding one to it, atomically."""

    def emit(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        one = context.get_constant(types.int64, 1)
        return builder.atomic_rmw("add", data, one, "monotonic")

    return types.int64(counter), emit
