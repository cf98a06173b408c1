"""X-ray attenuation of the materials that the simulator knows.

Source of every table: J. H. Hubbell and S. M. Seltzer, "Tables of X-Ray Mass Attenuation
Coefficients", NIST Standard Reference Database 126, tables 3 (elements) and 4 (compounds), total
attenuation with coherent scattering, μ/ρ in cm²/g. Water is "Water, Liquid", bone is "Bone,
Cortical (ICRU-44)", steel is its iron, caesium iodide is mixed from its elements by weight (0.51155
Cs, 0.48845 I).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Material = Literal["water", "bone", "titanium", "steel"]
Absorber = Literal[
    "water", "bone", "titanium", "steel", "aluminium", "tungsten", "caesium", "iodine"
]

DENSITY_G_CM3: dict[Material, float] = {
    "water": 1.0,
    "bone": 1.92,
    "titanium": 4.54,
    "steel": 7.87,
}

_COMMON_KEV = (10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
_CAESIUM_KEV = (10.0, 15.0, 20.0, 30.0, 35.9846, 35.9847, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
_IODINE_KEV = (10.0, 15.0, 20.0, 30.0, 33.1694, 33.1695, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
_TUNGSTEN_KEV = (12.0999, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 69.525, 69.526, 80.0, 100.0, 150.0)

_TABLES: dict[Absorber, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "water": (
        _COMMON_KEV,
        (5.329, 1.673, 0.8096, 0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505),
    ),
    "bone": (
        _COMMON_KEV,
        (28.51, 9.032, 4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480),
    ),
    "aluminium": (
        _COMMON_KEV,
        (26.23, 7.955, 3.441, 1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704, 0.1378),
    ),
    "titanium": (
        _COMMON_KEV,
        (110.7, 35.87, 15.85, 4.972, 2.214, 1.213, 0.7661, 0.4052, 0.2721, 0.1649),
    ),
    "steel": (
        _COMMON_KEV,
        (170.6, 57.08, 25.68, 8.176, 3.629, 1.958, 1.205, 0.5952, 0.3717, 0.1964),
    ),
    "caesium": (
        _CAESIUM_KEV,
        (179.3, 61.04, 28.22, 9.507, 5.863, 31.43, 23.81, 13.40, 8.248, 3.836, 2.124, 0.7589),
    ),
    "iodine": (
        _IODINE_KEV,
        (162.6, 55.12, 25.43, 8.561, 6.553, 35.82, 22.10, 12.32, 7.579, 3.510, 1.942, 0.6978),
    ),
    "tungsten": (
        _TUNGSTEN_KEV,
        (238.2, 138.9, 65.73, 22.73, 10.67, 5.949, 3.713, 2.552, 11.23, 7.810, 4.438, 1.581),
    ),
}


def mass_attenuation_cm2_g(material: Absorber, energy_kev: ArrayLike) -> NDArray[np.float64]:
    """μ/ρ of a material, cm²/g, interpolated between the table's energies in log-log.

    Energies are clamped to the tables' 10 (tungsten 12.1) to 150 keV.
    """
    table_kev, table = _TABLES[material]
    energies = np.clip(np.asarray(energy_kev, dtype=np.float64), table_kev[0], table_kev[-1])
    values = np.exp(np.interp(np.log(energies), np.log(table_kev), np.log(table)))
    return np.asarray(values, dtype=np.float64)


def caesium_iodide_cm2_g(energy_kev: ArrayLike) -> NDArray[np.float64]:
    """μ/ρ of the scintillator CsI, cm²/g."""
    return 0.51155 * mass_attenuation_cm2_g("caesium", energy_kev) + (
        0.48845 * mass_attenuation_cm2_g("iodine", energy_kev)
    )
