"""The least-squares problem of one pyramid level: locally normalised X-ray against locally normalised DRR."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.drr.renderer import Renderer
from sphere_reg_ros.optim.levenberg_marquardt import NormalEquations
from sphere_reg_ros.optim.robust import MAD_TO_DEVIATION, mad_scale
from sphere_reg_ros.registration.pyramid import XrayLevel
from sphere_reg_ros.similarity.photometric import (
    LocallyNormalised,
    normalise_locally,
    normalise_locally_with_jacobian,
)

MIN_CUTOFF = 0.2
"""In units of the normalised image, whose own deviation is one."""


@dataclass(frozen=True)
class Comparison:
    """An X-ray and the DRR at some poses, both locally normalised.

    Attributes:
        xray: the normalised X-ray, zero off the support.
        residual: normalised DRR minus normalised X-ray.
        support: 1 where the two can be compared.
        jacobian: derivative of the residual by the twist, in the reference camera's axes.
    """

    xray: Float[Tensor, "b h w"]
    residual: Float[Tensor, "b h w"]
    support: Float[Tensor, "b h w"]
    jacobian: Float[Tensor, "b 6 h w"] | None

    def agreement(self, shown: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Correlation where the CT explains the X-ray, less where that is a small part of the ``shown`` pixels.

        Costs do not compare between hypotheses, each of which has its own mask and its own robust cut-off.
        """
        share = self.support.sum((1, 2)) / shown.clamp_min(1.0)
        return self.similarity() * share.sqrt()

    def similarity(self) -> Float[Tensor, " b"]:
        """Correlation of the two normalised images."""
        drr = self.xray + self.residual
        energy = (self.xray.square().sum((1, 2)) * drr.square().sum((1, 2))).sqrt().clamp_min(1e-6)
        return (self.xray * drr).sum((1, 2)) / energy


@dataclass(frozen=True)
class ViewProblem:
    """One X-ray at one level, to be compared with the CT.

    Attributes:
        level: the X-ray.
        renderer: of the CT at the level's voxel size.
        centre_ct: ``(3,)`` reference point, LPS mm.
        T_view_reference: ``(4, 4)`` pose of the reference camera in this view's camera, mm.
        explained: ``(b or 1, h, w)``, 1 where the CT can explain the X-ray.
        deviation_floor: see :func:`sphere_reg_ros.similarity.photometric.normalise_locally`.
    """

    level: XrayLevel
    renderer: Renderer
    centre_ct: Float64[Tensor, "3"]
    T_view_reference: Float64[Tensor, "4 4"]
    explained: Float[Tensor, "b h w"]
    deviation_floor: float

    def compare(self, T_camera_ct: Float64[Tensor, "b 4 4"]) -> Comparison:
        """Residual with its derivative."""
        rendered = self.renderer.render_with_jacobian(
            self._in_view(T_camera_ct),
            self.level.camera,
            self.centre_ct,
            self.level.settings.step_mm,
        )
        xray = self._normalised_xray(len(T_camera_ct))
        drr, jacobian = normalise_locally_with_jacobian(
            rendered.image[:, 0],
            self._in_reference_axes(rendered.jacobian[:, 0]),
            self._mask(len(T_camera_ct)),
            self.level.window_px,
            self.deviation_floor,
        )
        return Comparison(xray.values, drr.values - xray.values, drr.support, jacobian)

    def compare_values(self, T_camera_ct: Float64[Tensor, "b 4 4"]) -> Comparison:
        """Residual without its derivative, at less than half the price."""
        image = self.renderer.render(self._in_view(T_camera_ct), self.level.camera, self.level.settings.step_mm)
        xray = self._normalised_xray(len(T_camera_ct))
        drr = normalise_locally(image[:, 0], self._mask(len(T_camera_ct)), self.level.window_px, self.deviation_floor)
        return Comparison(xray.values, drr.values - xray.values, drr.support, None)

    def _in_view(self, T_camera_ct: Float64[Tensor, "b 4 4"]) -> Float64[Tensor, "b 4 4"]:
        return self.T_view_reference @ T_camera_ct.to(self.T_view_reference.device)

    def _mask(self, batch: int) -> Float[Tensor, "b h w"]:
        return (self.level.mask * self.explained).expand(batch, -1, -1)

    def _normalised_xray(self, batch: int) -> LocallyNormalised:
        mask = self._mask(batch)
        image = self.level.line_integral.expand_as(mask)
        return normalise_locally(image, mask, self.level.window_px, self.deviation_floor)

    def _in_reference_axes(self, jacobian: Float[Tensor, "b 6 h w"]) -> Float[Tensor, "b 6 h w"]:
        rotation = self.T_view_reference[:3, :3].to(jacobian)
        # On a device the comparison would wait for it, and turning by the identity is exact.
        if rotation.device.type == "cpu" and torch.equal(rotation, torch.eye(3).to(rotation)):
            return jacobian
        # A twist about c in reference axes has the components R·t, R·w in the view's axes.
        parts = jacobian.unflatten(1, (2, 3))
        return torch.einsum("bpihw,ij->bpjhw", parts, rotation).flatten(1, 2)


