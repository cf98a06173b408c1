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
    """Square of :func:`distance`, differentiable wherever the distance is below pi, at ``P = Q`` too.

    ``cos θ1`` and ``cos θ2`` are the double eigenvalues of ``(X + Xᵀ) / 2``, ``X = PᵀQ``. Their arccosine loses half the
    digits near zero and eigenvalues have no gradient where they coincide. So X is split into the quaternions of
    ``X v = l v r``: their angles are ``α, β = (θ1 ± θ2) / 2`` (van Elfrinkhof 1897; Mebius, arXiv math/0501249), and
    ``θ1² + θ2² = 2 (α² + β²)``.
    """
    X = P.transpose(-1, -2) @ Q
    basis = _ISOCLINIC_PRODUCTS.to(X)
    # l rᵀ, of rank one; its longest row is r up to sign, and well away from zero.
    associate = 0.25 * (X.flatten(-2) @ basis).unflatten(-1, (4, 4))
    longest = associate.detach().square().sum(-1).argmax(-1)[..., None, None]
    row = associate.gather(-2, longest.expand(*associate.shape[:-2], 1, 4)).squeeze(-2)
    right = row / row.norm(dim=-1, keepdim=True)
    left = (associate @ right[..., None]).squeeze(-1)
    # (l, r) and (-l, -r) are the same rotation; the one with α + β <= π has the principal angles.
    sign = torch.where(left[..., 0] + right[..., 0] < 0.0, -1.0, 1.0).to(X.dtype)[..., None]
    return 2.0 * (_squared_angle(left * sign) + _squared_angle(right * sign))


def _squared_angle(quaternion: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b"]:
    """``atan2(|v|, w)²`` of ``(w, v)``, smooth at ``v = 0`` where w is positive."""
    cosine, squared_sine = quaternion[..., 0], quaternion[..., 1:].square().sum(-1)
    small = (squared_sine < 1e-3 * cosine.square()) & (cosine > 0.0)
    ratio = squared_sine / torch.where(small, cosine.square(), torch.ones_like(cosine))
    # atan(x)² = x² - 2/3 x⁴ + 23/45 x⁶ - 44/105 x⁸ + 563/1575 x¹⁰ - …
    series = ratio * (1.0 - ratio * (2 / 3 - ratio * (23 / 45 - ratio * (44 / 105 - ratio * (563 / 1575)))))
    # Both branches are evaluated; the unused one must be finite or its gradient poisons the other.
    tiny = torch.finfo(squared_sine.dtype).tiny
    sine = torch.where(small, torch.ones_like(squared_sine), squared_sine.clamp_min(tiny)).sqrt()
    return torch.where(small, series, torch.atan2(sine, cosine).square())


def _isoclinic_products() -> Float[Tensor, "16 16"]:
    """Column ``4 a + b`` is the flattened matrix of ``v -> e_a v e_b`` for the units (1, i, j, k), v as ``(x, y, z, w)``."""
    left = torch.zeros(4, 4, 4, dtype=torch.float64)
    right = torch.zeros(4, 4, 4, dtype=torch.float64)
    # One is the last coordinate of v and the first unit; e_i e_j = e_k for cyclic (i, j, k).
    place = (3, 0, 1, 2)
    signed_products = {(0, j): (j, 1) for j in range(4)} | {(i, 0): (i, 1) for i in range(4)}
    for i, j, k in ((1, 2, 3), (2, 3, 1), (3, 1, 2)):
        signed_products |= {(i, i): (0, -1), (i, j): (k, 1), (j, i): (k, -1)}
    for (i, j), (product, sign) in signed_products.items():
        left[i, place[product], place[j]] = sign
        right[j, place[product], place[i]] = sign
    return (left[:, None] @ right[None, :]).flatten(0, 1).flatten(1).T.contiguous()


_ISOCLINIC_PRODUCTS = _isoclinic_products()
