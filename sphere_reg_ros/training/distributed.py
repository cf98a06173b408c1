"""Several processes under torchrun, or one without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Processes:
    """This process among its peers."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes files and talks."""
        return self.rank == 0

    def shared(self, module: nn.Module) -> nn.Module:
        """The module, with gradients averaged over the processes."""
        return nn.parallel.DistributedDataParallel(module) if self.count > 1 else module

    def agreed(self, flag: bool) -> bool:
        """What the leading process says."""
        if self.count == 1:
            return flag
        value = torch.tensor([float(flag)])
        torch.distributed.broadcast(value, 0)
        return bool(value[0] > 0.5)


@contextmanager
def processes() -> Iterator[Processes]:
    """Join the peers that torchrun started; gloo, which runs everywhere."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    torch.distributed.init_process_group("gloo")
    try:
        yield Processes(torch.distributed.get_rank(), count)
    finally:
        torch.distributed.destroy_process_group()