def normal_equations(comparison: Comparison, cutoff: Float[Tensor, " b"]) -> NormalEquations:
    """Mean robust cost of a view, with its gradient and Gauss-Newton Hessian.

    Tukey's biweight with its cost ``rho`` (not the weighted square), so that the gain ratio of the damping sees
    the function that is minimised. Divided by the support, so that views of different size weigh the same.
    """
    assert comparison.jacobian is not None
    weight, rho = tukey_weight_and_cost(comparison.residual, comparison.support, cutoff)
    columns = comparison.jacobian.flatten(2)
    weighted = columns * weight.flatten(1).unsqueeze(1)
    hessian = weighted @ columns.transpose(1, 2)
    gradient = (weighted @ comparison.residual.flatten(1).unsqueeze(2)).squeeze(2)
    scale = comparison.support.sum((1, 2)).clamp_min(1.0).reciprocal().to(torch.float64)
    return NormalEquations(
        cost=rho.sum((1, 2)).to(torch.float64) * scale,
        gradient=gradient.to(torch.float64) * scale.unsqueeze(1),
        hessian=hessian.to(torch.float64) * scale.view(-1, 1, 1),
    )


def tukey_weight_and_cost(
    residual: Float[Tensor, "b h w"], support: Float[Tensor, "b h w"], cutoff: Float[Tensor, " b"]
) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Weight ``(1 - (r/c)²)²`` and cost ``c²/6 (1 - (1 - (r/c)²)³)`` of Tukey's biweight, zero off the support."""
    limit = cutoff.view(-1, 1, 1).to(residual)
    inside = (1.0 - (residual / limit).square()).clamp_min(0.0)
    return inside.square() * support, (1.0 - inside.pow(3)) * (limit.square() / 6.0) * support


def robust_cutoff(comparison: Comparison, factor: float) -> Float[Tensor, " b"]:
    """Tukey's cut-off from the median absolute residual of the supported pixels, per hypothesis."""
    if comparison.residual.device.type != "cpu":
        return sorted_cutoff(comparison, factor)
    cutoffs = []
    for residual, support in zip(comparison.residual, comparison.support, strict=True):
        inside = residual[support > 0]
        deviation = mad_scale(inside[None])[0] if len(inside) else residual.new_tensor(1.0)
        cutoffs.append(factor * deviation)
    # A rendered X-ray without noise has no deviation at all; then nothing is an outlier.
    return torch.stack(cutoffs).clamp_min(MIN_CUTOFF)


def sorted_cutoff(comparison: Comparison, factor: float) -> Float[Tensor, " b"]:
    """:func:`robust_cutoff` without a count that the host would have to wait for: the same numbers, by sorting."""
    inside = comparison.support.flatten(1) > 0
    ordered = torch.where(inside, comparison.residual.flatten(1).abs(), torch.inf).sort(-1).values
    count = inside.sum(-1, keepdim=True)
    median = ordered.gather(-1, ((count - 1) // 2).clamp_min(0)).squeeze(-1)
    deviation = torch.where(count.squeeze(-1) > 0, MAD_TO_DEVIATION * median, 1.0)
    return (factor * deviation).clamp_min(MIN_CUTOFF)
