"""Pairs an X-ray with the camera_info of the same stamp, and with the geometry that held at its stamp."""

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


class StampedHistory(Generic[First]):
    """The newest messages of a topic that says what holds from a stamp on."""

    def __init__(self) -> None:
        self._messages: OrderedDict[int, First] = OrderedDict()

    def add(self, stamp_ns: int, message: First) -> None:
        """Keep a message; a repeated stamp replaces what it said before."""
        _keep_newest(self._messages, stamp_ns, message)

    def at(self, stamp_ns: int) -> First | None:
        """What held at a stamp: the message of that stamp, else the last one before it, else the first one after it."""
        stamps = list(self._messages)
        before = max((one for one in stamps if one <= stamp_ns), default=None)
        chosen = before if before is not None else min(stamps, default=None)
        return None if chosen is None else self._messages[chosen]


def _keep_newest(waiting: OrderedDict[int, First], stamp_ns: int, message: First) -> None:
    waiting.pop(stamp_ns, None)
    waiting[stamp_ns] = message
    while len(waiting) > KEEP:
        waiting.popitem(last=False)
