"""Ljubljana against small files of its layout, and against the formulas of its public readers."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sphere_reg_ros.evaluation.cases import LJUBLJANA, open_patient
from sphere_reg_ros.evaluation.datasets.ljubljana import LjubljanaFile, check_ljubljana
from sphere_reg_ros.evaluation.errors import DatasetContentError, DatasetFileError
from sphere_reg_ros.evaluation.suites import Choice, check_data, tasks_of
from sphere_reg_ros.geometry import se3

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'sphere_reg_ros[evaluate]'")

ROWS, COLUMNS, PITCH_MM, FOCAL_PX = 60, 70, 3.0, 400.0
K = np.array([[-FOCAL_PX, 0, 33.0], [0, -FOCAL_PX, 31.0], [0, 0, 1.0]])
SPACING, ORIGIN = np.array([2.0, 2.5, 3.0]), np.array([-40.0, 10.0, 5.0])
SIZE = (24, 20, 16)
POINTS = np.array([[-30.0, 20.0, 15.0], [-8.0, 40.0, 35.0], [-20.0, 35.0, 9.0], [-15.0, 15.0, 40.0]])


def extrinsic(view: str) -> np.ndarray:
    """The middle of the volume 700 mm before the source, where their z is negative."""
    turn = {"ap": [1.5, 0.1, -0.1], "lat": [0.1, 1.5, 0.2]}[view]
    T = np.eye(4)
    T[:3, :3] = se3.so3_exp(torch.tensor(turn, dtype=torch.float64)).numpy()
    T[:3, 3] = np.array([5.0, -4.0, -700.0]) - T[:3, :3] @ (ORIGIN + 0.5 * SPACING * SIZE)
    return T


def projected(point: np.ndarray, view: str) -> np.ndarray:
    """Column and row as DiffPose has them: K · (E · p), divided by its last entry."""
    seen = K @ (extrinsic(view) @ np.append(point, 1.0))[:3]
    return seen[:2] / seen[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """One subject; the voxel of the first fiducial is bright, and so are the fiducials' pixels dark."""
    target = tmp_path / "ljubljana.h5"
    world = np.full(SIZE, 200.0, dtype=np.float32)
    i, j, k = np.rint((POINTS[0] - ORIGIN) / SPACING).astype(int)
    world[i, j, k] = 3000.0
    with h5py.File(target, "w") as file:
        subject = file.create_group("subject01")
        subject["points"] = POINTS.astype(np.float32)
        subject["volume/pixels"] = world[::-1]
        subject["volume/spacing"], subject["volume/origin"] = SPACING.astype(np.float32), ORIGIN.astype(np.float32)
        for view in ("ap", "lat"):
            image = np.full((ROWS, COLUMNS), 0.9, dtype=np.float32)
            for point in POINTS:
                column, row = np.rint(projected(point, view)).astype(int)
                image[row, column] = 0.2
            group = subject.create_group(f"proj-{view}")
            group["pixels"], group["extrinsic"] = image, extrinsic(view).astype(np.float32)
            group["intrinsic"] = K.astype(np.float32)
            group["col-spacing"] = group["row-spacing"] = PITCH_MM
    return target


@pytest.mark.parametrize("view", ["ap", "lat"])
def test_fiducials_fall_on_their_marks(path: Path, view: str) -> None:
    """Through our camera, pose and mirrored image."""
    seen = LjubljanaFile(path).projection("subject01", view)
    wanted = np.stack([projected(point, view) for point in POINTS])
    wanted[:, 0] = COLUMNS - 1 - wanted[:, 0]
    np.testing.assert_allclose(seen.landmarks_px.numpy(), wanted, atol=1e-3)
    assert seen.camera.sdd_mm == pytest.approx(FOCAL_PX * PITCH_MM)
    for column, row in seen.landmarks_px.round().long().tolist():
        assert float(seen.xray.pixels[row, column]) == pytest.approx(0.7), "vessels attenuate"
    assert float(torch.linalg.det(seen.T_camera_ct[:3, :3])) == pytest.approx(1.0)


def test_the_bright_voxel_lies_at_its_fiducial(path: Path) -> None:
    """To half a voxel along each axis; everything else is air."""
    ct = LjubljanaFile(path).ct("subject01")
    (found,) = torch.nonzero(ct.hu > 0.0).flip(1).double()
    place = ct.T_ct_voxel[:3, :3] @ found + ct.T_ct_voxel[:3, 3]
    assert np.all(np.abs(place.numpy() - POINTS[0]) <= 0.5 * SPACING + 1e-9)
    assert float(ct.hu.min()) == -1000.0


