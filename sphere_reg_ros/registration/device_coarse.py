"""The learned stage on a device: all its iterations are queued, or replayed as one CUDA graph, before the host looks at any."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.optim.fixed_course import Course, run_course, solution_of
from sphere_reg_ros.optim.levenberg_marquardt import LevenbergMarquardtSettings, Linearise, Solution, units
from sphere_reg_ros.registration.graphs import StageGraphs


def solve_coarse_on_device(
    problem_of: Callable[[Float[Tensor, "n d"]], Linearise],
    embedded: Float[Tensor, "n d"],
    poses: Float64[Tensor, "n 4 4"],
    centre_ct: Float64[Tensor, "3"],
    settings: LevenbergMarquardtSettings,
    graphs: StageGraphs,
    key: Hashable = None,
) -> Solution:
    """As ``minimise(problem_of(embedded), ...)``; the host waits once, at the end.

    Args:
        problem_of: the least-squares problem of embedded X-rays; waits for no device.
        embedded, poses, centre_ct: on the device.
        key: tells apart what the problem depends on besides these.

    Returns:
        The solution, on the host.
    """
    unit = units(settings, poses.device)

    def stage(points: Tensor, T_initial: Tensor) -> Course:
        return run_course(problem_of(points), T_initial, centre_ct, unit, settings)

    found = graphs.call((len(poses), settings, key), stage, (embedded, poses))
    return solution_of(Course(*(tensor.cpu() for tensor in found)))
