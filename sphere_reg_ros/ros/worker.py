"""One thread that owns the device."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Job:
    """Something to compute.

    Attributes:
        run: the work; its exceptions end the job, not the thread.
        is_image: one of a stream, of which only the newest waits.
        done: set when the job has run, was dropped, or failed.
        dropped: a newer image took its place.
    """

    run: Callable[[], object]
    is_image: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    dropped: bool = False


class Worker:
    """Runs jobs one after the other; of images at most one waits, the newest."""

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._jobs: deque[Job] = deque()
        self._wake = threading.Condition()
        self._running = True
        self.dropped_images = 0
        self._thread = threading.Thread(target=self._loop, name="registration_worker", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; an image that still waits gives way to a newer one."""
        with self._wake:
            if not self._running:
                job.dropped = True
                job.done.set()
                return
            if job.is_image:
                self._drop_waiting_images()
            self._jobs.append(job)
            self._wake.notify()

    def drop_images(self) -> None:
        """Drop the image that waits, because its time is over."""
        with self._wake:
            self._drop_waiting_images()

    def stop(self) -> None:
        """End after the job that runs; those that wait are dropped."""
        with self._wake:
            self._running = False
            for waiting in self._jobs:
                waiting.dropped = True
                waiting.done.set()
            self._jobs.clear()
            self._wake.notify()
        self._thread.join(timeout=30.0)

    def _drop_waiting_images(self) -> None:
        for waiting in [one for one in self._jobs if one.is_image]:
            self._jobs.remove(waiting)
            waiting.dropped = True
            waiting.done.set()
            self.dropped_images += 1

    def _loop(self) -> None:
        while True:
            with self._wake:
                while self._running and not self._jobs:
                    self._wake.wait()
                if not self._running:
                    return
                job = self._jobs.popleft()
            try:
                job.run()
            except Exception as error:  # one bad job must not end the node
                self._on_error(error)
            finally:
                job.done.set()
