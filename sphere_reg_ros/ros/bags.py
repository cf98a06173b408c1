"""rosbag2 files without rclpy: written as MCAP, read in any storage that rosbags knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.errors import InputError
from sphere_reg_ros.geometry import frames, se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.camera_formats import camera_from_info, intrinsic_row_major
from sphere_reg_ros.imaging.simulated_series import SimulatedFrame
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.ros.errors import BagError
from sphere_reg_ros.ros.pixels import image_to_xray

IMAGE_TOPIC, INFO_TOPIC, GEOMETRY_TOPIC = "/carm/image_raw", "/carm/camera_info", "/carm/carm_geometry"
PRIOR_TOPIC, TF_TOPIC = "/carm/initial_pose", "/tf"
CAMERA_FRAME, TRUTH_FRAME = "carm_optical", "ct_truth"
CARM_GEOMETRY_DEFINITION = """std_msgs/Header header
float64 sdd_mm
float64[2] pixel_pitch_mm
float64[2] piercing_point_px
uint32 width
uint32 height
"""


@dataclass(frozen=True)
class RecordedXray:
    """One X-ray of a bag.

    Attributes:
        stamp_ns: acquisition time.
        T_prior: pose to start from, mm, where the bag has one for it.
        T_truth: ground truth, mm, where the bag has it.
    """

    stamp_ns: int
    xray: XrayImage
    camera: Camera
    T_prior: Float64[Tensor, "4 4"] | None
    T_truth: Float64[Tensor, "4 4"] | None


@lru_cache(maxsize=1)
def type_store() -> Any:
    """Jazzy's messages and CArmGeometry."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg(CARM_GEOMETRY_DEFINITION, "sphere_reg_ros/msg/CArmGeometry"))
    return store


