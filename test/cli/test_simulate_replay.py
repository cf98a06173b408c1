"""``simulate`` writes a bag that rosbags reads alone; ``replay`` registers and reports on it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed")

from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from sphere_reg_ros.cli import main

SIZE, POSES = 64, 2
POINTS = {"a": [60.0, 60.0, 80.0], "b": [200.0, 120.0, 60.0], "c": [140.0, 90.0, 200.0]}


@pytest.fixture(scope="module")
def bag(phantom_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``simulate`` writes."""
    path = tmp_path_factory.mktemp("simulate") / "deep" / "bag"
    assert main(["simulate", "--ct", str(phantom_path), "--out", str(path), *options()]) == 0
    return path


def options(seed: int = 3) -> list[str]:
    return ["--poses", str(POSES), "--size", str(SIZE), "--seed", str(seed), "--quiet"]


def messages(path: Path) -> Iterator[tuple[str, Any, bytes]]:
    """``(topic, message, bytes)`` by rosbags alone: the bag brings its own types along."""
    with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        for connection, _, raw in reader.messages():
            yield connection.topic, reader.deserialize(raw, connection.msgtype), bytes(raw)


def of_topic(path: Path, topic: str) -> list[Any]:
    return [message for name, message, _ in messages(path) if name == topic]


