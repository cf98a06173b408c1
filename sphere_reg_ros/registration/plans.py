"""Where a registration starts: ways to try one after another until the gate accepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Float64
from numpy.typing import ArrayLike
from torch import Tensor

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.registration import starts
from sphere_reg_ros.registration.clock import StageClock
from sphere_reg_ros.registration.learned import COARSE_STAGE, LearnedStages
from sphere_reg_ros.registration.pyramid import VolumePyramid, xray_level
from sphere_reg_ros.registration.result import TraceStep
from sphere_reg_ros.registration.search import likeliest
from sphere_reg_ros.registration.settings import HypothesisSettings, RegistrationSettings, SearchSettings

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
        last_iterations: renderings at the last level, where they are fewer than the level's own.
        T_tracked: the pose in the X-ray before, where the plan is to follow it: far from there it is not believed alone.
    """

    find: Callable[[StageClock, Observe], Start]
    keep: int
    first_level: int = 0
    last_iterations: int | None = None
    T_tracked: Float64[Tensor, "4 4"] | None = None


@dataclass(frozen=True)
class Seen:
    """The X-ray of the reference camera, as line integrals."""

    line_integral: Float[Tensor, "h w"]
    mask: Bool[Tensor, "h w"]
    camera: Camera
    angles_deg: tuple[float, float] | None


class Planner:
    """Makes the plans for one CT and the models that know it."""

    def __init__(
        self,
        ct: CtVolume,
        settings: RegistrationSettings,
        learned: Sequence[LearnedStages],
        volumes: VolumePyramid,
        device: torch.device,
    ) -> None:
        self._ct = ct
        self._volumes = volumes
        self._device = device
        self._settings = settings
        self._learned = learned
        self._centre_ct = ct.reference_point().to(torch.float64)

    def plans(self, seen: Seen, T_initial: ArrayLike | None, T_tracked: ArrayLike | None = None) -> list[Plan]:
        """Around the prior first, where there is one: that is fast, and right where the prior is; then the model's way.

        Without a prior the model's way, then around the C-arm's angles, then a search. A pose to track comes before all, and is
        the prior where there is no other.

        Raises:
            InitialPoseError: the prior cannot be used.
        """
        if T_tracked is not None:
            tracked = starts.check_initial_pose(T_tracked, self._ct, seen.camera)
            return [self._track(tracked), *self.plans(seen, T_tracked if T_initial is None else T_initial)]
        prior = None if T_initial is None else starts.check_initial_pose(T_initial, self._ct, seen.camera)
        settings = self._settings
        if prior is None:
            return [*self._with_model(seen, None), *self._without_prior(seen)]
        return [
            self._around(prior, settings.hypotheses, settings.seed),
            *self._with_model(seen, prior),
            self._around(prior, settings.second_hypotheses, settings.seed + 1),
        ]

    def _without_prior(self, seen: Seen) -> list[Plan]:
        settings = self._settings
        searches = [Plan(partial(self._search, seen, one), one.keep) for one in (settings.search, settings.second_search)]
        if seen.angles_deg is None:
            return searches
        reported = starts.reported_views(seen.angles_deg, seen.camera, self._centre_ct)
        return [*(self._around(pose, settings.around_reported, settings.seed) for pose in reported), *searches]

    def _around(self, pose: Float64[Tensor, "4 4"], spread: HypothesisSettings, seed: int) -> Plan:
        def find(clock: StageClock, observe: Observe) -> Start:
            del observe
            with clock.stage("start"):
                return Start(starts.hypotheses(pose, self._centre_ct, spread, seed))

        return Plan(find, spread.keep)

    def _track(self, pose: Float64[Tensor, "4 4"]) -> Plan:
        settings = self._settings.tracking
        first_level = min(settings.first_level, len(self._settings.levels) - 1)
        return Plan(lambda clock, observe: Start(pose[None]), 1, first_level, settings.last_iterations, pose)

    def _search(self, seen: Seen, search: SearchSettings, clock: StageClock, observe: Observe) -> Start:
        del observe
        with clock.stage("search"):
            return Start(self._likely_views(seen, search))

    def _likely_views(self, seen: Seen, search: SearchSettings) -> Float64[Tensor, "n 4 4"]:
        coarsest = self._settings.levels[0]
        level = xray_level(seen.line_integral, seen.mask, seen.camera, coarsest, self._device)
        renderer = self._volumes.renderer(coarsest.voxel_mm, coarsest.beyond_the_ct)
        views = starts.search_views(seen.camera, self._centre_ct, search)
        return likeliest(level, renderer, views, self._centre_ct, search.max_shift_share, search.count)

    def _with_model(self, seen: Seen, prior: Float64[Tensor, "4 4"] | None) -> list[Plan]:
        """The regressor's guess straight into the photometric levels, then refined on the learned similarity before them.

        The guess alone comes first: a photometric level refines it in a fraction of the time of the learned one.
        """
        settings = self._settings.learned
        guesses = [Plan(partial(self._guess, one, seen), self._settings.hypotheses.keep) for one in self._learned]
        first_level = min(settings.first_level, len(self._settings.levels) - 1)
        refined = [Plan(partial(self._refine, one, seen, prior), settings.keep, first_level) for one in self._learned]
        return [*(guesses if settings.regressor else []), *(refined if settings.coarse else [])]

    def _guess(self, learned: LearnedStages, seen: Seen, clock: StageClock, observe: Observe) -> Start:
        del observe
        with clock.stage("regressor"):
            xray = learned.see(seen.line_integral, seen.mask, seen.camera)
            return Start(learned.guess(xray, self._settings.seed))

    def _refine(
        self, learned: LearnedStages, seen: Seen, prior: Float64[Tensor, "4 4"] | None, clock: StageClock, observe: Observe
    ) -> Start:
        settings = self._settings
        with clock.stage("regressor"):
            xray = learned.see(seen.line_integral, seen.mask, seen.camera)
            found = [learned.guess(xray, settings.seed)] if settings.learned.regressor else []
            if prior is not None:
                found.append(starts.hypotheses(prior, self._centre_ct, settings.hypotheses, settings.seed))
            poses = torch.cat(found) if found else self._likely_views(seen, settings.search)
        with clock.stage(COARSE_STAGE):
            refined, trace, iterations = learned.refine(xray, poses, observe)
        return Start(refined[: settings.learned.keep], trace, iterations)
