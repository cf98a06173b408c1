"""What happens to the beam behind the patient, from scatter to digitisation.

All images are float64 ``(rows, columns)``; 1 is the signal of the open beam.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Image = NDArray[np.float64]
SHADOW_ATTENUATION = 0.05


def scatter(
    primary: Image,
    irradiated: Image,
    scatter_to_primary: float,
    width_mm: float,
    pitch_mm: tuple[float, float],
) -> Image:
    """Photons scattered in the patient, as the detector sees them.

    A slab that transmits ``P = exp(-L)`` scatters once in proportion to ``P·L`` (the source term of
    convolution models, M. Sun and J. M. Star-Lack, Physics in Medicine and Biology 55, 2010, p.
    6695, with both exponents 1), which a Gaussian of the air gap's width spreads. It is scaled so
    that the median, over the patient's shadow, of the local ratio of scatter to primary is
    ``scatter_to_primary``: behind the spine it is several times that, behind the lungs a fraction.
    Air scatters nothing.

    Args:
        primary: The beam behind blades and patient.
        irradiated: The beam behind the blades alone.
        scatter_to_primary: Median local ratio over the shadow.
        width_mm: Standard deviation of the spread on the detector.
        pitch_mm: Pixel pitch (u, v).
    """
    attenuation = -np.log(np.maximum(primary, 1e-12) / np.maximum(irradiated, 1e-12))
    source = primary * np.maximum(attenuation, 0.0)
    shadow = (attenuation > SHADOW_ATTENUATION) & (irradiated > 0.5)
    if not shadow.any():
        return np.zeros_like(primary)
    sigma = (width_mm / pitch_mm[1], width_mm / pitch_mm[0])
    spread = gaussian_filter(source, sigma, mode="reflect", truncate=3.0)
    ratio = float(np.median(spread[shadow] / np.maximum(primary[shadow], 1e-12)))
    return np.asarray(scatter_to_primary / ratio * spread, dtype=np.float64)


def quantum_noise(image: Image, photons_per_pixel: float, generator: np.random.Generator) -> Image:
    """The image as Poisson counts, where the open beam brings ``photons_per_pixel``."""
    return generator.poisson(image * photons_per_pixel) / photons_per_pixel


def blur(
    image: Image,
    sigma_mm: float,
    glare_share: float,
    glare_width_mm: float,
    pitch_mm: tuple[float, float],
) -> Image:
    """Spread of light in the scintillator: a Gaussian and a wide tail, as one transfer function.

    ``MTF(f) = (1 - a)·exp(-2π²σ²f²) + a·exp(-2πwf)``, f in cycles/mm; the tail's point spread is
    the two-dimensional Lorentzian ``w / (2π (r² + w²)^{3/2})``. The image is continued by
    reflection; its mean is kept.
    """
    rows, columns = image.shape
    mirrored = np.block([[image, image[:, ::-1]], [image[::-1], image[::-1, ::-1]]])
    fu = np.fft.rfftfreq(2 * columns, pitch_mm[0])
    fv = np.fft.fftfreq(2 * rows, pitch_mm[1])[:, None]
    squared = fu**2 + fv**2
    transfer = (1.0 - glare_share) * np.exp(-2.0 * (np.pi * sigma_mm) ** 2 * squared)
    transfer = transfer + glare_share * np.exp(-2.0 * np.pi * glare_width_mm * np.sqrt(squared))
    spread = np.fft.irfft2(np.fft.rfft2(mirrored) * transfer, s=mirrored.shape)
    return np.asarray(spread[:rows, :columns], dtype=np.float64)


def electronic_noise(image: Image, sigma: float, generator: np.random.Generator) -> Image:
    """The image with white Gaussian read-out noise, ``sigma`` in signals of the open beam."""
    return image + sigma * generator.standard_normal(image.shape)


def digitise(image: Image, exposure: float, gamma: float, bits: int | None) -> Image:
    """Amplify, clip to 0..1, apply the display curve, and round to ``2^bits - 1`` levels."""
    display = np.clip(exposure * image, 0.0, 1.0) ** gamma
    if bits is None:
        return np.asarray(display, dtype=np.float64)
    levels = 2.0**bits - 1.0
    return np.asarray(np.round(display * levels) / levels, dtype=np.float64)
