"""The node ``/bag_player``: plays the inputs of a recorded bag with its clock, also where ``ros2 bag`` is not installed."""

from __future__ import annotations

import importlib
import struct
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from visualization_msgs.msg import MarkerArray

from sphere_reg_ros.msg import RegistrationResult
from sphere_reg_ros.ros import conversions
from sphere_reg_ros.ros.bags import GEOMETRY_TOPIC, IMAGE_TOPIC, INFO_TOPIC, PRIOR_TOPIC, TF_TOPIC, read_serialised
from sphere_reg_ros.ros.errors import BagError
from sphere_reg_ros.ros.parameters import PLAYER_PARAMETERS, declare
from sphere_reg_ros.ros.publishing import LATCHED
from sphere_reg_ros.ros.working_node import WorkingNode, run_to_the_end

STATIC_TF_TOPIC = "/tf_static"
TOPICS = (GEOMETRY_TOPIC, PRIOR_TOPIC, INFO_TOPIC, IMAGE_TOPIC, TF_TOPIC, STATIC_TF_TOPIC)
CLOCK_PERIOD_S = 0.02
RESULT_TIMEOUT_S = 20.0
QUIET_S = 1.0
"""Discovery of new publishers and a new time before the first message, and work of the receivers after the last."""


class BagPlayer(WorkingNode):
    """Publishes what a bag recorded of the C-arm; what was recorded of a registration stays unplayed."""

    def __init__(self, **options: Any) -> None:
        super().__init__("bag_player", **options)
        declare(self, PLAYER_PARAMETERS)
        self._clock_topic = self.create_publisher(Clock, "/clock", 10)
        self._played: dict[str, Any] = {}
        self._ct_loaded = threading.Event()
        self._answered = threading.Event()
        self._awaited_ns = 0
        self.create_subscription(RegistrationResult, "/registration/result", self._on_result, LATCHED)
        self.create_subscription(MarkerArray, "/registration/markers", lambda message: self._ct_loaded.set(), LATCHED)

    def run(self) -> None:
        """Play the bag as often as the parameters say; on a thread of its own.

        Raises:
            BagError: the bag cannot be read, or has nothing of a C-arm.
        """
        path, rate, loops = self._value("bag"), self._value("rate"), self._value("loops")
        recorded = list(read_serialised(path, set(TOPICS)))
        if not any(topic == IMAGE_TOPIC for topic, _, _, _ in recorded):
            raise BagError(f"{path}: holds no X-rays on {IMAGE_TOPIC}")
        for topic, kind, _, _ in recorded:
            if topic not in self._played:
                self._played[topic] = self.create_publisher(_message_class(kind), topic, _quality(topic))
        if self._value("wait_for_registration"):
            self._wait_for_registration()
        for loop in _counted(loops):
            self._play(recorded, rate)
            if self._value("wait_for_registration"):
                self._answered.wait(RESULT_TIMEOUT_S)
            self.get_logger().info(f"played {path}, time {loop + 1}")
        # The last result's pictures follow it.
        time.sleep(QUIET_S)

    def _wait_for_registration(self) -> None:
        """Until there is a CT, and somebody takes the X-rays: the first one would be lost else, on a busy machine."""
        taken = [one for topic, one in self._played.items() if topic in (IMAGE_TOPIC, INFO_TOPIC)]
        while rclpy.ok() and not (self._ct_loaded.wait(0.1) and all(one.get_subscription_count() > 0 for one in taken)):
            if self._ct_loaded.is_set():
                self.get_logger().info(f"waiting for somebody to take {IMAGE_TOPIC} and {INFO_TOPIC}", once=True)
            time.sleep(0.1)

    def _play(self, recorded: list[tuple[str, str, int, bytes]], rate: float) -> None:
        first_ns, began = recorded[0][2], time.monotonic() + QUIET_S
        self._hold_clock(first_ns, began)
        for topic, _, stamp_ns, data in recorded:
            while rclpy.ok():
                now_ns = min(stamp_ns, first_ns + int((time.monotonic() - began) * rate * 1e9))
                self._publish_clock(now_ns)
                if now_ns >= stamp_ns:
                    break
                time.sleep(min(CLOCK_PERIOD_S, (stamp_ns - now_ns) / 1e9 / rate))
            if not rclpy.ok():
                return
            if topic == IMAGE_TOPIC:
                self._awaited_ns = _header_stamp_ns(data)
                self._answered.clear()
            self._played[topic].publish(data)

    def _hold_clock(self, now_ns: int, until: float) -> None:
        """Stand still at a time: the clock is a topic of its own, and an X-ray that overtakes its jump back looks too old."""
        while rclpy.ok() and time.monotonic() < until:
            self._publish_clock(now_ns)
            time.sleep(CLOCK_PERIOD_S)

    def _publish_clock(self, now_ns: int) -> None:
        self._clock_topic.publish(Clock(clock=Time(sec=now_ns // 10**9, nanosec=now_ns % 10**9)))

    def _on_result(self, message: RegistrationResult) -> None:
        if conversions.stamp_ns(message.header.stamp) == self._awaited_ns:
            self._answered.set()

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value


def _header_stamp_ns(data: bytes) -> int:
    """The stamp with which every serialised message begins that begins with a header."""
    order = "<" if data[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, 4)
    return int(seconds) * 10**9 + int(nanoseconds)


def _counted(loops: int) -> Iterator[int]:
    done = 0
    while rclpy.ok() and (loops == 0 or done < loops):
        yield done
        done += 1


def _message_class(kind: str) -> Any:
    package, _, name = kind.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise BagError(f"the bag holds messages of type {kind}, which is not installed") from error


def _quality(topic: str) -> QoSProfile:
    durability = DurabilityPolicy.TRANSIENT_LOCAL if topic == STATIC_TF_TOPIC else DurabilityPolicy.VOLATILE
    return QoSProfile(depth=50, durability=durability)


def main(args: list[str] | None = None) -> int:
    """Play until the end or until told to stop."""
    return run_to_the_end("bag_player", BagPlayer, args)


if __name__ == "__main__":
    sys.exit(main())
