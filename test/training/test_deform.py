"""Variants of a CT: other patients, still patients."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.training.deform import VOXEL_MM, DeformSettings, coarsened, deformed

STILL = DeformSettings(bend_mm=0.0, scale=(1.0, 1.0), crop=0.0, bone=(1.0, 1.0), soft_hu=(0.0, 0.0), implants=0)


def test_without_any_change_it_is_the_coarsened_ct(phantom: CtVolume) -> None:
    ours, plain = deformed(phantom, 3, STILL), coarsened(phantom, VOXEL_MM)
    assert torch.equal(ours.T_ct_voxel, plain.T_ct_voxel)
    # Resampling at the voxels' own places leaves float32 rounding.
    assert int((ours.hu.int() - plain.hu.int()).abs().max()) <= 1


def test_coarsening_keeps_every_point_in_its_place(phantom: CtVolume) -> None:
    coarse = coarsened(phantom, 6.0)
    assert coarse.spacing_mm == pytest.approx((6.0, 6.0, 6.0))
    assert coarse.centre_mm().numpy() == pytest.approx(phantom.centre_mm().numpy(), abs=3.0)
    assert float(coarse.hu.float().mean()) == pytest.approx(float(phantom.hu.float().mean()), abs=2.0)


def test_a_seed_is_a_patient(phantom: CtVolume) -> None:
    first, again, other = (deformed(phantom, seed) for seed in (1, 1, 2))
    assert first.sha256 == again.sha256 != other.sha256


def test_each_change_does_what_it_is_called(phantom: CtVolume) -> None:
    def variant(**changes: object) -> CtVolume:
        return deformed(phantom, 5, dataclasses.replace(STILL, **changes))  # type: ignore[arg-type]

    plain = variant()
    bone = plain.hu >= 400
    assert float(variant(bone=(1.3, 1.3)).hu[bone].float().mean()) > 1.15 * float(plain.hu[bone].float().mean())
    tissue, air = (plain.hu > 0) & (plain.hu < 40), plain.hu <= -1000
    shifted = variant(soft_hu=(40.0, 40.0))
    assert float((shifted.hu[tissue] - plain.hu[tissue]).float().mean()) == pytest.approx(41.0, abs=1.5)
    assert bool((shifted.hu[air] == plain.hu[air]).all())
    assert variant(scale=(1.1, 1.1)).spacing_mm == pytest.approx([1.1 * s for s in plain.spacing_mm])
    cut = variant(crop=0.4)
    assert cut.hu.shape[1:] == plain.hu.shape[1:]
    assert cut.hu.shape[0] < plain.hu.shape[0]
    # What is left stays where it was in the patient.
    first = round(float(cut.T_ct_voxel[2, 3] - plain.T_ct_voxel[2, 3]) / plain.spacing_mm[2])
    assert torch.equal(cut.hu, plain.hu[first : first + len(cut.hu)])
    assert int((variant(implants=3).hu == 3000).sum()) > 0 == int((plain.hu == 3000).sum())
    moved = variant(bend_mm=8.0)
    assert int((moved.hu != plain.hu).sum()) > 1000
    assert float(moved.hu.float().mean()) == pytest.approx(float(plain.hu.float().mean()), abs=60.0)
