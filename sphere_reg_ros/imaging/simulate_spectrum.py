"""The X-ray tube's spectrum as the detector weighs it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sphere_reg_ros.imaging.simulate_errors import SimulationSettingsError
from sphere_reg_ros.imaging.simulate_materials import (
    caesium_iodide_cm2_g,
    mass_attenuation_cm2_g,
)

LOWEST_KEV = 15.0
HIGHEST_KVP = 150.0
SCINTILLATOR_G_CM2 = 0.2
ALUMINIUM_G_CM3 = 2.699
ANODE_G_CM2 = 0.02


@dataclass(frozen=True)
class Spectrum:
    """Energy bins and what share of the open beam's detected signal each one brings.

    Attributes:
        energy_kev: ``(bins,)`` photon energies.
        weight: ``(bins,)`` shares of the signal without a patient; they sum to 1.
    """

    energy_kev: NDArray[np.float64]
    weight: NDArray[np.float64]

    @property
    def mean_energy_kev(self) -> float:
        """Mean of the energies, weighted by signal."""
        return float(self.energy_kev @ self.weight)


def monochromatic(energy_kev: float) -> Spectrum:
    """A single energy.

    Raises:
        SimulationSettingsError: an energy outside the tables.
    """
    if not LOWEST_KEV <= energy_kev <= HIGHEST_KVP:
        raise SimulationSettingsError(
            f"photon energy {energy_kev:g} keV is outside {LOWEST_KEV:g}..{HIGHEST_KVP:g} keV"
        )
    return Spectrum(np.array([energy_kev]), np.array([1.0]))


def tube_spectrum(tube_kvp: float, filtration_mm_al: float, bins: int) -> Spectrum:
    """Bremsstrahlung of a tungsten tube behind an aluminium filter, on a CsI flat panel.

    Photons per energy follow Kramers' law, ``(E_max - E) / E`` (H. A. Kramers, Philosophical
    Magazine 46, 1923, p. 836), filtered by 10 µm of the tungsten anode itself and by the aluminium.
    The panel absorbs ``1 - exp(-μ_CsI t)`` of them in 0.2 g/cm² (600 µm at 75 % packing) and
    integrates their energy. Characteristic lines (below a tenth of the signal at 90 kVp) are left
    out. A bin's energy is the mean over its signal.

    Raises:
        SimulationSettingsError: a voltage, filter or number of bins outside its range.
    """
    if not 40.0 <= tube_kvp <= HIGHEST_KVP:
        raise SimulationSettingsError(
            f"tube voltage {tube_kvp:g} kVp is outside 40..{HIGHEST_KVP:g} kVp"
        )
    if filtration_mm_al < 0.0 or bins < 1:
        raise SimulationSettingsError(
            f"a spectrum needs a filter >= 0 mm Al and >= 1 bin, got "
            f"{filtration_mm_al:g} mm, {bins}"
        )
    per_bin = max(1, round(400 / bins))
    edges = np.linspace(LOWEST_KEV, tube_kvp, bins * per_bin + 1)
    energy = 0.5 * (edges[1:] + edges[:-1])
    aluminium_g_cm2 = 0.1 * filtration_mm_al * ALUMINIUM_G_CM3
    attenuation = ANODE_G_CM2 * mass_attenuation_cm2_g("tungsten", energy)
    attenuation += aluminium_g_cm2 * mass_attenuation_cm2_g("aluminium", energy)
    photons = (tube_kvp - energy) / energy * np.exp(-attenuation)
    absorbed = -np.expm1(-SCINTILLATOR_G_CM2 * caesium_iodide_cm2_g(energy))
    signal = (photons * absorbed * energy).reshape(bins, per_bin)
    weight = signal.sum(1)
    return Spectrum((signal * energy.reshape(bins, per_bin)).sum(1) / weight, weight / weight.sum())
