"""Reads a CT, or a label map on its grid, whatever the format."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.errors import ImageFileError, LabelMapError
from sphere_reg_ros.imaging.readers.dicom_ct import read_dicom_ct
from sphere_reg_ros.imaging.readers.volume_file import VOLUME_SUFFIXES, is_volume_file, read_volume

GRID_TOLERANCE_MM = 1e-2


def read_ct(path: str | Path) -> CtVolume:
    """Read a CT.

    Args:
        path: a DICOM folder, ``folder#SeriesInstanceUID`` to choose one of its series, a multi-frame DICOM file, or a NIfTI,
            NRRD, MHA or MHD file.

    Raises:
        ImageFileError: missing, unreadable, truncated, of no known format.
        DicomSeriesError, SliceGeometryError, CtContentError: see there.
    """
    target, series_uid = Path(path), ""
    # A name may hold a '#' of its own.
    if not target.exists() and "#" in str(path):
        folder, _, uid = str(path).rpartition("#")
        if Path(folder).is_dir():
            target, series_uid = Path(folder), uid
    if target.is_dir():
        return read_dicom_ct(target, series_uid or None)
    if not target.exists():
        raise ImageFileError(f"{target}: no such file or folder")
    if is_volume_file(target):
        hu, T_ct_voxel = read_volume(target)
        return CtVolume.from_array(hu, T_ct_voxel, str(target))
    if target.suffix.lower() in {".dcm", ".ima", ""}:
        return read_dicom_ct(target, None)
    raise ImageFileError(
        f"{target}: unknown CT format '{target.suffix}'; give a DICOM folder or one of {', '.join(VOLUME_SUFFIXES)}"
    )


def read_labels(path: str | Path, ct: CtVolume) -> Int[Tensor, "z y x"]:
    """Read a label map that lies on the CT's grid.

    Raises:
        ImageFileError: the file cannot be read.
        LabelMapError: another size, or another place in the patient.
    """
    target = Path(path)
    if not target.exists():
        raise ImageFileError(f"{target}: no such file")
    if not is_volume_file(target):
        raise ImageFileError(f"{target}: unknown label map format; use one of {', '.join(VOLUME_SUFFIXES)}")
    labels, T_ct_voxel = read_volume(target)
    if labels.shape != ct.hu.shape:
        raise LabelMapError(
            f"{target}: the label map has {tuple(reversed(labels.shape))} voxels, the CT {ct.size}; resample it to the CT"
        )
    corners = torch.cartesian_prod(*(torch.tensor([0.0, size - 1.0], dtype=torch.float64) for size in ct.size))
    homogeneous = torch.cat((corners, torch.ones(8, 1, dtype=torch.float64)), dim=1)
    apart_mm = float(((T_ct_voxel - ct.T_ct_voxel) @ homogeneous.T)[:3].norm(dim=0).max())
    if apart_mm > GRID_TOLERANCE_MM:
        raise LabelMapError(
            f"{target}: the label map lies up to {apart_mm:.3g} mm away from the CT's grid; resample it to the CT"
        )
    return labels.to(torch.int32)
