"""Bags of other writers, and our own read back: by rosbags, with the numbers worked out here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rosbags", reason="rosbags is not installed")

from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from scipy.spatial.transform import Rotation

from sphere_reg_ros.errors import InputError
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.simulated_series import SimulatedFrame
from sphere_reg_ros.ros import bags
from sphere_reg_ros.ros.bags import XrayBagWriter, read_messages, read_serialised, read_xrays
from sphere_reg_ros.ros.errors import BagError, ImageMessageError

DEFINITION = Path(__file__).resolve().parents[2] / "msg" / "CArmGeometry.msg"
STORE = get_typestore(Stores.ROS2_JAZZY)
STORE.register(get_types_from_msg(DEFINITION.read_text(), "sphere_reg_ros/msg/CArmGeometry"))
TYPES = STORE.types
KINDS = {
    "/carm/image_raw": "sensor_msgs/msg/Image",
    "/carm/camera_info": "sensor_msgs/msg/CameraInfo",
    "/carm/carm_geometry": "sphere_reg_ros/msg/CArmGeometry",
    "/carm/initial_pose": "geometry_msgs/msg/PoseWithCovarianceStamped",
    "/tf": "tf2_msgs/msg/TFMessage",
    "/rosout": "std_msgs/msg/String",
}
PICTURE = np.arange(24 * 32).reshape(24, 32) % 251
SECOND = 1_000_000_000


def header(stamp_ns: int) -> Any:
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="carm_optical")


def image(stamp_ns: int, encoding: str = "mono16", kind: str = "<u2", pad: int = 0) -> Any:
    rows = np.ascontiguousarray(PICTURE.astype(kind)).view(np.uint8).reshape(24, -1)
    rows = np.pad(rows, ((0, 0), (0, pad)), constant_values=77)
    big = int(kind[0] == ">")
    return TYPES[KINDS["/carm/image_raw"]](
        header=header(stamp_ns), height=24, width=32, encoding=encoding, is_bigendian=big, step=rows.shape[1], data=rows.ravel()
    )


def info(stamp_ns: int, focal_px: float = 2000.0) -> Any:
    region = TYPES["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    k = np.array([focal_px, 0, 15.5, 0, focal_px, 11.5, 0, 0, 1])
    return TYPES[KINDS["/carm/camera_info"]](
        header=header(stamp_ns), height=24, width=32, distortion_model="plumb_bob", d=np.zeros(5), k=k, r=np.eye(3).ravel(),
        p=np.zeros(12), binning_x=0, binning_y=0, roi=region,
    )  # fmt: skip


def geometry(stamp_ns: int, sdd_mm: float = 1000.0) -> Any:
    return TYPES[KINDS["/carm/carm_geometry"]](
        header=header(stamp_ns), sdd_mm=sdd_mm, pixel_pitch_mm=np.array([0.5, 0.5]) * sdd_mm / 1000,
        piercing_point_px=np.array([15.5, 11.5]), width=32, height=24,
    )  # fmt: skip


def rotation(angles_deg: tuple[float, float, float]) -> tuple[Any, np.ndarray]:
    turn = Rotation.from_euler("xyz", angles_deg, degrees=True)
    x, y, z, w = turn.as_quat()
    return TYPES["geometry_msgs/msg/Quaternion"](x=x, y=y, z=z, w=w), turn.as_matrix()


def transform(stamp_ns: int, child: str, position_m: tuple[float, float, float]) -> Any:
    quaternion, _ = rotation((10.0, 20.0, 30.0))
    vector = TYPES["geometry_msgs/msg/Vector3"](x=position_m[0], y=position_m[1], z=position_m[2])
    moved = TYPES["geometry_msgs/msg/Transform"](translation=vector, rotation=quaternion)
    one = TYPES["geometry_msgs/msg/TransformStamped"](header=header(stamp_ns), child_frame_id=child, transform=moved)
    return TYPES[KINDS["/tf"]](transforms=[one])


def prior(stamp_ns: int, position_m: tuple[float, float, float]) -> Any:
    quaternion, _ = rotation((-40.0, 5.0, 0.0))
    point = TYPES["geometry_msgs/msg/Point"](x=position_m[0], y=position_m[1], z=position_m[2])
    pose = TYPES["geometry_msgs/msg/Pose"](position=point, orientation=quaternion)
    covered = TYPES["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36))
    return TYPES[KINDS["/carm/initial_pose"]](header=header(stamp_ns), pose=covered)


def write(path: Path, messages: list[tuple[str, Any]], storage: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """A bag of another writer, its messages in the given order."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections = {topic: writer.add_connection(topic, kind, typestore=STORE) for topic, kind in KINDS.items()}
        for number, (topic, message) in enumerate(messages):
            writer.write(connections[topic], number, STORE.serialize_cdr(message, KINDS[topic]))
    return path


