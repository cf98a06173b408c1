"""From gradients gathered along a ray to the Jacobian with respect to the twist.

Moving the CT by a small twist ``(t, w)`` about a point c carries the material point that was at
``q − t − w×(q − c)`` to the fixed camera point q. With ``q = s·d`` on a ray of unit direction d

    dI/dt = −G0,   dI/dw = −∫ (q − c) × ∇μ ds = −d×G1 + c×G0,   G0 = ∫ ∇μ ds,   G1 = ∫ s·∇μ ds.

Along the ray the integral of a derivative is known exactly, ``d·G0 = μ(end) − μ(start)``, zero when both
ends are in air; the marched sum misses it by the error of the quadrature, which is as large as the true
depth column. So that component is taken out and replaced by the exact one. ``d×G1`` does not see it.

To keep float32 digits, distances are counted from ``s_ref = |c|``: with ``G1' = ∫ (s − s_ref)·∇μ ds``

    dI/dw = −d×G1' + (c − s_ref·d)×G0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def twist_jacobian(
    g0: Float[Tensor, "b c h w 3"],
    g1: Float[Tensor, "b c h w 3"],
    ends: Float[Tensor, "b c h w"],
    direction: Float[Tensor, "h w 3"],
    centre_camera: Float[Tensor, "b 3"],
    reference_mm: Float[Tensor, " b"],
) -> Float[Tensor, "b c 6 h w"]:
    """The six columns, from the gathered gradients in camera axes.

    Args:
        g0: ``∫ ∇μ ds``.
        g1: ``∫ (s − s_ref)·∇μ ds``.
        ends: ``μ(end) − μ(start)`` at the detector and at the source.
        direction: unit vectors of the rays.
        centre_camera: the point c of the twist, camera mm.
        reference_mm: ``s_ref``.
    """
    along = (g0 * direction).sum(-1)
    exact = g0 + direction * (ends - along)[..., None]
    lever = centre_camera[:, None, None, :] - reference_mm[:, None, None, None] * direction  # (b, h, w, 3)
    turn = torch.linalg.cross(lever[:, None].expand_as(exact), exact)
    turn = turn - torch.linalg.cross(direction.expand_as(g1), g1)
    return torch.cat([-exact, turn], dim=-1).movedim(-1, 2)
