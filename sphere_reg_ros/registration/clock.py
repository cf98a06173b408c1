"""Time of every stage, and the two ways of ending early."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sphere_reg_ros.registration.errors import RegistrationCancelled, RegistrationTimeout


class StageClock:
    """Times the stages of one registration and ends it on request or at the limit."""

    def __init__(self, should_stop: Callable[[], bool] | None, timeout_s: float | None) -> None:
        self._should_stop = should_stop
        self._timeout_s = timeout_s
        self._started = time.perf_counter()
        self._timings_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; a name that comes again adds up."""
        self.check()
        started = time.perf_counter()
        yield
        elapsed_ms = (time.perf_counter() - started) * 1e3
        self._timings_ms[name] = self._timings_ms.get(name, 0.0) + elapsed_ms

    def check(self) -> None:
        """End the registration where the caller or the limit says so.

        Raises:
            RegistrationCancelled: the caller asked.
            RegistrationTimeout: the limit passed.
        """
        if self._should_stop is not None and self._should_stop():
            raise RegistrationCancelled("registration was cancelled")
        elapsed_s = time.perf_counter() - self._started
        if self._timeout_s is not None and elapsed_s > self._timeout_s:
            raise RegistrationTimeout(f"registration took {elapsed_s:.2f} s, the limit is {self._timeout_s:.2f} s")

    def timings_ms(self) -> dict[str, float]:
        """Every stage so far, and ``"total"`` since the clock was made."""
        return {**self._timings_ms, "total": (time.perf_counter() - self._started) * 1e3}
