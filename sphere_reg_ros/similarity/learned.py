"""The learned similarity as a least-squares problem: residual vector and its six columns by the pose.

There are two ways to the columns. An embedding that was trained towards the anchors of SO(4) moves with the pose as they do: the
bi-invariant metric gives the derivative, exactly, at the cost of nothing. It leads from far away, where the network's own
derivative is that of its errors. The other way is that derivative.

The encoder's Jacobian is never formed. The renderer gives the DRR's derivative by the twist, six images; forward mode carries all
of them through the normalisation, the encoder and the logarithm in one batched pass.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.func import jvp, vmap

from sphere_reg_ros.models.canonical import normalise
from sphere_reg_ros.models.checkpoint import LearnedModel
from sphere_reg_ros.models.encoder import Encoder
from sphere_reg_ros.similarity.anchors import Anchors
from sphere_reg_ros.similarity.geometry import Geometry, make_geometry


class LearnedResidual(NamedTuple):
    """Residual ``(b, d)`` and its derivative by the twist ``(b, d, 6)``."""

    residual: Float[Tensor, "b d"]
    jacobian: Float[Tensor, "b d 6"]


class LearnedSimilarity:
    """An encoder, the space it embeds into, and the anchors it was trained towards, if it was."""

    def __init__(self, encoder: Encoder, geometry: Geometry, anchors: Anchors | None = None) -> None:
        self._encoder = encoder.eval()
        self._geometry = geometry
        self.anchors = anchors

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

    def residual_by_metric(
        self,
        xray: Float[Tensor, "b d"],
        drr: Float[Tensor, "b c h w"],
        T_camera_ct: Float64[Tensor, "b 4 4"],
        centre_ct: Float64[Tensor, "3"],
    ) -> LearnedResidual:
        """Residual, and the derivative that it has if the DRR's point moves as the anchor of its pose does.

        Args:
            xray: from :meth:`embed_xray`.
            drr: line integrals in the canonical camera at ``T_camera_ct``.
        """
        assert self.anchors is not None
        point = self.embed_drr(drr)
        motion = self.anchors.jacobian(T_camera_ct, centre_ct).to(point)

        def towards(at: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
            return self._geometry.residual(xray, at)

        def column(along: Float[Tensor, "b d"]) -> tuple[Tensor, Tensor]:
            value, derivative, *_ = jvp(towards, (point,), (along,))
            return value, derivative

        values, columns = vmap(column, in_dims=-1, out_dims=(0, -1))(motion)
        return LearnedResidual(values[0], columns)


def similarity_of(model: LearnedModel) -> LearnedSimilarity:
    """The similarity of a model file."""
    geometry, settings = make_geometry(model.card.geometry), model.card.settings
    dimension = model.encoder.settings.embedding
    anchored = float(settings.get("anchor_weight", 0.0)) > 0.0
    anchors = Anchors(geometry, dimension, settings["metric"], float(settings["R_mm"])) if anchored else None
    return LearnedSimilarity(model.encoder, geometry, anchors)
