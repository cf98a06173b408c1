"""The learned similarity as a least-squares problem: residual vector and its six columns by the pose.

The encoder's Jacobian is never formed. The renderer gives the DRR's derivative by the twist, six images; forward mode carries all
of them through the normalisation, the encoder and the logarithm in one batched pass.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vmap

from sphere_reg_ros.models.canonical import normalise
from sphere_reg_ros.models.encoder import Encoder
from sphere_reg_ros.similarity.geometry import Geometry


class LearnedResidual(NamedTuple):
    """Residual ``(b, d)`` and its derivative by the twist ``(b, d, 6)``."""

    residual: Float[Tensor, "b d"]
    jacobian: Float[Tensor, "b d 6"]


class LearnedSimilarity:
    """An encoder and the space it embeds into."""

    def __init__(self, encoder: Encoder, geometry: Geometry) -> None:
        self._encoder = encoder.eval()
        self._geometry = geometry

    def embed_xray(self, image: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b d"]:
        """Point of a canonical, normalised X-ray."""
        return self._geometry.project(self._encoder(image, "xray").token)

    def embed_drr(self, drr: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Point of a canonical DRR, as line integrals."""
        return self._geometry.project(self._encoder(normalise(drr, torch.ones_like(drr)), "drr").token)

    def distance(self, xray: Float[Tensor, "b d"], drr: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """Geodesic distance between an embedded X-ray and DRRs; rad on the sphere."""
        return self._geometry.distance(xray, self.embed_drr(drr))

    def residual(
        self, xray: Float[Tensor, "b d"], drr: Float[Tensor, "b c h w"], tangents: Float[Tensor, "b c 6 h w"]
    ) -> LearnedResidual:
        """Residual and its derivative.

        Args:
            xray: from :meth:`embed_xray`.
            drr: line integrals in the canonical camera.
            tangents: their derivative by the twist, from the renderer.
        """

        def towards(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
            return self._geometry.residual(xray, self.embed_drr(image))

        def column(tangent: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor]:
            value, derivative, *_ = jvp(towards, (drr,), (tangent,))
            return value, derivative

        values, columns = vmap(column, in_dims=2, out_dims=(0, -1))(tangents)
        return LearnedResidual(values[0], columns)
