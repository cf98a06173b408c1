"""A small patient and X-rays of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

VOXEL_MM = 3.0
IMAGE_PX = 128


def phantom_hu() -> np.ndarray:
    """An ellipse of soft tissue with rods and blocks of bone, none like another, ``(z, y, x)``."""
    z, y, x = np.mgrid[0:80, 0:64, 0:90].astype(np.float32)
    hu = np.full(x.shape, -1000, dtype=np.int16)
    hu[((x - 45) / 42) ** 2 + ((y - 32) / 28) ** 2 < 1.0] = 20
    generator = np.random.default_rng(7)
    for _ in range(40):
        centre = generator.uniform((8, 14, 16), (72, 50, 74))
        radii = generator.uniform(2.0, 7.0, 3)
        inside = sum(((one - c) / r) ** 2 for one, c, r in zip((z, y, x), centre, radii, strict=True)) < 1.0
        hu[inside] = generator.integers(500, 1200)
    return hu


@pytest.fixture(scope="session")
def phantom_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom as a NIfTI file."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(phantom_hu())
    image.SetSpacing((VOXEL_MM,) * 3)
    path = tmp_path_factory.mktemp("ct") / "phantom.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture(scope="session")
def frames(phantom_path: Path) -> list:
    """Simulated X-rays of the phantom with their truth and a prior 5 degrees and a cm off."""
    import torch

    from sphere_reg_ros.geometry import se3
    from sphere_reg_ros.geometry.camera import Camera
    from sphere_reg_ros.geometry.views import sample_perturbation, view_pose
    from sphere_reg_ros.imaging.readers import read_ct
    from sphere_reg_ros.imaging.simulate import simulate_xray
    from sphere_reg_ros.imaging.simulate_settings import XraySettings
    from sphere_reg_ros.imaging.simulated_series import FULL_SCALE, SimulatedFrame

    ct, camera = read_ct(phantom_path), Camera.centred(IMAGE_PX)
    centre = ct.reference_point()
    made = []
    for index, angles in enumerate(((0.0, 0.0), (8.0, -5.0), (-6.0, 4.0))):
        pose = view_pose(centre, *angles)
        xray = simulate_xray(ct, camera, pose, XraySettings.ideal(), index)
        picture = np.clip(np.rint(xray.pixels.numpy() * FULL_SCALE), 0, FULL_SCALE).astype(np.uint16)
        error = sample_perturbation(torch.Generator().manual_seed(index), 4.0, 6.0, 10.0, 1)[0]
        made.append(SimulatedFrame(picture, camera, pose, se3.apply_twist(pose, error, centre)))
    return made


Change = Callable[[int, Any], bool]


@pytest.fixture(scope="session")
def write_dicom_ct() -> Callable[..., Path]:
    """Write the phantom as a DICOM series, its slices under names that are not in their order.

    ``change`` may edit a slice, given its number, and says whether it is written at all.
    """
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    hu = phantom_hu()

    def write(folder: Path, change: Change = lambda k, one: True, uid: str = "1.2.3") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for k, plane in enumerate(hu):
            one = pydicom.Dataset()
            one.file_meta = pydicom.dataset.FileMetaDataset()
            one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
            one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
            one.Modality, one.SeriesInstanceUID, one.ImageType = "CT", uid, ["ORIGINAL", "PRIMARY", "AXIAL"]
            one.Rows, one.Columns = plane.shape
            one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0.0, 0.0, VOXEL_MM * k]
            one.PixelSpacing = [VOXEL_MM, VOXEL_MM]
            one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
            one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
            one.RescaleSlope, one.RescaleIntercept = 1.0, -1024.0
            one.PixelData = (plane + 1024).astype("<u2").tobytes()
            if change(k, one):
                one.save_as(folder / f"IM{37 * k % 80:03d}_{uid}.dcm", enforce_file_format=True)
        return folder

    return write


def _shift(k: int, one: Any) -> bool:
    if k == 40:
        one.ImagePositionPatient[2] += 1.0
    return True


def _tilt(k: int, one: Any) -> bool:
    one.ImagePositionPatient[1] = 0.5 * k
    return True


def _turn(k: int, one: Any) -> bool:
    if k == 7:
        one.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    return True


def _two_pictures(k: int, one: Any) -> bool:
    if k == 7:
        one.Rows, one.PixelData = 10, one.PixelData[: 10 * 90 * 2]
    return True


BAD_DICOM: dict[str, tuple[Change, str]] = {
    "missing slices": (lambda k, one: k not in (30, 31), "missing"),
    "uneven slices": (_shift, "unevenly spaced"),
    "tilted gantry": (_tilt, "tilted"),
    "mixed planes": (_turn, "mixes planes"),
    "slices of two sizes": (_two_pictures, "mixes sizes"),
    "one slice": (lambda k, one: k == 5, "no volume"),
}


@pytest.fixture(params=[*BAD_DICOM, "mixed series", "doubled slices", "truncated slice", "another modality"])
def bad_dicom(request: pytest.FixtureRequest, tmp_path: Path, write_dicom_ct: Callable[..., Path]) -> tuple[Path, str]:
    """A DICOM folder that is no CT, and a word of the reason."""
    folder, kind = tmp_path / "dicom", request.param
    if kind in BAD_DICOM:
        change, word = BAD_DICOM[kind]
        return write_dicom_ct(folder, change), word
    if kind == "another modality":

        def magnetic(k: int, one: Any) -> bool:
            one.Modality = "MR"
            return True

        return write_dicom_ct(folder, magnetic), "MR"
    write_dicom_ct(folder)
    if kind == "mixed series":
        return write_dicom_ct(folder, uid="1.2.4"), "1.2.4"
    if kind == "doubled slices":
        return write_dicom_ct(folder / "again", lambda k, one: k == 9).parent, "same place"
    path = next(folder.glob("IM037*"))
    path.write_bytes(path.read_bytes()[:-5000])
    return folder, "IM037"
