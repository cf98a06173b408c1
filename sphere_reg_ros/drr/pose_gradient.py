"""Carrying gradients from an image to the pose that it was rendered at."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def with_pose_gradient(
    image: Float[Tensor, "b c h w"],
    jacobian: Float[Tensor, "b c 6 h w"],
    T_camera_ct: Float64[Tensor, "b 4 4"],
    centre_ct: Float64[Tensor, "3"],
) -> Float[Tensor, "b c h w"]:
    """The same image, differentiable with respect to the pose.

    Adds ``J·ξ`` where ``ξ`` is `twist_to_itself`: zero, but its derivative is not.
    """
    if not (T_camera_ct.requires_grad and torch.is_grad_enabled()):
        return image
    twist = twist_to_itself(T_camera_ct, centre_ct).to(image)
    return image + torch.einsum("bckhw,bk->bchw", jacobian.detach(), twist)


def twist_to_itself(T_camera_ct: Float64[Tensor, "b 4 4"], centre_ct: Float64[Tensor, "3"]) -> Float64[Tensor, "b 6"]:
    """Zero, with the derivative of the twist that leads from the pose, held fixed, to the pose.

    To first order the twist about c that leads from ``T0 = [R0 | t0]`` to ``T = [R | t]`` is

        t_ξ = T·c − T0·c,   w_ξ = vee(½(R·R0ᵀ − R0·Rᵀ)).

    The gradient is tangent to the rigid motions: right for every parametrisation of them, and silent about matrices that are
    not rigid.
    """
    here = T_camera_ct.detach()
    c = centre_ct.to(T_camera_ct)
    translation = (T_camera_ct[:, :3, :3] - here[:, :3, :3]) @ c + T_camera_ct[:, :3, 3] - here[:, :3, 3]
    turn = T_camera_ct[:, :3, :3] @ here[:, :3, :3].mT
    skew = 0.5 * (turn - turn.mT)
    rotation = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], dim=-1)
    return torch.cat([translation, rotation], dim=-1)
