"""Named points in the CT."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.errors import LabelMapError, LandmarkFileError


@dataclass(frozen=True)
class Landmarks:
    """Named points.

    Attributes:
        names: one a point.
        points_mm: ``(n, 3)`` float64, LPS mm.
    """

    names: tuple[str, ...]
    points_mm: Float64[Tensor, "n 3"]


def read_landmarks(path: str | Path) -> Landmarks:
    """Read landmarks in LPS mm.

    Args:
        path: ``.json`` as ``{"name": [x, y, z]}``, 3D Slicer's ``.mrk.json`` and ``.fcsv`` (their coordinate system is
            honoured), or ``.csv`` with a header and the columns ``name, x, y, z``; plain files are LPS mm.

    Raises:
        LandmarkFileError: missing, malformed, without a point, or a coordinate that is not finite.
    """
    target = Path(path)
    try:
        text = target.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LandmarkFileError(f"{target}: landmarks cannot be read ({error})") from error
    readers = {".json": _from_json, ".fcsv": _from_fcsv, ".csv": _from_csv}
    reader = readers.get(target.suffix.lower())
    if reader is None:
        raise LandmarkFileError(f"{target}: unknown landmark format; use .json, .csv, .fcsv or .mrk.json")
    try:
        points = reader(text)
        table = np.array([point for _, point in points], dtype=np.float64).reshape(-1, 3)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise LandmarkFileError(f"{target}: malformed landmarks ({error!r})") from error
    if len(points) == 0 or not np.isfinite(table).all():
        raise LandmarkFileError(f"{target}: {len(points)} landmarks, all coordinates must be finite numbers in mm")
    return Landmarks(tuple(name for name, _ in points), torch.from_numpy(table))


def landmarks_from_labels(
    labels: Int[Tensor, "z y x"], ct: CtVolume, names: Mapping[int, str] | None = None
) -> Landmarks:
    """Centroids of the labels of a map on the CT's grid.

    Args:
        names: label value to name; every label but zero where None.

    Raises:
        LabelMapError: a label that is asked for is not there.
    """
    array = labels.numpy()
    counts = np.bincount(array.ravel()) if array.size and array.min() >= 0 else np.zeros(0, dtype=np.int64)
    present = {int(value) for value in np.flatnonzero(counts) if value > 0}
    wanted = dict(names) if names is not None else {value: f"label_{value}" for value in sorted(present)}
    missing = sorted(set(wanted) - present)
    if missing or not wanted:
        raise LabelMapError(
            f"the label map lacks label {', '.join(map(str, missing)) or '(it is empty)'}; it holds {sorted(present)}"
        )
    sums = np.zeros((3, len(counts)))
    for k, plane in enumerate(array):
        rows, columns = np.nonzero(plane)
        values = plane[rows, columns]
        for axis, index in enumerate((columns, rows, np.full(len(rows), k))):
            sums[axis] += np.bincount(values, weights=index, minlength=len(counts))
    chosen = list(wanted)
    voxels = torch.from_numpy((sums[:, chosen] / counts[chosen]).T.copy())
    points = voxels @ ct.T_ct_voxel[:3, :3].T + ct.T_ct_voxel[:3, 3]
    return Landmarks(tuple(wanted[value] for value in chosen), points)


Points = list[tuple[str, list[float]]]


def _to_lps(point: list[float], system: str) -> list[float]:
    x, y, z = (float(value) for value in point)
    if system.upper() in {"LPS", "1"}:
        return [x, y, z]
    if system.upper() in {"RAS", "0"}:
        return [-x, -y, z]
    raise ValueError(f"coordinate system {system!r} is neither LPS nor RAS")


def _from_json(text: str) -> Points:
    content: Any = json.loads(text)
    if isinstance(content, dict) and "markups" in content:
        return [
            (str(point.get("label", index)), _to_lps(point["position"], str(markup.get("coordinateSystem", "LPS"))))
            for markup in content["markups"]
            for index, point in enumerate(markup["controlPoints"])
        ]
    return [(str(name), _to_lps(point, "LPS")) for name, point in content.items()]


def _from_fcsv(text: str) -> Points:
    system = "RAS"
    points: Points = []
    for line in text.splitlines():
        if line.startswith("#"):
            if "CoordinateSystem" in line:
                system = line.partition("=")[2].strip()
            continue
        if line.strip():
            cells = next(csv.reader([line]))
            name = cells[11] if len(cells) > 11 and cells[11] else cells[0]
            points.append((name, _to_lps([float(cell) for cell in cells[1:4]], system)))
    return points


def _from_csv(text: str) -> Points:
    rows = csv.DictReader(text.splitlines(), skipinitialspace=True)
    return [
        (row["name"], _to_lps([float(row[axis]) for axis in ("x", "y", "z")], "LPS")) for row in rows
    ]
