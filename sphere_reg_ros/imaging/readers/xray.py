"""X-rays from DICOM, PNG, TIFF and NPY."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sphere_reg_ros.geometry.camera_formats import angles_from_dicom, camera_from_dicom
from sphere_reg_ros.imaging.errors import ImageFileError, XrayFormatError
from sphere_reg_ros.imaging.xray import XrayImage

PICTURE_SUFFIXES = {".png", ".tif", ".tiff"}
DICOM_MODALITIES = {"XA", "RF", "DX", "CR"}


def read_xray(path: str | Path) -> XrayImage:
    """Read one X-ray.

    Args:
        path: a DICOM file (XA, RF, DX, CR), an 8- or 16-bit PNG or TIFF, or a two-dimensional NPY array. Pictures and arrays
            are detected intensity: bright is unattenuated.

    Raises:
        ImageFileError: missing, unreadable, truncated, of no known format.
        XrayFormatError: not one single-channel X-ray.
    """
    target = Path(path)
    if not target.is_file():
        raise ImageFileError(f"{target}: no such file")
    suffix = target.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return XrayImage(_as_pixels(target, _read_picture(target)), source=str(target))
    if suffix == ".npy":
        return XrayImage(_as_pixels(target, _read_npy(target)), source=str(target))
    return _read_dicom(target)


def _read_picture(path: Path) -> NDArray[Any]:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ImageFileError(f"{path}: cannot be decoded; is the file complete?")
    if cv2.imcount(str(path)) > 1:
        raise XrayFormatError(f"{path}: holds {cv2.imcount(str(path))} pages; an X-ray is one, export them one by one")
    if picture.ndim == 3:
        colours = picture[..., :3]
        if not (colours == colours[..., :1]).all():
            raise XrayFormatError(f"{path}: is a colour image; an X-ray has one channel")
        picture = colours[..., 0]
    if picture.dtype not in (np.uint8, np.uint16, np.float32):
        raise XrayFormatError(f"{path}: has pixels of type {picture.dtype}; 8 or 16 bit are needed")
    return np.asarray(picture)


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        # Pickled arrays run code when they are loaded.
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ImageFileError(f"{path}: cannot be read as an array ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uif":
        raise XrayFormatError(f"{path}: holds no array of numbers")
    return array


def _as_pixels(path: Path, array: NDArray[Any]) -> torch.Tensor:
    if array.ndim != 2:
        raise XrayFormatError(f"{path}: has shape {array.shape}; an X-ray has two dimensions")
    # What does not fit is infinite then, and refused with the other pixels that are not finite.
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _read_dicom(path: Path) -> XrayImage:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        dataset = pydicom.dcmread(path)
    except InvalidDicomError as error:
        raise ImageFileError(
            f"{path}: unknown X-ray format; use DICOM, {', '.join(sorted(PICTURE_SUFFIXES))} or .npy"
        ) from error
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise ImageFileError(f"{path}: damaged DICOM file ({error})") from error
    modality = str(getattr(dataset, "Modality", "missing"))
    if modality not in DICOM_MODALITIES:
        raise XrayFormatError(f"{path}: modality is {modality}; an X-ray is one of {', '.join(sorted(DICOM_MODALITIES))}")
    try:
        stored = np.asarray(dataset.pixel_array)
    except Exception as error:  # decoders raise many kinds
        raise ImageFileError(f"{path}: pixels cannot be decoded ({error}); is the file complete, and uncompressed?") from error
    if stored.ndim != 2:
        raise XrayFormatError(f"{path}: has shape {stored.shape}; export a single frame in one channel")
    pixels, is_attenuation = _physical(dataset, stored.astype(np.float32))
    height, width = stored.shape
    return XrayImage(
        torch.from_numpy(np.ascontiguousarray(pixels)),
        is_attenuation,
        camera_from_dicom(dataset, width, height),
        angles_from_dicom(dataset),
        str(path),
    )


def _physical(dataset: Any, stored: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Intensity or attenuation, larger meaning more of it.

    DICOM PS3.3 C.8.7.1.1.6 and C.8.11.3.1.2: ``PixelIntensityRelationship`` LIN is proportional to the beam's intensity, LOG to
    its logarithm; the sign says whether larger values are more intensity (1) or less (-1). Without it ``MONOCHROME1`` shows
    low values bright, so stored values rise with attenuation, and ``MONOCHROME2`` the other way round.
    """
    slope = float(getattr(dataset, "RescaleSlope", 1.0) or 1.0)
    values = stored * slope + float(getattr(dataset, "RescaleIntercept", 0.0) or 0.0)
    relationship = str(getattr(dataset, "PixelIntensityRelationship", "") or "").upper()
    sign = getattr(dataset, "PixelIntensityRelationshipSign", None)
    inverted = str(getattr(dataset, "PhotometricInterpretation", "MONOCHROME2")) == "MONOCHROME1"
    falls_with_intensity = int(sign) < 0 if sign is not None else inverted
    if relationship == "LOG":
        return (values if falls_with_intensity else -values), True
    if falls_with_intensity:
        return (_top_of_scale(dataset, stored) - stored) * slope, False
    return values, False


def _top_of_scale(dataset: Any, stored: NDArray[Any]) -> float:
    """The stored value that means no intensity at all: the end of the grey scale that the image uses.

    The image's own largest value would call its darkest pixel black, and double the attenuation there.
    """
    used = max(8, int(stored.max()).bit_length())
    return float(2 ** min(used, int(getattr(dataset, "BitsStored", used) or used)) - 1)
