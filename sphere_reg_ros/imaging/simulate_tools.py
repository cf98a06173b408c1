"""Metal tools in the beam: wires, screws and tubes of cylinders, with analytic path lengths."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numba
import numpy as np
from numpy.typing import NDArray

from sphere_reg_ros.imaging.simulate_errors import SimulationSettingsError
from sphere_reg_ros.imaging.simulate_materials import DENSITY_G_CM3

Point = tuple[float, float, float]
Metal = Literal["titanium", "steel"]
Frame = Literal["ct", "ct_reference", "camera"]


@dataclass(frozen=True)
class Cylinder:
    """A straight metal cylinder with flat ends, solid or hollow.

    Attributes:
        start_mm: Centre of one end.
        end_mm: Centre of the other end.
        radius_mm: Outer radius.
        hollow_radius_mm: Radius of the bore; 0 is solid.
        metal: What it is made of.
        frame: Where the ends are given: ``ct`` (LPS), ``ct_reference`` (LPS axes, origin at the
            CT's reference point) or ``camera``. In the first two it moves with the patient.

    Raises:
        SimulationSettingsError: no length, or a radius that is not positive or below the bore's.
    """

    start_mm: Point
    end_mm: Point
    radius_mm: float
    hollow_radius_mm: float = 0.0
    metal: Metal = "steel"
    frame: Frame = "ct_reference"

    def __post_init__(self) -> None:
        """Refuse a cylinder without a volume."""
        if np.allclose(self.start_mm, self.end_mm):
            raise SimulationSettingsError(
                f"a tool starts and ends at {self.start_mm}: give it a length"
            )
        if not 0.0 <= self.hollow_radius_mm < self.radius_mm:
            raise SimulationSettingsError(
                f"a tool of radius {self.radius_mm:g} mm cannot have a bore of radius "
                f"{self.hollow_radius_mm:g} mm: the bore must be smaller, and the radius positive"
            )


def screw(
    head_mm: Point,
    tip_mm: Point,
    core_radius_mm: float = 2.0,
    thread_radius_mm: float = 3.0,
    pitch_mm: float = 2.5,
    metal: Metal = "titanium",
    frame: Frame = "ct_reference",
) -> tuple[Cylinder, ...]:
    """A threaded screw: a head, and coaxial discs that alternate between core and thread radius."""
    head, tip = np.asarray(head_mm), np.asarray(tip_mm)
    length = float(np.linalg.norm(tip - head))
    axis = (tip - head) / length

    def disc(start: float, end: float, radius: float) -> Cylinder:
        ends = _point(head + axis * start), _point(head + axis * end)
        return Cylinder(*ends, radius, metal=metal, frame=frame)

    threads = max(1, int(length / pitch_mm))
    pitch = length / threads
    parts = [disc(-1.5 * thread_radius_mm, 0.0, 1.8 * thread_radius_mm)]
    for n in range(threads):
        parts.append(disc(n * pitch, (n + 0.55) * pitch, core_radius_mm))
        parts.append(disc((n + 0.55) * pitch, (n + 1) * pitch, thread_radius_mm))
    return tuple(parts)


@numba.njit(parallel=True, cache=True, nogil=True)
def _add_cylinder(rays, start, axis, length, radius, g_cm2_per_mm, paths):
    along_start = start[0] * axis[0] + start[1] * axis[1] + start[2] * axis[2]
    for row in numba.prange(rays.shape[0]):
        for column in range(rays.shape[1]):
            x, y, z = rays[row, column, 0], rays[row, column, 1], rays[row, column, 2]
            along = x * axis[0] + y * axis[1] + z * axis[2]
            px, py, pz = x - along * axis[0], y - along * axis[1], z - along * axis[2]
            qx = along_start * axis[0] - start[0]
            qy = along_start * axis[1] - start[1]
            qz = along_start * axis[2] - start[2]
            a = px * px + py * py + pz * pz
            b = px * qx + py * qy + pz * qz
            c = qx * qx + qy * qy + qz * qz - radius * radius
            first, last = 0.0, 1.0
            if a > 0.0:
                root = b * b - a * c
                if root <= 0.0:
                    continue
                root = np.sqrt(root)
                first, last = max(first, (-b - root) / a), min(last, (-b + root) / a)
            elif c >= 0.0:
                continue
            if along != 0.0:
                near, far = along_start / along, (along_start + length) / along
                first, last = max(first, min(near, far)), min(last, max(near, far))
            elif along_start > 0.0 or along_start + length < 0.0:
                continue
            if last > first:
                path_mm = (last - first) * np.sqrt(x * x + y * y + z * z)
                paths[row, column] += g_cm2_per_mm * path_mm


def tool_paths(
    tools: tuple[Cylinder, ...],
    rays: NDArray[np.float64],
    T_camera_ct: NDArray[np.float64],
    reference_point_mm: NDArray[np.float64],
) -> dict[Metal, NDArray[np.float64]]:
    """Areal density of each metal along every ray, g/cm²: chord of the ray through each cylinder.

    Rays run from the source to the detector and stop there. Cylinders that overlap count twice.

    Args:
        tools: The cylinders.
        rays: ``(rows, columns, 3)`` source to detector, camera mm.
        T_camera_ct: ``(4, 4)`` CT mm to camera mm.
        reference_point_mm: ``(3,)`` origin of the frame ``ct_reference``, LPS mm.
    """
    T_camera_reference = T_camera_ct.copy()
    T_camera_reference[:3, 3] += T_camera_ct[:3, :3] @ reference_point_mm
    placements = {"ct": T_camera_ct, "ct_reference": T_camera_reference, "camera": np.eye(4)}
    paths: dict[Metal, NDArray[np.float64]] = {}
    for tool in tools:
        placement = placements[tool.frame]
        start = placement[:3, :3] @ np.asarray(tool.start_mm) + placement[:3, 3]
        end = placement[:3, :3] @ np.asarray(tool.end_mm) + placement[:3, 3]
        length = float(np.linalg.norm(end - start))
        density = 0.1 * DENSITY_G_CM3[tool.metal]
        out = paths.setdefault(tool.metal, np.zeros(rays.shape[:2]))
        for radius, sign in ((tool.radius_mm, 1.0), (tool.hollow_radius_mm, -1.0)):
            if radius > 0.0:
                _add_cylinder(
                    rays, start, (end - start) / length, length, radius, sign * density, out
                )
    return paths


def random_tools(generator: np.random.Generator) -> tuple[Cylinder, ...]:
    """One to three of: a pair of screws, a wire, a retractor, a tube, near the reference point."""
    tools: list[Cylinder] = []
    for kind in generator.choice(["screws", "wire", "retractor", "tube"], generator.integers(1, 4)):
        centre = generator.uniform(-60.0, 60.0, 3)
        axis = generator.standard_normal(3)
        axis /= np.linalg.norm(axis)
        if kind == "screws":
            for side in (-1.0, 1.0):
                head = centre * [0.2, 0.2, 1.0] + [side * 22.0, 30.0, 0.0]
                tools += screw(_point(head), _point(head + np.array([-side * 10.0, -42.0, 0.0])))
        elif kind == "wire":
            tools.append(Cylinder(_point(centre - 80 * axis), _point(centre + 80 * axis), 0.8))
        elif kind == "retractor":
            centre[1] = -generator.uniform(110.0, 140.0)
            axis *= [1.0, 0.1, 1.0]
            tools.append(Cylinder(_point(centre), _point(centre + 150 * axis), 4.0))
        else:
            axis *= [1.0, 0.2, 1.0]
            ends = _point(centre - 110 * axis), _point(centre + 110 * axis)
            tools.append(Cylinder(*ends, radius_mm=1.6, hollow_radius_mm=1.2, metal="titanium"))
    return tuple(tools)


def _point(values: NDArray[np.float64]) -> Point:
    x, y, z = (float(v) for v in values)
    return x, y, z
