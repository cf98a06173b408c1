"""Folders named as CTPelvic1K and CTSpine1K are, with small volumes in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sphere_reg_ros.evaluation.cases import LABELLED, open_patient
from sphere_reg_ros.evaluation.datasets.labelled_ct import check_labelled, read_folder
from sphere_reg_ros.evaluation.errors import DatasetFileError
from sphere_reg_ros.evaluation.suites import Choice, tasks_of

nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")
AFFINE = np.array([[-2.0, 0, 0, 30.0], [0, -2.0, 0, 40.0], [0, 0, 3.0, -100.0], [0, 0, 0, 1.0]])


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)


@pytest.fixture
def pelvic(tmp_path: Path) -> Path:
    """Two cases with labels, one CT without; the first's second label fills voxels (4..6, 8, 10)."""
    volume, labels = np.full((20, 24, 16), -1000, dtype=np.int16), np.zeros((20, 24, 16), dtype=np.uint8)
    volume[3:17, 4:20, 2:14] = 300
    labels[2, 2, 2], labels[4:7, 8, 10] = 1, 2
    for name in ("dataset6_CLINIC_0001", "dataset6_CLINIC_0002"):
        write(tmp_path / "CTPelvic1K_dataset6_data" / f"{name}_data.nii.gz", volume)
        write(tmp_path / "ipcai2021_dataset6_Anonymized" / f"{name}_mask_4label.nii.gz", labels)
    write(tmp_path / "CTPelvic1K_dataset6_data" / "dataset6_CLINIC_0003_data.nii.gz", volume)
    return tmp_path


def test_pairs_are_found_by_name(pelvic: Path) -> None:
    found = read_folder(pelvic, "ctpelvic1k")
    assert [name for name, _, _ in found.pairs] == ["dataset6_CLINIC_0001", "dataset6_CLINIC_0002"]
    assert [file.name for file in found.lonely] == ["dataset6_CLINIC_0003_data.nii.gz"]
    text = "\n".join(check_labelled(pelvic, "ctpelvic1k"))
    assert "2 CTs with labels" in text and "0003" in text and "zenodo" in text


def test_landmarks_are_centroids_in_lps(pelvic: Path) -> None:
    """NIfTI is RAS: nibabel's own affine puts voxel (5, 8, 10) at (20, 24, -70) RAS, (-20, -24, -70) LPS."""
    _, ct, labels = read_folder(pelvic, "ctpelvic1k").pairs[0]
    points = open_patient(f"{LABELLED}{ct}|{labels}").points_mm
    wanted = nibabel.affines.apply_affine(AFFINE, [[2, 2, 2], [5, 8, 10]]) * [-1.0, -1.0, 1.0]
    torch.testing.assert_close(points, torch.from_numpy(wanted))


def test_spine_labels_stand_beside_their_ct(tmp_path: Path) -> None:
    volume = np.full((8, 8, 8), -1000, dtype=np.int16)
    write(tmp_path / "data" / "liver_0.nii.gz", volume)
    write(tmp_path / "label" / "liver_0_seg.nii.gz", np.ones((8, 8, 8), dtype=np.uint8))
    assert [name for name, _, _ in read_folder(tmp_path, "ctspine1k").pairs] == ["liver_0"]
    tasks = tasks_of("ctspine1k", Choice(methods=("photometric",), data=tmp_path))
    assert {task.dataset for task in tasks} == {f"{LABELLED}{tmp_path}/data/liver_0.nii.gz|{tmp_path}/label/liver_0_seg.nii.gz"}


def test_folders_without_pairs_say_where_to_get_the_data(tmp_path: Path) -> None:
    with pytest.raises(DatasetFileError, match="no pair"):
        read_folder(tmp_path, "ctspine1k")
    with pytest.raises(DatasetFileError, match="zenodo"):
        read_folder(tmp_path / "none", "ctpelvic1k")
    with pytest.raises(DatasetFileError, match="--data"):
        tasks_of("ctspine1k", Choice())
