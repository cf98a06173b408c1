"""Where to start when nothing is known: DRRs of many views, each shifted to where it correlates best with the X-ray."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.drr.renderer import Renderer
from sphere_reg_ros.registration.pyramid import XrayLevel

MIN_OVERLAP_SHARE = 0.5
"""Of the X-ray's valid pixels; a smaller overlap correlates by chance."""


def likeliest(
    level: XrayLevel,
    renderer: Renderer,
    views: Float64[Tensor, "n 4 4"],
    centre_ct: Float64[Tensor, "3"],
    max_shift_share: float,
    count: int,
) -> Float64[Tensor, "k 4 4"]:
    """The views whose DRR correlates best with the X-ray somewhere in the image, shifted there.

    Args:
        level: the X-ray at a coarse resolution.
        renderer: of the CT at that resolution.
        views: poses with the reference point ``centre_ct`` on the optical axis.
        max_shift_share: largest shift along each axis, as a share of the image's size.
        count: how many are wanted.

    Returns:
        At most ``count`` poses, the best first. A shift in the image is one of the patient at the depth of the reference point.
    """
    device = level.mask.device
    drrs = renderer.render(views.to(device), level.camera, level.settings.step_mm)[:, 0]
    correlation = shifted_correlation(level.line_integral[0], level.mask[0], drrs)
    height, width = level.mask.shape[-2:]
    rows, columns = (_allowed(size, max_shift_share, device) for size in (height, width))
    correlation = correlation[:, rows][:, :, columns]
    best, place = correlation.flatten(1).max(1)
    order = torch.argsort(best, descending=True)[:count].cpu()
    shift_px = torch.stack((_signed(columns, width)[place % len(columns)], _signed(rows, height)[place // len(columns)]), dim=1)
    chosen = views[order].clone()
    depth_mm = (chosen[:, 2, :3] @ centre_ct + chosen[:, 2, 3])[:, None]
    pitch_mm = chosen.new_tensor(level.camera.pixel_pitch_mm)
    chosen[:, :2, 3] += shift_px.cpu()[order] * pitch_mm * depth_mm / level.camera.sdd_mm
    return chosen


def shifted_correlation(
    image: Float[Tensor, "h w"], mask: Float[Tensor, "h w"], templates: Float[Tensor, "n h w"]
) -> Float[Tensor, "n 2h 2w"]:
    """Correlation coefficient of an image and templates at every shift of these, over their overlap inside the mask.

    Entry ``[i, r, c]`` is of template ``i`` shifted by ``r`` rows and ``c`` columns, negative ones counted from the end; -1 where
    too little overlaps. Masked normalised cross-correlation in the Fourier domain (Padfield, IEEE Transactions on Image
    Processing 21(5), 2012).
    """
    size = (2 * image.shape[0], 2 * image.shape[1])

    def forward(values: Tensor) -> Tensor:
        transformed: Tensor = torch.fft.rfft2(values, s=size)
        return transformed

    def back(product: Tensor) -> Tensor:
        values: Tensor = torch.fft.irfft2(product, s=size)
        return values

    # Means drop out of the coefficient, but not out of its rounding.
    image, templates = image - (image * mask).sum() / mask.sum(), templates - templates.mean((1, 2), keepdim=True)
    inside, first, second = forward(mask), forward(image * mask), forward(image.square() * mask)
    everywhere, one, two = (forward(values).conj() for values in (torch.ones_like(image), templates, templates.square()))
    overlap = back(inside * everywhere).clamp_min(1.0)
    sum_image, sum_template = back(first * everywhere), back(inside * one)
    covariance = back(first * one) - sum_image * sum_template / overlap
    variance_image = (back(second * everywhere) - sum_image.square() / overlap).clamp_min(0.0)
    variance_template = (back(inside * two) - sum_template.square() / overlap).clamp_min(0.0)
    energy = (variance_image * variance_template).sqrt()
    known = (overlap >= MIN_OVERLAP_SHARE * mask.sum()) & (energy > 1e-5 * energy.amax())
    return torch.where(known, covariance / energy.clamp_min(1e-12), -1.0)


def _allowed(size: int, share: float, device: torch.device) -> Tensor:
    """Indices of the shifts of a doubled axis that are allowed."""
    largest = int(share * size)
    return torch.cat((torch.arange(largest + 1, device=device), torch.arange(2 * size - largest, 2 * size, device=device)))


def _signed(index: Tensor, size: int) -> Tensor:
    return torch.where(index > size, index - 2 * size, index)