def xray(stamp_ns: int) -> list[tuple[str, Any]]:
    return [("/carm/image_raw", image(stamp_ns)), ("/carm/camera_info", info(stamp_ns))]


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_xrays_come_in_the_order_of_their_stamps_with_what_belongs_to_each(storage: StoragePlugin, tmp_path: Path) -> None:
    note = TYPES["std_msgs/msg/String"](data="note")
    path = write(
        tmp_path / "bag",
        [
            *xray(20 * SECOND),
            ("/rosout", note),
            ("/carm/carm_geometry", geometry(10 * SECOND)),
            ("/tf", transform(10 * SECOND, "ct_truth", (0.1, -0.2, 0.7))),
            ("/tf", transform(10 * SECOND, "ct", (9.0, 9.0, 9.0))),
            ("/carm/initial_pose", prior(20 * SECOND, (0.01, 0.02, 0.8))),
            *xray(10 * SECOND),
        ],
        storage,
    )
    first, second = read_xrays(path)
    assert (first.stamp_ns, second.stamp_ns) == (10 * SECOND, 20 * SECOND)
    for one in (first, second):
        np.testing.assert_array_equal(one.xray.pixels.numpy(), PICTURE)
        assert one.camera == Camera(32, 24, 1000.0, (0.5, 0.5), (15.5, 11.5))
    assert first.T_prior is None and second.T_truth is None
    assert first.T_truth is not None and second.T_prior is not None
    np.testing.assert_allclose(first.T_truth[:3, 3], [100.0, -200.0, 700.0])
    np.testing.assert_allclose(first.T_truth[:3, :3], rotation((10.0, 20.0, 30.0))[1], atol=1e-12)
    np.testing.assert_allclose(second.T_prior[:3, 3], [10.0, 20.0, 800.0])
    np.testing.assert_allclose(second.T_prior[:3, :3], rotation((-40.0, 5.0, 0.0))[1], atol=1e-12)


def test_a_geometry_holds_until_the_next_one(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bag",
        [("/carm/carm_geometry", geometry(SECOND)), *xray(SECOND), *xray(2 * SECOND),
         ("/carm/carm_geometry", geometry(3 * SECOND, 1200.0)), *xray(3 * SECOND), *xray(4 * SECOND)],
    )  # fmt: skip
    assert [one.camera.sdd_mm for one in read_xrays(path)] == [1000.0, 1000.0, 1200.0, 1200.0]


@pytest.mark.parametrize(
    ("encoding", "kind", "pad"),
    [("mono8", "|u1", 3), ("mono16", ">u2", 2), ("16UC1", "<u2", 0), ("32FC1", "<f4", 4), ("32FC1", ">f4", 1)],
)
def test_every_encoding_byte_order_and_padding(encoding: str, kind: str, pad: int, tmp_path: Path) -> None:
    messages = [("/carm/image_raw", image(0, encoding, kind, pad)), ("/carm/camera_info", info(0))]
    (one,) = read_xrays(write(tmp_path / "bag", messages), sdd_mm=1000.0)
    np.testing.assert_array_equal(one.xray.pixels.numpy(), PICTURE)
    assert one.camera.pixel_pitch_mm == pytest.approx((0.5, 0.5))


