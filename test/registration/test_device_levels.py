"""A level on a device does what it does on the CPU, and queues all of it without waiting.

No GPU is needed: the device's way is run on the CPU's tensors, where every bit must agree, and on tensors without values
(the "meta" device), where everything that looks at a value, or brings one from the host, fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.imaging.xray import to_line_integral
from sphere_reg_ros.optim.levenberg_marquardt import LevenbergMarquardtSettings
from sphere_reg_ros.registration import graphs as graphs_module
from sphere_reg_ros.registration.device_levels import DeviceLevel, solve_on_device
from sphere_reg_ros.registration.graphs import MOST_GRAPHS, StageGraphs
from sphere_reg_ros.registration.levels import RADIAN_MM, LevelSolver
from sphere_reg_ros.registration.photometric import Comparison, ViewProblem, robust_cutoff, sorted_cutoff
from sphere_reg_ros.registration.pipeline import RegistrationPipeline
from sphere_reg_ros.registration.pyramid import XrayLevel, xray_level
from sphere_reg_ros.registration.settings import COARSE, FINE, LevelSettings

IDENTITY = torch.eye(4, dtype=torch.float64)


def limits(level: LevelSettings) -> LevenbergMarquardtSettings:
    """Of the pipeline."""
    scale = (1.0, 1.0, 1.0, RADIAN_MM, RADIAN_MM, RADIAN_MM)
    return LevenbergMarquardtSettings(max_iterations=level.max_iterations, step_tolerance=level.step_tolerance_mm, scale=scale)


def solver_of(pipeline: RegistrationPipeline) -> LevelSolver:
    """As a registration makes it."""
    return LevelSolver(pipeline._volumes, pipeline._truncation, pipeline.centre_ct, pipeline.settings)


def levels_and_poses(
    settings: LevelSettings, count: int, frames: list, xray: Callable
) -> tuple[list[XrayLevel], list[torch.Tensor], torch.Tensor]:
    """Two views of different frames, as if of two cameras, and starts around the first."""
    host = torch.device("cpu")
    levels = [xray_level(*to_line_integral(xray(frame)), frame.camera, settings, host) for frame in frames[:2]]
    relative = frames[1].T_camera_ct @ se3.inverse(frames[0].T_camera_ct)
    spread = torch.tensor([6.0, 6.0, 12.0, 0.05, 0.05, 0.05], dtype=torch.float64)
    twists = spread * torch.randn(count, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    centre = torch.zeros(3, dtype=torch.float64)
    return levels, [IDENTITY, relative], se3.apply_twist(frames[0].T_camera_ct.expand(count, 4, 4), twists, centre)


@pytest.mark.parametrize(("settings", "count"), [(COARSE, 5), (FINE, 1)], ids=["five coarse", "one fine"])
def test_the_device_s_way_gives_the_same_bits(
    settings: LevelSettings, count: int, pipeline: RegistrationPipeline, frames: list, xray: Callable
) -> None:
    levels, relative, poses = levels_and_poses(settings, count, frames, xray)
    solver = solver_of(pipeline)
    seen: list[Any] = []
    expected = solver.solve(levels, relative, poses, seen.append)
    problems = [solver._problem(level, one, poses) for level, one in zip(levels, relative, strict=True)]
    found = solve_on_device(problems, poses, limits(settings), solver._bound, solver._ranking, StageGraphs())
    assert torch.equal(found.solution.T[found.order], expected.T_camera_ct)
    assert found.solution.iterations == expected.evaluations == len(seen) + 1
    assert [float(step.cost[found.order[0]]) for step in found.solution.trace] == [step.cost for step in expected.trace]
    for one, other in zip(found.cutoffs, expected.cutoffs, strict=True):
        assert torch.equal(one, other)


def test_a_solver_on_a_device_tells_the_same_story(
    pipeline: RegistrationPipeline, frames: list, xray: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`LevelSolver` asks the mask for its device, so a mask that names another one sends it the device's way."""
    levels, relative, poses = levels_and_poses(COARSE, 4, frames, xray)
    expected_steps: list[Any] = []
    found_steps: list[Any] = []
    expected = solver_of(pipeline).solve(levels, relative, poses, expected_steps.append)
    taken: list[DeviceLevel] = []

    def on_cpu(*arguments: Any) -> DeviceLevel:
        taken.append(solve_on_device(*arguments))
        return taken[-1]

    solver = solver_of(pipeline)
    problem = solver._problem
    monkeypatch.setattr("sphere_reg_ros.registration.levels.solve_on_device", on_cpu)
    monkeypatch.setattr(solver, "_problem", lambda level, one, start: problem(_back(level), one, start))
    found = solver.solve([replace(level, mask=_Away(level.mask)) for level in levels], relative, poses, found_steps.append)
    assert len(taken) == 1
    assert torch.equal(found.T_camera_ct, expected.T_camera_ct)
    assert [step.cost for step in found_steps] == [step.cost for step in expected_steps]
    assert [step.cost for step in found.trace] == [step.cost for step in expected.trace]


