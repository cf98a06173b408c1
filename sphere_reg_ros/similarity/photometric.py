"""Local normalisation of images: the photometric similarity and its exact pose derivative.

Around every pixel the image is brought to zero mean and unit deviation over a square window,
``n = (x - m) / sqrt(v + e²)``. The squared difference of two images normalised so is, up to the floor ``e``,
twice one minus their local normalised cross-correlation (Baker and Matthews, "Lucas-Kanade 20 years on",
IJCV 2004, section 4.2, for gain and bias; here per window). Local gain and bias are what exposure, gamma,
scatter and beam hardening change, so they drop out, and a least-squares solver keeps a vector residual.

Masked pixels (collimation, metal, truncated rays) take part neither in a window's statistics nor in the residual.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

MIN_WINDOW_SHARE = 0.2
"""A window with a smaller share of valid pixels has no reliable statistics and is left out."""


@dataclass(frozen=True)
class LocallyNormalised:
    """An image brought to local zero mean and unit deviation.

    Attributes:
        values: ``(b, h, w)``, dimensionless, zero where ``support`` is zero.
        support: ``(b, h, w)``, 1 where the window holds enough valid pixels, else 0.
    """

    values: Float[Tensor, "b h w"]
    support: Float[Tensor, "b h w"]


def normalise_locally(
    image: Float[Tensor, "b h w"],
    mask: Float[Tensor, "b h w"],
    window_px: int,
    deviation_floor: float,
) -> LocallyNormalised:
    """Bring every window of an image to zero mean and unit deviation.

    Args:
        image: any unit, attenuation line integrals here (dimensionless).
        mask: 1 for valid pixels, 0 for others.
        window_px: odd side of the square window in pixels.
        deviation_floor: ``e`` of the module's formula, in units of the image.
    """
    statistics = _WindowStatistics.of(image, mask, window_px, deviation_floor)
    return LocallyNormalised(statistics.normalised(image), statistics.support)


def normalise_locally_with_jacobian(
    image: Float[Tensor, "b h w"],
    jacobian: Float[Tensor, "b 6 h w"],
    mask: Float[Tensor, "b h w"],
    window_px: int,
    deviation_floor: float,
) -> tuple[LocallyNormalised, Float[Tensor, "b 6 h w"]]:
    """As :func:`normalise_locally`, with the derivative of the normalised image.

    With the window average ``<.>``, ``dm = <dx>`` and ``s·ds = <x·dx> - m·dm`` where ``s² = v + e²``, so
    ``dn = (dx - dm - n·ds) / s``. The mask is held constant.

    Returns:
        The normalised image and ``d values / d twist``, ``(b, 6, h, w)``.
    """
    statistics = _WindowStatistics.of(image, mask, window_px, deviation_floor)
    values = statistics.normalised(image)
    # Centring on the image's own mean before the products keeps float32 digits.
    centred = (image - statistics.offset) * mask
    columns = jacobian * mask.unsqueeze(1)
    mean_change = statistics.window_mean(columns)
    product_mean = statistics.window_mean(centred.unsqueeze(1) * columns)
    covariance = product_mean - (statistics.mean - statistics.offset).unsqueeze(1) * mean_change
    inverse_deviation = statistics.inverse_deviation.unsqueeze(1)
    tangent = (columns - mean_change) * inverse_deviation
    tangent -= values.unsqueeze(1) * covariance * inverse_deviation.square()
    return LocallyNormalised(values, statistics.support), tangent * statistics.support.unsqueeze(1)


@dataclass(frozen=True)
class _WindowStatistics:
    window_px: int
    inverse_count: Float[Tensor, "b h w"]
    support: Float[Tensor, "b h w"]
    offset: Float[Tensor, "b 1 1"]
    mean: Float[Tensor, "b h w"]
    inverse_deviation: Float[Tensor, "b h w"]

    @classmethod
    def of(
        cls,
        image: Float[Tensor, "b h w"],
        mask: Float[Tensor, "b h w"],
        window_px: int,
        deviation_floor: float,
    ) -> _WindowStatistics:
        count = box_sum(mask.unsqueeze(1), window_px).squeeze(1)
        # A window that hangs over the image's edge is judged by its share of pixels inside the image.
        full = box_sum(torch.ones_like(mask[:1]).unsqueeze(1), window_px).squeeze(1)
        support = mask * (count > MIN_WINDOW_SHARE * full)
        inverse_count = 1.0 / count.clamp_min(1.0)
        offset = (image * mask).sum((1, 2), keepdim=True) / mask.sum((1, 2), keepdim=True).clamp_min(1.0)
        centred = (image - offset) * mask
        sums = box_sum(torch.stack((centred, centred.square()), dim=1), window_px) * inverse_count.unsqueeze(1)
        centred_mean, square_mean = sums.unbind(1)
        variance = (square_mean - centred_mean.square()).clamp_min(0.0)
        inverse_deviation = (variance + deviation_floor**2).rsqrt()
        return cls(window_px, inverse_count, support, offset, centred_mean + offset, inverse_deviation)

    def normalised(self, image: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
        return (image - self.mean) * self.inverse_deviation * self.support

    def window_mean(self, columns: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return box_sum(columns, self.window_px) * self.inverse_count.unsqueeze(1)


def box_sum(values: Float[Tensor, "b c h w"], window_px: int) -> Float[Tensor, "b c h w"]:
    """Sum over a square window, zero outside the image.

    OpenCV's running sums serve the CPU (several times faster than cumulative sums in torch), cumulative sums every
    other device and every tensor that needs a gradient.
    """
    if window_px % 2 == 0 or window_px < 1:
        raise ValueError(f"window_px must be odd and positive, got {window_px}")
    if values.device.type == "cpu" and not values.requires_grad and values.dtype == torch.float32:
        return _box_sum_opencv(values, window_px)
    return _box_sum_torch(values, window_px)


def _box_sum_torch(values: Float[Tensor, "b c h w"], window_px: int) -> Float[Tensor, "b c h w"]:
    for dim in (2, 3):
        half = window_px // 2
        padded_shape = list(values.shape)
        padded_shape[dim] = 1
        sums = torch.cat((values.new_zeros(padded_shape), values.cumsum(dim)), dim)
        size = values.shape[dim]
        index = torch.arange(size, device=values.device)
        upper = sums.index_select(dim, (index + half + 1).clamp_max(size))
        lower = sums.index_select(dim, (index - half).clamp_min(0))
        values = upper - lower
    return values


def _box_sum_opencv(values: Float[Tensor, "b c h w"], window_px: int) -> Float[Tensor, "b c h w"]:
    source = values.contiguous().numpy()
    target = np.empty_like(source)
    for batch in range(source.shape[0]):
        for channel in range(source.shape[1]):
            cv2.boxFilter(
                source[batch, channel],
                -1,
                (window_px, window_px),
                dst=target[batch, channel],
                normalize=False,
                borderType=cv2.BORDER_CONSTANT,
            )
    return torch.from_numpy(target)
