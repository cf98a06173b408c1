"""Blades are found by their edges, though scatter makes their shadow as bright as a thick patient."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sphere_reg_ros.imaging.collimation_mask import collimation_mask
from sphere_reg_ros.imaging.simulate_collimation import Collimation, transmission

SIZES = [(256, 256), (180, 240)]
OPENINGS = {
    "square": Collimation(half_size=(0.7, 0.8)),
    "turned": Collimation(half_size=(0.75, 0.7), rotation_deg=6.0),
    "turned back, off centre": Collimation("rectangle", (0.1, -0.08), (0.7, 0.8), -9.0),
    "one side": Collimation("rectangle", (0.4, 0.0), (1.0, 1.5)),
    "iris": Collimation("circle", (0.05, -0.04), (0.8, 1.0)),
}


def patient(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Smooth attenuation with structure at many scales, 1 to 6."""
    generator = np.random.default_rng(seed)
    layers = [
        gaussian_filter(generator.standard_normal(shape), sigma, mode="wrap") * sigma * amplitude
        for sigma, amplitude in ((40.0, 3.0), (12.0, 1.0), (3.0, 0.3))
    ]
    return np.clip(3.0 + np.sum(layers, axis=0), 1.0, 6.0)


def exposure(shape: tuple[int, int], blades: Collimation | None, seed: int) -> np.ndarray:
    """``-log`` of a noisy image with 0.3 % of the open beam as scatter everywhere."""
    open_share = 1.0 if blades is None else transmission(blades, shape, (1.2, 1.2))
    signal = np.exp(-patient(shape, seed)) * open_share + 0.003
    counts = np.random.default_rng(seed + 100).poisson(signal * 2e5)
    return -np.log(np.maximum(counts, 1) / 2e5)


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("opening", OPENINGS.values(), ids=OPENINGS.keys())
@pytest.mark.parametrize("seed", range(3))
def test_the_shadow_is_masked_and_the_field_is_kept(
    shape: tuple[int, int], opening: Collimation, seed: int
) -> None:
    mask = collimation_mask(exposure(shape, opening, seed))
    inside = transmission(opening, shape, (1.2, 1.2)) > 0.5
    assert mask.shape == shape and mask.dtype == bool
    # The iris is found on a grid of centres 4 % of the image apart.
    assert (mask & ~inside).sum() < 0.05 * (~inside).sum()
    # The margin at the edges: 5 pixels of a 256 image all round.
    assert (mask & inside).sum() > 0.85 * inside.sum()


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_without_blades_everything_is_kept(shape: tuple[int, int], seed: int) -> None:
    assert collimation_mask(exposure(shape, None, seed)).all()
