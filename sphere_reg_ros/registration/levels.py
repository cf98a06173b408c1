"""Solves one pyramid level for a batch of hypotheses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.optim.levenberg_marquardt import (
    LevenbergMarquardtSettings,
    Linearise,
    NormalEquations,
    Solution,
    minimise,
)
from sphere_reg_ros.optim.levenberg_marquardt import TraceStep as BatchStep
from sphere_reg_ros.registration.device_levels import solve_on_device
from sphere_reg_ros.registration.graphs import StageGraphs
from sphere_reg_ros.registration.photometric import ViewProblem, normal_equations, robust_cutoff
from sphere_reg_ros.registration.pyramid import VolumePyramid, XrayLevel
from sphere_reg_ros.registration.result import TraceStep
from sphere_reg_ros.registration.settings import RegistrationSettings
from sphere_reg_ros.registration.truncation import TruncationMap

RADIAN_MM = 100.0
"""Size of a radian beside a millimetre in step lengths and damping: a point 100 mm off the centre moves so far."""
SAME_POSE_MM = 4.0
"""Hypotheses closer than this have found the same optimum."""


@dataclass(frozen=True)
class StageSolution:
    """Where every hypothesis ended on one level, the best first.

    Attributes:
        problems: what was minimised, one a view.
        cutoffs: Tukey's cut-off of each view and hypothesis, in the order of the starts.
        evaluations: renderings with their Jacobian, each of all hypotheses.
        trace: iterations of the best hypothesis.
    """

    name: str
    T_camera_ct: Float64[Tensor, "b 4 4"]
    problems: tuple[ViewProblem, ...]
    cutoffs: tuple[Float[Tensor, " b"], ...]
    evaluations: int
    trace: tuple[TraceStep, ...]

    def best(self, keep: int, centre_ct: Float64[Tensor, "3"]) -> Float64[Tensor, "k 4 4"]:
        """The best hypotheses that are different from each other."""
        chosen: list[Tensor] = []
        for pose in self.T_camera_ct:
            if all(pose_distance_mm(pose, other, centre_ct) > SAME_POSE_MM for other in chosen):
                chosen.append(pose)
            if len(chosen) == keep:
                break
        return torch.stack(chosen)


def pose_distance_mm(a: Float64[Tensor, "4 4"], b: Float64[Tensor, "4 4"], centre_ct: Float64[Tensor, "3"]) -> float:
    """Length of the twist between two poses, rotations counted at 100 mm a radian."""
    twist = se3.twist_between(a, b, centre_ct)
    return float(torch.cat((twist[:3], twist[3:] * RADIAN_MM)).norm())


class LevelSolver:
    """Binds the CT, the truncation map and the settings; each call solves one level."""

    def __init__(
        self,
        volumes: VolumePyramid,
        truncation: TruncationMap,
        centre_ct: Float64[Tensor, "3"],
        settings: RegistrationSettings,
        graphs: StageGraphs | None = None,
    ) -> None:
        """Keep what every level needs.

        Args:
            graphs: of earlier X-rays, where the levels run on a CUDA device.
        """
        self._graphs = graphs or StageGraphs()
        self._volumes = volumes
        self._truncation = truncation
        self._centre_ct = centre_ct
        self._settings = settings

    def solve(
        self,
        levels: Sequence[XrayLevel],
        T_view_reference: Sequence[Float64[Tensor, "4 4"]],
        poses: Float64[Tensor, "b 4 4"],
        observe: Callable[[TraceStep], None],
    ) -> StageSolution:
        """Refine every hypothesis on one level, all views together.

        The masks and the robust cut-offs are those of the given poses, so that the cost keeps its meaning. On a device
        ``observe`` is told of the iterations when all of them are over.
        """
        problems = [self._problem(level, relative, poses) for level, relative in zip(levels, T_view_reference, strict=True)]
        level = levels[0].settings
        counted = count()

        def in_the_lead(step: BatchStep) -> None:
            observe(trace_step(level.name, next(counted), step, int(step.cost.argmin())))

        limits = LevenbergMarquardtSettings(
            max_iterations=level.max_iterations,
            step_tolerance=level.step_tolerance_mm,
            scale=(1.0, 1.0, 1.0, RADIAN_MM, RADIAN_MM, RADIAN_MM),
        )
        if levels[0].mask.device.type == "cpu":
            linearise, cutoffs = self._bound(problems)
            solution = minimise(linearise, poses, self._centre_ct, limits, on_iteration=in_the_lead)
            order = self._ranking(problems, solution.T)
        else:
            found = solve_on_device(problems, poses, limits, self._bound, self._ranking, self._graphs)
            solution, cutoffs, order = found.solution, list(found.cutoffs), found.order
            for step in solution.trace:
                in_the_lead(step)
        return StageSolution(
            name=level.name,
            T_camera_ct=solution.T[order],
            problems=tuple(problems),
            cutoffs=tuple(cutoffs),
            evaluations=int(solution.iterations),
            trace=_trace(level.name, solution, int(order[0])),
        )

    def _bound(self, problems: Sequence[ViewProblem]) -> tuple[Linearise, list[Float[Tensor, " b"]]]:
        """The sum of some views' problems, and their cut-offs, which the first linearisation finds."""
        cutoffs: list[Float[Tensor, " b"]] = []

        def linearise(T_camera_ct: Float64[Tensor, "b 4 4"]) -> NormalEquations:
            comparisons = [problem.compare(T_camera_ct) for problem in problems]
            if not cutoffs:
                cutoffs.extend(robust_cutoff(one, self._settings.tukey_cutoff) for one in comparisons)
            parts = [normal_equations(*pair) for pair in zip(comparisons, cutoffs, strict=True)]
            return NormalEquations(*(torch.stack(terms).sum(0) for terms in zip(*parts, strict=True)))

        return linearise, cutoffs

    def _problem(
        self,
        level: XrayLevel,
        T_view_reference: Float64[Tensor, "4 4"],
        poses: Float64[Tensor, "b 4 4"],
    ) -> ViewProblem:
        device = level.mask.device
        T_view_reference = T_view_reference.to(device)
        outside_mm = self._truncation.outside_mm(T_view_reference @ poses.to(device), level.camera)
        return ViewProblem(
            level=level,
            renderer=self._volumes.renderer(level.settings.voxel_mm, level.settings.beyond_the_ct),
            centre_ct=self._centre_ct.to(device),
            T_view_reference=T_view_reference,
            explained=(outside_mm <= level.settings.outside_mm).to(torch.float32),
            deviation_floor=self._settings.deviation_floor,
        )

    def _ranking(self, problems: Sequence[ViewProblem], poses: Float64[Tensor, "b 4 4"]) -> Tensor:
        if len(poses) == 1:
            return torch.zeros(1, dtype=torch.long, device=poses.device)
        agreements = [problem.compare_values(poses).agreement(problem.level.mask.sum()) for problem in problems]
        return torch.argsort(torch.stack(agreements).sum(0), descending=True)


def _trace(name: str, solution: Solution, hypothesis: int) -> tuple[TraceStep, ...]:
    return tuple(trace_step(name, index, step, hypothesis) for index, step in enumerate(solution.trace))


def trace_step(name: str, iteration: int, step: BatchStep, hypothesis: int) -> TraceStep:
    """One hypothesis's part of a batched iteration."""
    return TraceStep(
        stage=name,
        iteration=iteration,
        cost=float(step.cost[hypothesis]),
        damping=float(step.damping[hypothesis]),
        step_norm=float(step.step_norm[hypothesis]),
        gradient_norm=float(step.gradient_norm[hypothesis]),
        T_camera_ct=step.T[hypothesis].detach().cpu().numpy(),
    )
