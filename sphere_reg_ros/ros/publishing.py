"""Publishes what one registration answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from sphere_reg_ros._version import __version__
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.msg import ConvergenceTrace
from sphere_reg_ros.msg import RegistrationResult as RegistrationResultMsg
from sphere_reg_ros.registration.overlay import drr_to_uint8, overlay_rgb
from sphere_reg_ros.registration.result import RegistrationResult
from sphere_reg_ros.ros import conversions
from sphere_reg_ros.ros.markers import bone_surface_points, marker_array
from sphere_reg_ros.ros.session import RegistrationSession
from sphere_reg_ros.ros.tf_buffer import TransformBuffer

LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)


class ResultPublisher:
    """All topics of a result; TF and ``~/pose`` only for accepted ones."""

    def __init__(self, node: Any, session: RegistrationSession, transforms: TransformBuffer) -> None:
        self._session = session
        self._transforms = transforms
        self._ct_frame = str(node.get_parameter("ct_frame").value)
        self._tf = node.create_publisher(TFMessage, "/tf", 100)
        self._pose = node.create_publisher(PoseWithCovarianceStamped, "~/pose", 10)
        self._result = node.create_publisher(RegistrationResultMsg, "~/result", LATCHED)
        self._drr = node.create_publisher(Image, "~/drr", 2)
        self._overlay = node.create_publisher(Image, "~/overlay", 2)
        self._trace = node.create_publisher(ConvergenceTrace, "~/convergence", 10)
        self._markers = node.create_publisher(MarkerArray, "~/markers", LATCHED)
        self._bone_points: Any = None
        self._node = node

    def destroy(self) -> None:
        """Take all topics down."""
        for publisher in (self._tf, self._pose, self._result, self._drr, self._overlay, self._trace, self._markers):
            self._node.destroy_publisher(publisher)

    def result(self, result: RegistrationResult, xray: XrayImage, header: Header, anchor_frame: str, publish_tf: bool) -> None:
        """Publish one registration.

        The decision goes out first, then what acts on it, then the pictures, so that the robot does not wait for them.

        Raises:
            FrameError: TF does not connect the anchor frame to the camera; the result is out, the TF is not.
        """
        self._result.publish(conversions.result_to_message(result, header))
        try:
            if result.accepted:
                self._pose.publish(conversions.pose_stamped(result, header))
                if publish_tf:
                    self._tf.publish(TFMessage(transforms=[self._transform(result, header, anchor_frame)]))
        finally:
            self._pictures(result, xray, header)

    def refusal(self, reason: str, header: Header) -> None:
        """Publish that an X-ray could not be registered at all."""
        sha256 = self._session.ct.sha256 if self._session.ct is not None else ""
        self._result.publish(conversions.refusal_message(reason, header, sha256, __version__))

    def ct_markers(self) -> None:
        """Publish the markers of a CT that was just loaded."""
        ct = self._session.ct
        if ct is not None:
            self._bone_points = bone_surface_points(ct)
            self._markers.publish(marker_array(self._bone_points, self._session.landmarks, self._ct_frame, None, ""))

    def _transform(self, result: RegistrationResult, header: Header, anchor_frame: str) -> Any:
        if not anchor_frame or anchor_frame == header.frame_id:
            return conversions.transform_to_message(result.T_camera_ct, header, self._ct_frame)
        T_anchor_camera = self._transforms.lookup(anchor_frame, header.frame_id, conversions.stamp_ns(header.stamp))
        anchored = Header(stamp=header.stamp, frame_id=anchor_frame)
        return conversions.transform_to_message(np.asarray(T_anchor_camera) @ result.T_camera_ct, anchored, self._ct_frame)

    def _pictures(self, result: RegistrationResult, xray: XrayImage, header: Header) -> None:
        pipeline = self._session.pipeline
        assert pipeline is not None
        self._trace.publish(conversions.trace_to_message(result, header))
        drr = pipeline.drr(result.T_camera_ct, result.camera)
        self._drr.publish(conversions.picture_to_image(drr_to_uint8(drr), header))
        self._overlay.publish(conversions.picture_to_image(overlay_rgb(xray, drr), header))
        self._markers.publish(
            marker_array(self._bone_points, self._session.landmarks, self._ct_frame, result.camera, header.frame_id)
        )
