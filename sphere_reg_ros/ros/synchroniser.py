"""Pairs an X-ray with the camera_info of the same stamp."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

First = TypeVar("First")
Second = TypeVar("Second")

KEEP = 16


class StampSynchroniser(Generic[First, Second]):
    """Holds the newest messages of two topics until both of one stamp are there; what is older than a pair is dropped."""

    def __init__(self) -> None:
        self._first: OrderedDict[int, First] = OrderedDict()
        self._second: OrderedDict[int, Second] = OrderedDict()

    def add_first(self, stamp_ns: int, message: First) -> tuple[First, Second] | None:
        """The pair, if the other one is there already."""
        other = self._second.pop(stamp_ns, None)
        if other is not None:
            self._drop_older(stamp_ns)
            return message, other
        _keep_newest(self._first, stamp_ns, message)
        return None

    def add_second(self, stamp_ns: int, message: Second) -> tuple[First, Second] | None:
        """The pair, if the other one is there already."""
        other = self._first.pop(stamp_ns, None)
        if other is not None:
            self._drop_older(stamp_ns)
            return other, message
        _keep_newest(self._second, stamp_ns, message)
        return None

    @property
    def waiting_first(self) -> int:
        """How many of the first kind still lack their partner."""
        return len(self._first)

    def _drop_older(self, stamp_ns: int) -> None:
        for waiting in (self._first, self._second):
            for older in [one for one in waiting if one < stamp_ns]:
                del waiting[older]

    def clear(self) -> None:
        """Forget all, for a clock that jumped back."""
        self._first.clear()
        self._second.clear()


def _keep_newest(waiting: OrderedDict[int, First], stamp_ns: int, message: First) -> None:
    waiting[stamp_ns] = message
    while len(waiting) > KEEP:
        waiting.popitem(last=False)