class XrayBagWriter:
    """Writes simulated X-rays with camera, geometry, prior and ground truth."""

    def __init__(self, path: str | Path) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.rosbag2.errors import WriterError

        self._path = Path(path)
        try:
            self._writer = Writer(self._path, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except (WriterError, OSError) as error:
            raise BagError(f"{self._path}: cannot be written ({error}); choose a folder that does not exist yet") from error
        store = type_store()
        self._connections = {
            topic: self._writer.add_connection(topic, kind, typestore=store)
            for topic, kind in (
                (IMAGE_TOPIC, "sensor_msgs/msg/Image"),
                (INFO_TOPIC, "sensor_msgs/msg/CameraInfo"),
                (GEOMETRY_TOPIC, "sphere_reg_ros/msg/CArmGeometry"),
                (PRIOR_TOPIC, "geometry_msgs/msg/PoseWithCovarianceStamped"),
                (TF_TOPIC, "tf2_msgs/msg/TFMessage"),
            )
        }

    def __enter__(self) -> XrayBagWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()

    def write(self, frame: SimulatedFrame, stamp_ns: int) -> None:
        """Write one X-ray, what it depends on first."""
        camera, picture = frame.camera, frame.picture
        types = type_store().types
        header = _header(stamp_ns, CAMERA_FRAME)
        pose = types["geometry_msgs/msg/PoseWithCovariance"](pose=_pose(frame.T_prior), covariance=np.zeros(36))
        prior = types["geometry_msgs/msg/PoseWithCovarianceStamped"](header=header, pose=pose)
        self._write(PRIOR_TOPIC, prior, stamp_ns - 1_000_000)
        transform = types["geometry_msgs/msg/TransformStamped"](
            header=header, child_frame_id=TRUTH_FRAME, transform=_transform(frame.T_camera_ct)
        )
        self._write(TF_TOPIC, types["tf2_msgs/msg/TFMessage"](transforms=[transform]), stamp_ns)
        self._write(
            GEOMETRY_TOPIC,
            types["sphere_reg_ros/msg/CArmGeometry"](
                header=header,
                sdd_mm=camera.sdd_mm,
                pixel_pitch_mm=np.array(camera.pixel_pitch_mm),
                piercing_point_px=np.array(camera.piercing_point_px),
                width=camera.width,
                height=camera.height,
            ),
            stamp_ns,
        )
        self._write(INFO_TOPIC, _camera_info(camera, header), stamp_ns)
        image = types["sensor_msgs/msg/Image"](
            header=header,
            height=picture.shape[0],
            width=picture.shape[1],
            encoding="mono16",
            is_bigendian=0,
            step=picture.shape[1] * 2,
            data=np.frombuffer(picture.astype("<u2").tobytes(), dtype=np.uint8),
        )
        self._write(IMAGE_TOPIC, image, stamp_ns)

    def _write(self, topic: str, message: Any, stamp_ns: int) -> None:
        connection = self._connections[topic]
        self._writer.write(connection, stamp_ns, type_store().serialize_cdr(message, connection.msgtype))


def read_xrays(path: str | Path, sdd_mm: float | None = None) -> list[RecordedXray]:
    """Every X-ray of a bag with its camera, in the order of their stamps.

    Args:
        sdd_mm: where the bag has no ``/carm/carm_geometry``.

    Raises:
        BagError: unreadable, without X-rays, or an X-ray without camera_info or scale.
        InputError: a message in it is malformed.
    """
    images: dict[int, Any] = {}
    infos: dict[int, Any] = {}
    geometries: dict[int, Any] = {}
    priors: dict[int, Tensor] = {}
    truths: dict[int, Tensor] = {}
    for topic, message in read_messages(path, {IMAGE_TOPIC, INFO_TOPIC, GEOMETRY_TOPIC, PRIOR_TOPIC, TF_TOPIC}):
        if topic == TF_TOPIC:
            for one in message.transforms:
                if one.child_frame_id == TRUTH_FRAME:
                    truths[_stamp_ns(one.header)] = transform_mm(one.transform.translation, one.transform.rotation)
            continue
        stamp = _stamp_ns(message.header)
        if topic == PRIOR_TOPIC:
            priors[stamp] = transform_mm(message.pose.pose.position, message.pose.pose.orientation)
        else:
            {IMAGE_TOPIC: images, INFO_TOPIC: infos, GEOMETRY_TOPIC: geometries}[topic][stamp] = message
    if not images:
        raise BagError(f"{path}: holds no X-rays on {IMAGE_TOPIC}")
    geometry = None
    recorded = []
    for stamp in sorted(images):
        geometry = geometries.get(stamp, geometry)
        if stamp not in infos:
            raise BagError(f"{path}: the X-ray at {stamp / 1e9:.3f} s has no {INFO_TOPIC} of the same stamp")
        try:
            camera = _camera(infos[stamp], geometry or next(iter(geometries.values()), None), sdd_mm)
            xray = image_to_xray(images[stamp])
        except InputError as error:
            raise type(error)(f"{path}: X-ray at {stamp / 1e9:.3f} s: {error}") from error
        recorded.append(RecordedXray(stamp, xray, camera, priors.get(stamp), truths.get(stamp)))
    return recorded


def read_messages(path: str | Path, topics: set[str]) -> Iterator[tuple[str, Any]]:
    """Messages of some topics in the order in which they were recorded.

    Raises:
        BagError: the bag is missing, truncated or damaged.
    """
    yield from _read(path, topics, lambda reader, kind, _, raw: reader.deserialize(raw, kind))


def read_serialised(path: str | Path, topics: set[str]) -> Iterator[tuple[str, str, int, bytes]]:
    """``(topic, type, time of recording in ns, CDR bytes)`` of some topics, in the order in which they were recorded.

    Raises:
        BagError: the bag is missing, truncated or damaged.
    """
    for topic, (kind, stamp_ns, data) in _read(path, topics, lambda _, kind, stamp_ns, raw: (kind, stamp_ns, bytes(raw))):
        yield topic, kind, stamp_ns, data


def _read(path: str | Path, topics: set[str], take: Callable[[Any, str, int, Any], Any]) -> Iterator[tuple[str, Any]]:
    from rosbags.highlevel import AnyReader

    target = Path(path)
    if not target.exists():
        raise BagError(f"{target}: no such bag")
    # A folder with metadata is a rosbag2; a lone .mcap or .db3 stands in the folder that it came in.
    folder = target if target.is_dir() else target.parent
    try:
        with AnyReader([folder], default_typestore=type_store()) as reader:
            wanted = [one for one in reader.connections if one.topic in topics]
            for connection, stamp_ns, raw in reader.messages(connections=wanted):
                yield connection.topic, take(reader, connection.msgtype, stamp_ns, raw)
    except BagError:
        raise
    except Exception as error:  # damaged files raise many kinds, from the reader, the storage and the decoder
        raise BagError(f"{target}: damaged bag ({type(error).__name__}: {' '.join(str(error).split())})") from error


def transform_mm(translation_m: Any, rotation: Any) -> Float64[Tensor, "4 4"]:
    """A position or translation in m and a quaternion as a transform in mm."""
    quaternion = torch.tensor([rotation.x, rotation.y, rotation.z, rotation.w], dtype=torch.float64)
    position = torch.tensor([translation_m.x, translation_m.y, translation_m.z], dtype=torch.float64)
    return frames.transform_to_millimetres(
        se3.from_rotation_translation(frames.rotation_from_quaternion_xyzw(quaternion), position)
    )


def _camera(info: Any, geometry: Any, sdd_mm: float | None) -> Camera:
    k = [float(value) for value in info.k]
    if geometry is None:
        if sdd_mm is None:
            raise BagError(f"{GEOMETRY_TOPIC} is not in the bag, so the SDD is not known; give --sdd")
        return camera_from_info(k, info.width, info.height, sdd_mm)
    pitch = (float(geometry.pixel_pitch_mm[0]), float(geometry.pixel_pitch_mm[1]))
    return camera_from_info(k, info.width, info.height, float(geometry.sdd_mm), pitch)


def _camera_info(camera: Camera, header: Any) -> Any:
    types = type_store().types
    k = intrinsic_row_major(camera)
    return types["sensor_msgs/msg/CameraInfo"](
        header=header,
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=np.array(k),
        r=np.eye(3).ravel(),
        p=np.array([*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0]),
        binning_x=0,
        binning_y=0,
        roi=types["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
    )


def _header(stamp_ns: int, frame: str) -> Any:
    types = type_store().types
    stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame)


def _parts(T_mm: Float64[Tensor, "4 4"]) -> tuple[list[float], Any]:
    T = frames.transform_to_metres(T_mm)
    x, y, z, w = (float(value) for value in frames.quaternion_xyzw(T[:3, :3]))
    return T[:3, 3].tolist(), type_store().types["geometry_msgs/msg/Quaternion"](x=x, y=y, z=z, w=w)


def _pose(T_mm: Float64[Tensor, "4 4"]) -> Any:
    (x, y, z), rotation = _parts(T_mm)
    types = type_store().types
    return types["geometry_msgs/msg/Pose"](position=types["geometry_msgs/msg/Point"](x=x, y=y, z=z), orientation=rotation)


def _transform(T_mm: Float64[Tensor, "4 4"]) -> Any:
    (x, y, z), rotation = _parts(T_mm)
    types = type_store().types
    return types["geometry_msgs/msg/Transform"](translation=types["geometry_msgs/msg/Vector3"](x=x, y=y, z=z), rotation=rotation)


def _stamp_ns(header: Any) -> int:
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
