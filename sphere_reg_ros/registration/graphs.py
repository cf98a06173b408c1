"""Functions of tensors as CUDA graphs: what a stage does is recorded once, and repeated on new inputs without the host's work."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TensorFunction = Callable[..., Sequence[Tensor]]

MOST_GRAPHS = 16
"""Kept at a time; each holds the memory of its intermediate results."""


@dataclass(frozen=True)
class _Graph:
    graph: Any
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for kept, given in zip(self.inputs, inputs, strict=True):
            kept.copy_(given)
        self.graph.replay()
        # The next replay writes over the outputs.
        return tuple(output.clone() for output in self.outputs)


class StageGraphs:
    """Graphs by key; the least recently used one goes first.

    A key stands for everything that a function depends on besides the values of its inputs: shapes, cameras, settings. What is
    asked for once is not worth the recording: a key's first call runs as it is, its second one is recorded.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[Hashable, _Graph | None] = OrderedDict()

    def call(self, key: Hashable, function: TensorFunction, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """``function(*inputs)``, from a graph where there is one.

        Args:
            function: waits for no device, and changes none of its inputs.
            inputs: all on one device; off CUDA the function is simply called.
        """
        if inputs[0].device.type != "cuda":
            return tuple(function(*inputs))
        if key not in self._seen:
            self._remember(key, None)
            return tuple(function(*inputs))
        graph = self._seen[key] or _recorded(function, inputs)
        self._remember(key, graph)
        return graph(inputs)

    def _remember(self, key: Hashable, graph: _Graph | None) -> None:
        self._seen[key] = graph
        self._seen.move_to_end(key)
        while len(self._seen) > MOST_GRAPHS:
            self._seen.popitem(last=False)


def _recorded(function: TensorFunction, inputs: Sequence[Tensor]) -> _Graph:
    kept = tuple(given.clone() for given in inputs)
    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    # Libraries set themselves up in their first calls on a stream, which is not allowed while it records.
    with torch.cuda.stream(side):
        function(*kept)
    torch.cuda.current_stream().wait_stream(side)
    # Only this thread's calls matter: another one may be rendering.
    with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        outputs = tuple(function(*kept))
    return _Graph(graph, kept, outputs)
