"""Where a registration starts: ways to try one after another until the gate accepts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from numpy.typing import ArrayLike
from torch import Tensor

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.registration import starts
from sphere_reg_ros.registration.clock import StageClock
from sphere_reg_ros.registration.learned import COARSE_STAGE, LearnedStages
from sphere_reg_ros.registration.result import TraceStep
from sphere_reg_ros.registration.settings import HypothesisSettings, RegistrationSettings

Observe = Callable[[TraceStep], None]


@dataclass(frozen=True)
class Start:
    """Poses that the photometric levels begin with, and what it took to find them."""

    poses: Float64[Tensor, "b 4 4"]
    trace: tuple[TraceStep, ...] = ()
    iterations: int = 0


@dataclass(frozen=True)
class Plan:
    """One way to start.

    Attributes:
        find: runs the stages before the photometric ones.
        keep: hypotheses that leave the first photometric level.
        first_level: photometric level to begin with.
    """

    find: Callable[[StageClock, Observe], Start]
    keep: int
    first_level: int = 0


@dataclass(frozen=True)
class Seen:
    """The X-ray of the reference camera, as line integrals."""

    line_integral: Float[Tensor, "h w"]
    mask: Bool[Tensor, "h w"]
    camera: Camera
    angles_deg: tuple[float, float] | None


class Planner:
    """Makes the plans for one CT."""

    def __init__(self, ct: CtVolume, settings: RegistrationSettings, learned: LearnedStages | None) -> None:
        self._ct = ct
        self._settings = settings
        self._learned = learned
        self._centre_ct = ct.reference_point().to(torch.float64)

    def plans(self, seen: Seen, T_initial: ArrayLike | None) -> list[Plan]:
        """The model's way first, where there is one, then around the prior or the C-arm's angles, then a search.

        Raises:
            InitialPoseError: the prior cannot be used.
        """
        prior = None if T_initial is None else starts.check_initial_pose(T_initial, self._ct, seen.camera)
        return [*self._with_model(seen, prior), *self._without_model(seen, prior)]

    def _without_model(self, seen: Seen, prior: Float64[Tensor, "4 4"] | None) -> list[Plan]:
        settings = self._settings
        if prior is not None:
            return [
                self._around(prior, settings.hypotheses, settings.seed),
                self._around(prior, settings.second_hypotheses, settings.seed + 1),
            ]
        search = Plan(self._search(seen.camera), settings.search.keep)
        if seen.angles_deg is None:
            return [search]
        reported = starts.reported_views(seen.angles_deg, seen.camera, self._centre_ct)
        return [*(self._around(pose, settings.around_reported, settings.seed) for pose in reported), search]

    def _around(self, pose: Float64[Tensor, "4 4"], spread: HypothesisSettings, seed: int) -> Plan:
        def find(clock: StageClock, observe: Observe) -> Start:
            del observe
            with clock.stage("start"):
                return Start(starts.hypotheses(pose, self._centre_ct, spread, seed))

        return Plan(find, spread.keep)

    def _search(self, camera: Camera) -> Callable[[StageClock, Observe], Start]:
        def find(clock: StageClock, observe: Observe) -> Start:
            del observe
            with clock.stage("start"):
                return Start(starts.search_views(camera, self._centre_ct, self._settings.search))

        return find

    def _with_model(self, seen: Seen, prior: Float64[Tensor, "4 4"] | None) -> list[Plan]:
        learned, settings = self._learned, self._settings.learned
        if learned is None or not (settings.regressor or settings.coarse):
            return []

        def find(clock: StageClock, observe: Observe) -> Start:
            with clock.stage("regressor"):
                xray = learned.see(seen.line_integral, seen.mask, seen.camera)
                found = (
                    []
                    if prior is None
                    else [starts.hypotheses(prior, self._centre_ct, self._settings.hypotheses, self._settings.seed)]
                )
                if settings.regressor:
                    found.insert(0, learned.guess(xray, self._settings.seed))
                poses = torch.cat(found) if found else starts.search_views(seen.camera, self._centre_ct, self._settings.search)
            if not settings.coarse:
                return Start(poses)
            with clock.stage(COARSE_STAGE):
                refined, trace, iterations = learned.refine(xray, poses, observe)
            return Start(refined[: settings.keep], trace, iterations)

        return [Plan(find, settings.keep, self._first_level() if settings.coarse else 0)]

    def _first_level(self) -> int:
        return min(self._settings.learned.first_level, len(self._settings.levels) - 1)
