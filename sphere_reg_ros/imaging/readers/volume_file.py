"""Volumes in one file (NIfTI, NRRD, MHA, MHD), through SimpleITK, which answers in LPS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from sphere_reg_ros.imaging.errors import CtContentError, ImageFileError
from sphere_reg_ros.imaging.readers.complete import check_complete

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


def is_volume_file(path: Path) -> bool:
    """Whether the name is one of a format that is read here."""
    return path.name.lower().endswith(VOLUME_SUFFIXES)


def read_volume(path: Path) -> tuple[Float[Tensor, "z y x"], Float64[Tensor, "4 4"]]:
    """Voxels and ``T_ct_voxel`` in LPS mm.

    Integers stay int16 where they fit, everything else becomes float32.

    Raises:
        ImageFileError: the file is unreadable or truncated.
        CtContentError: not three-dimensional, complex, a vector a voxel, or with NaN.
    """
    import SimpleITK as sitk

    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        _check_header(path, reader)
        check_complete(path, int(np.prod(reader.GetSize())))
        image = reader.Execute()
    except RuntimeError as error:
        raise ImageFileError(f"{path}: cannot be read ({_last_line(error)})") from error
    size = [length for length in image.GetSize() if length > 1] if image.GetDimension() > 3 else image.GetSize()
    # A view: a float64 file of a whole CT is large enough once.
    array = sitk.GetArrayViewFromImage(image).reshape(tuple(reversed(size)))
    return _compact(path, array), _voxel_to_lps(image)


def _check_header(path: Path, reader: object) -> None:
    dimension = reader.GetDimension()  # type: ignore[attr-defined]
    size = reader.GetSize()  # type: ignore[attr-defined]
    extra = [length for length in size[3:] if length > 1]
    if dimension < 3 or extra:
        raise CtContentError(f"{path}: has size {tuple(size)}; a CT is one three-dimensional image")
    if reader.GetNumberOfComponents() != 1:  # type: ignore[attr-defined]
        raise CtContentError(f"{path}: has {reader.GetNumberOfComponents()} values a voxel; a CT has one")  # type: ignore[attr-defined]


def _voxel_to_lps(image: object) -> Float64[Tensor, "4 4"]:
    dimension = image.GetDimension()  # type: ignore[attr-defined]
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)[:3, :3]  # type: ignore[attr-defined]
    T = np.eye(4)
    T[:3, :3] = direction * np.array(image.GetSpacing())[:3]  # type: ignore[attr-defined]
    T[:3, 3] = np.array(image.GetOrigin())[:3]  # type: ignore[attr-defined]
    return torch.from_numpy(T)


def _compact(path: Path, array: NDArray[Any]) -> Float[Tensor, "z y x"]:
    if array.dtype.kind in "iub":
        low, high = int(array.min()), int(array.max())
        small = low >= -32768 and high <= 32767
        return torch.from_numpy(array.astype(np.int16 if small else np.float32))
    if array.dtype.kind != "f":
        raise CtContentError(f"{path}: holds values of type {array.dtype}; a CT holds numbers")
    if not all(np.isfinite(plane).all() for plane in array):
        raise CtContentError(f"{path}: holds NaN or infinite values; replace them, by -1000 outside the patient")
    # Many tools store integers as floats; int16 halves the memory and keeps one hash for one CT.
    return torch.from_numpy(array.astype(np.int16 if all(map(_is_int16, array)) else np.float32))


def _is_int16(plane: NDArray[Any]) -> bool:
    values = plane.astype(np.float32)
    return bool((values == np.rint(values)).all()) and float(values.min()) >= -32768 and float(values.max()) <= 32767


def _last_line(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "unknown reason"
