"""What every method is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.xray import XrayImage


@dataclass(frozen=True)
class Problem:
    """One X-ray to be registered; the truth is not in it.

    Attributes:
        xray: the image.
        camera: its camera.
        T_start: ``(4, 4)`` pose to start from, ``T_camera_ct`` in mm.
        seed: of everything random in the method.
    """

    xray: XrayImage
    camera: Camera
    T_start: Float64[Tensor, "4 4"]
    seed: int


@dataclass(frozen=True)
class TracePoint:
    """A pose on the way, and when it was reached."""

    iteration: int
    time_ms: float
    T_camera_ct: Float64[Tensor, "4 4"]


@dataclass(frozen=True)
class Answer:
    """A method's result.

    Attributes:
        T_camera_ct: ``(4, 4)`` estimate, mm.
        accepted: the method's own decision; a method without one accepts everything.
        iterations: renderings, with or without Jacobian, a batch counted by its members.
        trace: poses on the way, first and last included.
    """

    T_camera_ct: Float64[Tensor, "4 4"]
    accepted: bool
    iterations: int
    trace: tuple[TracePoint, ...]


Method = Callable[[Problem], Answer]
"""A method bound to its CT."""
