"""What a simulated X-ray shows of physics; every effect can be switched off on its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sphere_reg_ros.imaging.simulate_collimation import Collimation, random_collimation
from sphere_reg_ros.imaging.simulate_errors import SimulationSettingsError
from sphere_reg_ros.imaging.simulate_tools import Cylinder, random_tools


@dataclass(frozen=True)
class XraySettings:
    """Beam, detector and digitisation of a simulated X-ray.

    The defaults are a C-arm's single shot of a trunk: every effect on and moderate, the blades
    open, no tools.

    Attributes:
        tube_kvp: Tube voltage.
        filtration_mm_al: Total filtration.
        energy_bins: Bins of the spectrum.
        monochromatic_kev: A single photon energy instead of the spectrum (no beam hardening); None
            is the spectrum.
        step_voxels: Longest step of a ray in smallest voxel spacings, at most 0.5.
        subpixels: Rays a pixel, along each side of it; their intensities are averaged over its
            area.
        scatter_to_primary: Median local ratio of scatter to primary in the patient's shadow; 0 is
            off.
        scatter_width_mm: Standard deviation of the scatter's spread on the detector.
        photons_per_mm2: Detected photons of the open beam; None is no quantum noise.
        blur_sigma_mm: Focal spot and scintillator, standard deviation on the detector; 0 is off.
        glare_share: Share of the light in the point spread's wide tail; 0 is off.
        glare_width_mm: Width of that tail.
        electronic_noise: Standard deviation of the read-out noise, in signals of the open beam; 0
            is off.
        exposure: Amplification: the open beam's value before clipping at 1.
        gamma: Exponent of the display curve; 1 is off.
        bits: Of the digitisation; None is off.
        collimation: The blades; None is wide open.
        tools: Metal in the beam.

    Raises:
        SimulationSettingsError: a value outside its physical range.
    """

    tube_kvp: float = 90.0
    filtration_mm_al: float = 4.0
    energy_bins: int = 10
    monochromatic_kev: float | None = None
    step_voxels: float = 0.5
    subpixels: int = 2
    scatter_to_primary: float = 0.2
    scatter_width_mm: float = 50.0
    photons_per_mm2: float | None = 200_000.0
    blur_sigma_mm: float = 0.3
    glare_share: float = 0.1
    glare_width_mm: float = 1.0
    electronic_noise: float = 5e-5
    exposure: float = 0.95
    gamma: float = 1.0
    bits: int | None = 16
    collimation: Collimation | None = None
    tools: tuple[Cylinder, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no X-ray system has."""
        limits = {
            "step_voxels": (0.01, 0.5),
            "subpixels": (1, 8),
            "scatter_to_primary": (0.0, 20.0),
            "scatter_width_mm": (1.0, 1000.0),
            "blur_sigma_mm": (0.0, 20.0),
            "glare_share": (0.0, 1.0),
            "glare_width_mm": (0.0, 100.0),
            "electronic_noise": (0.0, 1.0),
            "exposure": (0.001, 1000.0),
            "gamma": (0.1, 10.0),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise SimulationSettingsError(f"{name} {value:g} is outside {low:g}..{high:g}")
        if self.photons_per_mm2 is not None and not 1.0 <= self.photons_per_mm2 <= 1e12:
            raise SimulationSettingsError(
                f"photons_per_mm2 {self.photons_per_mm2:g} is outside 1..1e12; "
                "None switches the noise off"
            )
        if self.bits is not None and not 1 <= self.bits <= 24:
            raise SimulationSettingsError(
                f"bits {self.bits} is outside 1..24; None switches the rounding off"
            )

    @classmethod
    def ideal(cls, energy_kev: float = 60.0, subpixels: int = 1) -> XraySettings:
        """One photon energy and nothing else: minus the logarithm is the line integral of μ."""
        return cls(
            monochromatic_kev=energy_kev,
            subpixels=subpixels,
            scatter_to_primary=0.0,
            photons_per_mm2=None,
            blur_sigma_mm=0.0,
            glare_share=0.0,
            electronic_noise=0.0,
            exposure=1.0,
            bits=None,
        )

    @classmethod
    def realistic(
        cls, seed: int, *, collimation_share: float = 0.3, tools_share: float = 0.3
    ) -> XraySettings:
        """Settings drawn from what C-arms in operating theatres do.

        80-100 kVp, 3-5 mm Al, scatter 10-40 %, 0.5 to 5·10⁵ photons/mm² (log-uniform), blur
        0.2-0.45 mm, exposure 0.6-1.05, gamma 0.8-1.2.

        Args:
            seed: Of the draw; equal seeds give equal settings.
            collimation_share: Probability that the blades are closed in.
            tools_share: Probability that metal tools are in the beam.
        """
        values, blades, metal = (
            np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)
        )
        return cls(
            tube_kvp=values.uniform(80.0, 100.0),
            filtration_mm_al=values.uniform(3.0, 5.0),
            scatter_to_primary=values.uniform(0.1, 0.4),
            scatter_width_mm=values.uniform(35.0, 65.0),
            photons_per_mm2=float(np.exp(values.uniform(np.log(5e4), np.log(5e5)))),
            blur_sigma_mm=values.uniform(0.2, 0.45),
            electronic_noise=values.uniform(3e-5, 1e-4),
            exposure=values.uniform(0.6, 1.05),
            gamma=values.uniform(0.8, 1.2),
            collimation=random_collimation(blades) if blades.random() < collimation_share else None,
            tools=random_tools(metal) if metal.random() < tools_share else (),
        )
