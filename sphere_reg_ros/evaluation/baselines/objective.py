"""The similarity of one X-ray and the CT's DRR, as a function of the twist from the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.evaluation.problem import Answer, Problem, TracePoint
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.imaging.xray import to_line_integral
from sphere_reg_ros.registration.pyramid import VolumePyramid, XrayLevel, xray_level
from sphere_reg_ros.registration.settings import LevelSettings

Similarity = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Resolution:
    """Longest side of the X-ray, voxels of the CT, and the step along the ray."""

    longest_side_px: int
    voxel_mm: float
    step_mm: float

    def level(self, problem: Problem) -> XrayLevel:
        """The problem's X-ray at this resolution."""
        line_integral, mask = to_line_integral(problem.xray)
        settings = LevelSettings(self.longest_side_px, self.voxel_mm, self.step_mm, 0.0, 0, 0.0, 0.0, False)
        return xray_level(line_integral, mask, problem.camera, settings, torch.device("cpu"))


COARSE = Resolution(64, 4.0, 4.0)
MIDDLE = Resolution(128, 2.0, 2.5)


class Objective:
    """Similarity of poses to one X-ray; higher is better. Counts its renderings and remembers the poses on the way."""

    def __init__(
        self,
        volumes: VolumePyramid,
        centre_ct: Float64[Tensor, "3"],
        problem: Problem,
        resolution: Resolution,
        similarity: Similarity,
    ) -> None:
        self._renderer = volumes.renderer(resolution.voxel_mm)
        self._step_mm = resolution.step_mm
        self._level = resolution.level(problem)
        self._centre_ct = centre_ct
        self._similarity = similarity
        self.evaluations = 0

    def values(self, T_camera_ct: Float64[Tensor, "b 4 4"]) -> Float[Tensor, " b"]:
        """Similarity of every pose."""
        self.evaluations += len(T_camera_ct)
        image = self._renderer.render(T_camera_ct, self._level.camera, self._step_mm)[:, 0]
        return self._similarity(image, self._level.line_integral, self._level.mask)

    def value_and_gradient(self, T_camera_ct: Float64[Tensor, "4 4"]) -> tuple[float, Float64[Tensor, "6"]]:
        """Similarity and its derivative by the twist about the centre: the image's gradient times the exact Jacobian."""
        self.evaluations += 1
        rendered = self._renderer.render_with_jacobian(T_camera_ct[None], self._level.camera, self._centre_ct, self._step_mm)
        image = rendered.image[:, 0].detach().requires_grad_(True)
        value = self._similarity(image, self._level.line_integral, self._level.mask).sum()
        (by_pixel,) = torch.autograd.grad(value, image)
        gradient = torch.einsum("chw,hw->c", rendered.jacobian[0, 0].double(), by_pixel[0].double())
        return float(value.detach()), gradient


class Journey:
    """The poses of one registration with their times."""

    def __init__(self, T_start: Float64[Tensor, "4 4"]) -> None:
        self._began = perf_counter()
        self._points = [TracePoint(0, 0.0, T_start)]

    @property
    def iterations(self) -> int:
        """Of the last pose."""
        return self._points[-1].iteration

    def note(self, iteration: int, T_camera_ct: Float64[Tensor, "4 4"]) -> None:
        """Remember a pose."""
        self._points.append(TracePoint(iteration, 1e3 * (perf_counter() - self._began), T_camera_ct.detach().clone()))

    def answer(self, T_camera_ct: Float64[Tensor, "4 4"], iterations: int) -> Answer:
        """The result of a method that accepts whatever it finds."""
        self.note(iterations, T_camera_ct)
        return Answer(T_camera_ct, True, iterations, tuple(self._points))


def moved(T_start: Float64[Tensor, "4 4"], twists: Float64[Tensor, "b 6"], centre_ct: Float64[Tensor, "3"]) -> Tensor:
    """Poses at some twists from a start, ``(b, 4, 4)``."""
    return se3.apply_twist(T_start.expand(len(twists), 4, 4), twists, centre_ct)
