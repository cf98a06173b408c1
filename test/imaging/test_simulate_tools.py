"""Path lengths through metal, against geometry done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sphere_reg_ros.imaging.simulate_errors import SimulationSettingsError
from sphere_reg_ros.imaging.simulate_tools import Cylinder, Metal, random_tools, screw, tool_paths

G_CM2_PER_MM = {"steel": 0.787, "titanium": 0.454}
IDENTITY = np.eye(4)
ORIGIN = np.zeros(3)


def path_mm(
    tools: tuple[Cylinder, ...],
    ray: tuple[float, float, float],
    T: np.ndarray = IDENTITY,
    reference: np.ndarray = ORIGIN,
    metal: Metal = "steel",
) -> float:
    rays = np.array([[ray]], dtype=np.float64)
    return float(tool_paths(tools, rays, T, reference)[metal][0, 0]) / G_CM2_PER_MM[metal]


@pytest.mark.parametrize("offset_mm", [0.0, 1.0, 2.9])
def test_a_ray_across_a_cylinder_crosses_a_chord(offset_mm: float) -> None:
    rod = Cylinder((offset_mm, -50.0, 500.0), (offset_mm, 50.0, 500.0), 3.0, frame="camera")
    expected = 2.0 * np.sqrt(9.0 - offset_mm**2)
    assert path_mm((rod,), (0.0, 0.0, 1000.0)) == pytest.approx(expected, rel=1e-9)


def test_a_ray_along_the_axis_crosses_the_length() -> None:
    rod = Cylinder((0.0, 0.0, 400.0), (0.0, 0.0, 470.0), 3.0, frame="camera")
    assert path_mm((rod,), (0.0, 0.0, 1000.0)) == pytest.approx(70.0, rel=1e-9)
    assert path_mm((rod,), (0.0, 0.0, 450.0)) == pytest.approx(50.0, rel=1e-9)
    assert path_mm((rod,), (0.0, 0.0, 300.0)) == 0.0
    assert path_mm((rod,), (50.0, 0.0, 1000.0)) == 0.0


def test_a_ray_at_an_angle_crosses_the_slanted_chord() -> None:
    axis = np.array([np.sin(0.6), 0.0, np.cos(0.6)])
    centre = np.array([0.0, 0.0, 500.0])
    rod = Cylinder(tuple(centre - 60 * axis), tuple(centre + 60 * axis), 2.0, frame="camera")
    assert path_mm((rod,), (0.0, 0.0, 1000.0)) == pytest.approx(4.0 / np.sin(0.6), rel=1e-9)


def test_a_bore_takes_its_chord_away() -> None:
    tube = Cylinder((0.0, -50.0, 500.0), (0.0, 50.0, 500.0), 3.0, 2.0, "titanium", "camera")
    assert path_mm((tube,), (0.0, 0.0, 1000.0), metal="titanium") == pytest.approx(2.0, rel=1e-9)


def test_random_rays_against_a_dense_count_of_points_inside() -> None:
    generator = np.random.default_rng(4)
    for _ in range(20):
        start = np.array([*generator.uniform(-20, 20, 2), generator.uniform(420, 520)])
        end = start + generator.uniform(-40, 40, 3)
        rod = Cylinder(tuple(start), tuple(end), 9.0, frame="camera")
        aim = 0.5 * (start + end) + generator.uniform(-9, 9, 3)
        ray = aim * generator.uniform(0.98, 2.0)
        points = ray * ((np.arange(200000) + 0.5) / 200000)[:, None]
        axis = (end - start) / np.linalg.norm(end - start)
        along = (points - start) @ axis
        across = np.linalg.norm(points - start - along[:, None] * axis, axis=1)
        inside = (along > 0) & (along < np.linalg.norm(end - start)) & (across < 9.0)
        expected = inside.mean() * np.linalg.norm(ray)
        # The count resolves two ends of 1/200000 of at most about 1000 mm each.
        assert path_mm((rod,), tuple(ray)) == pytest.approx(expected, abs=0.02)


def test_frames_place_the_tool() -> None:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix()
    T[:3, 3] = [10.0, 20.0, 600.0]
    reference = np.array([7.0, -9.0, 30.0])
    start, end = np.array([1.0, 2.0, 3.0]), np.array([60.0, -10.0, 20.0])
    ray = T[:3, :3] @ (0.5 * (start + end)) + T[:3, 3]
    in_ct = Cylinder(tuple(start), tuple(end), 2.0, frame="ct")
    relative = Cylinder(tuple(start - reference), tuple(end - reference), 2.0)
    moved = [tuple(T[:3, :3] @ p + T[:3, 3]) for p in (start, end)]
    in_camera = Cylinder(moved[0], moved[1], 2.0, frame="camera")
    paths = [path_mm((t,), tuple(1.5 * ray), T, reference) for t in (in_ct, relative, in_camera)]
    assert paths[0] > 3.9
    assert paths == pytest.approx([paths[0]] * 3, rel=1e-9)


def test_a_screw_is_as_long_as_asked_and_threaded() -> None:
    parts = screw((0.0, 0.0, 500.0), (0.0, 0.0, 540.0), frame="camera")
    along = path_mm(parts, (0.0, 0.0, 1000.0), metal="titanium")
    assert along == pytest.approx(40.0 + 1.5 * 3.0, rel=1e-9)
    assert {p.radius_mm for p in parts} == {2.0, 3.0, 1.8 * 3.0}
    outside_core = path_mm(parts, (2.5 * 2, 0.0, 1000.0), metal="titanium")
    assert 0.0 < outside_core < along


def test_random_tools_are_those_of_the_seed() -> None:
    first, again = (random_tools(np.random.default_rng(3)) for _ in range(2))
    assert first == again and len(first) >= 1
    assert len({random_tools(np.random.default_rng(s)) for s in range(20)}) == 20


@pytest.mark.parametrize(
    ("end", "radius", "bore"), [((0, 0, 0), 1.0, 0.0), ((0, 0, 9), 0.0, 0.0), ((0, 0, 9), 1.0, 1.0)]
)
def test_cylinders_without_volume_are_refused(
    end: tuple[float, float, float], radius: float, bore: float
) -> None:
    with pytest.raises(SimulationSettingsError) as error:
        Cylinder((0.0, 0.0, 0.0), end, radius, bore)
    assert "\n" not in str(error.value)
