"""Tasks on the workers of a Dask scheduler, for more machines than one (decision 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from sphere_reg_ros.evaluation.errors import SchedulerError

CONNECT_S = 20


def cluster_rows(
    groups: Sequence[tuple[Any, ...]], address: str, commit: str, perform_group: Callable[..., list[dict[str, str]]], perform: Any
) -> Iterator[dict[str, str]]:
    """Rows as the workers of the scheduler at ``address`` finish them.

    The scheduler gives the tasks of a worker that died to another one; a result reaches this process once.

    Raises:
        SchedulerError: nobody answers at the address, or the connection broke; rows that came before are written.
        BrokenProcessPool: a task that killed several workers.
    """
    from distributed import Client, as_completed
    from distributed.scheduler import KilledWorker

    try:
        client = Client(address, timeout=CONNECT_S)
    except (OSError, ValueError, TypeError) as error:
        raise SchedulerError(
            f"--scheduler {address}: no Dask scheduler answers ({error or type(error).__name__}); start 'dask scheduler', and "
            f"'dask worker {address} --nthreads 1' on every machine"
        ) from error
    try:
        futures = [client.submit(perform_group, group, commit, perform, pure=False) for group in groups]
        for future in as_completed(futures):
            if future.status == "cancelled":
                raise SchedulerError(f"--scheduler {address}: the connection broke; rows so far are whole: run again")
            yield from future.result()
    except KilledWorker as error:
        raise BrokenProcessPool(str(error)) from error
    finally:
        client.close(timeout=5)
