"""How well one X-ray determines the pose.

The residuals of neighbouring pixels are correlated (a normalisation window spans hundreds of them, anatomy
moves as a whole), so ``σ²(JᵀWJ)⁻¹`` is far too small. The X-ray is cut into blocks and the scatter of the blocks'
gradients at the optimum replaces ``σ²JᵀWJ``: the cluster-robust covariance ``H⁻¹ (Σ g_b g_bᵀ) H⁻¹`` (Liang and
Zeger, "Longitudinal data analysis using generalized linear models", Biometrika 1986, eq. 6). At a wrong optimum the blocks
pull in different directions, and the covariance shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional

BLOCKS_PER_SIDE = 6


@dataclass(frozen=True)
class BlockEquations:
    """Normal equations of one view, its gradient kept block by block.

    Attributes:
        hessian: ``(6, 6)`` sum of ``JᵀWJ``.
        gradients: ``(blocks, 6)`` sums of ``JᵀWr``.
        model_variance: weighted mean square of the residual.
        pixels: sum of the weights.
    """

    hessian: Float64[Tensor, "6 6"]
    gradients: Float64[Tensor, "blocks 6"]
    model_variance: float
    pixels: float


def block_sums(values: Float[Tensor, "c h w"]) -> Float[Tensor, "c blocks"]:
    """Sums over the blocks of an image, row by row."""
    height, width = values.shape[-2:]
    rows, cols = (-(-size // BLOCKS_PER_SIDE) for size in (height, width))
    padded = functional.pad(values, (0, cols * BLOCKS_PER_SIDE - width, 0, rows * BLOCKS_PER_SIDE - height))
    blocks: Tensor = padded.unflatten(2, (BLOCKS_PER_SIDE, cols)).unflatten(1, (BLOCKS_PER_SIDE, rows))
    return blocks.sum((2, 4)).flatten(1)


def block_equations(
    residual: Float[Tensor, "h w"], jacobian: Float[Tensor, "6 h w"], weight: Float[Tensor, "h w"]
) -> BlockEquations:
    """Normal equations of one view, from float32 images, summed in float64."""
    columns = jacobian.flatten(1)
    hessian = (columns * weight.flatten()) @ columns.T
    per_pixel = jacobian * (weight * residual)
    blocks = block_sums(per_pixel)
    pixels = float(weight.sum())
    variance = float((weight * residual.square()).sum()) / max(pixels, 1.0)
    return BlockEquations(hessian.cpu().to(torch.float64), blocks.T.cpu().to(torch.float64), variance, pixels)


def cluster_robust_covariance(views: Sequence[BlockEquations]) -> Float64[Tensor, "6 6"]:
    """Covariance of the twist (mm, rad) about the reference point, before calibration.

    Blocks that hold no structure add nothing; the plain ``σ²H⁻¹`` is added as a floor, so that an X-ray that
    by chance fits every block is not called exact.
    """
    hessian = torch.stack([view.hessian for view in views]).sum(0)
    gradients = torch.cat([view.gradients for view in views])
    gradients = gradients[gradients.abs().sum(1) > 0.0]
    inverse = pseudo_inverse(hessian)
    count = max(len(gradients), 2)
    centred = gradients - gradients.mean(0) if len(gradients) else gradients
    scatter = centred.T @ centred * (count / (count - 1))
    pixels = sum(view.pixels for view in views)
    variance = sum(view.model_variance * view.pixels for view in views) / max(pixels, 1.0)
    return inverse @ scatter @ inverse + variance * inverse


SCALE = torch.tensor([1.0, 1.0, 1.0, 0.01, 0.01, 0.01], dtype=torch.float64)
"""Brings mm and rad to a common size before any decomposition: 1 rad moves a point 100 mm away by 100 mm."""


def pseudo_inverse(hessian: Float64[Tensor, "6 6"]) -> Float64[Tensor, "6 6"]:
    """Inverse of a normal matrix; directions without information get a huge, finite variance."""
    scaled = hessian * SCALE[:, None] * SCALE[None, :]
    values, vectors = torch.linalg.eigh(0.5 * (scaled + scaled.T))
    floor = max(float(values[-1]) * 1e-9, 1e-12)
    inverse: Tensor = vectors @ torch.diag(values.clamp_min(floor).reciprocal()) @ vectors.T
    return torch.outer(SCALE, SCALE) * inverse


def expected_error_mm(covariance: Float64[Tensor, "6 6"], offsets_camera_mm: Float64[Tensor, "n 3"]) -> float:
    """Root mean square displacement of points that the covariance implies.

    Args:
        covariance: of the twist about the reference point, mm and rad, camera axes.
        offsets_camera_mm: the points relative to the reference point, in camera axes.
    """
    x, y, z = offsets_camera_mm.unbind(1)
    zero = torch.zeros_like(x)
    # w × p as a matrix acting on w.
    cross = torch.stack((zero, z, -y, -z, zero, x, y, -x, zero), dim=1).reshape(-1, 3, 3)
    identity = torch.eye(3, dtype=cross.dtype).expand_as(cross)
    jacobian = torch.cat((identity, cross), dim=2)
    variance = (jacobian @ covariance @ jacobian.transpose(1, 2)).diagonal(dim1=1, dim2=2).sum(1)
    return float(variance.mean().clamp_min(0.0).sqrt())
