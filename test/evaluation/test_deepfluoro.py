"""DeepFluoro against small files of the documented layout, and against the authors' own formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sphere_reg_ros.evaluation.datasets.deepfluoro import DeepFluoroFile, check_deepfluoro
from sphere_reg_ros.evaluation.errors import DatasetContentError, DatasetFileError
from sphere_reg_ros.geometry import se3

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'sphere_reg_ros[evaluate]'")

COLUMNS, ROWS, PITCH_MM = 64, 48, 4.0
FOCAL_PX = 255.0
K = np.array([[-FOCAL_PX, 0, 30.0], [0, -FOCAL_PX, 26.0], [0, 0, 1.0]])
LANDMARKS = {"FH-l": [93.0, 40.0, -940.0], "FH-r": [20.0, 35.0, -930.0], "GSN-l": [70.0, 60.0, -900.0]}
ORIGIN = np.array([0.0, 0.0, -960.0])


def rigid(rotation_vector: list[float], translation: list[float]) -> np.ndarray:
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3] = se3.so3_exp(torch.tensor(rotation_vector, dtype=torch.float64))
    T[:3, 3] = torch.tensor(translation, dtype=torch.float64)
    return T.numpy()


EXTRINSIC = rigid([0.1, -0.2, 0.3], [5.0, -7.0, -11.0])


def pose_of(index: int) -> np.ndarray:
    """cam-to-pelvis-vol such that the volume lies 700 mm before the source, where their z is negative."""
    seen = rigid([1.4, 0.1 * index, -0.2], [0.0, 0.0, 0.0])
    middle = np.array([55.0, 45.0, -920.0])
    seen[:3, 3] = np.array([4.0, -6.0, -700.0]) - seen[:3, :3] @ middle
    return np.linalg.inv(seen) @ EXTRINSIC


def projected(point: list[float], pose: np.ndarray) -> np.ndarray:
    """Column and row by the authors' own example: K · (E · P⁻¹ · p), divided by its last entry."""
    seen = K @ (EXTRINSIC @ np.linalg.inv(pose) @ np.array([*point, 1.0]))[:3]
    return seen[:2] / seen[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two projections of one specimen, the second to be turned; a bright pixel at each landmark."""
    target = tmp_path / "small.h5"
    with h5py.File(target, "w") as file:
        parameters = file.create_group("proj-params")
        parameters["extrinsic"], parameters["intrinsic"] = EXTRINSIC, K
        parameters["num-cols"], parameters["num-rows"] = COLUMNS, ROWS
        parameters["pixel-col-spacing"] = parameters["pixel-row-spacing"] = PITCH_MM
        specimen = file.create_group("17-1882")
        for name, values in {
            "pixels": np.arange(30 * 20 * 25, dtype=np.float32).reshape(30, 20, 25), "dir-mat": np.eye(3),
            "origin": ORIGIN[:, None], "spacing": np.array([[4.0], [4.0], [3.0]]),
        }.items():  # fmt: skip
            specimen[f"vol/{name}"] = values
        for name, point in LANDMARKS.items():
            specimen[f"vol-landmarks/{name}"] = np.array(point)[:, None]
        for index in range(2):
            group = specimen.create_group(f"projections/{index:03d}")
            image = np.full((ROWS, COLUMNS), 1000.0, dtype=np.float32)
            for name, point in LANDMARKS.items():
                column, row = projected(point, pose_of(index))
                group[f"gt-landmarks/{name}"] = np.array([[column], [row]])
                image[round(row), round(column)] = 5000.0
            group["image/pixels"], group["gt-poses/cam-to-pelvis-vol"] = image, pose_of(index)
            group["rot-180-for-up"] = index
    return target


@pytest.mark.parametrize("index", [0, 1])
def test_landmarks_fall_where_the_authors_put_them(path: Path, index: int) -> None:
    """Through our camera and pose, on the pixel that was marked: mirror, sign of z and half turn are all in it."""
    data = DeepFluoroFile(path)
    seen, landmarks = data.projection("17-1882", f"{index:03d}"), data.landmarks("17-1882")
    pixels = seen.camera.project(se3.transform_points(seen.T_camera_ct, landmarks.points_mm))
    torch.testing.assert_close(pixels, seen.landmarks_px, atol=1e-9, rtol=0.0)
    for column, row in pixels.round().long().tolist():
        assert float(seen.xray.pixels[row, column]) == 5000.0
    assert float(torch.linalg.det(seen.T_camera_ct[:3, :3])) == pytest.approx(1.0)
    assert bool((se3.transform_points(seen.T_camera_ct, landmarks.points_mm)[:, 2] > 0.0).all())


def test_intrinsics_keep_their_scale(path: Path) -> None:
    camera = DeepFluoroFile(path).projection("17-1882", "000").camera
    assert (camera.width, camera.height) == (COLUMNS, ROWS)
    assert camera.sdd_mm == pytest.approx(FOCAL_PX * PITCH_MM)
    assert camera.pixel_pitch_mm == pytest.approx((PITCH_MM, PITCH_MM))
    assert camera.piercing_point_px == pytest.approx((COLUMNS - 1 - 30.0, 26.0))


def test_the_half_turn_leaves_the_patient_where_he_was(path: Path) -> None:
    """Turned image and camera see the same rays: only the columns and rows are counted from the other corner."""
    data = DeepFluoroFile(path)
    seen = data.projection("17-1882", "001")
    straight = np.array([projected(point, pose_of(1)) for _, point in sorted(LANDMARKS.items())])
    # Mirrored once and turned: columns as stored, rows from below.
    np.testing.assert_allclose(seen.landmarks_px.numpy(), np.stack((straight[:, 0], ROWS - 1 - straight[:, 1]), axis=1))


def test_voxels_lie_where_the_header_says(path: Path) -> None:
    ct = DeepFluoroFile(path).ct("17-1882")
    assert ct.hu.shape == (30, 20, 25)
    corner = ct.T_ct_voxel @ torch.tensor([24.0, 19.0, 29.0, 1.0], dtype=torch.float64)
    np.testing.assert_allclose(corner[:3].numpy(), ORIGIN + np.array([24 * 4.0, 19 * 4.0, 29 * 3.0]))


def test_the_check_says_what_is_there(path: Path) -> None:
    text = "\n".join(check_deepfluoro(path))
    assert "17-1882: 2 projections, 2 usable, 3 landmarks" in text
    assert "18-1109" in text and "CC BY-NC 4.0" in text


def spoil(path: Path, key: str, value: Any) -> None:
    with h5py.File(path, "a") as file:
        del file[key]
        if value is not None:
            file[key] = value


def test_a_projection_without_pose_is_told_and_the_others_stay_usable(path: Path) -> None:
    spoil(path, "17-1882/projections/000/gt-poses/cam-to-pelvis-vol", None)
    with pytest.raises(DatasetFileError, match="projections/000/gt-poses/cam-to-pelvis-vol is not there"):
        DeepFluoroFile(path).projection("17-1882", "000")
    assert "2 projections, 1 usable" in "\n".join(check_deepfluoro(path))


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("17-1882/projections/000/gt-poses/cam-to-pelvis-vol", np.diag([1.0, 1.0, 1.1, 1.0]), "rigid"),
        ("proj-params/intrinsic", np.abs(K), "negative"),
        ("17-1882/projections/000/image/pixels", np.zeros((3, 4)), "image/pixels"),
        ("proj-params/extrinsic", np.full((4, 4), np.nan), "finite"),
    ],
)
def test_wrong_contents_are_told(path: Path, key: str, value: np.ndarray, word: str) -> None:
    spoil(path, key, value)
    with pytest.raises(DatasetContentError, match=word):
        DeepFluoroFile(path).projection("17-1882", "000")


def test_a_truncated_and_a_missing_file_are_told(path: Path, tmp_path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DatasetFileError, match="whole HDF5"):
        DeepFluoroFile(path).specimens()
    with pytest.raises(DatasetFileError, match=r"tiny\.cc"):
        DeepFluoroFile(tmp_path / "none.h5")


def test_an_unknown_specimen_gets_the_nearest_name(path: Path) -> None:
    with pytest.raises(DatasetFileError, match="did you mean '17-1882'"):
        DeepFluoroFile(path).projections("17-1883")
