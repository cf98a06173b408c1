"""Material paths to randomised X-rays: a fast approximation of the simulator, batched, with everything drawn anew at every step.

The physics is the simulator's (spectra and tables of `imaging`), on the 64 x 64 pixels that a network sees instead of on the
detector's: the beam is averaged before the Beer-Lambert law instead of after it, the scintillator's blur is that of the pixels,
metal counts at one energy. test/training/test_augmentation.py measures what this costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from sphere_reg_ros.imaging.simulate_materials import mass_attenuation_cm2_g
from sphere_reg_ros.imaging.simulate_spectrum import tube_spectrum
from sphere_reg_ros.training.obstacles import blades, extra_tissue, field_of_view, tools

Span = tuple[float, float]
DARKEST = 3e-4
"""Of the open beam; readers of X-rays mask what is darker."""
TUBES_KVP = (65.0, 75.0, 85.0, 95.0, 110.0)
FILTERS_MM_AL = (2.5, 4.0, 6.0)
ENERGY_BINS = 5
SHADOW = 0.05


@dataclass(frozen=True)
class AugmentationSettings:
    """What is drawn for every X-ray; a span is uniform unless said otherwise, a share is a probability.

    Attributes:
        water, bone: factors on the areal densities, the contrast of soft tissue and bone.
        scatter: median ratio of scatter to primary in the patient's shadow.
        scatter_px: standard deviation of its spread in pixels.
        photons: of the open beam, per pixel, log-uniform.
        blur_px: standard deviation.
        exposure: the open beam's value before clipping at 1.
        gamma: exponent of the display curve.
        shading: largest change of the logarithm from one edge of the image to the other (heel effect).
        inverted_share: images stored the other way round.
        tools_share, tissue_share, blades_share, cropped_share: metal; arms or a table; collimation; a smaller detector.
        unmasked_share: of collimated images, those whose mask fails to show the blades.
    """

    water: Span = (0.85, 1.15)
    bone: Span = (0.7, 1.35)
    scatter: Span = (0.0, 0.6)
    scatter_px: Span = (6.0, 14.0)
    photons: Span = (1e5, 1e7)
    blur_px: Span = (0.0, 0.6)
    exposure: Span = (0.6, 1.3)
    gamma: Span = (0.7, 1.4)
    shading: float = 0.3
    inverted_share: float = 0.02
    tools_share: float = 0.3
    tissue_share: float = 0.2
    blades_share: float = 0.3
    cropped_share: float = 0.2
    unmasked_share: float = 0.1

    @classmethod
    def plain(cls) -> AugmentationSettings:
        """The simulator's default X-ray without noise, for comparison with it."""
        return cls(
            water=(1.0, 1.0),
            bone=(1.0, 1.0),
            scatter=(0.2, 0.2),
            scatter_px=(10.67, 10.67),
            photons=(1e12, 1e12),
            blur_px=(0.0, 0.0),
            exposure=(0.95, 0.95),
            gamma=(1.0, 1.0),
            shading=0.0,
            inverted_share=0.0,
            tools_share=0.0,
            tissue_share=0.0,
            blades_share=0.0,
            cropped_share=0.0,
            unmasked_share=0.0,
        )