def test_another_reader_projects_alike(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DiffDRR-Datasets' loader and DiffDRR's camera on the same file: the same pixels, its columns from the other side or not."""
    pytest.importorskip("diffdrrdata", reason="diffdrrdata is not installed: pip install --no-deps diffdrrdata")
    # It imports transforms of networks' inputs, which are not needed here, from a package that diffdrr can do without.
    names = ("Compose", "Lambda", "Normalize", "Resize")
    monkeypatch.setitem(sys.modules, "torchvision.transforms", SimpleNamespace(**dict.fromkeys(names)))
    reader = importlib.import_module("diffdrrdata.ljubljana")
    from diffdrr.drr import DRR

    monkeypatch.setattr(reader, "load_file", lambda name: h5py.File(path))
    data = reader.LjubljanaDataset(1, preprocess=False)
    for index, view in enumerate(("ap", "lat")):
        _, pose, sdd, height, width, delx, dely, x0, y0 = data[index]
        drr = DRR(data.subject, sdd, height, delx, width, dely, x0, y0)
        theirs = drr.perspective_projection(pose, data.subject.fiducials.float())[0].detach().numpy()
        ours = LjubljanaFile(path).projection("subject01", view)
        assert ours.camera.sdd_mm == pytest.approx(sdd, rel=1e-6)
        stored = ours.landmarks_px.numpy() * [-1.0, 1.0] + [COLUMNS - 1, 0.0]
        # Theirs counts pixels from a corner or from a centre, and in float32: half a pixel either way.
        assert np.abs(np.diff(theirs, axis=0) - np.diff(stored, axis=0)).max() < 0.05


def test_the_check_says_what_is_there(path: Path) -> None:
    text = "\n".join(check_data("ljubljana", path))
    assert "subject01: 2 views, 2 usable, 4 fiducials" in text
    assert "subject10" in text and "lit.fe.uni-lj.si" in text


def test_a_suite_has_two_images_a_subject(path: Path) -> None:
    tasks = tasks_of("ljubljana", Choice(methods=("photometric",), starts=("1",), data=path))
    assert [(task.dataset, task.case) for task in tasks] == [(f"{LJUBLJANA}{path}#subject01", case) for case in (0, 1)]
    patient = open_patient(tasks[0].dataset)
    first, again, other = (patient.case(0, seed, "1") for seed in (0, 0, 1))
    torch.testing.assert_close(first.T_start, again.T_start)
    assert not torch.allclose(first.T_start, other.T_start)


def spoil(path: Path, key: str, value: Any) -> None:
    with h5py.File(path, "a") as file:
        del file[key]
        if value is not None:
            file[key] = value


@pytest.mark.parametrize(
    ("key", "value", "error", "word"),
    [
        ("proj-ap/extrinsic", None, DatasetFileError, "proj-ap/extrinsic is not there"),
        ("proj-ap/extrinsic", np.diag([1.0, 2.0, 1.0, 1.0]), DatasetContentError, "rigid"),
        ("proj-ap/extrinsic", np.diag([-1.0, 1.0, -1.0, 1.0]) @ extrinsic("ap"), DatasetContentError, "another convention"),
        ("proj-ap/intrinsic", np.abs(K), DatasetContentError, "negative"),
        ("points", np.zeros((0, 3)), DatasetContentError, "points has shape"),
    ],
)
def test_bad_contents_are_told(path: Path, key: str, value: np.ndarray | None, error: type[Exception], word: str) -> None:
    spoil(path, f"subject01/{key}", value)
    with pytest.raises(error, match=word):
        LjubljanaFile(path).projection("subject01", "ap")


def test_a_view_that_cannot_be_used_leaves_the_other(path: Path) -> None:
    spoil(path, "subject01/proj-ap/extrinsic", None)
    text = "\n".join(check_ljubljana(path))
    assert "2 views, 1 usable" in text and "proj-ap/extrinsic is not there" in text


def test_fiducials_outside_the_volume_end_the_run(path: Path) -> None:
    spoil(path, "subject01/points", POINTS + np.array([0.0, 0.0, 40.0]))
    assert "lies outside the volume" in "\n".join(check_ljubljana(path))
    with pytest.raises(DatasetContentError, match="outside its CT"):
        open_patient(f"{LJUBLJANA}{path}#subject01")


def test_other_files_say_where_to_get_the_data(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetFileError, match="DiffPose"):
        LjubljanaFile(tmp_path / "none.h5")
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DatasetFileError, match="whole HDF5"):
        LjubljanaFile(path).specimens()
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["something"] = 1
    with pytest.raises(DatasetFileError, match=r"is this ljubljana\.h5"):
        check_ljubljana(tmp_path / "other.h5")
