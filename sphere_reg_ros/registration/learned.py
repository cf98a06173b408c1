"""The learned stages: the regressor's guess, and Levenberg-Marquardt on the spherical similarity from there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.models.canonical import canonical_camera, normalise, to_canonical
from sphere_reg_ros.models.checkpoint import LearnedModel
from sphere_reg_ros.optim.levenberg_marquardt import LevenbergMarquardtSettings, Linearise, Solution, minimise
from sphere_reg_ros.optim.levenberg_marquardt import TraceStep as BatchStep
from sphere_reg_ros.registration.coarse import CoarseView, coarse_problem, drr_volume
from sphere_reg_ros.registration.device_coarse import solve_coarse_on_device
from sphere_reg_ros.registration.graphs import StageGraphs
from sphere_reg_ros.registration.levels import RADIAN_MM, trace_step
from sphere_reg_ros.registration.result import TraceStep
from sphere_reg_ros.registration.settings import LearnedSettings
from sphere_reg_ros.registration.trained_range import TrainedRange
from sphere_reg_ros.similarity.learned import similarity_of

COARSE_STAGE = "learned coarse"


class LearnedStages:
    """A model bound to a CT; keeps the CT's coarse renderer."""

    def __init__(self, model: LearnedModel, ct: CtVolume, settings: LearnedSettings, backend: str, device: torch.device) -> None:
        self._settings = settings
        self._centre_ct = ct.reference_point().to(torch.float64)
        self._device = device
        self._graphs = StageGraphs()
        # Of a patient it has not seen, its distances say less than the limit is made for.
        self._range = TrainedRange.of(model.card.settings) if ct.sha256 in model.card.ct_sha256 else None
        self._regressor = model.regressor.to(device)
        self._similarity = similarity_of(replace(model, encoder=model.encoder.to(device)))
        volume = drr_volume(ct, float(model.card.settings["voxel_mm"]))
        if model.volume is not None:
            volume = model.volume.applied(volume)
        renderer = make_renderer(volume.to(device), backend=backend, device=device)
        self._view = CoarseView(renderer, canonical_camera(), self._centre_ct, float(model.card.settings["voxel_mm"]))

    def see(self, line_integral: Float[Tensor, "h w"], mask: Bool[Tensor, "h w"], camera: Camera) -> Float[Tensor, "1 1 n n"]:
        """An X-ray as the networks see it."""
        image, valid = to_canonical(line_integral, mask, camera)
        return normalise(image, valid.to(image.dtype))[None, None].to(self._device)

    @torch.no_grad()
    def guess(self, xray: Float[Tensor, "1 1 n n"], seed: int) -> Float64[Tensor, "k 4 4"]:
        """The regressor's pose, and others drawn from the uncertainty that it states."""
        prediction = self._regressor(xray)
        pose = prediction.pose(self._centre_ct.to(self._device)).cpu()
        generator = torch.Generator().manual_seed(seed)
        deviation = prediction.log_sigma.exp().double().cpu()
        draws = torch.randn(self._settings.hypotheses - 1, 6, generator=generator, dtype=torch.float64)
        around = se3.apply_twist(pose.expand(len(draws), 4, 4), draws * deviation, self._centre_ct)
        return torch.cat((pose, around))

    @torch.no_grad()
    def refine(
        self, xray: Float[Tensor, "1 1 n n"], poses: Float64[Tensor, "k 4 4"], observe: Callable[[TraceStep], None]
    ) -> tuple[Float64[Tensor, "k 4 4"], tuple[TraceStep, ...], int]:
        """Minimise the distance on the sphere from every pose.

        Returns:
            The poses, nearest on the sphere first; the trace of the first; and the number of evaluations.
        """
        solution = self.minimise_distance(xray, poses, observe)
        order = torch.argsort(solution.cost)
        best = int(order[0])
        trace = tuple(trace_step(COARSE_STAGE, index, step, best) for index, step in enumerate(solution.trace))
        return solution.T[order].cpu(), trace, int(solution.iterations)

    def minimise_distance(
        self, xray: Float[Tensor, "1 1 n n"], poses: Float64[Tensor, "k 4 4"], observe: Callable[[TraceStep], None]
    ) -> Solution:
        """Levenberg-Marquardt on the logarithm's residual, all hypotheses in one batch.

        On a device ``observe`` is told of the iterations when all of them are over.
        """
        embedded = self._similarity.embed_xray(xray).expand(len(poses), -1)
        gradient = self._settings.pose_gradient
        counted = count()

        def problem(points: Float[Tensor, "n d"]) -> Linearise:
            return coarse_problem(self._similarity, self._view, points, gradient)

        def in_the_lead(step: BatchStep) -> None:
            observe(trace_step(COARSE_STAGE, next(counted), step, int(step.cost.argmin())))

        limits = LevenbergMarquardtSettings(
            max_iterations=self._settings.max_iterations,
            step_tolerance=self._settings.step_tolerance_mm,
            scale=(1.0, 1.0, 1.0, RADIAN_MM, RADIAN_MM, RADIAN_MM),
        )
        if self._device.type == "cpu":
            return minimise(problem(embedded), poses, self._centre_ct, limits, on_iteration=in_the_lead)
        centre_ct, T_initial = self._centre_ct.to(self._device), poses.to(self._device)
        solution = solve_coarse_on_device(problem, embedded, T_initial, centre_ct, limits, self._graphs, gradient)
        for step in solution.trace:
            in_the_lead(step)
        return solution

    @torch.no_grad()
    def distance_rad(self, xray: Float[Tensor, "1 1 n n"], T_camera_ct: Float64[Tensor, "1 4 4"]) -> float:
        """Learned distance between the X-ray and the DRR at a pose."""
        drr = self._view.renderer.render(T_camera_ct.to(self._device), self._view.camera, self._view.step_mm)
        return float(self._similarity.distance(self._similarity.embed_xray(xray), drr)[0])

    def knows(self, T_camera_ct: Float64[Tensor, "4 4"]) -> bool:
        """Whether the model was trained for such a pose of this CT; of others its distance says little."""
        return self._range is not None and self._range.holds(T_camera_ct, self._centre_ct)