def test_our_own_bag_comes_back(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    camera = Camera(40, 30, 1012.3, (0.31, 0.29), (18.2, 15.9))
    frames = []
    for _ in range(3):
        poses = []
        for _ in range(2):
            T = np.eye(4)
            T[:3, :3] = Rotation.random(random_state=generator.integers(1 << 30)).as_matrix()
            T[:3, 3] = generator.uniform(-900, 900, 3)
            poses.append(torch.from_numpy(T))
        picture = generator.integers(0, 65536, (30, 40)).astype(np.uint16)
        frames.append(SimulatedFrame(picture, camera, poses[0], poses[1]))
    with XrayBagWriter(tmp_path / "bag") as writer:
        for index, frame in enumerate(frames):
            writer.write(frame, 1_700_000_000_123_456_789 + index)
    recorded = read_xrays(tmp_path / "bag")
    assert [one.stamp_ns for one in recorded] == [1_700_000_000_123_456_789 + index for index in range(3)]
    for one, frame in zip(recorded, frames, strict=True):
        np.testing.assert_array_equal(one.xray.pixels.numpy(), frame.picture)
        assert one.camera == camera
        assert one.T_truth is not None and one.T_prior is not None
        np.testing.assert_allclose(one.T_truth, frame.T_camera_ct, atol=1e-9)
        np.testing.assert_allclose(one.T_prior, frame.T_prior, atol=1e-9)


def test_a_bag_may_be_named_by_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "bag", [("/carm/carm_geometry", geometry(0)), *xray(0)])
    assert len(read_xrays(next(path.glob("*.mcap")))) == 1


def test_messages_and_bytes_come_as_they_were_recorded(tmp_path: Path) -> None:
    path = write(tmp_path / "bag", [*xray(5), *xray(3)])
    assert [int(one.header.stamp.nanosec) for _, one in read_messages(path, {"/carm/image_raw"})] == [5, 3]
    ours = list(read_serialised(path, {"/carm/image_raw", "/carm/camera_info"}))
    with AnyReader([path], default_typestore=STORE) as reader:
        theirs = [(one.topic, one.msgtype, stamp, bytes(raw)) for one, stamp, raw in reader.messages()]
    assert ours == theirs


def test_the_built_in_definition_is_that_of_the_message_file() -> None:
    def fields(text: str) -> list[list[str]]:
        return [line.split("#")[0].split() for line in text.splitlines() if line.split("#")[0].strip()]

    assert fields(bags.CARM_GEOMETRY_DEFINITION) == fields(DEFINITION.read_text())


def broken(name: str) -> Callable[[Path], Path]:
    """A bag with one fault."""

    def make(folder: Path) -> Path:
        path, messages = folder / "bag", [("/carm/carm_geometry", geometry(0)), *xray(0)]
        if name == "absent":
            return path
        if name == "nothing":
            path.mkdir()
            return path
        if name == "no images":
            messages = messages[:1]
        if name == "no camera_info":
            messages = messages[:2]
        if name == "no scale":
            messages = messages[1:]
        if name == "short image":
            messages[1][1].data = messages[1][1].data[:100]
        if name == "colour":
            messages[1][1].encoding = "bgr8"
        if name == "K zeros":
            messages[2] = ("/carm/camera_info", info(0, 0.0))
        if name == "K contradicts":
            messages[2] = ("/carm/camera_info", info(0, 2500.0))
        write(path, messages)
        for file in path.glob("*.mcap"):
            content = file.read_bytes()
            if name == "truncated":
                file.write_bytes(content[: len(content) // 2])
            if name == "overwritten":
                file.write_bytes(bytes(len(content)))
            if name == "without its data":
                file.unlink()
        return path

    return make


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, BagError) for name in ("absent", "nothing", "no images", "no camera_info", "no scale", "truncated", "overwritten",
                                   "without its data")]
    + [("short image", ImageMessageError), ("colour", ImageMessageError), ("K zeros", InputError), ("K contradicts", InputError)],
)  # fmt: skip
def test_a_broken_bag_is_refused_in_one_line_that_names_it(name: str, kind: type[Exception], tmp_path: Path) -> None:
    path = broken(name)(tmp_path)
    with pytest.raises(kind) as caught:
        read_xrays(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_existing_bag_is_not_written_over(tmp_path: Path) -> None:
    path = write(tmp_path / "bag", xray(0))
    before = {file: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(BagError, match=r"bag.*does not exist yet"):
        XrayBagWriter(path)
    assert {file: file.read_bytes() for file in path.iterdir()} == before