class _Away:
    """A tensor that says it is on another device."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.device = torch.device("meta")


def _back(level: XrayLevel) -> XrayLevel:
    mask: Any = level.mask
    return replace(level, mask=mask.tensor)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda one: one + torch.ones(3).to(one),
        lambda one: one.new_tensor([1.0, 2.0, 3.0]),
        lambda one: torch.tensor([1.0], device=one.device),
        lambda one: one * float(one.sum()),
        lambda one: one if bool((one > 0).any()) else -one,
    ],
)
def test_the_watch_sees_what_it_is_for(wrong: Callable, watch: tuple) -> None:
    away = torch.zeros(3, device="meta")
    with pytest.raises(AssertionError, match=r"host|waits"), watch[0], watch[1]:
        wrong(away)


def test_nothing_between_start_and_end_waits_for_the_device(
    pipeline: RegistrationPipeline, frames: list, xray: Callable, watch: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton", reason="the CUDA renderer is written in Triton, which is not installed")
    from sphere_reg_ros.drr.cuda import renderer as cuda

    monkeypatch.setattr(cuda, "_check_place", lambda volume: None)
    levels, relative, poses = levels_and_poses(COARSE, 3, frames, xray)
    solver = solver_of(pipeline)
    renderer = cuda.CudaRenderer(AttenuationVolume.from_ct(pipeline.ct).to("meta"))
    problems = []
    for level, one in zip(levels, relative, strict=True):
        away = replace(level, line_integral=level.line_integral.to("meta"), mask=level.mask.to("meta"))
        explained = torch.ones(len(poses), level.camera.height, level.camera.width, device="meta")
        centre = pipeline.centre_ct.to("meta")
        problems.append(ViewProblem(away, renderer, centre, one.to("meta"), explained, 0.05))
        problems[-1].compare(poses.to("meta"))

    class Watched(StageGraphs):
        """Calls the level as a graph's recording does."""

        def call(self, key: Any, function: Callable, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
            with watch[0], watch[1]:
                outputs = tuple(function(*inputs))
            # What came out has no values; the host goes on with others of the same shapes.
            return tuple(torch.zeros(one.shape, dtype=one.dtype) for one in outputs)

    found = solve_on_device(problems, poses, limits(COARSE), solver._bound, solver._ranking, Watched())
    assert found.solution.T.shape == (3, 4, 4) and found.order.shape == (3,)
    # Ten linearisations of two views: the loop was really run.
    assert watch[1].operations > 1000


def test_the_sorted_cutoff_is_the_robust_one() -> None:
    """Odd and even counts, no pixel at all, and a residual without deviation."""
    generator = torch.Generator().manual_seed(4)
    residual = torch.randn(5, 9, 11, generator=generator)
    support = (torch.rand(5, 9, 11, generator=generator) > 0.4).float()
    support[1] = 1.0
    support[2] = 0.0
    support[3, 0, :2] = 1.0
    residual[4] = 0.0
    comparison = Comparison(torch.zeros_like(residual), residual, support, None)
    assert {int(one.sum()) % 2 for one in support} == {0, 1}
    assert torch.equal(sorted_cutoff(comparison, 4.685), robust_cutoff(comparison, 4.685))


class _FakeCuda:
    """Stands for a tensor on a GPU; the graphs ask for its device alone."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.device = torch.device("cuda")


def test_graphs_are_recorded_at_the_second_call_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[Any] = []

    def record(function: Callable, inputs: Sequence[Any]) -> Callable:
        recorded.append(inputs[0].value)
        return lambda given: (("replayed", given[0].value),)

    monkeypatch.setattr(graphs_module, "_recorded", record)
    graphs: Any = StageGraphs()

    def call(key: object, value: float) -> Any:
        return graphs.call(key, lambda one: (("called", one.value),), [_FakeCuda(value)])[0]

    assert [call("a", value) for value in (1.0, 2.0, 3.0)] == [("called", 1.0), ("replayed", 2.0), ("replayed", 3.0)]
    assert recorded == [2.0]
    for other in range(MOST_GRAPHS):
        call(other, 0.0)
    assert call("a", 4.0) == ("called", 4.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_recorded_registration_is_the_eager_one(pipeline: RegistrationPipeline, frames: list, xray: Callable) -> None:
    """The first X-ray by the host's launches, then by a recording, the others by its replay; and the CPU's poses."""
    on_device = RegistrationPipeline(pipeline.ct, device="cuda")
    for frame in frames:
        found = on_device.register(xray(frame), frame.camera, frame.T_prior)
        expected = pipeline.register(xray(frame), frame.camera, frame.T_prior)
        again = on_device.register(xray(frame), frame.camera, frame.T_prior)
        torch.testing.assert_close(torch.from_numpy(found.T_camera_ct), torch.from_numpy(again.T_camera_ct), rtol=0, atol=1e-6)
        apart = torch.from_numpy(found.T_camera_ct - expected.T_camera_ct)[:3] @ torch.cat((pipeline.centre_ct, torch.ones(1)))
        assert float(apart.norm()) < 0.05
