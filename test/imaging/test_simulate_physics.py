"""The simulated beam against Beer-Lambert computed here, in float64, by other means."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.simulate import XraySettings, primary_intensity
from sphere_reg_ros.imaging.simulate_errors import SimulationSettingsError
from sphere_reg_ros.imaging.simulate_materials import Absorber, mass_attenuation_cm2_g
from sphere_reg_ros.imaging.simulate_paths import cortical_bone_hu
from sphere_reg_ros.imaging.simulate_spectrum import tube_spectrum

WATER_CM2_G = {30.0: 0.3756, 40.0: 0.2683, 60.0: 0.2059, 80.0: 0.1837}


def mu(material: Absorber, kev: float) -> float:
    return float(mass_attenuation_cm2_g(material, kev))


def ct_of(hu: np.ndarray, T_ct_voxel: np.ndarray) -> CtVolume:
    return CtVolume(
        hu=torch.from_numpy(np.ascontiguousarray(hu)),
        T_ct_voxel=torch.from_numpy(T_ct_voxel),
        sha256="0" * 64,
        source="test",
    )


def grid(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> np.ndarray:
    """Axis-aligned ``T_ct_voxel`` of a (z, y, x) array whose middle is the origin."""
    T = np.diag([*spacing, 1.0])
    T[:3, 3] = [-0.5 * (n - 1) * s for n, s in zip(shape[::-1], spacing, strict=True)]
    return T


def in_front(distance_mm: float) -> torch.Tensor:
    """The CT's origin on the axis, its z axis along the beam."""
    T = torch.eye(4, dtype=torch.float64)
    T[2, 3] = distance_mm
    return T


def cosines(camera: Camera) -> np.ndarray:
    """Angle between every pixel's ray and the axis, from the camera's numbers alone."""
    u = (np.arange(camera.width) - camera.piercing_point_px[0]) * camera.pixel_pitch_mm[0]
    v = (np.arange(camera.height) - camera.piercing_point_px[1]) * camera.pixel_pitch_mm[1]
    return camera.sdd_mm / np.sqrt(u**2 + v[:, None] ** 2 + camera.sdd_mm**2)


@pytest.mark.parametrize("energy_kev", sorted(WATER_CM2_G))
def test_a_slab_of_water_attenuates_as_the_tables_say(energy_kev: float) -> None:
    shape, spacing = (20, 60, 60), (4.0, 4.0, 5.0)
    camera = Camera.centred(24, detector_mm=60.0)
    ct = ct_of(np.zeros(shape, np.int16), grid(shape, spacing))
    image = primary_intensity(ct, camera, in_front(700.0), XraySettings.ideal(energy_kev))
    thickness_cm = 0.1 * 20 * 5.0 / cosines(camera)
    expected = np.exp(-WATER_CM2_G[energy_kev] * thickness_cm)
    # The box is whole voxels thick and uniform: the midpoint rule has nothing to approximate.
    np.testing.assert_allclose(image, expected, rtol=1e-9)


def test_the_spectrum_bins_reproduce_the_continuous_spectrum() -> None:
    kvp, filter_mm = 90.0, 4.0
    al, w, cs, i, water = (
        lambda e, m=m: float(mass_attenuation_cm2_g(m, e))
        for m in ("aluminium", "tungsten", "caesium", "iodine", "water")
    )

    def signal(energy: float, water_cm: float) -> float:
        photons = (kvp - energy) / energy
        photons *= np.exp(-0.2699 * filter_mm * al(energy) - 0.02 * w(energy))
        absorbed = 1.0 - np.exp(-0.2 * (0.51155 * cs(energy) + 0.48845 * i(energy)))
        return energy * photons * absorbed * np.exp(-water(energy) * water_cm)

    def total(water_cm: float) -> float:
        edges = [15.0, 33.1694, 33.1695, 35.9846, 35.9847, 69.525, 69.526, kvp]
        parts = (quad(signal, a, b, args=(water_cm,), limit=200) for a, b in pairwise(edges))
        return float(sum(part[0] for part in parts))

    spectrum = tube_spectrum(kvp, filter_mm, 10)
    assert spectrum.weight.sum() == pytest.approx(1.0, abs=1e-12)
    for water_cm in (0.0, 5.0, 15.0, 25.0):
        attenuation = mass_attenuation_cm2_g("water", spectrum.energy_kev) * water_cm
        binned = float(spectrum.weight @ np.exp(-attenuation))
        # Ten bins of 7.5 keV: under 1 % of a transmission of 1/200.
        assert binned == pytest.approx(total(water_cm) / total(0.0), rel=0.01)


