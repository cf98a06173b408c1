"""Records every topic of the graph, as it was sent, into a rosbag2 (mcap), until it is told to stop."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg

from sphere_reg_ros.ros.bags import type_store


class Recorder(Node):
    """Subscribes to topics as they appear, without decoding them."""

    def __init__(self, path: Path) -> None:
        super().__init__("recorder")
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self.create_timer(0.2, self._discover)

    def close(self) -> None:
        """Finish the bag."""
        self._writer.close()

    def _discover(self) -> None:
        for topic, kinds in self.get_topic_names_and_types():
            publishers = self.get_publishers_info_by_topic(topic)
            if topic in self._known or not publishers:
                continue
            self._known.add(topic)
            self._record(topic, kinds[0], _quality([one.qos_profile for one in publishers]))

    def _record(self, topic: str, kind: str, qos: QoSProfile) -> None:
        store = type_store()
        if kind not in store.fielddefs:
            return
        connection = self._writer.add_connection(topic, kind, typestore=store)

        def write(raw: bytes) -> None:
            with self._lock:
                self._writer.write(connection, self.get_clock().now().nanoseconds, raw)

        self.create_subscription(_message_class(kind), topic, write, qos, raw=True)


def _quality(offered: Sequence[QoSProfile]) -> QoSProfile:
    """The most that all publishers of a topic offer: who asks for more hears nothing."""
    latched = all(one.durability == DurabilityPolicy.TRANSIENT_LOCAL for one in offered)
    reliable = all(one.reliability == ReliabilityPolicy.RELIABLE for one in offered)
    return QoSProfile(
        depth=100,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
    )


def _message_class(kind: str) -> Any:
    package, group, name = kind.split("/")
    return getattr(import_module(f"{package}.{group}"), name)


def register_own_types(folder: Path) -> None:
    """Make the bag's type store know this package's messages from their installed definitions."""
    types: dict[str, Any] = {}
    for name in ("ConvergenceTrace", "RegistrationResult"):
        file = folder / f"{name}.msg"
        if file.exists():
            types.update(get_types_from_msg(file.read_text(), f"sphere_reg_ros/msg/{name}"))
    type_store().register(types)


def main() -> int:
    """Record into the folder that is named on the command line."""
    path, definitions = Path(sys.argv[1]), Path(sys.prefix) / "share" / "sphere_reg_ros" / "msg"
    register_own_types(definitions)
    rclpy.init(args=[])
    node = Recorder(path)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
