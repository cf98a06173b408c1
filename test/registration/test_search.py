"""The search where nothing is known: its correlation against numpy's, and a patient who lies askew."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import view_pose
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.simulate import simulate_xray
from sphere_reg_ros.imaging.simulate_settings import XraySettings
from sphere_reg_ros.registration.pipeline import RegistrationPipeline
from sphere_reg_ros.registration.search import MIN_OVERLAP_SHARE, shifted_correlation

TOLERANCE_MM = 0.3
"""A tenth of the phantom's voxel; its X-rays have neither noise nor scatter."""


@pytest.mark.parametrize("row, column", [(0, 0), (2, -3), (-4, 1)])
def test_the_correlation_is_numpys_over_the_overlap(row: int, column: int) -> None:
    generator = np.random.default_rng(3)
    image, templates = generator.uniform(2.0, 5.0, (13, 11)), generator.uniform(0.0, 3.0, (2, 13, 11))
    mask = generator.uniform(size=(13, 11)) < 0.8
    found = shifted_correlation(torch.from_numpy(image * mask), torch.from_numpy(mask.astype(float)), torch.from_numpy(templates))
    for index, template in enumerate(templates):
        pairs = [
            (image[r, c], template[r - row, c - column])
            for r in range(13)
            for c in range(11)
            if mask[r, c] and 0 <= r - row < 13 and 0 <= c - column < 11
        ]
        expected = np.corrcoef(np.array(pairs).T)[0, 1]
        assert float(found[index, row, column]) == pytest.approx(expected, abs=1e-9), "float64: rounding alone"


def test_a_small_overlap_or_a_flat_template_does_not_count() -> None:
    image, mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(8, 8)
    found = shifted_correlation(image, mask, torch.stack((image, torch.full((8, 8), 3.0))))
    assert float(found[0, 0, 0]) == pytest.approx(1.0, abs=1e-4)
    assert float(found[0, 5, 5]) == -1.0 and MIN_OVERLAP_SHARE > (3 / 8) ** 2
    assert (found[1] == -1.0).all()


@pytest.mark.parametrize(
    "orbital_deg, cranial_deg, roll_deg, shift_mm",
    [(31.0, -9.0, -5.0, (21.0, -42.0, 36.0)), (-17.0, -2.0, -24.0, (-21.0, 24.0, -15.0))],
)
def test_a_patient_who_lies_askew_is_found(
    orbital_deg: float,
    cranial_deg: float,
    roll_deg: float,
    shift_mm: tuple[float, float, float],
    phantom: CtVolume,
    pipeline: RegistrationPipeline,
    error_mm: Callable,
) -> None:
    camera, centre = Camera.centred(128), phantom.reference_point()
    twist = torch.tensor([*shift_mm, 0.0, 0.0, np.deg2rad(roll_deg)], dtype=torch.float64)
    truth = se3.apply_twist(view_pose(centre, orbital_deg, cranial_deg), twist, centre)
    result = pipeline.register(simulate_xray(phantom, camera, truth, XraySettings.ideal(), 0), camera)
    assert result.accepted, result.reasons
    assert "search" in result.timings_ms
    assert error_mm(result.T_camera_ct, truth) < TOLERANCE_MM