def test_beam_hardening_comes_with_the_spectrum_and_goes_without() -> None:
    camera = Camera.centred(1, detector_mm=1.0)

    def attenuation_per_cm(centimetres: int, settings: XraySettings) -> float:
        shape = (2 * centimetres, 8, 8)
        ct = ct_of(np.zeros(shape, np.int16), grid(shape, (10.0, 10.0, 5.0)))
        image = primary_intensity(ct, camera, in_front(600.0), settings)
        return float(-np.log(image[0, 0])) / centimetres

    thin, thick = (attenuation_per_cm(n, XraySettings()) for n in (1, 25))
    # NIST: water falls from 0.248 to 0.206 /cm between the 44 keV that 90 kVp starts as and 60 keV.
    assert 0.206 < thick < 0.95 * thin < 0.25
    ideal = [attenuation_per_cm(n, XraySettings.ideal(60.0)) for n in (1, 25)]
    assert ideal[0] == pytest.approx(ideal[1], rel=1e-9)


def oblique_ct(dtype: type, handedness: float) -> CtVolume:
    """A smooth random CT, anisotropic, rotated, of either handedness, from padding to metal."""
    generator = np.random.default_rng(7)
    coarse = generator.uniform(-1500.0, 3300.0, (5, 6, 7))
    axes = [np.linspace(0, n - 1, m) for n, m in ((5, 18), (6, 25), (7, 30))]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    hu = map_coordinates(coarse, [z, y, x], order=1)
    T = np.eye(4)
    rotation = Rotation.from_rotvec([0.4, -0.7, 1.1]).as_matrix()
    T[:3, :3] = rotation @ np.diag([2.0, 2.3, handedness * 4.1])
    T[:3, 3] = -T[:3, :3] @ [14.5, 12.0, 8.5] + [5.0, -3.0, 2.0]
    return ct_of(np.round(hu).astype(dtype), T)


def reference_line_integral(ct: CtVolume, camera: Camera, T: np.ndarray, kev: float) -> np.ndarray:
    """μ along every ray by scipy in float64, with 0.02-voxel steps; HU to μ written out anew."""
    bone_hu = 1000.0 * (1.92 * mu("bone", 70.0) / mu("water", 70.0) - 1.0)
    knots = [-1000.0, 100.0, bone_hu, 2500.0, 3000.0, 9000.0]
    bone_2500 = 1.92 * 3500.0 / (1000.0 + bone_hu)
    table = [
        0.0,
        1.1 * mu("water", kev),
        1.92 * mu("bone", kev),
        bone_2500 * mu("bone", kev),
        4.54 * mu("titanium", kev),
        4.54 * mu("titanium", kev),
    ]
    hu = np.maximum(ct.hu.numpy().astype(np.float64), -1000.0)
    to_voxel = np.linalg.inv(T @ ct.T_ct_voxel.numpy())
    image = np.zeros((camera.height, camera.width))
    for row, column in np.ndindex(image.shape):
        end = np.array(
            [
                (column - camera.piercing_point_px[0]) * camera.pixel_pitch_mm[0],
                (row - camera.piercing_point_px[1]) * camera.pixel_pitch_mm[1],
                camera.sdd_mm,
            ]
        )
        s = (np.arange(30000) + 0.5) / 30000
        points = to_voxel[:3, :3] @ (end[:, None] * s) + to_voxel[:3, 3:]
        size = np.array(hu.shape[::-1])[:, None]
        inside = ((points > -0.5) & (points < size - 0.5)).all(0)
        values = map_coordinates(hu, points[::-1, inside], order=1, mode="nearest")
        step_cm = 0.1 * np.linalg.norm(end) / 30000
        image[row, column] = np.interp(values, knots, table).sum() * step_cm
    return image