def changed(source: Path, target: Path, change: Callable[[str, Any, int], bool]) -> Path:
    """A copy of a bag; ``change`` edits a message, given its number in its topic, and says whether it stays."""
    with AnyReader([source], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        writer = Writer(target, version=9, storage_plugin=StoragePlugin.MCAP)
        with writer:
            connections = {
                one.topic: writer.add_connection(one.topic, one.msgtype, typestore=reader.typestore) for one in reader.connections
            }
            counts = dict.fromkeys(connections, 0)
            for connection, stamp, raw in reader.messages():
                message = reader.deserialize(raw, connection.msgtype)
                if change(connection.topic, message, counts[connection.topic]):
                    data = reader.typestore.serialize_cdr(message, connection.msgtype)
                    writer.write(connections[connection.topic], stamp, data)
                counts[connection.topic] += 1
    return target


def matrix_mm(translation: Any, rotation: Any) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat([rotation.x, rotation.y, rotation.z, rotation.w]).as_matrix()
    T[:3, 3] = 1000.0 * np.array([translation.x, translation.y, translation.z])
    return T


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def replay(bag: Path, ct: Path, out: Path, *others: object) -> list[str]:
    return ["replay", str(bag), "--ct", str(ct), "--out", str(out), *(str(one) for one in others)]


@pytest.fixture
def landmarks(tmp_path: Path) -> Path:
    (tmp_path / "points.json").write_text(json.dumps(POINTS))
    return tmp_path / "points.json"


def test_the_bag_is_a_rosbag2_with_every_promised_topic(bag: Path) -> None:
    assert list(bag.glob("*.mcap")) and (bag / "metadata.yaml").exists()
    images, infos, geometries = (of_topic(bag, f"/carm/{name}") for name in ("image_raw", "camera_info", "carm_geometry"))
    truths = [one for message in of_topic(bag, "/tf") for one in message.transforms]
    priors = of_topic(bag, "/carm/initial_pose")
    for every in (images, infos, geometries, truths, priors):
        assert len(every) == POSES
    stamped = (images, infos, geometries, truths)
    stamps = [[(one.header.stamp.sec, one.header.stamp.nanosec) for one in every] for every in stamped]
    assert all(one == stamps[0] for one in stamps) and stamps[0][0] < stamps[0][1]
    for image, info, geometry, truth in zip(images, infos, geometries, truths, strict=True):
        assert (image.encoding, image.width, image.height, image.step) == ("mono16", SIZE, SIZE, 2 * SIZE)
        pixels = np.frombuffer(image.data.tobytes(), "<u2")
        assert len(pixels) == SIZE * SIZE and pixels.std() > 1000
        pitch = 300.0 / SIZE
        np.testing.assert_allclose(info.k, [1020 / pitch, 0, SIZE / 2 - 0.5, 0, 1020 / pitch, SIZE / 2 - 0.5, 0, 0, 1])
        assert (info.width, info.height, geometry.sdd_mm) == (SIZE, SIZE, 1020.0)
        np.testing.assert_allclose(geometry.pixel_pitch_mm, pitch)
        assert {one.header.frame_id for one in (image, info, geometry, truth)} == {"carm_optical"}
        assert truth.child_frame_id == "ct_truth"
        # The phantom's middle lies between source and detector, near the axis.
        middle = matrix_mm(truth.transform.translation, truth.transform.rotation) @ [135, 96, 120, 1]
        assert 300 < middle[2] < 1020 and np.abs(middle[:2]).max() < 150


def test_a_seed_repeats_and_another_differs(bag: Path, phantom_path: Path, tmp_path: Path) -> None:
    for seed, same in ((3, True), (4, False)):
        path = tmp_path / str(seed)
        assert main(["simulate", "--ct", str(phantom_path), "--out", str(path), *options(seed)]) == 0
        contents = [[raw for topic, _, raw in messages(one) if topic == "/carm/image_raw"] for one in (bag, path)]
        assert (contents[0] == contents[1]) is same


def test_simulate_refuses_and_leaves_nothing_behind(run: Callable, bag: Path, phantom_path: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in bag.iterdir()}
    assert "exists" in run("simulate", "--ct", phantom_path, "--out", bag).complaint()
    assert {path: path.read_bytes() for path in bag.iterdir()} == before
    assert "none.nii" in run("simulate", "--ct", tmp_path / "none.nii", "--out", tmp_path / "bag").complaint()
    assert "--poses" in run("simulate", "--ct", phantom_path, "--out", tmp_path / "bag", "--poses", 0).complaint()
    assert "--size" in run("simulate", "--ct", phantom_path, "--out", tmp_path / "bag", "--size", 4).complaint()
    (tmp_path / "file").write_text("")
    assert "file" in run("simulate", "--ct", phantom_path, "--out", tmp_path / "file" / "bag", "--poses", 1).complaint()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_replay_registers_every_xray_and_its_mtre_is_the_landmarks_distance(
    run: Callable, bag: Path, phantom_path: Path, landmarks: Path, tmp_path: Path
) -> None:
    from sphere_reg_ros.imaging.readers import read_ct
    from sphere_reg_ros.registration.pipeline import RegistrationPipeline
    from sphere_reg_ros.ros.bags import read_xrays

    out = tmp_path / "out"
    outcome = run(*replay(bag, phantom_path, out, "--landmarks", landmarks))
    assert (outcome.code, outcome.err) == (0, "")
    found = rows(out)
    assert list(found[0])[:6] == ["stamp", "accepted", "reasons", "mtre_mm", "time_ms", "iterations"]
    assert len(found) == POSES
    pipeline = RegistrationPipeline(read_ct(phantom_path))
    points = np.array([[*point, 1.0] for point in POINTS.values()])
    truths = [one for message in of_topic(bag, "/tf") for one in message.transforms]
    errors = []
    for row, one, truth in zip(found, read_xrays(bag), truths, strict=True):
        result = pipeline.register(one.xray, one.camera, one.T_prior.numpy())
        apart = result.T_camera_ct - matrix_mm(truth.transform.translation, truth.transform.rotation)
        errors.append(np.linalg.norm(points @ apart.T, axis=1).mean())
        assert float(row["mtre_mm"]) == pytest.approx(errors[-1], abs=1e-3)
        assert row["accepted"] == str(result.accepted)
        assert float(row["time_ms"]) > 0 and int(row["iterations"]) > 0
    table = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in outcome.out.splitlines())
    assert table["images"].strip() == str(POSES)
    stated = [float(value) for value in table["mTRE 50 / 75 / 95 % [mm]"].split("/")]
    np.testing.assert_allclose(stated, np.percentile(errors, (50, 75, 95)), atol=2e-3)
    assert float(table["SMSR (mTRE < 1 mm) [%]"]) == pytest.approx(100 * np.mean(np.array(errors) < 1))
    assert cv2.imread(str(out / "overlay.png")).shape == (SIZE, SIZE, 3)
    check_self_contained((out / "report.html").read_text(), found)


def check_self_contained(report: str, found: list[dict[str, str]]) -> None:
    assert "http" not in report and "<script src" not in report and "<link" not in report
    sources = re.findall(r"src='([^']*)'", report)
    # One cumulative plot and one overlay an image.
    assert len(sources) == len(found) + 1 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(row["stamp"] in report for row in found)
    assert "SMSR" in report and "Research use only" in report


def test_without_landmarks_or_truth_it_says_so(
    run: Callable, bag: Path, phantom_path: Path, landmarks: Path, tmp_path: Path
) -> None:
    outcome = run(*replay(bag, phantom_path, tmp_path / "a"))
    assert outcome.code == 0 and "not measured: no landmarks" in outcome.out
    # Poses of truth and estimate still compare.
    assert rows(tmp_path / "a")[0]["mtre_mm"] == "" and float(rows(tmp_path / "a")[0]["dgeo_mm"]) >= 0
    clinical = changed(bag, tmp_path / "clinical", lambda topic, message, index: topic != "/tf")
    outcome = run(*replay(clinical, phantom_path, tmp_path / "b", "--landmarks", landmarks))
    assert outcome.code == 0 and "no ground truth" in outcome.out
    assert rows(tmp_path / "b")[0]["accepted"] in ("True", "False")


