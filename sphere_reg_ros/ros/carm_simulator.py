"""The node ``/carm``: a simulated C-arm that publishes realistic X-rays of a CT, with the ground truth as TF."""

from __future__ import annotations

import sys
import threading
import time
from array import array
from typing import Any

import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from sphere_reg_ros.imaging.simulated_series import SeriesSettings, SimulatedSeries
from sphere_reg_ros.msg import CArmGeometry
from sphere_reg_ros.msg import RegistrationResult as RegistrationResultMsg
from sphere_reg_ros.ros import conversions
from sphere_reg_ros.ros.parameters import CARM_PARAMETERS, declare
from sphere_reg_ros.ros.publishing import LATCHED
from sphere_reg_ros.ros.session import EXAMPLE, open_ct
from sphere_reg_ros.ros.working_node import WorkingNode, run_to_the_end

RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
PRIOR_LEAD_S = 0.3
"""The prior goes out this long before its X-ray, so that it is there when the X-ray is taken up."""
RESULT_TIMEOUT_S = 20.0


class CArmSimulator(WorkingNode):
    """Publishes a series of simulated X-rays."""

    def __init__(self, **options: Any) -> None:
        super().__init__("carm", **options)
        declare(self, CARM_PARAMETERS)
        self._image = self.create_publisher(Image, "/carm/image_raw", RELIABLE)
        self._info = self.create_publisher(CameraInfo, "/carm/camera_info", RELIABLE)
        self._geometry = self.create_publisher(CArmGeometry, "/carm/carm_geometry", RELIABLE)
        self._prior = self.create_publisher(PoseWithCovarianceStamped, "/carm/initial_pose", RELIABLE)
        self._tf = self.create_publisher(TFMessage, "/tf", 100)
        self._answered = threading.Event()
        self._ct_loaded = threading.Event()
        self._awaited_ns = 0
        self.create_subscription(RegistrationResultMsg, "/registration/result", self._on_result, LATCHED)
        # Markers come, and are kept for late comers, when a CT is loaded.
        self.create_subscription(MarkerArray, "/registration/markers", lambda message: self._ct_loaded.set(), LATCHED)

    def run(self) -> None:
        """Publish the whole series; on a thread of its own, so that the node keeps spinning."""
        path = self._value("ct_path")
        ct = open_ct(path or EXAMPLE)
        series = SimulatedSeries(ct, self._series_settings())
        if self._value("wait_for_registration"):
            self._wait_for_registration()
        count = self._value("images")
        index = 0
        while rclpy.ok() and (count == 0 or index < count):
            started = time.monotonic()
            frame = series.frame(index)
            self._publish(frame)
            if self._value("wait_for_result"):
                self._answered.wait(RESULT_TIMEOUT_S)
            index += 1
            time.sleep(max(0.0, self._value("period_s") - (time.monotonic() - started)))
        self.get_logger().info(f"published {index} X-rays")

    def _series_settings(self) -> SeriesSettings:
        names = SeriesSettings.__dataclass_fields__
        return SeriesSettings(**{name: self._value(name) for name in names})

    def _publish(self, frame: Any) -> None:
        stamp = self.get_clock().now().to_msg()
        header = Header(stamp=stamp, frame_id=self._value("camera_frame"))
        self._awaited_ns = conversions.stamp_ns(stamp)
        self._answered.clear()
        if self._value("publish_prior"):
            prior = PoseWithCovarianceStamped(header=header)
            prior.pose.pose = conversions.pose_from_transform(frame.T_prior)
            self._prior.publish(prior)
            time.sleep(PRIOR_LEAD_S)
        info, geometry = conversions.camera_to_messages(frame.camera, header)
        self._geometry.publish(geometry)
        self._info.publish(info)
        truth = conversions.transform_to_message(frame.T_camera_ct, header, self._value("truth_frame"))
        self._tf.publish(TFMessage(transforms=[truth]))
        self._image.publish(conversions.picture_to_image(frame.picture, header))

    def _wait_for_registration(self) -> None:
        topics = (self._image, self._info, self._geometry, self._prior)
        while rclpy.ok() and not (self._ct_loaded.wait(0.1) and all(one.get_subscription_count() > 0 for one in topics)):
            time.sleep(0.1)

    def _on_result(self, message: RegistrationResultMsg) -> None:
        if conversions.stamp_ns(message.header.stamp) >= self._awaited_ns:
            self._answered.set()

    def _value(self, name: str) -> Any:
        value = self.get_parameter(name).value
        return tuple(value) if isinstance(value, array | list) else value


def main(args: list[str] | None = None) -> int:
    """Run the C-arm until its series is published and everybody has had time to take it, or until it is told to stop."""
    return run_to_the_end("carm_simulator", CArmSimulator, args)


if __name__ == "__main__":
    sys.exit(main())
