"""The unit hypersphere with its geodesic distance: the similarity of the method (poster, step 3)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

TINY = 1e-12
SMALL_RAD = 1e-3


class Spherical:
    """Great-circle distance in rad, and the logarithm ``log_u(v) = φ/sin φ · (v - cos φ · u)`` as the residual."""

    name = "spherical"
    sphere_radius = 1.0

    def project(self, raw: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The direction of a vector."""
        return raw * (raw.square().sum(-1, keepdim=True) + TINY).rsqrt()

    def distance(self, u: Float[Tensor, "*b d"], v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """``2 atan2(|u - v|, |u + v|)``: keeps its float32 digits near zero and near pi, where arccos loses them (Kahan 2006)."""
        return 2.0 * torch.atan2(_norm(u - v), _norm(u + v))

    def residual(self, u: Float[Tensor, "*b d"], v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Tangent vector at ``u`` towards ``v``, its length the distance; smooth at ``u = v``, without direction at antipodes."""
        apart = v - u
        # v - cos φ·u = (v - u) + (1 - cos φ)·u, and 1 - cos φ = |v - u|²/2 without cancellation.
        squared = apart.square().sum(-1, keepdim=True)
        tangent = apart + 0.5 * squared * u
        return _angle_over_sine(squared, u, v) * tangent


def _norm(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
    # Zero has no gradient of its norm; with the constant inside the root it is zero instead of NaN.
    return (x.square().sum(-1) + TINY**2).sqrt()


def _angle_over_sine(squared: Float[Tensor, "*b 1"], u: Float[Tensor, "*b d"], v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b 1"]:
    """``φ / sin φ`` from the squared chord ``|v - u|² = 2 - 2 cos φ``; its series ``1 + φ²/6`` where the chord is short."""
    far = squared > SMALL_RAD**2
    chord = torch.where(far, squared, torch.ones_like(squared)).sqrt()
    other = ((u + v).square().sum(-1, keepdim=True) + TINY**2).sqrt()
    # sin φ = 2 sin(φ/2) cos(φ/2) = chord · |u + v| / 2.
    exact = 2.0 * torch.atan2(chord, other) / (0.5 * chord * other).clamp_min(1e-6)
    return torch.where(far, exact, 1.0 + squared / 6.0)
