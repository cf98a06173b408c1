"""Scatter, noise, blur, digitisation and blades, each against its own definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.simulate import XraySettings, primary_intensity, simulate_xray
from sphere_reg_ros.imaging.simulate_collimation import Collimation, transmission
from sphere_reg_ros.imaging.simulate_detector import blur, digitise, quantum_noise, scatter
from sphere_reg_ros.imaging.simulate_errors import SimulationSettingsError
from sphere_reg_ros.imaging.simulate_tools import Cylinder

CAMERA = Camera.centred(64, detector_mm=300.0)
PITCH = CAMERA.pixel_pitch_mm


def phantom() -> CtVolume:
    """A water box with a bone bar and an air hole, 120 mm wide, smaller than the beam."""
    hu = np.full((24, 24, 24), 0, np.int16)
    hu[:, 10:13, 4:20] = 1200
    hu[6:18, 16:20, 6:12] = -1000
    T = np.diag([5.0, 5.0, 5.0, 1.0])
    T[:3, 3] = -57.5
    return CtVolume(torch.from_numpy(hu), torch.from_numpy(T), "0" * 64, "test")


CT = phantom()
POSE = torch.eye(4, dtype=torch.float64)
POSE[2, 3] = 760.0
CLEAN = XraySettings.ideal(60.0)
BEAM = primary_intensity(CT, CAMERA, POSE, CLEAN)


def shoot(settings: XraySettings, seed: int = 0) -> np.ndarray:
    return simulate_xray(CT, CAMERA, POSE, settings, seed).pixels.numpy().astype(np.float64)


def test_everything_off_is_the_primary_beam() -> None:
    image = simulate_xray(CT, CAMERA, POSE, CLEAN)
    assert image.pixels.dtype == torch.float32 and image.pixels.shape == (64, 64)
    assert not image.is_attenuation and image.camera == CAMERA
    np.testing.assert_allclose(image.pixels.numpy(), BEAM, rtol=1e-6)


def test_quantum_noise_has_the_variance_of_its_mean() -> None:
    generator = np.random.default_rng(1)
    for signal in (0.02, 0.3, 1.0):
        counts = 5000.0 * quantum_noise(np.full((400, 400), signal), 5000.0, generator)
        # 160 000 samples: the mean is within 0.02 % at 3 sigma, the variance within 1.1 %.
        assert counts.mean() == pytest.approx(5000.0 * signal, rel=1e-3)
        assert counts.var() == pytest.approx(5000.0 * signal, rel=0.02)


def test_photons_are_counted_per_area_of_detector() -> None:
    settings = replace(CLEAN, photons_per_mm2=1000.0, exposure=0.5)
    air = BEAM > 0.999
    relative = np.concatenate([2.0 * shoot(settings, seed)[air] for seed in range(8)])
    assert relative.mean() == pytest.approx(1.0, rel=1e-3)
    # About 12 000 samples: the variance is within 4 % at 3 sigma.
    assert relative.var() == pytest.approx(1.0 / (1000.0 * PITCH[0] * PITCH[1]), rel=0.06)


def test_electronic_noise_is_white_with_the_given_deviation() -> None:
    noise = shoot(replace(CLEAN, electronic_noise=0.01, exposure=0.5)) * 2.0 - BEAM
    assert noise.std() == pytest.approx(0.01, rel=0.05)
    neighbours = np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < 0.06


def test_seeds_decide_and_global_randomness_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()
    settings = XraySettings(subpixels=1)
    first, again, other = shoot(settings, 3), shoot(settings, 3), shoot(settings, 4)
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_switching_one_noise_leaves_the_others_draws_alone() -> None:
    base = replace(CLEAN, exposure=0.5)
    quanta, electronics = {"photons_per_mm2": 1e5}, {"electronic_noise": 1e-3}
    none, one = shoot(base), shoot(replace(base, **quanta))
    two, both = shoot(replace(base, **electronics)), shoot(replace(base, **quanta, **electronics))
    # float32 images near 0.5 carry 3e-8.
    np.testing.assert_allclose(both - one, two - none, atol=2e-7)


@pytest.mark.parametrize(
    ("change", "undo", "tolerance"),
    [
        ({"gamma": 1.3}, lambda i: i ** (1 / 1.3), 1e-6),
        ({"exposure": 0.4}, lambda i: i / 0.4, 1e-6),
        ({"bits": 8}, lambda i: i, 0.501 / 255),
    ],
)
def test_point_operations_can_be_undone(
    change: dict[str, Any], undo: Callable[[np.ndarray], np.ndarray], tolerance: float
) -> None:
    np.testing.assert_allclose(undo(shoot(replace(CLEAN, **change))), BEAM, atol=tolerance)


def test_digitisation_makes_levels_and_clips() -> None:
    levels = 65535.0 * shoot(XraySettings(subpixels=1))
    np.testing.assert_allclose(levels, np.round(levels), atol=0.01)
    over = digitise(np.array([[-0.1, 0.25, 0.9]]), 2.0, 1.0, None)
    np.testing.assert_array_equal(over, [[0.0, 0.5, 1.0]])


def test_blur_keeps_the_energy() -> None:
    generator = np.random.default_rng(2)
    image = generator.random((40, 50))
    for pitch in ((1.0, 1.0), (0.7, 1.9)):
        assert blur(image, 1.2, 0.2, 3.0, pitch).mean() == pytest.approx(image.mean(), rel=1e-12)
    np.testing.assert_allclose(blur(image, 0.0, 0.0, 1.0, (1.0, 1.0)), image, atol=1e-12)


@pytest.mark.parametrize("half_periods", [3, 10, 27])
def test_blur_passes_a_wave_as_its_transfer_function_says(half_periods: int) -> None:
    pitch = (0.8, 1.3)
    for axis, n in ((1, 96), (0, 64)):
        wave = np.cos(np.pi * half_periods * (np.arange(n) + 0.5) / n)
        image = np.broadcast_to(wave if axis else wave[:, None], (64, 96))
        frequency = half_periods / (2.0 * n * pitch[0 if axis else 1])
        gain = 0.85 * np.exp(-2.0 * (np.pi * 0.5 * frequency) ** 2)
        gain += 0.15 * np.exp(-2.0 * np.pi * 2.0 * frequency)
        np.testing.assert_allclose(blur(image, 0.5, 0.15, 2.0, pitch), gain * image, atol=1e-12)


def test_blur_in_millimetres_is_a_gaussian_of_that_width() -> None:
    point = np.zeros((65, 65))
    point[32, 32] = 1.0
    spread = blur(point, 2.0, 0.0, 1.0, (0.5, 1.0))
    offset = np.arange(65) - 32.0
    assert (spread.sum(0) * (0.5 * offset) ** 2).sum() == pytest.approx(4.0, rel=1e-6)
    assert (spread.sum(1) * offset**2).sum() == pytest.approx(4.0, rel=1e-6)


@pytest.mark.parametrize("ratio", [0.1, 0.4, 2.0])
def test_scatter_has_the_ratio_asked_for(ratio: float) -> None:
    scattered = shoot(replace(CLEAN, scatter_to_primary=ratio, exposure=0.3)) / 0.3 - BEAM
    shadow = -np.log(BEAM) > 0.05
    assert np.median(scattered[shadow] / BEAM[shadow]) == pytest.approx(ratio, rel=1e-4)
    # Wide and without detail: nothing is steeper than a Gaussian of 50 mm, exp(-1/2) / 50 mm.
    steepest = np.exp(-0.5) / 50.0 * PITCH[0] * scattered.max()
    assert np.abs(np.diff(scattered, axis=1)).max() < steepest
    assert scattered.min() > 0.0


def test_scatter_needs_a_patient() -> None:
    air = np.ones((20, 20))
    np.testing.assert_array_equal(scatter(air, air, 0.5, 30.0, PITCH), np.zeros((20, 20)))


def test_blades_shade_a_rotated_rectangle() -> None:
    pitch = (0.5, 0.5)
    blades = Collimation("rectangle", (0.1, -0.2), (0.5, 0.3), 25.0, penumbra_mm=0.2, leakage=0.0)
    open_share = transmission(blades, (300, 400), pitch)
    area = open_share.sum() * 0.25
    assert area == pytest.approx(4 * 0.5 * 100.0 * 0.3 * 75.0, rel=1e-3)
    # Centre of gravity, then the direction of the long side, clockwise with v down.
    v, u = np.mgrid[:300, :400]
    u, v = (u + 0.5) * 0.5 - 100.0, (v + 0.5) * 0.5 - 75.0
    assert (open_share * u).sum() / open_share.sum() == pytest.approx(10.0, abs=0.02)
    assert (open_share * v).sum() / open_share.sum() == pytest.approx(-15.0, abs=0.02)
    covariance = np.cov(np.stack([u.ravel(), v.ravel()]), aweights=open_share.ravel())
    long_side = np.linalg.eigh(covariance)[1][:, 1]
    angle = np.degrees(np.arctan2(long_side[1], long_side[0])) % 180.0
    assert angle == pytest.approx(25.0, abs=0.2)


def test_blades_shade_a_circle() -> None:
    blades = Collimation("circle", half_size=(0.8, 1.0), penumbra_mm=0.3, leakage=0.01)
    open_share = transmission(blades, (200, 200), (1.0, 1.0))
    assert open_share.max() == pytest.approx(1.0) and open_share.min() == pytest.approx(0.01)
    area = (open_share - 0.01).sum() / 0.99
    assert area == pytest.approx(np.pi * 80.0**2, rel=1e-3)


def test_blades_cut_the_primary_and_scatter_reaches_under_them() -> None:
    blades = Collimation("rectangle", half_size=(0.5, 0.5), penumbra_mm=1.0, leakage=0.0)
    image = shoot(replace(CLEAN, collimation=blades))
    np.testing.assert_allclose(image[20:44, 20:44], BEAM[20:44, 20:44], rtol=1e-6)
    assert image[:14].max() == 0.0
    scattered = shoot(replace(CLEAN, collimation=blades, scatter_to_primary=0.3))
    assert scattered[:14].min() > 0.0
    blank = shoot(replace(CLEAN, collimation=replace(blades, blanked=True), scatter_to_primary=0.3))
    assert blank[:14].max() == 0.0
    np.testing.assert_array_equal(blank[20:44, 20:44], scattered[20:44, 20:44])


@pytest.mark.parametrize(
    "wrong", [{"half_size": (0.0, 1.0)}, {"penumbra_mm": 0.0}, {"leakage": 2.0}]
)
def test_impossible_blades_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SimulationSettingsError):
        Collimation(**wrong)


def test_realistic_settings_vary_with_the_seed_within_their_ranges() -> None:
    assert XraySettings.realistic(5) == XraySettings.realistic(5)
    many = [XraySettings.realistic(seed) for seed in range(300)]
    assert len({s.gamma for s in many}) == 300
    assert all(0.8 <= s.gamma <= 1.2 and 0.1 <= s.scatter_to_primary <= 0.4 for s in many)
    # 300 draws of 30 %: 22-38 % at 3 sigma.
    assert 0.22 < np.mean([s.collimation is not None for s in many]) < 0.38
    assert 0.22 < np.mean([bool(s.tools) for s in many]) < 0.38
    assert {t.metal for s in many for t in s.tools} == {"steel", "titanium"}


def test_what_a_share_switches_leaves_the_other_draws_alone() -> None:
    for seed in range(20):
        some = XraySettings.realistic(seed)
        bare = XraySettings.realistic(seed, collimation_share=0.0, tools_share=0.0)
        full = XraySettings.realistic(seed, collimation_share=1.0, tools_share=1.0)
        assert bare.collimation is None and bare.tools == ()
        assert full.collimation is not None and full.tools
        assert replace(some, collimation=None, tools=()) == bare
        assert replace(full, collimation=None, tools=()) == bare


def test_a_tool_darkens_its_shadow_only() -> None:
    rod = Cylinder((-100.0, 0.0, 0.0), (100.0, 0.0, 0.0), 5.0, frame="ct")
    ratio = shoot(replace(CLEAN, tools=(rod,))) / BEAM
    rows = np.flatnonzero((ratio < 0.999).any(1))
    # 5 mm at 760 of 1020 mm, pitch 4.69 mm: 1.43 pixels either side of row 31.5.
    assert rows.tolist() == [31, 32]
    assert ratio[31, 32] == pytest.approx(ratio[32, 31], rel=1e-5) and ratio[31, 32] < 1e-3
