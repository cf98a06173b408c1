"""The collimator's blades, which cut the beam between the source and the patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from sphere_reg_ros.imaging.simulate_errors import SimulationSettingsError


@dataclass(frozen=True)
class Collimation:
    """The part of the detector that the beam reaches.

    Attributes:
        shape: ``rectangle`` or ``circle``.
        centre: Of the opening, from the detector's middle, in units of half the detector's width
            and height.
        half_size: Of the opening in the same units; a circle uses the first, in half widths.
        rotation_deg: Of the rectangle, clockwise in the image.
        penumbra_mm: Standard deviation of the blades' soft edge on the detector.
        leakage: Share of the beam that passes the blades.
        blanked: Whether the image is black outside, as behind an electronic shutter or beyond an
            image intensifier's disc; otherwise scatter shows there.

    Raises:
        SimulationSettingsError: a size or penumbra that is not positive, or leakage outside 0..1.
    """

    shape: Literal["rectangle", "circle"] = "rectangle"
    centre: tuple[float, float] = (0.0, 0.0)
    half_size: tuple[float, float] = (0.85, 0.85)
    rotation_deg: float = 0.0
    penumbra_mm: float = 1.5
    leakage: float = 0.001
    blanked: bool = False

    def __post_init__(self) -> None:
        """Refuse blades that cannot be."""
        if min(self.half_size) <= 0.0 or self.penumbra_mm <= 0.0 or not 0.0 <= self.leakage <= 1.0:
            raise SimulationSettingsError(
                f"a collimator needs half_size > 0, penumbra_mm > 0 and leakage in 0..1, got "
                f"{self.half_size}, {self.penumbra_mm:g}, {self.leakage:g}"
            )


def transmission(
    collimation: Collimation, shape: tuple[int, int], pitch_mm: tuple[float, float]
) -> NDArray[np.float64]:
    """Share of the beam that passes the blades, ``(rows, columns)`` in ``leakage``..1.

    Args:
        collimation: The opening.
        shape: Rows and columns of the image.
        pitch_mm: Pixel pitch along columns (u) and rows (v).
    """
    half_mm = np.array([0.5 * shape[1] * pitch_mm[0], 0.5 * shape[0] * pitch_mm[1]])
    u = (np.arange(shape[1]) + 0.5) * pitch_mm[0] - half_mm[0] * (1.0 + collimation.centre[0])
    v = (np.arange(shape[0]) + 0.5) * pitch_mm[1] - half_mm[1] * (1.0 + collimation.centre[1])

    def edge(depth_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = depth_mm / (np.sqrt(2.0) * collimation.penumbra_mm)
        return np.asarray(0.5 * (1.0 + erf(scaled)), dtype=np.float64)

    if collimation.shape == "circle":
        opening = edge(collimation.half_size[0] * half_mm[0] - np.hypot(u, v[:, None]))
    else:
        cosine, sine = (f(np.deg2rad(collimation.rotation_deg)) for f in (np.cos, np.sin))
        along, across = cosine * u + sine * v[:, None], -sine * u + cosine * v[:, None]
        open_u, open_v = np.asarray(collimation.half_size) * half_mm
        opening = edge(open_u - np.abs(along)) * edge(open_v - np.abs(across))
    return collimation.leakage + (1.0 - collimation.leakage) * opening


def random_collimation(generator: np.random.Generator) -> Collimation:
    """An opening over most of the detector: a rotated rectangle or an image intensifier's disc."""
    centre = generator.uniform(-0.08, 0.08, 2)
    if generator.random() < 0.4:
        radius = generator.uniform(0.85, 1.0)
        return Collimation("circle", (centre[0], centre[1]), (radius, 1.0), blanked=True)
    half_size = generator.uniform(0.65, 1.0, 2)
    return Collimation(
        "rectangle",
        (centre[0], centre[1]),
        (half_size[0], half_size[1]),
        generator.normal(0.0, 4.0) if generator.random() < 0.5 else 0.0,
        blanked=bool(generator.random() < 0.5),
    )
