"""CTs from hand-made DICOM series and files written by other libraries, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sphere_reg_ros.imaging.errors import (
    CtContentError,
    DicomSeriesError,
    ImageFileError,
    LabelMapError,
    SliceGeometryError,
)
from sphere_reg_ros.imaging.landmarks import landmarks_from_labels
from sphere_reg_ros.imaging.readers import read_ct, read_labels

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")

SHAPE = (6, 5, 4)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
COLUMN_MM, ROW_MM, SLICE_MM = 0.8, 0.7, 2.5
ORIGIN = (-120.0, -80.0, 300.0)


def hounsfield() -> np.ndarray:
    """``(z, y, x)`` values that name their voxel."""
    z, y, x = np.indices(SHAPE)
    return (100 * z + 10 * y + x - 1000).astype(np.int16)


def dataset(k: int, orientation: tuple[float, ...] = AXIAL, uid: str = "1.2.3") -> pydicom.Dataset:
    """Slice k of a series, stored with a rescale slope of 2 and an intercept of -1024."""
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    one = pydicom.Dataset()
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
    one.Modality, one.SeriesInstanceUID, one.SeriesDescription = "CT", uid, "bone"
    one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    one.Rows, one.Columns = SHAPE[1:]
    one.ImageOrientationPatient = list(orientation)
    one.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + SLICE_MM * k]
    one.PixelSpacing = [ROW_MM, COLUMN_MM]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation = 15, 1
    one.RescaleSlope, one.RescaleIntercept = 2.0, -1024.0
    one.PixelData = ((hounsfield()[k] * 2 + 1024) // 2).astype("<i2").tobytes()
    return one


def save(one: pydicom.Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, change: Callable[[int, pydicom.Dataset], None] | None = None, uid: str = "1.2.3") -> Path:
    """Slices under names that are not in the order of their positions."""
    for number, k in enumerate((3, 0, 5, 1, 4, 2)):
        one = dataset(k, uid=uid)
        if change is not None:
            change(k, one)
        save(one, folder / f"IM{number:03d}_{uid}.dcm")
    return folder


def expected_hu() -> np.ndarray:
    return (hounsfield() * 2 + 1024) // 2 * 2 - 1024


def test_slices_are_sorted_rescaled_and_placed(tmp_path: Path) -> None:
    ct = read_ct(write_series(tmp_path))
    np.testing.assert_array_equal(ct.hu.numpy(), expected_hu())
    assert ct.size == (4, 5, 6)
    assert ct.spacing_mm == pytest.approx((COLUMN_MM, ROW_MM, SLICE_MM))
    corner = ct.T_ct_voxel @ torch.tensor([3.0, 4.0, 5.0, 1.0], dtype=torch.float64)
    assert corner[:3].tolist() == pytest.approx([ORIGIN[0] + 3 * COLUMN_MM, ORIGIN[1] + 4 * ROW_MM, ORIGIN[2] + 5 * SLICE_MM])


def test_a_coronal_series_has_its_axes(tmp_path: Path) -> None:
    def turn(k: int, one: pydicom.Dataset) -> None:
        one.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        one.ImagePositionPatient = [0.0, 2.5 * k, 100.0]

    ct = read_ct(write_series(tmp_path, turn))
    directions = ct.T_ct_voxel[:3, :3] / ct.T_ct_voxel[:3, :3].norm(dim=0)
    assert directions[:, 0].tolist() == [1, 0, 0]
    assert directions[:, 1].tolist() == [0, 0, -1]
    assert directions[:, 2].tolist() == [0, 1, 0]
    np.testing.assert_array_equal(ct.hu.numpy(), expected_hu())


def test_one_ct_has_one_hash_whatever_the_format(tmp_path: Path) -> None:
    """NIfTI written by nibabel in its own RAS axes, NRRD by pynrrd, MHA by SimpleITK."""
    nibabel, nrrd, sitk = (pytest.importorskip(name) for name in ("nibabel", "nrrd", "SimpleITK"))
    ct = read_ct(write_series(tmp_path / "dicom"))
    array, T = ct.hu.numpy(), ct.T_ct_voxel.numpy()
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ T), tmp_path / "ct.nii.gz")
    header = {"space": "left-posterior-superior", "space directions": T[:3, :3].T, "space origin": T[:3, 3]}
    nrrd.write(str(tmp_path / "ct.nrrd"), array.transpose(2, 1, 0), header)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(ct.spacing_mm)
    image.SetOrigin(T[:3, 3].tolist())
    sitk.WriteImage(image, str(tmp_path / "ct.mha"))
    for name in ("ct.nii.gz", "ct.nrrd", "ct.mha"):
        other = read_ct(tmp_path / name)
        np.testing.assert_array_equal(other.hu.numpy(), array)
        # NIfTI stores its axes in float32: seven digits of 300 mm.
        np.testing.assert_allclose(other.T_ct_voxel.numpy(), T, atol=1e-4)
        assert other.sha256 == ct.sha256


def test_the_hash_changes_with_content_only(tmp_path: Path) -> None:
    first = read_ct(write_series(tmp_path / "a"))
    renamed = read_ct(write_series(tmp_path / "b", lambda k, one: setattr(one, "PatientName", "Another^Name")))
    moved = read_ct(write_series(tmp_path / "c", lambda k, one: setattr(one, "PixelSpacing", [0.71, 0.8])))
    assert first.sha256 == renamed.sha256
    assert first.sha256 != moved.sha256


def test_several_series_are_told_apart(tmp_path: Path) -> None:
    write_series(tmp_path, uid="1.2.3")
    write_series(tmp_path, uid="1.2.4")
    with pytest.raises(DicomSeriesError, match=r"1\.2\.3.*1\.2\.4"):
        read_ct(tmp_path)
    assert read_ct(f"{tmp_path}#1.2.4").size == (4, 5, 6)
    with pytest.raises(DicomSeriesError, match=r"9\.9"):
        read_ct(f"{tmp_path}#9.9")


def test_a_scout_and_other_files_do_not_disturb(tmp_path: Path) -> None:
    scout = dataset(0, uid="1.2.9")
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    save(scout, tmp_path / "scout.dcm")
    (tmp_path / "notes.txt").write_text("no image")
    assert read_ct(write_series(tmp_path)).size == (4, 5, 6)


def test_missing_slices_are_noticed(tmp_path: Path) -> None:
    write_series(tmp_path)
    next(tmp_path.glob("IM004*")).unlink()
    (tmp_path / "IM000_1.2.3.dcm").unlink()
    with pytest.raises(SliceGeometryError, match="missing"):
        read_ct(tmp_path)


def test_doubled_slices_are_noticed(tmp_path: Path) -> None:
    write_series(tmp_path)
    save(dataset(2), tmp_path / "again.dcm")
    with pytest.raises(SliceGeometryError, match="same place"):
        read_ct(tmp_path)


def test_a_tilted_gantry_is_noticed(tmp_path: Path) -> None:
    def shear(k: int, one: pydicom.Dataset) -> None:
        one.ImagePositionPatient = [ORIGIN[0], ORIGIN[1] + 0.5 * k, ORIGIN[2] + SLICE_MM * k]

    with pytest.raises(SliceGeometryError, match="tilted by 11"):
        read_ct(write_series(tmp_path, shear))


@pytest.mark.parametrize("fault", ["orientation", "spacing", "unplaced"])
def test_slices_that_do_not_fit_are_noticed(fault: str, tmp_path: Path) -> None:
    def spoil(k: int, one: pydicom.Dataset) -> None:
        if k != 4:
            return
        if fault == "orientation":
            one.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        elif fault == "spacing":
            one.PixelSpacing = [1.0, 1.0]
        else:
            del one.ImagePositionPatient

    with pytest.raises(SliceGeometryError) as caught:
        read_ct(write_series(tmp_path, spoil))
    assert "\n" not in str(caught.value)


def test_truncated_dicom_is_noticed(tmp_path: Path) -> None:
    path = next(write_series(tmp_path).glob("IM002*"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImageFileError, match="IM002"):
        read_ct(tmp_path)


def test_folders_and_files_without_a_ct(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="no such"):
        read_ct(tmp_path / "absent.nii")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageFileError, match="no DICOM"):
        read_ct(tmp_path / "empty")
    (tmp_path / "ct.doc").write_text("x")
    with pytest.raises(ImageFileError, match="unknown"):
        read_ct(tmp_path / "ct.doc")
    magnetic = dataset(0)
    magnetic.Modality = "MR"
    save(magnetic, tmp_path / "mr" / "1.dcm")
    with pytest.raises(DicomSeriesError, match="MR"):
        read_ct(tmp_path / "mr")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.nrrd", "ct.mha", "ct.mhd"])
def test_truncated_volume_files_are_noticed(name: str, compressed: bool, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    sitk = pytest.importorskip("SimpleITK")
    noise = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(tmp_path / name), compressed)
    np.testing.assert_array_equal(read_ct(tmp_path / name).hu.numpy(), noise)
    # Of an .mhd the voxels are in a file beside it.
    (longest,) = [one for one in tmp_path.iterdir() if one.suffix != ".mhd"]
    content = longest.read_bytes()
    longest.write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageFileError, match="ct") as caught:
        read_ct(tmp_path / name)
    assert "\n" not in str(caught.value) and "No such file" not in str(caught.value)
    assert capfd.readouterr().err == "", "the message is all that a terminal shows"
    if name.endswith(".mhd"):
        longest.unlink()
        with pytest.raises(ImageFileError, match="not there"):
            read_ct(tmp_path / name)


def test_a_path_may_hold_a_hash_sign(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "patient #2")
    assert read_ct(folder).size == read_ct(f"{folder}#1.2.3").size == (4, 5, 6)
    with pytest.raises(ImageFileError, match="absent #1"):
        read_ct(tmp_path / "absent #1")


def test_values_that_are_no_ct(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    bad = np.zeros((4, 4, 4), np.float32)
    bad[1, 1, 1] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(bad), str(tmp_path / "nan.mha"))
    with pytest.raises(CtContentError, match="NaN"):
        read_ct(tmp_path / "nan.mha")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((8, 8), np.int16)), str(tmp_path / "flat.mha"))
    with pytest.raises(CtContentError):
        read_ct(tmp_path / "flat.mha")


def test_labels_lie_on_the_grid_and_have_centroids(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    ct = read_ct(write_series(tmp_path / "dicom"))
    values = np.zeros(SHAPE, np.uint8)
    values[1:3, 2, 1] = 7
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(ct.spacing_mm)
    image.SetOrigin(ORIGIN)
    sitk.WriteImage(image, str(tmp_path / "labels.nii.gz"))
    labels = read_labels(tmp_path / "labels.nii.gz", ct)
    np.testing.assert_array_equal(labels.numpy(), values)
    found = landmarks_from_labels(labels, ct, {7: "L1"})
    assert found.names == ("L1",)
    expected = [ORIGIN[0] + COLUMN_MM, ORIGIN[1] + 2 * ROW_MM, ORIGIN[2] + 1.5 * SLICE_MM]
    assert found.points_mm[0].tolist() == pytest.approx(expected, abs=1e-4)
    with pytest.raises(LabelMapError, match="9"):
        landmarks_from_labels(labels, ct, {9: "absent"})
    image.SetOrigin((ORIGIN[0] + 1.0, *ORIGIN[1:]))
    sitk.WriteImage(image, str(tmp_path / "moved.nii.gz"))
    with pytest.raises(LabelMapError, match="1 mm away"):
        read_labels(tmp_path / "moved.nii.gz", ct)
    sitk.WriteImage(sitk.GetImageFromArray(values[1:]), str(tmp_path / "small.nii.gz"))
    with pytest.raises(LabelMapError, match="voxels"):
        read_labels(tmp_path / "small.nii.gz", ct)