def test_one_bad_xray_does_not_end_the_others(run: Callable, bag: Path, phantom_path: Path, tmp_path: Path) -> None:
    def blank(topic: str, message: Any, index: int) -> bool:
        if topic == "/carm/image_raw" and index == 0:
            message.data = np.zeros_like(message.data)
        return True

    outcome = run(*replay(changed(bag, tmp_path / "bag", blank), phantom_path, tmp_path / "out"))
    assert outcome.code == 0
    first, second = rows(tmp_path / "out")
    assert first["accepted"] == "False" and "every pixel is zero" in first["reasons"]
    assert float(second["time_ms"]) > 0


def test_replay_takes_the_sdd_where_the_bag_has_none(run: Callable, bag: Path, phantom_path: Path, tmp_path: Path) -> None:
    bare = changed(bag, tmp_path / "bag", lambda topic, message, index: topic != "/carm/carm_geometry")
    assert "--sdd" in run(*replay(bare, phantom_path, tmp_path / "out")).complaint()
    assert run(*replay(bare, phantom_path, tmp_path / "out", "--sdd", 1020, "--quiet")).code == 0
    assert len(rows(tmp_path / "out")) == POSES


def test_replay_refuses(run: Callable, bag: Path, phantom_path: Path, tmp_path: Path) -> None:
    def edited(name: str, topic: str, change: Callable[[Any], None]) -> Path:
        def apply(of: str, message: Any, index: int) -> bool:
            if of == topic and index == 1:
                change(message)
            return True

        return changed(bag, tmp_path / name, apply)

    (tmp_path / "truncated").mkdir()
    for path in bag.iterdir():
        content = path.read_bytes()
        (tmp_path / "truncated" / path.name).write_bytes(content[: len(content) // 2] if path.suffix == ".mcap" else content)
    no_images = changed(bag, tmp_path / "no_images", lambda topic, message, index: topic != "/carm/image_raw")
    no_info = changed(bag, tmp_path / "no_info", lambda topic, message, index: topic != "/carm/camera_info" or index == 0)
    (tmp_path / "empty").mkdir()
    for path, words in (
        (tmp_path / "none", ("none", "no such bag")),
        (tmp_path / "truncated", ("truncated", "damaged")),
        (tmp_path / "empty", ("empty",)),
        (no_images, ("no_images", "no X-rays on /carm/image_raw")),
        (no_info, ("no_info", "camera_info of the same stamp")),
        (edited("encoding", "/carm/image_raw", lambda message: setattr(message, "encoding", "rgb8")), ("encoding", "rgb8")),
        (edited("short", "/carm/image_raw", lambda message: setattr(message, "data", message.data[:100])), ("short", "bytes")),
        (edited("k_zeros", "/carm/camera_info", lambda message: setattr(message, "k", np.zeros(9))), ("k_zeros", "focal")),
        (edited("sdd", "/carm/carm_geometry", lambda message: setattr(message, "sdd_mm", 1200.0)), ("1200",)),
    ):
        line = run(*replay(path, phantom_path, tmp_path / "out")).complaint()
        for word in words:
            assert word in line, line
    for others, word in ((("--landmarks", tmp_path / "none.csv"), "none.csv"), (("--model", tmp_path / "m"), "m: no such file")):
        assert word in run(*replay(bag, phantom_path, tmp_path / "out", *others)).complaint()
    assert "none.nii" in run(*replay(bag, tmp_path / "none.nii", tmp_path / "out")).complaint()
    assert not (tmp_path / "out").exists()


def test_info_names_versions_devices_backends_and_ros(run: Callable) -> None:
    from importlib.metadata import version

    outcome = run("info")
    assert (outcome.code, outcome.err) == (0, "")
    table = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in outcome.out.splitlines())
    assert table["torch"] == version("torch")
    assert "cpu" in table["renderers"] and {"CUDA device", "ROS 2", "python", "sphere_reg_ros"} <= set(table)
    assert run("info", "--quiet").out == ""


def test_help_lists_the_commands(run: Callable) -> None:
    outcome = run("--help")
    assert outcome.code == 0
    for command in ("demo", "register", "simulate", "replay", "info"):
        assert command in outcome.out
        for option in ("--seed", "--debug", "--quiet"):
            assert option in run(command, "--help").out
