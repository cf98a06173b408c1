"""The Poincaré ball of curvature -1, for the ablation (Ganea et al., "Hyperbolic neural networks", NeurIPS 2018, section 2)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

MAX_RADIUS = 1.0 - 1e-3
"""Points at the rim are infinitely far away, and float32 cannot tell them apart."""
TINY = 1e-24


class Hyperbolic:
    """Distance ``2 artanh |(-u) ⊕ v|`` with Möbius addition; the residual is the logarithm in a unit frame at ``u``."""

    name = "hyperbolic"
    # A geodesic sphere of radius 2ρ has circles of circumference 2π sinh 2ρ.
    sphere_radius = 0.5 * math.asinh(1.0)

    def project(self, raw: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The exponential map at the origin, ``tanh(|x|) x / |x|``, kept off the rim."""
        length = (raw.square().sum(-1, keepdim=True) + TINY).sqrt()
        return raw * (torch.tanh(length).clamp_max(MAX_RADIUS) / length)

    def distance(self, u: Float[Tensor, "*b d"], v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """Geodesic distance."""
        return 2.0 * torch.atanh(_length(_moebius_difference(u, v)).squeeze(-1))

    def residual(self, u: Float[Tensor, "*b d"], v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """``2 artanh |w| · w / |w|`` with ``w = (-u) ⊕ v``: the logarithm times the ball's conformal factor."""
        difference = _moebius_difference(u, v)
        length = _length(difference)
        return difference * (2.0 * torch.atanh(length) / length)


def _length(w: Float[Tensor, "*b d"]) -> Float[Tensor, "*b 1"]:
    return (w.square().sum(-1, keepdim=True) + TINY).sqrt().clamp_max(1.0 - 1e-6)


def _moebius_difference(u: Float[Tensor, "*b d"], v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """``(-u) ⊕ v``; its numerator is written with ``v - u``, so that it vanishes exactly at ``u = v``."""
    inner = (u * v).sum(-1, keepdim=True)
    u2, v2 = (x.square().sum(-1, keepdim=True) for x in (u, v))
    apart = v - u
    # (1 - 2<u,v> + |v|²)(-u) + (1 - |u|²) v = (1 - |u|²)(v - u) - |v - u|² u
    numerator = (1.0 - u2) * apart - apart.square().sum(-1, keepdim=True) * u
    return numerator / (1.0 - 2.0 * inner + u2 * v2).clamp_min(1e-12)
