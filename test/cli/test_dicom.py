"""DICOM on the command line: CTs as folders, X-rays with their geometry, and what is wrong with either."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")


def write_xray(path: Path, picture: np.ndarray, **fields: object) -> Path:
    """An angiogram of the C-arm's usual geometry."""
    from pydicom.uid import ExplicitVRLittleEndian, XRayAngiographicImageStorage, generate_uid

    one = pydicom.Dataset()
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = XRayAngiographicImageStorage
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
    one.Modality, one.PhotometricInterpretation, one.SamplesPerPixel = "XA", "MONOCHROME2", 1
    one.Rows, one.Columns = picture.shape
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
    one.PixelData = picture.astype("<u2").tobytes()
    one.DistanceSourceToDetector, one.ImagerPixelSpacing = 1020.0, [2.34375, 2.34375]
    for keyword, value in fields.items():
        setattr(one, keyword, value)
    one.save_as(path, enforce_file_format=True)
    return path


def pose(folder: Path) -> np.ndarray:
    return np.array(json.loads((folder / "result.json").read_text())["T_camera_ct"])


def test_a_folder_of_slices_and_a_dicom_xray_give_the_pose_of_the_other_formats(
    run: Callable, case: Any, write_dicom_ct: Callable, tmp_path: Path
) -> None:
    folder = write_dicom_ct(tmp_path / "dicom")
    xray = write_xray(tmp_path / "xray.dcm", case.frame.picture)
    assert run(*case.register(out=tmp_path / "a")).code == 0
    outcome = run(*case.register(ct=folder, xray=xray, camera=None, out=tmp_path / "b"))
    assert outcome.code == 0, outcome.err
    np.testing.assert_allclose(pose(tmp_path / "b"), pose(tmp_path / "a"), atol=1e-3)
    hashes = [json.loads((tmp_path / name / "result.json").read_text())["ct_sha256"] for name in "ab"]
    assert hashes[0] == hashes[1], "one CT, one hash"


def test_one_of_several_series_can_be_chosen(run: Callable, case: Any, write_dicom_ct: Callable, tmp_path: Path) -> None:
    folder = write_dicom_ct(write_dicom_ct(tmp_path / "dicom"), uid="1.2.4")
    assert run(*case.register(ct=f"{folder}#1.2.4"), "--quiet").code == 0
    assert "9.9" in run(*case.register(ct=f"{folder}#9.9")).complaint()


def test_an_inverted_xray_with_reported_angles_needs_no_start(run: Callable, case: Any, frames: list, tmp_path: Path) -> None:
    """MONOCHROME1 stores attenuation upwards; the angles of frame 1 are those of an AP view, 8 and -5 degrees."""
    inverted = write_xray(
        tmp_path / "xray.dcm",
        65535 - frames[1].picture,
        PhotometricInterpretation="MONOCHROME1",
        PositionerPrimaryAngle=8.0,
        PositionerSecondaryAngle=-5.0,
    )
    outcome = run(*case.register(xray=inverted, camera=None, init=None))
    assert outcome.code == 0, outcome.out
    apart = pose(case.folder / "out") - np.asarray(frames[1].T_camera_ct)
    assert np.abs(apart[:3, :3]).max() < 0.01 and np.abs(apart @ [135, 96, 120, 1]).max() < 1.0


def test_what_is_no_ct_is_refused(bad_dicom: tuple[Path, str], run: Callable, case: Any) -> None:
    folder, word = bad_dicom
    line = run(*case.register(ct=folder)).complaint()
    assert str(folder) in line and word in line
    assert not (case.folder / "out").exists()


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"Modality": "CT"}, "modality is CT"),
        ({"DistanceSourceToDetector": 0.0}, "--sdd"),
        ({"ImagerPixelSpacing": None}, "--pixel-pitch"),
        ({"DistanceSourceToDetector": -1020.0}, "SDD"),
        ({"ImagerPixelSpacing": [0.0, 0.0]}, "pitch"),
        ({"NumberOfFrames": 2, "Rows": 64}, "frame"),
    ],
)
def test_what_is_no_xray_is_refused(fields: dict[str, object], word: str, run: Callable, case: Any, tmp_path: Path) -> None:
    path = write_xray(tmp_path / "bad.dcm", case.frame.picture, **fields)
    line = run(*case.register(xray=path, camera=None)).complaint()
    assert word in line


def test_a_truncated_xray_is_refused(run: Callable, case: Any, tmp_path: Path) -> None:
    path = write_xray(tmp_path / "bad.dcm", case.frame.picture)
    for length in (-3000, 700, 200):
        content = path.read_bytes()
        cut = tmp_path / f"cut{length}.dcm"
        cut.write_bytes(content[:length])
        assert cut.name in run(*case.register(xray=cut, camera=None)).complaint()
