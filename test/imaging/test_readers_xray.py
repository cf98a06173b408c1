"""X-rays from pictures, arrays and DICOM; their validation and their line integrals."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sphere_reg_ros.errors import InputError
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.errors import (
    ConstantXrayError,
    EmptyXrayError,
    ImageFileError,
    NotFiniteXrayError,
    SaturatedXrayError,
    XrayFormatError,
    XraySizeError,
)
from sphere_reg_ros.imaging.readers import read_xray
from sphere_reg_ros.imaging.xray import XrayImage, to_line_integral, validate_xray


def picture(dtype: type = np.uint16) -> np.ndarray:
    """40 rows, 50 columns, no symmetry."""
    rows, columns = np.indices((40, 50))
    return (rows * 4 + columns).astype(dtype)


def write_dicom(path: Path, **fields: object) -> Path:
    """A projection of the given attributes."""
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    from pydicom.uid import ExplicitVRLittleEndian, XRayAngiographicImageStorage, generate_uid

    one = pydicom.Dataset()
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = XRayAngiographicImageStorage
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
    one.Modality, one.Rows, one.Columns = "XA", 40, 50
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
    one.PixelData = picture().astype("<u2").tobytes()
    for keyword, value in fields.items():
        setattr(one, keyword, value)
    one.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("name", "dtype"), [("x.png", np.uint8), ("x.png", np.uint16), ("x.tif", np.uint16), ("x.tiff", np.float32)]
)
def test_pictures(name: str, dtype: type, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / name), picture(dtype))
    xray = read_xray(tmp_path / name)
    np.testing.assert_array_equal(xray.pixels.numpy(), picture(dtype).astype(np.float32))
    assert not xray.is_attenuation
    assert xray.camera is None


def test_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", picture(np.float64))
    np.testing.assert_array_equal(read_xray(tmp_path / "x.npy").pixels.numpy(), picture())


def test_grey_colour_pictures_are_read_and_coloured_ones_refused(tmp_path: Path) -> None:
    grey = np.repeat(picture(np.uint8)[..., None], 3, axis=2)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    np.testing.assert_array_equal(read_xray(tmp_path / "grey.png").pixels.numpy(), picture())
    grey[3, 4, 0] += 9
    cv2.imwrite(str(tmp_path / "colour.png"), grey)
    with pytest.raises(XrayFormatError, match="colour"):
        read_xray(tmp_path / "colour.png")


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), picture())
    (tmp_path / "cut.png").write_bytes((tmp_path / "x.png").read_bytes()[:40])
    (tmp_path / "text.xyz").write_text("no image")
    np.save(tmp_path / "stack.npy", np.zeros((3, 40, 50)))
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    for name, error in (
        ("absent.png", ImageFileError),
        ("cut.png", ImageFileError),
        ("text.xyz", ImageFileError),
        ("stack.npy", XrayFormatError),
        ("object.npy", ImageFileError),
    ):
        with pytest.raises(error, match=name) as caught:
            read_xray(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_dicom_geometry_is_read(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "x.dcm",
        DistanceSourceToDetector=1000.0,
        ImagerPixelSpacing=[0.5, 0.4],
        PositionerPrimaryAngle=25.0,
        PositionerSecondaryAngle=-10.0,
    )
    xray = read_xray(path)
    assert xray.camera == Camera(50, 40, 1000.0, (0.4, 0.5), (24.5, 19.5))
    assert xray.angles_deg == (25.0, -10.0)


@pytest.mark.parametrize(
    ("fields", "rises_with_stored", "is_attenuation"),
    [
        ({}, True, False),
        ({"PhotometricInterpretation": "MONOCHROME1"}, False, False),
        ({"PixelIntensityRelationship": "LIN", "PixelIntensityRelationshipSign": 1}, True, False),
        ({"PixelIntensityRelationship": "LIN", "PixelIntensityRelationshipSign": -1}, False, False),
        ({"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": -1}, True, True),
        ({"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": 1}, False, True),
    ],
)
def test_what_bright_means(fields: dict[str, object], rises_with_stored: bool, is_attenuation: bool, tmp_path: Path) -> None:
    xray = read_xray(write_dicom(tmp_path / "x.dcm", **fields))
    order = np.corrcoef(xray.pixels.numpy().ravel(), picture().ravel())[0, 1]
    assert order == pytest.approx(1.0 if rises_with_stored else -1.0)
    assert xray.is_attenuation is is_attenuation


@pytest.mark.parametrize(("bits", "top"), [(16, 65535), (12, 4095), (16, 4095)])
def test_inverting_keeps_black_where_it_was(bits: int, top: int, tmp_path: Path) -> None:
    """Ratios of intensities are what attenuation is made of; an offset would change them. 12 bits often come as 16."""
    intensity = np.linspace(0.05 * top, 0.99 * top, 2000).reshape(40, 50).astype(np.uint16)
    stored = (top - intensity).astype("<u2").tobytes()
    path = write_dicom(
        tmp_path / "x.dcm", PhotometricInterpretation="MONOCHROME1", BitsStored=bits, HighBit=bits - 1, PixelData=stored
    )
    np.testing.assert_array_equal(read_xray(path).pixels.numpy(), intensity)


def test_dicom_that_is_no_single_xray(tmp_path: Path) -> None:
    with pytest.raises(XrayFormatError, match="CT"):
        read_xray(write_dicom(tmp_path / "ct.dcm", Modality="CT"))
    two = picture().astype("<u2").tobytes() * 2
    with pytest.raises(XrayFormatError, match="single frame"):
        read_xray(write_dicom(tmp_path / "run.dcm", NumberOfFrames=2, PixelData=two))
    path = write_dicom(tmp_path / "cut.dcm")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ImageFileError, match=r"cut\.dcm"):
        read_xray(path)


def image() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(40, 50, generator=generator)


@pytest.mark.parametrize(
    ("pixels", "error"),
    [
        (torch.zeros(40, 50), EmptyXrayError),
        (torch.full((40, 50), 7.0), ConstantXrayError),
        (torch.where(image() > 0.9, math.nan, image()), NotFiniteXrayError),
        (torch.where(image() > 0.9, math.inf, image()), NotFiniteXrayError),
        (torch.where(image() > 0.2, 1.0, image()), SaturatedXrayError),
        (torch.rand(3, 40, 50), XrayFormatError),
        (torch.rand(4, 5), XrayFormatError),
    ],
)
def test_useless_images_are_refused(pixels: torch.Tensor, error: type[InputError]) -> None:
    with pytest.raises(error) as caught:
        validate_xray(XrayImage(pixels, source="shot 3"))
    assert str(caught.value).startswith("shot 3: ")
    assert "\n" not in str(caught.value)


def test_the_size_must_be_the_cameras() -> None:
    validate_xray(XrayImage(image()), Camera.centred((50, 40)))
    with pytest.raises(XraySizeError, match="50 x 40"):
        validate_xray(XrayImage(image()), Camera.centred((40, 50)))


def test_line_integrals_undo_beer_and_lambert() -> None:
    """Whatever the exposure; the open beam is zero."""
    columns = torch.linspace(-1.0, 1.0, 96)
    path = (4.0 * (1.0 - columns.square() - columns[:, None].square() * 0.8)).clamp_min(0.0)
    for exposure in (1.0, 60000.0):
        integral, mask = to_line_integral(XrayImage(exposure * torch.exp(-path)))
        assert mask.float().mean() > 0.95
        # The open beam is a percentile of a noise-free picture.
        assert (integral - path)[mask].abs().max() < 1e-3


def test_attenuation_is_taken_as_it_is() -> None:
    path = 3.0 * image()
    integral, mask = to_line_integral(XrayImage(path + 5.0, is_attenuation=True))
    assert mask.all()
    assert (integral - (path - path.min())).abs().max() < 1e-5


def test_metal_that_lets_nothing_through_is_masked() -> None:
    path = 1.0 + image()
    pixels = torch.exp(-path)
    pixels[:3] = 1.0
    pixels[20:30, 15:25] = 0.0
    integral, mask = to_line_integral(XrayImage(pixels))
    assert not mask[20:30, 15:25].any()
    assert torch.isfinite(integral).all()
    assert (integral[~mask] == 0.0).all()
