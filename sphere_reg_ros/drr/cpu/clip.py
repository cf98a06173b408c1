"""The part of a ray that crosses a box."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, error_model="numpy")
def clip_axis(origin, slope, low, high, first, last):  # type: ignore[no-untyped-def]
    """Cut the interval of distances ``[first, last]`` to where ``low < origin + s·slope < high``.

    An empty interval comes back with ``first > last``.
    """
    if slope == 0.0:
        if origin <= low or origin >= high:
            return 1.0, 0.0
        return first, last
    near = (low - origin) / slope
    far = (high - origin) / slope
    if near > far:
        near, far = far, near
    return max(first, near), min(last, far)


@numba.njit(cache=True, error_model="numpy")
def cell_range(first, last, step):  # type: ignore[no-untyped-def]
    """Indices ``[begin, end)`` of the midpoints ``(k + ½)·step`` within ``[first, last]``."""
    if first > last:
        return 0, 0
    begin = int(np.ceil(first / step - 0.5))
    end = int(np.floor(last / step - 0.5)) + 1
    return begin, max(begin, end)
