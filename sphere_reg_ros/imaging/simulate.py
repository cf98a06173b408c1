"""The X-ray simulator, which makes the targets that registration is judged by.

It shares no code with the renderer that registers: full-resolution CT, finer steps, Hounsfield
units decomposed into materials, a spectrum, and the detector's imperfections.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging import simulate_detector as detector
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.sample_poses import sample_poses
from sphere_reg_ros.imaging.simulate_collimation import transmission
from sphere_reg_ros.imaging.simulate_materials import Material, mass_attenuation_cm2_g
from sphere_reg_ros.imaging.simulate_paths import detector_rays, material_paths
from sphere_reg_ros.imaging.simulate_settings import XraySettings
from sphere_reg_ros.imaging.simulate_spectrum import Spectrum, monochromatic, tube_spectrum
from sphere_reg_ros.imaging.simulate_tools import tool_paths
from sphere_reg_ros.imaging.xray import XrayImage

__all__ = ["XraySettings", "primary_intensity", "sample_poses", "simulate_xray"]


def simulate_xray(
    ct: CtVolume,
    camera: Camera,
    T_camera_ct: Float64[Tensor, "4 4"],
    settings: XraySettings | None = None,
    seed: int = 0,
) -> XrayImage:
    """A realistic X-ray of a CT.

    The order is that of the physics: spectrum through blades, patient and tools; scatter; quanta;
    light spread in the scintillator; read-out noise; exposure, display curve, rounding. Each random
    effect has its own stream of random numbers: equal seeds give equal images, and switching one
    effect leaves the others' draws alone.

    Args:
        ct: The whole patient, at full resolution. Registration may be given a part of it.
        camera: Source, detector and pixels.
        T_camera_ct: CT mm (LPS) to camera mm, float64.
        settings: What is simulated; None is ``XraySettings()``.
        seed: Of the noise.

    Returns:
        Detected intensity in 0..1, float32, bright where nothing attenuates.
    """
    settings = settings or XraySettings()
    beam = primary_intensity(ct, camera, T_camera_ct, settings)
    quanta, electronics = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2)
    )
    image = _detect(beam, camera.pixel_pitch_mm, settings, quanta, electronics)
    pixels = torch.from_numpy(image.astype(np.float32))
    return XrayImage(
        pixels=pixels, is_attenuation=False, camera=camera, angles_deg=None, source="simulated"
    )


def _detect(
    beam: NDArray[np.float64],
    pitch_mm: tuple[float, float],
    settings: XraySettings,
    quanta: np.random.Generator,
    electronics: np.random.Generator,
) -> NDArray[np.float64]:
    image, irradiated = beam, np.ones_like(beam)
    if settings.collimation is not None:
        irradiated = transmission(settings.collimation, (beam.shape[0], beam.shape[1]), pitch_mm)
        image = beam * irradiated
    if settings.scatter_to_primary > 0.0:
        ratio, width_mm = settings.scatter_to_primary, settings.scatter_width_mm
        image = image + detector.scatter(image, irradiated, ratio, width_mm, pitch_mm)
    if settings.photons_per_mm2 is not None:
        photons_per_pixel = settings.photons_per_mm2 * pitch_mm[0] * pitch_mm[1]
        image = detector.quantum_noise(image, photons_per_pixel, quanta)
    if settings.blur_sigma_mm > 0.0 or settings.glare_share > 0.0:
        share, width_mm = settings.glare_share, settings.glare_width_mm
        image = detector.blur(image, settings.blur_sigma_mm, share, width_mm, pitch_mm)
    if settings.electronic_noise > 0.0:
        image = detector.electronic_noise(image, settings.electronic_noise, electronics)
    image = detector.digitise(image, settings.exposure, settings.gamma, settings.bits)
    if settings.collimation is not None and settings.collimation.blanked:
        image[irradiated < 0.5] = 0.0
    return image


def primary_intensity(
    ct: CtVolume,
    camera: Camera,
    T_camera_ct: Float64[Tensor, "4 4"],
    settings: XraySettings,
) -> NDArray[np.float64]:
    """Unscattered beam behind patient and tools, ``(height, width)``, 1 where nothing attenuates.

    Polychromatic Beer-Lambert law ``Σ w(E) exp(-Σ_m μ/ρ_m(E)·A_m)`` with areal densities A, per
    sub-pixel ray; the sub-pixels' intensities are averaged, as a detector element does.
    """
    pose = T_camera_ct.detach().cpu().double().numpy()
    rays = detector_rays(camera, settings.subpixels)
    paths = material_paths(ct, rays, pose, settings.step_voxels)
    areal: dict[Material, NDArray[np.float64]] = {
        "water": paths.water,
        "bone": paths.bone,
        "titanium": paths.titanium,
    }
    if settings.tools:
        reference = ct.reference_point().cpu().numpy()
        for metal, path in tool_paths(settings.tools, rays, pose, reference).items():
            areal[metal] = areal[metal] + path if metal in areal else path
    fine = beer_lambert(areal, _spectrum(settings))
    n = settings.subpixels
    averaged = fine.reshape(camera.height, n, camera.width, n).mean((1, 3))
    return np.asarray(averaged, dtype=np.float64)


def beer_lambert(
    areal_g_cm2: dict[Material, NDArray[np.float64]], spectrum: Spectrum
) -> NDArray[np.float64]:
    """Share of the detected signal that passes the given areal densities of the materials."""
    shape = next(iter(areal_g_cm2.values())).shape
    signal = np.zeros(shape)
    for energy, weight in zip(spectrum.energy_kev, spectrum.weight, strict=True):
        exponent = np.zeros(shape)
        for material, areal in areal_g_cm2.items():
            exponent -= float(mass_attenuation_cm2_g(material, energy)) * areal
        signal += weight * np.exp(exponent)
    return signal


def _spectrum(settings: XraySettings) -> Spectrum:
    if settings.monochromatic_kev is not None:
        return monochromatic(settings.monochromatic_kev)
    return tube_spectrum(settings.tube_kvp, settings.filtration_mm_al, settings.energy_bins)
