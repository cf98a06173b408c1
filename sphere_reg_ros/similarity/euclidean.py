"""Flat space: the similarity of the earlier methods (ProST), for the ablation."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

TINY = 1e-24


class Euclidean:
    """Straight-line distance; the residual is the difference."""

    name = "euclidean"
    sphere_radius = 1.0

    def project(self, raw: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The vector itself."""
        return raw

    def distance(self, u: Float[Tensor, "*b d"], v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """Length of the difference; its gradient is zero, not NaN, where both are equal."""
        return ((v - u).square().sum(-1) + TINY).sqrt()

    def residual(self, u: Float[Tensor, "*b d"], v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """From ``u`` to ``v``."""
        return v - u
