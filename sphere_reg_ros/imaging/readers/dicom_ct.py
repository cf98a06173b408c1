"""CTs in DICOM: a folder of slices, or one multi-frame file."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.errors import (
    CtContentError,
    DicomSeriesError,
    ImageFileError,
    SliceGeometryError,
)

ORIENTATION_TOLERANCE = 1e-3
SPACING_TOLERANCE = 0.02
"""Share of the slice distance by which distances may differ: headers are rounded to a hundredth of a mm."""
TILT_TOLERANCE_DEG = 0.5


@dataclass(frozen=True)
class _Slice:
    dataset: Any
    position_mm: NDArray[Any]
    row_axis: NDArray[Any]
    column_axis: NDArray[Any]
    spacing_mm: tuple[float, float]
    name: str

    @property
    def normal(self) -> NDArray[Any]:
        return np.asarray(np.cross(self.row_axis, self.column_axis))

    @property
    def depth_mm(self) -> float:
        return float(self.position_mm @ self.normal)


def read_dicom_ct(path: Path, series_uid: str | None) -> CtVolume:
    """Read one CT series, its slices sorted by their position in the patient.

    Args:
        path: a folder, searched with its subfolders, or one multi-frame file.
        series_uid: which series, where there are several.

    Raises:
        ImageFileError: a file that starts as DICOM but cannot be read or decoded.
        DicomSeriesError: no CT series, several, or not the one asked for.
        SliceGeometryError: slices that make no regular, untilted grid.
        CtContentError: slices of different size, or with several values a pixel.
    """
    datasets = _read_headers(path)
    chosen, uid = _choose_series(path, datasets, series_uid)
    if len(chosen) == 1 and int(getattr(chosen[0][1], "NumberOfFrames", 1) or 1) > 1:
        slices = _frames(*chosen[0])
    else:
        slices = [_slice(dataset, name) for name, dataset in chosen]
    _check_same_plane(slices)
    slices.sort(key=lambda one: one.depth_mm)
    step = _slice_step(slices)
    first = slices[0]
    T = np.eye(4)
    T[:3, 0] = first.row_axis * first.spacing_mm[1]
    T[:3, 1] = first.column_axis * first.spacing_mm[0]
    T[:3, 2] = step
    T[:3, 3] = first.position_mm
    planes = [_hounsfield(one) for one in slices]
    for one, plane in zip(slices, planes, strict=True):
        if plane.shape != planes[0].shape:
            raise CtContentError(f"{one.name}: has {plane.shape} pixels, {first.name} {planes[0].shape}; the series mixes sizes")
    volume = np.stack(planes)
    return CtVolume.from_array(torch.from_numpy(volume), torch.from_numpy(T), f"{path}#{uid}")


def _read_headers(path: Path) -> list[tuple[str, Any]]:
    import pydicom
    from pydicom.errors import InvalidDicomError

    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    datasets = []
    for file in files:
        try:
            datasets.append((str(file), pydicom.dcmread(file)))
        except InvalidDicomError:
            continue
        except Exception as error:  # pydicom raises many kinds on damaged files
            raise ImageFileError(f"{file}: damaged DICOM file ({error})") from error
    if not datasets:
        raise ImageFileError(f"{path}: holds no DICOM file")
    return datasets


def _choose_series(
    path: Path, datasets: list[tuple[str, Any]], series_uid: str | None
) -> tuple[list[tuple[str, Any]], str]:
    series: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    modalities = set()
    for name, dataset in datasets:
        modalities.add(str(getattr(dataset, "Modality", "?")))
        image_type = [str(part).upper() for part in getattr(dataset, "ImageType", [])]
        # A scout lies in the same study, and often in the same folder, but is a projection.
        if getattr(dataset, "Modality", "") == "CT" and "LOCALIZER" not in image_type:
            series[str(getattr(dataset, "SeriesInstanceUID", "unknown"))].append((name, dataset))
    if not series:
        raise DicomSeriesError(f"{path}: holds no CT slices, only modality {', '.join(sorted(modalities))}")
    if series_uid is not None:
        if series_uid not in series:
            raise DicomSeriesError(f"{path}: has no CT series {series_uid}; it has {_listing(series)}")
        return series[series_uid], series_uid
    if len(series) > 1:
        raise DicomSeriesError(
            f"{path}: holds {len(series)} CT series: {_listing(series)}; choose one with '{path}#SERIES_UID'"
        )
    return next(iter(series.values())), next(iter(series))


def _listing(series: dict[str, list[tuple[str, Any]]]) -> str:
    return "; ".join(
        f"{uid} ('{getattr(items[0][1], 'SeriesDescription', '')}', {len(items)} slices)"
        for uid, items in series.items()
    )


def _slice(dataset: Any, name: str, plane: Any = None, index: int = 0) -> _Slice:
    source = plane or dataset
    try:
        orientation = np.array([float(value) for value in source.ImageOrientationPatient])
        position = np.array([float(value) for value in source.ImagePositionPatient])
        spacing = [float(value) for value in source.PixelSpacing]
    except (AttributeError, TypeError, ValueError) as error:
        raise SliceGeometryError(
            f"{name}: lacks orientation, position or pixel spacing ({error}); it cannot be placed in the patient"
        ) from error
    if orientation.shape != (6,) or position.shape != (3,) or len(spacing) != 2 or min(spacing) <= 0.0:
        raise SliceGeometryError(
            f"{name}: orientation {orientation.tolist()}, position {position.tolist()} or spacing {spacing} is malformed"
        )
    return _Slice(dataset, position, orientation[:3], orientation[3:], (spacing[0], spacing[1]), name)


def _frames(name: str, dataset: Any) -> list[_Slice]:
    import copy

    try:
        pixels = dataset.pixel_array
        shared = dataset.SharedFunctionalGroupsSequence[0]
        frames = dataset.PerFrameFunctionalGroupsSequence
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise ImageFileError(f"{name}: multi-frame file cannot be decoded ({error})") from error
    slices = []
    for index, group in enumerate(frames):
        flat = copy.copy(dataset)
        plane = _PlaneOfFrame(shared, group)
        one = _slice(flat, f"{name} frame {index + 1}", plane)
        rescale = plane.find("PixelValueTransformationSequence")
        slope = float(getattr(rescale, "RescaleSlope", 1.0)) if rescale is not None else 1.0
        offset = float(getattr(rescale, "RescaleIntercept", 0.0)) if rescale is not None else 0.0
        frame = _DecodedFrame(pixels[index], slope, offset)
        slices.append(_Slice(frame, one.position_mm, one.row_axis, one.column_axis, one.spacing_mm, one.name))
    return slices


class _PlaneOfFrame:
    """Geometry of one frame of an enhanced CT, from its own or from the shared functional groups."""

    def __init__(self, shared: Any, own: Any) -> None:
        self._groups = (own, shared)

    def find(self, sequence: str) -> Any:
        for group in self._groups:
            if sequence in group:
                return getattr(group, sequence)[0]
        return None

    def _value(self, sequence: str, name: str) -> Any:
        item = self.find(sequence)
        if item is None:
            raise AttributeError(f"no {sequence}")
        return getattr(item, name)

    @property
    def ImageOrientationPatient(self) -> Any:  # noqa: N802 - DICOM's keyword
        return self._value("PlaneOrientationSequence", "ImageOrientationPatient")

    @property
    def ImagePositionPatient(self) -> Any:  # noqa: N802 - DICOM's keyword
        return self._value("PlanePositionSequence", "ImagePositionPatient")

    @property
    def PixelSpacing(self) -> Any:  # noqa: N802 - DICOM's keyword
        return self._value("PixelMeasuresSequence", "PixelSpacing")


@dataclass(frozen=True)
class _DecodedFrame:
    pixel_array: NDArray[Any]
    RescaleSlope: float
    RescaleIntercept: float


def _check_same_plane(slices: list[_Slice]) -> None:
    if len(slices) < 2:
        raise SliceGeometryError(f"{slices[0].name}: a single slice is no volume")
    first = slices[0]
    axes = np.concatenate((first.row_axis, first.column_axis))
    if abs(np.linalg.norm(first.normal) - 1.0) > ORIENTATION_TOLERANCE:
        raise SliceGeometryError(f"{first.name}: its row and column axes are not perpendicular unit vectors")
    for one in slices[1:]:
        if np.abs(np.concatenate((one.row_axis, one.column_axis)) - axes).max() > ORIENTATION_TOLERANCE:
            raise SliceGeometryError(f"{one.name}: its orientation differs from that of {first.name}; the series mixes planes")
        if max(abs(a - b) for a, b in zip(one.spacing_mm, first.spacing_mm, strict=True)) > 1e-4:
            raise SliceGeometryError(
                f"{one.name}: pixel spacing {one.spacing_mm} differs from {first.spacing_mm} of {first.name}"
            )


def _slice_step(slices: list[_Slice]) -> NDArray[Any]:
    depths = np.array([one.depth_mm for one in slices])
    gaps = np.diff(depths)
    usual = float(np.median(gaps))
    doubled = np.flatnonzero(gaps < 0.05 * max(usual, 0.1))
    if len(doubled):
        index = int(doubled[0])
        raise SliceGeometryError(
            f"{slices[index].name} and {slices[index + 1].name} lie in the same place ({depths[index]:.2f} mm); "
            "remove the duplicates"
        )
    uneven = np.flatnonzero(np.abs(gaps - usual) > SPACING_TOLERANCE * usual)
    if len(uneven):
        index = int(uneven[np.argmax(gaps[uneven])])
        raise SliceGeometryError(
            f"{slices[index].name}: the next slice is {gaps[index]:.3f} mm away, the usual distance is {usual:.3f} mm; "
            f"slices are missing or unevenly spaced ({len(uneven)} gaps): export the whole series, or resample it"
        )
    step = (slices[-1].position_mm - slices[0].position_mm) / (len(slices) - 1)
    tilt_deg = float(np.degrees(np.arccos(np.clip(abs(step @ slices[0].normal) / np.linalg.norm(step), -1.0, 1.0))))
    if tilt_deg > TILT_TOLERANCE_DEG:
        raise SliceGeometryError(
            f"{slices[0].name}: the gantry was tilted by {tilt_deg:.1f}° (limit {TILT_TOLERANCE_DEG}°); "
            "resample the series to an untilted grid"
        )
    return np.asarray(step)


def _hounsfield(one: _Slice) -> NDArray[Any]:
    try:
        pixels = np.asarray(one.dataset.pixel_array)
    except Exception as error:  # decoders raise many kinds
        raise ImageFileError(
            f"{one.name}: pixels cannot be decoded ({error}); "
            "for compressed DICOM install pylibjpeg with its plugins, or export it uncompressed"
        ) from error
    if pixels.ndim != 2:
        raise CtContentError(f"{one.name}: slice has shape {pixels.shape}; a CT slice has one value a pixel")
    slope = float(getattr(one.dataset, "RescaleSlope", 1.0) or 1.0)
    intercept = float(getattr(one.dataset, "RescaleIntercept", 0.0) or 0.0)
    values = pixels.astype(np.float32) * slope + intercept
    return np.asarray(np.clip(np.rint(values), -32768, 32767), dtype=np.int16)
