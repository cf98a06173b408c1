"""Every X-ray as one camera would have taken it, so that the networks see one geometry.

A pinhole image can be moved to any other detector plane of the same source by a homography, exactly: SDD, pixel pitch and
piercing point drop out, and what a network learns holds for every C-arm.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from sphere_reg_ros.geometry.camera import Camera

CANONICAL_PX = 64
CLAMP = 4.0
"""In standard deviations: metal and the rims of blades must not dominate."""
MIN_VALID_SHARE = 0.5


def canonical_camera() -> Camera:
    """64 x 64 pixels of a detector 300 mm wide, 1020 mm from the source."""
    return Camera.centred(CANONICAL_PX)


def to_canonical(
    line_integral: Float[Tensor, "h w"], mask: Bool[Tensor, "h w"], camera: Camera
) -> tuple[Float[Tensor, "n n"], Bool[Tensor, "n n"]]:
    """Resample an X-ray's line integrals to :func:`canonical_camera`.

    Averaged down before the homography where it has more pixels, so that nothing aliases.

    Returns:
        Image and mask; false where the detector does not reach, or most of a pixel is masked.
    """
    target = canonical_camera()
    weight = mask.to(torch.float32).cpu().numpy()
    values = line_integral.cpu().numpy() * weight
    fine = min(target.pixel_pitch_mm) / target.sdd_mm
    scale = min(1.0, max(pitch / camera.sdd_mm for pitch in camera.pixel_pitch_mm) / fine)
    width, height = (max(1, round(size * scale)) for size in (camera.width, camera.height))
    if (width, height) != (camera.width, camera.height):
        weight, values = (cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in (weight, values))
    source = camera.resampled(width, height)
    from_target = (source.intrinsic @ torch.linalg.inv(target.intrinsic)).numpy()
    weight, values = (_warped(image, from_target) for image in (weight, values))
    valid = weight >= MIN_VALID_SHARE
    image = np.where(valid, values / np.maximum(weight, MIN_VALID_SHARE), 0.0).astype(np.float32)
    return torch.from_numpy(image), torch.from_numpy(valid)


def _warped(image: NDArray[np.float32], from_target: NDArray[np.float64]) -> NDArray[np.float32]:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (CANONICAL_PX, CANONICAL_PX)
    return np.asarray(
        cv2.warpPerspective(image, from_target, size, flags=flags, borderMode=cv2.BORDER_CONSTANT), dtype=np.float32
    )


def normalise(images: Float[Tensor, "*b h w"], mask: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
    """Zero mean and unit deviation over the mask, clamped, zero off the mask; differentiable, also in forward mode."""
    count = mask.sum((-2, -1), keepdim=True).clamp_min(1.0)
    mean = (images * mask).sum((-2, -1), keepdim=True) / count
    centred = (images - mean) * mask
    variance = centred.square().sum((-2, -1), keepdim=True) / count
    return (centred * (variance + 1e-8).rsqrt()).clamp(-CLAMP, CLAMP)
