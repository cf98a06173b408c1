"""Encoder and regressor with their losses, as one module, which DistributedDataParallel can wrap."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from sphere_reg_ros.drr.renderer import Renderer, make_renderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.models.canonical import normalise
from sphere_reg_ros.models.encoder import Embedding, Encoder
from sphere_reg_ros.models.equivariant_volume import EquivariantVolume
from sphere_reg_ros.models.pose_regressor import PosePrediction, PoseRegressor
from sphere_reg_ros.similarity.anchors import SPHERE_SCALE, Anchors
from sphere_reg_ros.similarity.geometry import Geometry
from sphere_reg_ros.similarity.learned import LearnedSimilarity
from sphere_reg_ros.training.batches import Batch
from sphere_reg_ros.training.losses import (
    gradient_loss,
    pose_distance,
    pose_distance_gradient,
    regressor_loss,
    similarity_gradient,
    value_loss,
)
from sphere_reg_ros.training.settings import TrainSettings

LIKELIHOOD_WEIGHT = 0.02
"""The regressor's uncertainty is a by-product: it must not push its trunk around."""


class Losses(NamedTuple):
    """The total, and its parts without their weights."""

    total: Float[Tensor, ""]
    similarity: Float[Tensor, ""]
    anchor: Float[Tensor, ""]
    gradient: Float[Tensor, ""]
    regressor: Float[Tensor, ""]


class Student(nn.Module):
    """What is trained; ``volume`` comes with fine-tuning."""

    def __init__(self, encoder: Encoder, regressor: PoseRegressor, geometry: Geometry, settings: TrainSettings) -> None:
        super().__init__()
        self.encoder, self.regressor = encoder, regressor
        self.geometry, self.settings = geometry, settings
        self.anchors = Anchors(geometry, encoder.settings.embedding, settings.metric, settings.R_mm)
        self.volume: EquivariantVolume | None = None

    def forward(self, batch: Batch) -> Losses:
        """Losses of a batch."""
        settings = self.settings
        with torch.autocast("cpu", torch.bfloat16, enabled=batch.mixed):
            xray = _full(self.encoder(batch.xray[: batch.encoded], "xray"))
            drr = self._encode_drr(batch.drr)
            pose = PosePrediction(*(value.float() for value in self.regressor(batch.xray)))
        everything = Embedding(*(torch.cat(pair) for pair in zip(xray, drr, strict=True)))
        T_all = torch.cat((batch.T_xray[: batch.encoded], batch.T_drr))
        ours = all_pairs(self.geometry, everything, drr)
        wanted = pose_distance(T_all[:, None], batch.T_drr[None], batch.centre_ct, settings.metric, settings.R_mm).to(ours.dtype)
        # A DRR is at distance zero from itself whatever the weights.
        itself = torch.cat((torch.zeros(batch.encoded, ours.shape[1]), torch.eye(ours.shape[1]))).bool()
        similarity = value_loss(ours[~itself] / SPHERE_SCALE, wanted[~itself])
        anchor = self._anchor_loss(everything, T_all, batch.centre_ct)
        gradient = self._gradient_loss(batch, xray) if len(batch.jacobian) else similarity.new_zeros(())
        error, likelihood = regressor_loss(
            pose.rotation, pose.translation_mm, pose.log_sigma, batch.T_xray, batch.centre_ct
        )
        total = similarity + settings.anchor_weight * anchor + settings.gradient_weight * gradient
        return Losses(total + error + LIKELIHOOD_WEIGHT * likelihood, similarity, anchor, gradient, error)

    def similarity(self) -> LearnedSimilarity:
        """What the encoder has learned, as the solver uses it."""
        return LearnedSimilarity(self.encoder, self.geometry, self.anchors if self.settings.anchor_weight > 0.0 else None)

    def renderer(self, attenuation: AttenuationVolume) -> Renderer:
        """Renders a CT as the similarity sees it: with the learned residual, once there is one."""
        if self.volume is None:
            return make_renderer(attenuation)
        return make_renderer(replace(attenuation, values=self.volume(attenuation.values)))

    def _anchor_loss(
        self, embedding: Embedding, T: Float64[Tensor, "n 4 4"], centre_ct: Float64[Tensor, "3"]
    ) -> Float[Tensor, ""]:
        """Mean distance to where the poses belong."""
        target = self.anchors.points(T, centre_ct).to(embedding.token.dtype)
        return self.geometry.distance(self.geometry.project(embedding.token), target).mean()

    def _encode_drr(self, lines: Float[Tensor, "b 1 h w"]) -> Embedding:
        return _full(self.encoder(normalise(lines, torch.ones_like(lines)), "drr"))

    def _gradient_loss(self, batch: Batch, xray: Embedding) -> Float[Tensor, ""]:
        count = len(batch.jacobian)
        lines = batch.drr[:count].requires_grad_()
        distance = matched(self.geometry, Embedding(xray.token[:count], xray.patches[:count]), self._encode_drr(lines))
        settings = self.settings
        wanted = pose_distance_gradient(
            batch.T_xray[:count], batch.T_drr[:count], batch.centre_ct, settings.metric, settings.R_mm
        )
        return gradient_loss(similarity_gradient(distance, lines, batch.jacobian), wanted)


def _full(embedding: Embedding) -> Embedding:
    return Embedding(*(value.float() for value in embedding))


def matched(geometry: Geometry, left: Embedding, right: Embedding) -> Float[Tensor, "*b"]:
    """Distance of embeddings, row by row; batches broadcast."""
    return geometry.distance(geometry.project(left.token), geometry.project(right.token))


def all_pairs(geometry: Geometry, left: Embedding, right: Embedding) -> Float[Tensor, "n m"]:
    """Distance of every embedding on the left to every one on the right."""
    return matched(geometry, Embedding(*(x[:, None] for x in left)), Embedding(*(x[None] for x in right)))
