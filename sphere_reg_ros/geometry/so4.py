"""Poses as rotations of four-dimensional space, where there is a bi-invariant metric.

SE(3) has no bi-invariant Riemannian metric, SO(4) has. With a length scale ``R`` a pose is embedded as a 4-D rotation
whose geodesic distance approximates a motion's size, the same from every frame up to terms that fall roughly as 1/R².
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def embed_mccarthy(T: Float[Tensor, "*b 4 4"], R_mm: float) -> Float[Tensor, "*b 4 4"]:
    """``P = D(t) · diag(A, 1)`` (McCarthy, "Planar and spatial rigid motion as special cases of spherical and 3-spherical
    motion", J. Mechanisms 1983).

    ``gamma = atan(|t| / R)``, ``s = t / |t|``, ``D = [[I + (cos gamma - 1) s sᵀ, sin gamma s], [-sin gamma sᵀ, cos gamma]]``.
    Small motions: ``d² ≈ θ² + |t|² / R²``.
    """
    rotation, scaled = T[..., :3, :3], T[..., :3, 3] / R_mm
    squared = scaled.square().sum(-1)
    cosine = (1.0 + squared).rsqrt()
    # With u = t / R: sin γ s = cos γ u, and (cos γ - 1) s sᵀ = -cos²γ / (1 + cos γ) u uᵀ; no division by |t|.
    sine_axis = cosine[..., None] * scaled
    factor = -cosine.square() / (1.0 + cosine)
    identity = torch.eye(3, dtype=T.dtype, device=T.device)
    block = identity + factor[..., None, None] * scaled[..., :, None] * scaled[..., None, :]
    upper = torch.cat((block @ rotation, sine_axis[..., :, None]), dim=-1)
    lower = torch.cat((-sine_axis[..., None, :] @ rotation, cosine[..., None, None]), dim=-1)
    return torch.cat((upper, lower), dim=-2)


def embed_polar(T: Float[Tensor, "*b 4 4"], R_mm: float) -> Float[Tensor, "*b 4 4"]:
    """Nearest rotation of ``M = [[A, t/R], [0, 1]]``: ``U Vᵀ`` of its singular value decomposition (Larochelle, Murray
    and Angeles, "A distance metric for finite sets of rigid-body displacements via the polar decomposition", 2007).

    Small motions: ``d² ≈ θ² + |t|² / (4 R²)``. ``M = [[I, t/R], [0, 1]] · diag(A, 1)``, and the polar rotation of the
    first factor turns by ``atan(|t| / 2R)`` in the plane of t and the fourth axis: the McCarthy embedding at twice
    the scale. The closed form has a gradient where the singular values coincide, at t = 0.
    """
    return embed_mccarthy(T, 2.0 * R_mm)


def distance(P: Float[Tensor, "*b 4 4"], Q: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b"]:
    """Geodesic distance ``|log(PᵀQ)|_F / √2 = √(θ1² + θ2²)`` of the principal angles, in rad.

    Like every norm it has no gradient at ``P = Q``; :func:`squared_distance` has.
    """
    return squared_distance(P, Q).clamp_min(torch.finfo(P.dtype).tiny).sqrt()


def squared_distance(P: Float[Tensor, "*b 4 4"], Q: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b"]:
    """Square of :func:`distance`, differentiable at ``P = Q`` too.

    ``cos θ1`` and ``cos θ2`` are the double eigenvalues of ``(X + Xᵀ) / 2``, ``X = PᵀQ``. Their arccosine loses half
    the digits near zero, so the isoclinic angles ``α, β = (θ1 ± θ2) / 2`` are used: ``tr X / 4 = cos α cos β``, and the
    self-dual and anti-self-dual parts of ``(X - Xᵀ) / 2`` have the lengths ``sin α cos β`` and ``cos α sin β``.
    """
    X = P.transpose(-1, -2) @ Q
    cosines = X.diagonal(dim1=-2, dim2=-1).sum(-1) / 4.0
    skew = 0.5 * (X - X.transpose(-1, -2))
    first = torch.stack((skew[..., 0, 1], skew[..., 0, 2], skew[..., 0, 3]), dim=-1)
    second = torch.stack((skew[..., 2, 3], -skew[..., 1, 3], skew[..., 1, 2]), dim=-1)
    dual = (0.5 * (first + second)).square().sum(-1)
    anti = (0.5 * (first - second)).square().sum(-1)
    larger = _squared_arctangent(torch.maximum(dual, anti), cosines)
    smaller = _squared_arctangent(torch.minimum(dual, anti), cosines.abs())
    return 2.0 * (larger + smaller)


def _squared_arctangent(squared_sine: Tensor, cosine: Tensor) -> Tensor:
    """``atan2(√s², c)²``, smooth in ``s²`` at zero where c is positive."""
    small = squared_sine < 1e-4 * cosine.square()
    small = small & (cosine > 0.0)
    ratio = squared_sine / torch.where(small, cosine.square(), torch.ones_like(cosine))
    # atan(x)² = x² - 2/3 x⁴ + 23/45 x⁶ - 44/105 x⁸ + …
    series = ratio * (1.0 - ratio * (2 / 3 - ratio * (23 / 45 - ratio * (44 / 105))))
    tiny = torch.finfo(squared_sine.dtype).tiny
    sine = torch.where(small, torch.ones_like(squared_sine), squared_sine.clamp_min(tiny)).sqrt()
    return torch.where(small, series, torch.atan2(sine, cosine).square())
