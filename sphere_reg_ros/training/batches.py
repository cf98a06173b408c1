"""What one step of training sees; a function of the seed, the step and the process alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.drr.renderer import Renderer
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.models.canonical import normalise
from sphere_reg_ros.training.augmentation import randomised_xrays
from sphere_reg_ros.training.pairs import Pairs
from sphere_reg_ros.training.settings import TrainSettings


@dataclass(frozen=True)
class Patient:
    """One CT to train on.

    Attributes:
        pairs: what it looks like.
        centre_ct: its reference point, LPS mm.
        renderer: of its DRR volume, for the Jacobians of gradient matching.
    """

    pairs: Pairs
    centre_ct: Float64[Tensor, "3"]
    renderer: Renderer


@dataclass(frozen=True)
class Batch:
    """X-rays and DRRs of one CT, row i of one near row i of the other; the X-rays go on where the DRRs end.

    Attributes:
        xray: normalised, randomised.
        drr: line integrals, not yet normalised.
        jacobian: of the first rows of ``drr`` by the twist about the CT's centre; no rows without gradient matching.
        mixed: whether the networks compute in bfloat16.
        encoded: so many X-rays, from the first, are encoded; the others are for the regressor only.
        seed: that brings the same batch again.
    """

    xray: Float[Tensor, "r 1 h w"]
    drr: Float[Tensor, "b 1 h w"]
    T_xray: Float64[Tensor, "r 4 4"]
    T_drr: Float64[Tensor, "b 4 4"]
    centre_ct: Float64[Tensor, "3"]
    jacobian: Float[Tensor, "g 1 6 h w"]
    mixed: bool
    encoded: int
    seed: int


def batch_seed(seed: int, step: int, rank: int) -> int:
    """One number for each step of each process of a training."""
    return (seed * 1_000_003 + step) * 4096 + rank


def draw_batch(patients: Sequence[Patient], camera: Camera, settings: TrainSettings, seed: int, mixed: bool) -> Batch:
    """The batch of a seed."""
    generator = torch.Generator().manual_seed(seed)
    patient = patients[int(torch.randint(len(patients), (1,), generator=generator))]
    pairs = patient.pairs
    index = torch.randperm(len(pairs), generator=generator)[: settings.regressor_batch]
    image, mask = randomised_xrays(pairs.materials[index].float(), generator, settings.augmentation)
    near = index[: settings.batch]
    drr, T_drr = pairs.drr[near].float()[:, None], pairs.T_drr[near]
    count = settings.gradient_batch if settings.gradient_weight > 0.0 else 0
    jacobian = torch.zeros(0, 1, 6, *drr.shape[2:])
    if count:
        with torch.no_grad():
            jacobian = patient.renderer.render_with_jacobian(T_drr[:count], camera, patient.centre_ct, settings.voxel_mm).jacobian
    xray, encoded = normalise(image, mask)[:, None], min(settings.xray_batch, len(index))
    return Batch(xray, drr, pairs.T_xray[index], T_drr, patient.centre_ct, jacobian, mixed, encoded, seed)
