"""The other side of the registration node: a C-arm, a robot and an operator in one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from sphere_reg_ros.action import Register
from sphere_reg_ros.msg import CArmGeometry, ConvergenceTrace, RegistrationResult
from sphere_reg_ros.srv import LoadCT
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from sphere_reg_ros.ros import conversions

LATCHED = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PATIENCE_S = 40.0
"""Only ever used up by a failing test: generous, for a busy machine."""
FRAME = "carm_optical"
NAMESPACE = "/registration"
HEARD = {
    "result": (RegistrationResult, f"{NAMESPACE}/result", LATCHED),
    "pose": (PoseWithCovarianceStamped, f"{NAMESPACE}/pose", 10),
    "drr": (Image, f"{NAMESPACE}/drr", 10),
    "overlay": (Image, f"{NAMESPACE}/overlay", 10),
    "convergence": (ConvergenceTrace, f"{NAMESPACE}/convergence", 10),
    "markers": (MarkerArray, f"{NAMESPACE}/markers", LATCHED),
    "diagnostics": (DiagnosticArray, "/diagnostics", 10),
    "tf": (TFMessage, "/tf", 100),
    "tf_static": (TFMessage, "/tf_static", LATCHED),
}


class Client:
    """Sends X-rays and keeps all that is heard."""

    def __init__(self, domain_id: int) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.node = rclpy.create_node("client", context=self.context)
        self.heard: dict[str, list[Any]] = {name: [] for name in HEARD}
        for name, (kind, topic, qos) in HEARD.items():
            self.node.create_subscription(kind, topic, self.heard[name].append, qos)
        self.image = self.node.create_publisher(Image, "/image_raw", 10)
        self.info = self.node.create_publisher(CameraInfo, "/camera_info", 10)
        self.geometry = self.node.create_publisher(CArmGeometry, "/carm_geometry", 10)
        self.prior = self.node.create_publisher(PoseWithCovarianceStamped, "/initial_pose", 10)
        self.tf = self.node.create_publisher(TFMessage, "/tf", 10)
        self.tf_static = self.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        self._action = ActionClient(self.node, Register, f"{NAMESPACE}/register")
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self._last_ns = 0

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._thread.join(10.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def wait(self, condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        """The first true answer."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            answer = condition()
            if answer:
                return answer
            time.sleep(0.02)
        raise AssertionError(f"waited {patience_s} s for {what}; last diagnostics: {self.diagnosis()}")

    def wait_for_node(self) -> None:
        """Until the node has found all of our publishers."""
        # The client hears TF itself.
        wanted = {self.image: 1, self.info: 1, self.geometry: 1, self.prior: 1, self.tf: 2, self.tf_static: 2}
        self.wait(lambda: all(one.get_subscription_count() >= count for one, count in wanted.items()), "the node")
        assert self._action.wait_for_server(PATIENCE_S)

    def publishes(self, node: str, topic: str) -> bool:
        """Whether we have found a node's publisher."""
        return node in [one.node_name for one in self.node.get_publishers_info_by_topic(topic)]

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """One service call."""
        client = self.node.create_client(kind, f"{NAMESPACE}/{name}")
        assert client.wait_for_service(PATIENCE_S), name
        future = client.call_async(request)
        self.wait(future.done, name)
        self.node.destroy_client(client)
        return future.result()

    def load_ct(self, path: object, **others: str) -> LoadCT.Response:
        return self.call(LoadCT, "load_ct", LoadCT.Request(path=str(path), **others))

    def reset(self) -> None:
        assert self.call(Trigger, "reset", Trigger.Request()).success

    def transition(self, number: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = number
        return self.call(ChangeState, "change_state", request).success

    def state(self) -> str:
        return self.call(GetState, "get_state", GetState.Request()).current_state.label

    def set_parameter(self, name: str, value: Any) -> Any:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, "set_parameters", request).results[0]

    def stamp(self, offset_s: float = 0.0) -> int:
        """A stamp later than all before; with an offset, one beside the last."""
        if offset_s:
            return self._last_ns + int(offset_s * 1e9)
        self._last_ns = max(self._last_ns + 1, self.node.get_clock().now().nanoseconds)
        return self._last_ns

    def header(self, stamp_ns: int, frame: str = FRAME) -> Header:
        header = Header(frame_id=frame)
        header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 10**9)
        return header

    def messages(self, frame: Any, stamp_ns: int) -> tuple[Image, CameraInfo, CArmGeometry]:
        """An X-ray and its camera, unsent."""
        header = self.header(stamp_ns)
        info, geometry = conversions.camera_to_messages(frame.camera, header)
        return conversions.picture_to_image(frame.picture, header), info, geometry

    def send_prior(self, T_mm: Any, stamp_ns: int, frame: str = FRAME) -> None:
        message = PoseWithCovarianceStamped(header=self.header(stamp_ns, frame))
        message.pose.pose = conversions.pose_from_transform(T_mm)
        self.prior.publish(message)
        # The prior and the image are different topics, whose order DDS does not keep.
        time.sleep(0.2)

    def send(self, image: Image | None, info: CameraInfo | None, geometry: CArmGeometry | None) -> None:
        if geometry is not None:
            self.geometry.publish(geometry)
            # The node would take an X-ray that overtakes this with the geometry of the one before.
            time.sleep(0.1)
        for publisher, message in ((self.info, info), (self.image, image)):
            if message is not None:
                publisher.publish(message)

    def register(self, frame: Any, **changes: Any) -> RegistrationResult:
        """Send one good X-ray with its prior; its result."""
        stamp_ns = self.stamp()
        self.send_prior(frame.T_prior, stamp_ns)
        self.send(*self.messages(frame, stamp_ns))
        return self.result(stamp_ns)

    def result(self, stamp_ns: int) -> RegistrationResult:
        return self.wait(lambda: self.of_stamp("result", stamp_ns), "a result")[0]

    def of_stamp(self, name: str, stamp_ns: int) -> list[Any]:
        """What was heard of one X-ray."""
        return [one for one in list(self.heard[name]) if conversions.stamp_ns(one.header.stamp) == stamp_ns]

    def transforms(self, stamp_ns: int, child: str = "ct") -> list[Any]:
        every = [one for message in list(self.heard["tf"]) for one in message.transforms]
        return [one for one in every if one.child_frame_id == child and conversions.stamp_ns(one.header.stamp) == stamp_ns]

    def diagnosis(self) -> dict[str, str]:
        """The last diagnostics as a table, with ``level`` and ``message``."""
        ours = [one for message in list(self.heard["diagnostics"]) for one in message.status if one.name == NAMESPACE]
        if not ours:
            return {}
        values = {one.key: one.value for one in ours[-1].values}
        return {**values, "level": str(ord(ours[-1].level)), "message": ours[-1].message}

    def goal(self, request: Register.Goal) -> tuple[Any, list[Any]]:
        """Send a goal; its handle and the feedback that comes."""
        feedback: list[Any] = []
        future = self._action.send_goal_async(request, feedback_callback=lambda message: feedback.append(message.feedback))
        self.wait(future.done, "the goal's answer")
        return future.result(), feedback

    def outcome(self, handle: Any) -> Any:
        """Status and result of a goal."""
        future = handle.get_result_async()
        self.wait(future.done, "the goal's result")
        return future.result()