def randomised_xrays(
    materials: Float[Tensor, "b 2 h w"], generator: torch.Generator, settings: AugmentationSettings
) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Attenuation images ``-log(I / I0)`` as an X-ray reader gives them, and their masks (1 where valid).

    Args:
        materials: areal density of water and bone, g/cm².
        generator: the only source of chance.
    """
    b, _, h, w = materials.shape
    draw = _Draw(generator, b)
    extra = draw.chosen(settings.tissue_share) * extra_tissue(b, h, w, generator)
    water = (materials[:, 0] + extra) * draw.span(settings.water)
    bone = materials[:, 1] * draw.span(settings.bone)
    beam = polychromatic(water, bone, generator) * torch.exp(-draw.chosen(settings.tools_share) * tools(b, h, w, generator))
    opening, valid = blades(b, h, w, generator)
    closed = draw.chosen(settings.blades_share)
    irradiated = 1.0 - closed * (1.0 - opening)
    beam = beam * irradiated
    beam = beam + _scatter(beam, irradiated, draw.span(settings.scatter), draw.one(settings.scatter_px))
    photons = torch.exp(draw.span((math.log(settings.photons[0]), math.log(settings.photons[1]))))
    beam = beam + (beam / photons).sqrt() * torch.randn(b, h, w, generator=generator)
    beam = gaussian_blur(beam, draw.one(settings.blur_px))
    display = (draw.span(settings.exposure) * beam).clamp(DARKEST, 1.0) ** draw.span(settings.gamma)
    inverted = draw.chosen(settings.inverted_share)
    display = inverted * (1.0 - display).clamp_min(DARKEST) + (1.0 - inverted) * display
    image = -torch.log(display) + _shading(b, h, w, settings.shading, generator)
    seen = draw.chosen(1.0 - settings.unmasked_share) * closed
    mask = (1.0 - seen * (1.0 - valid)) * (1.0 - draw.chosen(settings.cropped_share) * (1.0 - field_of_view(b, h, w, generator)))
    return image * mask, mask


class _Draw:
    """Random factors of a batch, shaped to multiply images."""

    def __init__(self, generator: torch.Generator, batch: int) -> None:
        self._generator, self._batch = generator, batch

    def span(self, span: Span) -> Float[Tensor, "b 1 1"]:
        return span[0] + (span[1] - span[0]) * torch.rand(self._batch, 1, 1, generator=self._generator)

    def chosen(self, share: float) -> Float[Tensor, "b 1 1"]:
        return (torch.rand(self._batch, 1, 1, generator=self._generator) < share).float()

    def one(self, span: Span) -> float:
        return span[0] + (span[1] - span[0]) * float(torch.rand(1, generator=self._generator))


def polychromatic(
    water_g_cm2: Float[Tensor, "b h w"], bone_g_cm2: Float[Tensor, "b h w"], generator: torch.Generator
) -> Float[Tensor, "b h w"]:
    """Share of the detected signal that passes, ``Σ w(E) exp(-Σ μ/ρ(E)·A)``, with a random tube for every image."""
    weights, water, bone = _spectra()
    tube = torch.randint(len(weights), (len(water_g_cm2),), generator=generator)
    signal = torch.zeros_like(water_g_cm2)
    for k in range(ENERGY_BINS):
        exponent = water[tube, k, None, None] * water_g_cm2 + bone[tube, k, None, None] * bone_g_cm2
        signal += weights[tube, k, None, None] * torch.exp(-exponent)
    return signal


@lru_cache
def _spectra() -> tuple[Tensor, Tensor, Tensor]:
    """Weights and mass attenuations of water and bone, ``(tubes, bins)`` each."""
    weights, water, bone = [], [], []
    for kvp in TUBES_KVP:
        for filter_mm in FILTERS_MM_AL:
            spectrum = tube_spectrum(kvp, filter_mm, ENERGY_BINS)
            weights.append(torch.from_numpy(spectrum.weight).float())
            water.append(torch.from_numpy(mass_attenuation_cm2_g("water", spectrum.energy_kev)).float())
            bone.append(torch.from_numpy(mass_attenuation_cm2_g("bone", spectrum.energy_kev)).float())
    return torch.stack(weights), torch.stack(water), torch.stack(bone)


def _scatter(
    primary: Float[Tensor, "b h w"], irradiated: Float[Tensor, "b h w"], ratio: Float[Tensor, "b 1 1"], sigma_px: float
) -> Float[Tensor, "b h w"]:
    """The simulator's model: ``P·L`` spread by a Gaussian, scaled to a median local ratio in the shadow."""
    attenuation = -torch.log(primary.clamp_min(1e-9) / irradiated.clamp_min(1e-9))
    spread = gaussian_blur(primary * attenuation.clamp_min(0.0), sigma_px)
    local = torch.where((attenuation > SHADOW) & (irradiated > 0.5), spread / primary.clamp_min(1e-9), torch.nan)
    median = local.flatten(1).nanmedian(1).values.nan_to_num(torch.inf)[:, None, None]
    return ratio * spread / median


def gaussian_blur(images: Float[Tensor, "b h w"], sigma_px: float) -> Float[Tensor, "b h w"]:
    """Blur by a Gaussian, the image continued by its mirror image."""
    if sigma_px < 0.1:
        return images
    h, w = images.shape[1:]
    # As two small matrices: at 64 pixels a wide kernel's convolution costs a hundred times more.
    return _blur_matrix(h, sigma_px) @ images @ _blur_matrix(w, sigma_px).T


def _blur_matrix(n: int, sigma_px: float) -> Float[Tensor, "n n"]:
    """Row i holds the weights of pixel i, those beyond the border folded back to where the mirror image has them."""
    position = torch.arange(n, dtype=torch.float32)
    reflected = torch.cat((-1.0 - position.flip(0), position, 2.0 * n - 1.0 - position.flip(0)))
    weights = torch.exp(-0.5 * ((reflected[None] - position[:, None]) / sigma_px) ** 2)
    weights = weights / weights.sum(1, keepdim=True)
    before, inside, after = weights.split(n, dim=1)
    return before.flip(1) + inside + after.flip(1)


def _shading(b: int, h: int, w: int, strength: float, generator: torch.Generator) -> Float[Tensor, "b h w"]:
    slope = strength * (torch.rand(b, 2, 1, 1, generator=generator) - 0.5)
    rows = torch.linspace(-1.0, 1.0, h).view(1, h, 1)
    columns = torch.linspace(-1.0, 1.0, w).view(1, 1, w)
    return slope[:, 0] * rows + slope[:, 1] * columns