@pytest.mark.parametrize(("dtype", "handedness"), [(np.int16, 1.0), (np.float32, -1.0)])
def test_monochromatic_limit_is_the_line_integral(dtype: type, handedness: float) -> None:
    ct = oblique_ct(dtype, handedness)
    camera = Camera(12, 9, 500.0, (9.0, 11.0), (5.2, 4.4))
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec([-0.3, 0.5, 0.2]).as_matrix()
    T[:3, 3] = [3.0, -4.0, 330.0]
    image = primary_intensity(ct, camera, torch.from_numpy(T), XraySettings.ideal(60.0))
    expected = reference_line_integral(ct, camera, T, 60.0)
    assert expected.max() > 4.0 * expected[expected > 0].min() > 0.0
    # Half-voxel midpoints against 0.01-voxel ones; 1/cm·cm, worst where the reference cuts the box.
    np.testing.assert_allclose(-np.log(image), expected, rtol=5e-3, atol=5e-3)


def test_rays_that_miss_or_start_or_end_inside() -> None:
    shape = (40, 40, 40)
    ct = ct_of(np.zeros(shape, np.int16), grid(shape, (5.0, 5.0, 5.0)))
    camera = Camera.centred(5, detector_mm=20.0, sdd_mm=300.0)
    settings = XraySettings.ideal(60.0)
    inside_cm = {0.0: 10.0, 50.0: 15.0, 250.0: 15.0, 300.0: 10.0, 500.0: 0.0}
    for distance_mm, expected_cm in inside_cm.items():
        image = primary_intensity(ct, camera, in_front(distance_mm), settings)
        path_cm = -np.log(image) / 0.2059 * cosines(camera)
        np.testing.assert_allclose(path_cm, expected_cm, atol=1e-9)


def test_padding_is_air_and_bone_is_denser_than_water() -> None:
    assert 1500.0 < cortical_bone_hu() < 1700.0
    camera = Camera.centred(1, detector_mm=1.0)
    path = {}
    for hu in (-2048, -1000, 0, 1600):
        ct = ct_of(np.full((10, 4, 4), hu, np.int16), grid((10, 4, 4), (10.0, 10.0, 10.0)))
        image = primary_intensity(ct, camera, in_front(600.0), XraySettings.ideal(60.0))
        path[hu] = float(-np.log(image[0, 0]))
    assert path[-2048] == path[-1000] == 0.0
    assert path[0] == pytest.approx(10 * 0.2059, rel=1e-9)
    assert path[1600] == pytest.approx(10 * 1.92 * 0.3148, rel=0.01)


def test_subpixels_average_the_intensity() -> None:
    ct = oblique_ct(np.int16, 1.0)
    camera = Camera.centred(8, detector_mm=120.0)
    fine = Camera.centred(24, detector_mm=120.0)
    T = in_front(700.0)
    averaged = primary_intensity(ct, camera, T, XraySettings.ideal(60.0, subpixels=3))
    every = primary_intensity(ct, fine, T, XraySettings.ideal(60.0))
    expected = every.reshape(8, 3, 8, 3).mean((1, 3))
    np.testing.assert_allclose(averaged, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tube_kvp": 20.0},
        {"filtration_mm_al": -1.0},
        {"energy_bins": 0},
        {"monochromatic_kev": 500.0},
        {"step_voxels": 0.6},
        {"gamma": 0.0},
        {"photons_per_mm2": 0.0},
        {"bits": 0},
        {"scatter_to_primary": float("nan")},
    ],
)
def test_settings_outside_physics_are_refused_in_one_line(wrong: dict[str, Any]) -> None:
    ct = ct_of(np.zeros((4, 4, 4), np.int16), grid((4, 4, 4), (10.0, 10.0, 10.0)))
    camera = Camera.centred(2)
    with pytest.raises(SimulationSettingsError) as error:
        primary_intensity(ct, camera, in_front(700.0), XraySettings(**wrong))
    assert "\n" not in str(error.value)
