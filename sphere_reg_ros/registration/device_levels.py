"""A pyramid level on a device: all its iterations are queued, or replayed as one CUDA graph, before the host looks at any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.optim.fixed_course import Course, run_course, solution_of
from sphere_reg_ros.optim.levenberg_marquardt import LevenbergMarquardtSettings, Linearise, Solution, units
from sphere_reg_ros.registration.graphs import StageGraphs
from sphere_reg_ros.registration.photometric import ViewProblem

INPUTS_A_VIEW = 4
"""X-ray, mask, what the CT explains, and the view's pose: what changes from X-ray to X-ray."""


@dataclass(frozen=True)
class DeviceLevel:
    """What a level found, on the host but for the cut-offs.

    Attributes:
        solution: of every hypothesis, in the order of the starts.
        cutoffs: of each view, on the device.
        order: hypotheses, the best first.
    """

    solution: Solution
    cutoffs: tuple[Float[Tensor, " b"], ...]
    order: Tensor


Bind = Callable[[Sequence[ViewProblem]], tuple[Linearise, list[Float[Tensor, " b"]]]]
"""Makes the least-squares problem of some views, and the list that its first linearisation puts the cut-offs into."""
Rank = Callable[[Sequence[ViewProblem], Float64[Tensor, "b 4 4"]], Tensor]


def solve_on_device(
    problems: Sequence[ViewProblem],
    poses: Float64[Tensor, "b 4 4"],
    settings: LevenbergMarquardtSettings,
    bind: Bind,
    rank: Rank,
    graphs: StageGraphs,
) -> DeviceLevel:
    """Refine every hypothesis; the host waits once, at the end."""
    centre = problems[0].centre_ct
    unit = units(settings, centre.device)

    def level(T_initial: Tensor, *changing: Tensor) -> list[Tensor]:
        bound = [
            _with_inputs(problem, changing[INPUTS_A_VIEW * index : INPUTS_A_VIEW * (index + 1)])
            for index, problem in enumerate(problems)
        ]
        linearise, cutoffs = bind(bound)
        course = run_course(linearise, T_initial, centre, unit, settings)
        return [*course, rank(bound, course.T), *cutoffs]

    changing = [tensor for problem in problems for tensor in _inputs(problem)]
    key = (len(poses), settings, *(_key(problem) for problem in problems))
    found = graphs.call(key, level, [poses.to(centre.device), *changing])
    size = len(Course._fields)
    course = Course(*(tensor.cpu() for tensor in found[:size]))
    return DeviceLevel(solution_of(course), tuple(found[size + 1 :]), found[size].cpu())


def _inputs(problem: ViewProblem) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return problem.level.line_integral, problem.level.mask, problem.explained, problem.T_view_reference


def _with_inputs(problem: ViewProblem, tensors: Sequence[Tensor]) -> ViewProblem:
    line_integral, mask, explained, T_view_reference = tensors
    level = replace(problem.level, line_integral=line_integral, mask=mask)
    return replace(problem, level=level, explained=explained, T_view_reference=T_view_reference)


def _key(problem: ViewProblem) -> tuple[object, ...]:
    return problem.level.settings, problem.level.camera, tuple(problem.explained.shape), id(problem.renderer)
