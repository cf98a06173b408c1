"""Looks transforms up at a time: as much of tf2 as a registration needs, so that tf2_ros need not be there."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.ros.errors import FrameError

HISTORY_NS = 10_000_000_000
MAX_DEPTH = 64


@dataclass
class _Edge:
    parent: str
    is_static: bool
    stamps_ns: list[int] = field(default_factory=list)
    transforms: list[Tensor] = field(default_factory=list)


class TransformBuffer:
    """The TF tree of the last ten seconds, in mm."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}

    def insert(
        self, parent: str, child: str, stamp_ns: int, T_parent_child: Float64[Tensor, "4 4"], is_static: bool
    ) -> None:
        """Remember one transform; a child that changes its parent starts a new history."""
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or edge.is_static != is_static:
            edge = self._edges[child] = _Edge(parent, is_static)
        if is_static:
            edge.stamps_ns, edge.transforms = [stamp_ns], [T_parent_child]
            return
        index = bisect.bisect_right(edge.stamps_ns, stamp_ns)
        edge.stamps_ns.insert(index, stamp_ns)
        edge.transforms.insert(index, T_parent_child)
        oldest = bisect.bisect_left(edge.stamps_ns, edge.stamps_ns[-1] - HISTORY_NS)
        del edge.stamps_ns[:oldest], edge.transforms[:oldest]

    def lookup(self, target: str, source: str, stamp_ns: int) -> Float64[Tensor, "4 4"]:
        """``T_target_source`` at a time, interpolated along screw motions, never extrapolated.

        Raises:
            FrameError: no connection, or none at that time.
        """
        if target == source:
            return torch.eye(4, dtype=torch.float64)
        source_chain, source_gap = self._to_root(source, stamp_ns)
        target_chain, target_gap = self._to_root(target, stamp_ns)
        for frame, T_frame_source in source_chain.items():
            if frame in target_chain:
                return se3.inverse(target_chain[frame]) @ T_frame_source
        if source_gap or target_gap:
            raise FrameError(source_gap or target_gap)
        raise FrameError(
            f"TF does not connect '{source}' to '{target}': "
            f"their roots are '{list(source_chain)[-1]}' and '{list(target_chain)[-1]}'"
        )

    def clear(self) -> None:
        """Forget what moves, for a clock that jumped back."""
        self._edges = {child: edge for child, edge in self._edges.items() if edge.is_static}

    def _to_root(self, frame: str, stamp_ns: int) -> tuple[dict[str, Tensor], str]:
        """Frames above a frame, and why it does not go on; a gap above the common frame does no harm."""
        chain = {frame: torch.eye(4, dtype=torch.float64)}
        T_root_frame = chain[frame]
        while frame in self._edges and len(chain) < MAX_DEPTH:
            edge = self._edges[frame]
            gap = _gap(edge, frame, stamp_ns)
            if gap:
                return chain, gap
            T_root_frame = _at(edge, stamp_ns) @ T_root_frame
            frame = edge.parent
            if frame in chain:
                raise FrameError(f"TF has a loop at '{frame}'")
            chain[frame] = T_root_frame
        return chain, ""


def _gap(edge: _Edge, child: str, stamp_ns: int) -> str:
    first, last = edge.stamps_ns[0], edge.stamps_ns[-1]
    if edge.is_static or first <= stamp_ns <= last:
        return ""
    apart_ms = max(first - stamp_ns, stamp_ns - last) / 1e6
    return f"TF {edge.parent} -> {child} is not known at the time of the X-ray, by {apart_ms:.0f} ms"


def _at(edge: _Edge, stamp_ns: int) -> Tensor:
    if edge.is_static:
        return edge.transforms[0]
    index = bisect.bisect_left(edge.stamps_ns, stamp_ns)
    if edge.stamps_ns[index] == stamp_ns:
        return edge.transforms[index]
    before, after = edge.stamps_ns[index - 1], edge.stamps_ns[index]
    share = (stamp_ns - before) / (after - before)
    return se3.interpolate(edge.transforms[index - 1], edge.transforms[index], share)
