"""Robust scale and weights for iteratively reweighted least squares (Huber, "Robust Statistics", 1981)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

MAD_TO_DEVIATION = 1.4826
"""The median absolute deviation of a normal distribution is its standard deviation over this."""


def mad_scale(residual: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """Standard deviation of the bulk of the residuals, about zero."""
    return MAD_TO_DEVIATION * residual.abs().median(dim=-1).values


def huber_weight(residual: Float[Tensor, "*b n"], cutoff: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b n"]:
    """1 up to the cut-off, ``cutoff / |r|`` beyond."""
    return cutoff / torch.maximum(residual.abs(), cutoff)


def tukey_weight(residual: Float[Tensor, "*b n"], cutoff: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b n"]:
    """``(1 - (r / c)²)²`` up to the cut-off, 0 beyond (Beaton and Tukey, Technometrics 1974)."""
    return (1.0 - (residual / cutoff).square()).clamp_min(0.0).square()


def tukey_cost(residual: Float[Tensor, "*b n"], cutoff: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b n"]:
    """``c² / 6 · (1 - (1 - (r / c)²)³)``, whose derivative by r is ``r`` times :func:`tukey_weight`."""
    inside = (1.0 - (residual / cutoff).square()).clamp_min(0.0)
    return (1.0 - inside.pow(3)) * cutoff.square() / 6.0
