"""From an X-ray to a pose: start, coarse to fine Levenberg-Marquardt, gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import ArrayLike
from torch import Tensor

from sphere_reg_ros import __version__
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.xray import XrayImage, to_line_integral, validate_xray
from sphere_reg_ros.models.checkpoint import LearnedModel
from sphere_reg_ros.registration import quality, starts
from sphere_reg_ros.registration.clock import StageClock
from sphere_reg_ros.registration.device import choose_device
from sphere_reg_ros.registration.graphs import StageGraphs
from sphere_reg_ros.registration.learned import LearnedStages
from sphere_reg_ros.registration.levels import LevelSolver, StageSolution
from sphere_reg_ros.registration.plans import Plan, Planner, Seen, Start
from sphere_reg_ros.registration.pyramid import VolumePyramid, XrayLevel, xray_level
from sphere_reg_ros.registration.result import RegistrationResult, TraceStep
from sphere_reg_ros.registration.settings import RegistrationSettings
from sphere_reg_ros.registration.truncation import TruncationMap

PHOTOMETRIC_MODEL_ID = "photometric"
RIVAL_SHARE = 0.97
"""Of the similarity of the best pose, from which another pose is as likely."""


@dataclass(frozen=True)
class View:
    """A further X-ray of the same patient, taken by a camera whose place is known.

    Attributes:
        xray: the image.
        camera: its camera.
        T_view_reference: ``(4, 4)``, pose of the reference camera in this camera, mm.
    """

    xray: XrayImage
    camera: Camera
    T_view_reference: ArrayLike


@dataclass(frozen=True)
class _Attempt:
    solution: StageSolution
    verdict: quality.Verdict
    iterations: int
    trace: tuple[TraceStep, ...]


class RegistrationPipeline:
    """Registers X-rays to one CT; keeps the CT's volumes, renderers and compiled kernels between calls."""

    def __init__(
        self,
        ct: CtVolume,
        settings: RegistrationSettings | None = None,
        device: str = "auto",
        model: LearnedModel | None = None,
    ) -> None:
        """Build what needs the CT alone.

        Args:
            model: learned stages before the photometric ones; see :func:`sphere_reg_ros.models.checkpoint.find_model`.
        """
        self.ct = ct
        self.settings = settings or RegistrationSettings()
        self.device = choose_device(device)
        self.centre_ct = ct.reference_point().to(torch.float64)
        self._graphs = StageGraphs()
        self._volumes = VolumePyramid(ct, self.settings.backend, self.device)
        self._truncation = TruncationMap(ct, self.settings.backend, self.device)
        self._bone_points_mm = quality.bone_points(ct)
        self.model_id = PHOTOMETRIC_MODEL_ID if model is None else model.name
        models = () if model is None else (model, *model.others)
        self._learned = tuple(
            LearnedStages(one, ct, self.settings.learned, self.settings.backend, self.device) for one in models
        )
        self._planner = Planner(ct, self.settings, self._learned, self._volumes, self.device)

    def prepare(self) -> None:
        """Build all volumes and compile all kernels, so that the first X-ray is as fast as the next."""
        camera = Camera.centred(32)
        pose = starts.reported_views((0.0, 0.0), camera, self.centre_ct)[0][None]
        for level in self.settings.levels:
            renderer = self._volumes.renderer(level.voxel_mm, level.beyond_the_ct)
            renderer.render(pose, camera, level.step_mm)
            renderer.render_with_jacobian(pose, camera, self.centre_ct, level.step_mm)
        self._truncation.outside_mm(pose, camera)
        for learned in self._learned:
            xray = learned.see(torch.rand(32, 32), torch.ones(32, 32, dtype=torch.bool), camera)
            learned.refine(xray, learned.guess(xray, 0), lambda step: None)

    def drr(self, T_camera_ct: ArrayLike, camera: Camera) -> Float[Tensor, "h w"]:
        """Line integrals of the full CT at a pose, dimensionless."""
        finest = self.settings.levels[-1]
        pose = torch.as_tensor(np.asarray(T_camera_ct), dtype=torch.float64)[None]
        return self._volumes.renderer(finest.voxel_mm).render(pose, camera, finest.step_mm)[0, 0].cpu()

    def register(
        self,
        xray: XrayImage,
        camera: Camera,
        T_initial: ArrayLike | None = None,
        *,
        T_tracked: ArrayLike | None = None,
        further_views: Sequence[View] = (),
        should_stop: Callable[[], bool] | None = None,
        on_iteration: Callable[[TraceStep], None] | None = None,
        timeout_s: float | None = None,
    ) -> RegistrationResult:
        """Find the pose of the CT in the X-ray's camera.

        Args:
            xray: one X-ray; ``camera`` describes it at its own resolution.
            T_initial: ``T_camera_ct`` in mm to start from; without it the model's guess, else the C-arm's reported angles, else a
                search.
            T_tracked: pose in the X-ray just before: a few iterations at the finest levels follow it, and the rest of the
                pipeline where the gate is not sure of what they find, or the patient has moved far. The score ``tracked`` is 1
                where they were enough, 0 where not.
            further_views: X-rays of the same patient by other cameras, registered together with the first.
            should_stop: asked at every iteration.
            on_iteration: told of every iteration, hypotheses in the lead first.
            timeout_s: limit for the whole call.

        Raises:
            InputError: an X-ray, a camera or the initial pose cannot be used; the kind says which.
            RegistrationCancelled: ``should_stop`` answered true.
            RegistrationTimeout: the limit passed.
        """
        clock = StageClock(should_stop, timeout_s)
        with clock.stage("preprocess"):
            views = [View(xray, camera, np.eye(4)), *further_views]
            seen = [self._see(view) for view in views]
            pyramids = [
                [xray_level(one.line_integral, one.mask, one.camera, level, self.device) for level in self.settings.levels]
                for one in seen
            ]
            plans = self._planner.plans(seen[0], T_initial, T_tracked)
            relative = [torch.as_tensor(np.asarray(view.T_view_reference), dtype=torch.float64) for view in views]
        solver = LevelSolver(self._volumes, self._truncation, self.centre_ct, self.settings, self._graphs)

        def observe(step: TraceStep) -> None:
            clock.check()
            if on_iteration is not None:
                on_iteration(step)

        attempts: list[_Attempt] = []
        for plan in plans:
            start = plan.find(clock, observe)
            attempts.append(self._attempt(solver, pyramids, relative, start, plan, clock, observe))
            if self._is_sure(attempts[-1], plan):
                break
        best = max(attempts, key=lambda attempt: (not attempt.verdict.reasons, attempt.verdict.scores["similarity"]))
        with clock.stage("gate"):
            learned = self._learned_distance(seen[0], best.solution.T_camera_ct[0].cpu())
        verdict = quality.with_learned_distance(best.verdict, learned, self.settings.gate)
        reasons = verdict.reasons or self._rivals(best, attempts)
        tracked = {} if T_tracked is None else {"tracked": float(len(attempts) == 1)}
        return RegistrationResult(
            T_camera_ct=best.solution.T_camera_ct[0].cpu().numpy(),
            accepted=not reasons,
            reasons=reasons,
            covariance=verdict.covariance,
            probability=verdict.probability,
            expected_error_mm=verdict.expected_error_mm,
            scores={**verdict.scores, **tracked},
            timings_ms=clock.timings_ms(),
            iterations=sum(attempt.iterations for attempt in attempts),
            trace=best.trace,
            ct_sha256=self.ct.sha256,
            model_id=self.model_id,
            version=__version__,
            centre_ct=self.centre_ct.numpy(),
            camera=camera,
        )

    def _is_sure(self, attempt: _Attempt, plan: Plan) -> bool:
        """Whether no other way to start needs to be tried."""
        if attempt.verdict.reasons or attempt.verdict.probability < self.settings.gate.sure_probability:
            return False
        found = attempt.solution.T_camera_ct[0].cpu()
        return plan.T_tracked is None or self._apart_mm(found, plan.T_tracked) <= self.settings.tracking.max_motion_mm

    def _apart_mm(self, ours: Float64[Tensor, "4 4"], theirs: Float64[Tensor, "4 4"]) -> float:
        """Mean distance of the bone under two poses."""
        points = self._bone_points_mm
        return float((se3.transform_points(ours, points) - se3.transform_points(theirs, points)).norm(dim=1).mean())

    def _learned_distance(self, seen: Seen, T_camera_ct: Float64[Tensor, "4 4"]) -> float | None:
        """The least of the models that know such a view; none where none does."""
        knowing = [one for one in self._learned if one.knows(T_camera_ct)]
        xrays = [one.see(seen.line_integral, seen.mask, seen.camera) for one in knowing]
        return min((one.distance_rad(xray, T_camera_ct[None]) for one, xray in zip(knowing, xrays, strict=True)), default=None)

    def _rivals(self, best: _Attempt, attempts: Sequence[_Attempt]) -> tuple[str, ...]:
        """Why an acceptable pose is not to be trusted: another start led elsewhere and explains the X-ray as well or better."""
        ours = best.solution.T_camera_ct[0].cpu()
        for other in attempts:
            apart_mm = self._apart_mm(ours, other.solution.T_camera_ct[0].cpu())
            ours_like, theirs_like = (one.verdict.scores["similarity"] for one in (best, other))
            if apart_mm > self.settings.gate.same_pose_mm and theirs_like >= RIVAL_SHARE * ours_like:
                return (f"ambiguous: a pose {apart_mm:.1f} mm away is as similar ({theirs_like:.2f}, this one {ours_like:.2f})",)
        return ()

    def _see(self, view: View) -> Seen:
        validate_xray(view.xray, view.camera)
        return Seen(*to_line_integral(view.xray), view.camera, view.xray.angles_deg)

    def _attempt(
        self,
        solver: LevelSolver,
        pyramids: Sequence[Sequence[XrayLevel]],
        T_view_reference: Sequence[Float64[Tensor, "4 4"]],
        start: Start,
        plan: Plan,
        clock: StageClock,
        observe: Callable[[TraceStep], None],
    ) -> _Attempt:
        """The photometric levels from one set of starts, and the gate's answer."""
        poses, trace, iterations = start.poses, list(start.trace), start.iterations
        solution: StageSolution | None = None
        last = len(self.settings.levels) - 1
        for index, level in enumerate(self.settings.levels):
            if index < plan.first_level:
                continue
            levels = [pyramid[index] for pyramid in pyramids]
            if index == last and plan.last_iterations is not None:
                levels = [one.limited(plan.last_iterations) for one in levels]
            with clock.stage(level.name):
                solution = solver.solve(levels, T_view_reference, poses, observe)
                poses = solution.best(plan.keep if index == 0 < last else 1, self.centre_ct)
                iterations += solution.evaluations
                trace.extend(solution.trace)
        assert solution is not None
        if len(solution.T_camera_ct) > 1:  # the gate judges one pose
            with clock.stage(level.name):
                solution = solver.solve([pyramid[-1] for pyramid in pyramids], T_view_reference, poses, observe)
                iterations += solution.evaluations
                trace.extend(solution.trace)
        with clock.stage("gate"):
            verdict = quality.judge(solution, self.centre_ct, self._bone_points_mm, self.settings.gate)
        return _Attempt(solution, verdict, iterations, tuple(trace))
