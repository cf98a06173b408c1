"""What stands between the patient and a clean picture: metal, arms, blades, a smaller detector. Random, batched, in pixels.

Shapes are signed distances in the image's unit square ``[-1, 1]²`` turned into smooth edges.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

TOOLS_PER_IMAGE = 3
TISSUE_G_CM2 = (2.0, 10.0)
TOOL_ATTENUATION = (0.4, 5.0)
LEAKAGE = 1e-3


def tools(b: int, h: int, w: int, generator: torch.Generator) -> Float[Tensor, "b h w"]:
    """Attenuation of up to three rods an image, 1 to 6 mm wide, up to the image's length."""
    image = torch.zeros(b, h, w)
    for number in range(TOOLS_PER_IMAGE):
        start = 2.2 * torch.rand(b, 2, generator=generator) - 1.1
        angle = torch.pi * torch.rand(b, generator=generator)
        length = 0.1 + 1.4 * torch.rand(b, generator=generator)
        across, along = _line_coordinates(start, angle, h, w)
        radius = (0.01 + 0.03 * torch.rand(b, 1, 1, generator=generator))
        profile = _inside(radius - across.abs(), w) * _inside(along, w) * _inside(length[:, None, None] - along, w)
        low, high = TOOL_ATTENUATION
        strength = low + (high - low) * torch.rand(b, 1, 1, generator=generator) ** 2
        present = 1.0 if number == 0 else (torch.rand(b, 1, 1, generator=generator) < 0.5).float()
        image = image + present * strength * profile
    return image


def extra_tissue(b: int, h: int, w: int, generator: torch.Generator) -> Float[Tensor, "b h w"]:
    """Areal density, g/cm², of an arm or a table's edge that the CT lacks: a long cylinder of tissue."""
    start = 2.0 * torch.rand(b, 2, generator=generator) - 1.0
    across, _ = _line_coordinates(start, torch.pi * torch.rand(b, generator=generator), h, w)
    radius = 0.15 + 0.35 * torch.rand(b, 1, 1, generator=generator)
    low, high = TISSUE_G_CM2
    thickness = low + (high - low) * torch.rand(b, 1, 1, generator=generator)
    return thickness * (1.0 - (across / radius).square()).clamp_min(0.0).sqrt()


def blades(b: int, h: int, w: int, generator: torch.Generator) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Share of the beam that passes a random collimator, and the mask of the pixels well inside its opening."""
    centre = 0.3 * (2.0 * torch.rand(b, 2, generator=generator) - 1.0)
    angle = torch.pi * torch.rand(b, generator=generator) * (torch.rand(b, generator=generator) < 0.5)
    across, along = _line_coordinates(centre, angle, h, w)
    half = 0.55 + 0.4 * torch.rand(b, 2, 1, 1, generator=generator)
    rectangle = torch.minimum(half[:, 0] - across.abs(), half[:, 1] - along.abs())
    circle = 1.25 * half[:, 0] - (across.square() + along.square()).sqrt()
    round_ = torch.rand(b, 1, 1, generator=generator) < 0.4
    depth = torch.where(round_, circle, rectangle)
    rim = (torch.rand(b, 1, 1, generator=generator) * 4.0 - 0.5) / w
    return LEAKAGE + (1.0 - LEAKAGE) * _inside(depth, w), (depth > rim).float()


def field_of_view(b: int, h: int, w: int, generator: torch.Generator) -> Float[Tensor, "b h w"]:
    """The part of the canonical image that another, smaller or displaced, detector sees."""
    low = -1.0 + 0.4 * torch.rand(b, 2, 1, 1, generator=generator)
    high = 1.0 - 0.4 * torch.rand(b, 2, 1, 1, generator=generator)
    rows, columns = _grid(h, w)
    inside = (rows > low[:, 0]) & (rows < high[:, 0]) & (columns > low[:, 1]) & (columns < high[:, 1])
    return inside.float()


def _grid(h: int, w: int) -> tuple[Tensor, Tensor]:
    rows = ((torch.arange(h) + 0.5) * (2.0 / h) - 1.0).view(1, h, 1)
    columns = ((torch.arange(w) + 0.5) * (2.0 / w) - 1.0).view(1, 1, w)
    return rows, columns


def _line_coordinates(start: Float[Tensor, "b 2"], angle_rad: Float[Tensor, " b"], h: int, w: int) -> tuple[Tensor, Tensor]:
    """Distance across and along a line through ``start``."""
    rows, columns = _grid(h, w)
    dx, dy = columns - start[:, 0, None, None], rows - start[:, 1, None, None]
    cosine, sine = angle_rad.cos()[:, None, None], angle_rad.sin()[:, None, None]
    return cosine * dy - sine * dx, cosine * dx + sine * dy


def _inside(depth: Float[Tensor, "b h w"], w: int) -> Float[Tensor, "b h w"]:
    """1 inside, 0 outside, a straight ramp of one pixel between: the covered share of a pixel."""
    return (0.5 + 0.5 * depth * w).clamp(0.0, 1.0)
