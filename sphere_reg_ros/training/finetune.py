"""End-to-end fine-tuning: the loss is the pose that Levenberg-Marquardt ends at, differentiated through all its iterations.

The encoder learns not a distance but what the optimiser makes of it. Reverse mode runs over the solver's steps, over the
forward-mode Jacobians in each, and over the motion of the DRR with the pose; the renderer's Jacobian counts as constant in
the pose, as in Gauss-Newton.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import sample_perturbation
from sphere_reg_ros.models.canonical import normalise
from sphere_reg_ros.models.equivariant_volume import EquivariantVolume
from sphere_reg_ros.optim.levenberg_marquardt import LevenbergMarquardtSettings, minimise
from sphere_reg_ros.registration.coarse import CoarseView, coarse_problem
from sphere_reg_ros.similarity.learned import LearnedSimilarity
from sphere_reg_ros.training.augmentation import randomised_xrays
from sphere_reg_ros.training.batches import Patient
from sphere_reg_ros.training.errors import NotFiniteLossError
from sphere_reg_ros.training.losses import ROTATION_ARM_MM
from sphere_reg_ros.training.poses import NEAR_AP
from sphere_reg_ros.training.settings import TrainSettings
from sphere_reg_ros.training.student import Student

FIRST_SEED = 1 << 50
"""Far above the seeds of the training's batches."""
HALF_WAY_MM = 5.0
"""Errors far above count by their logarithm: starts that are lost anyhow must not drown those that can be improved."""


def fine_tune(
    student: Student,
    patients: Sequence[Patient],
    camera: Camera,
    settings: TrainSettings,
    on_step: Callable[[int, float], None],
) -> None:
    """Change the encoder's weights in place, and add the residual on the CT if it is asked for; the regressor stays.

    Raises:
        NotFiniteLossError: the loss became NaN or infinite.
    """
    tuning = settings.fine_tune
    groups: list[dict[str, Any]] = [{"params": list(student.encoder.parameters()), "lr": tuning.learning_rate}]
    if tuning.equivariant:
        torch.manual_seed(settings.seed)
        student.volume = EquivariantVolume()
        groups.append({"params": list(student.volume.parameters()), "lr": tuning.volume_learning_rate})
    optimiser = torch.optim.Adam(groups)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, tuning.steps)
    learned = [parameter for group in groups for parameter in group["params"]]
    for step in range(tuning.steps):
        seed = FIRST_SEED + settings.seed * 1_000_003 + step
        generator = torch.Generator().manual_seed(seed)
        patient = patients[int(torch.randint(len(patients), (1,), generator=generator))]
        xray, T_true, T_start = draw_starts(patient, settings, tuning.batch, generator)
        similarity = student.similarity()
        view = CoarseView(student.renderer(patient.renderer.volume), camera, patient.centre_ct, settings.voxel_mm)
        loss = end_pose_loss(similarity, view, xray, T_true, T_start, tuning.evaluations)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NotFiniteLossError(f"the loss of fine-tuning is {value:g} at step {step}, batch seed {seed}")
        optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(learned, tuning.clip_norm)
        # A solver whose system was nearly singular has no useful gradient.
        if bool(torch.isfinite(norm)):
            optimiser.step()
        decay.step()
        on_step(step + 1, value)


def draw_starts(
    patient: Patient, settings: TrainSettings, n: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n 1 h w"], Float64[Tensor, "n 4 4"], Float64[Tensor, "n 4 4"]]:
    """Randomised X-rays, their poses, and starts off by up to the full spread."""
    pairs = patient.pairs
    index = torch.randperm(len(pairs), generator=generator)[:n]
    image, mask = randomised_xrays(pairs.materials[index].float(), generator, settings.augmentation)
    scale = 0.1 + 0.9 * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    twist = scale * sample_perturbation(generator, NEAR_AP.rotation_deg, NEAR_AP.in_plane_mm, NEAR_AP.depth_mm, n)
    T_true = pairs.T_xray[index]
    return normalise(image, mask)[:, None], T_true, se3.apply_twist(T_true, twist, patient.centre_ct)


def end_pose_loss(
    similarity: LearnedSimilarity,
    view: CoarseView,
    xray: Float[Tensor, "n 1 h w"],
    T_true: Float64[Tensor, "n 4 4"],
    T_start: Float64[Tensor, "n 4 4"],
    evaluations: int,
) -> Float64[Tensor, ""]:
    """Mean of ``log(1 + e / 5 mm)`` over the starts, e the error of the pose that the solver ends at, 1 rad as 100 mm."""
    linearise = coarse_problem(similarity, view, similarity.embed_xray(xray))
    T_end = minimise(linearise, T_start, view.centre_ct, LevenbergMarquardtSettings(max_iterations=evaluations)).T
    twist = se3.twist_between(T_end, T_true, view.centre_ct)
    error_mm = (twist[:, :3].square().sum(1) + (ROTATION_ARM_MM * twist[:, 3:]).square().sum(1)).add(1e-6).sqrt()
    return torch.log1p(error_mm / HALF_WAY_MM).mean()
