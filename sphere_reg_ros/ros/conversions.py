"""ROS messages to core types and back: metres to millimetres happens here, through ``geometry.frames``, and nowhere else."""

from __future__ import annotations

import array
import math
from typing import Any

import numpy as np
import torch
from geometry_msgs.msg import Point, Pose, PoseWithCovariance, PoseWithCovarianceStamped, Quaternion, TransformStamped, Vector3
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from sphere_reg_ros.action import Register
from sphere_reg_ros.geometry import frames, se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.camera_formats import camera_from_info, intrinsic_row_major
from sphere_reg_ros.msg import CArmGeometry, ConvergenceTrace
from sphere_reg_ros.msg import RegistrationResult as RegistrationResultMsg
from sphere_reg_ros.registration.result import RegistrationResult
from sphere_reg_ros.ros.errors import MessageGeometryError

PIERCING_POINT_TOLERANCE_PX = 0.5


def stamp_ns(stamp: Any) -> int:
    """A ROS time in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def picture_to_image(picture: np.ndarray, header: Header) -> Image:
    """A mono8, mono16 or rgb8 picture as an Image."""
    encoding = "rgb8" if picture.ndim == 3 else {1: "mono8", 2: "mono16"}[picture.dtype.itemsize]
    contiguous = np.ascontiguousarray(picture)
    message = Image(header=header, height=picture.shape[0], width=picture.shape[1], encoding=encoding)
    message.step = contiguous.strides[0]
    # rclpy copies a typed buffer at once and anything else value by value (rclpy issue 763).
    message.data = array.array("B", contiguous.tobytes())
    return message


def camera_from_messages(
    info: CameraInfo, geometry: CArmGeometry | None, sdd_mm: float, pixel_pitch_mm: float
) -> Camera:
    """The camera of an X-ray.

    Args:
        geometry: the C-arm's own word, where it publishes one.
        sdd_mm, pixel_pitch_mm: parameters that stand in for it; 0 is unknown.

    Raises:
        MessageGeometryError: no scale at all, a distorted or binned image, or CArmGeometry describes another image.
        IntrinsicsError, ContradictingIntrinsicsError, CameraError: figures that cannot be, or contradict each other.
    """
    _check_plain(info)
    k = [float(value) for value in info.k]
    if geometry is None:
        if sdd_mm <= 0.0:
            raise MessageGeometryError("the SDD is not known: publish carm_geometry or set the parameter sdd_mm")
        pitch = (pixel_pitch_mm, pixel_pitch_mm) if pixel_pitch_mm > 0.0 else None
        return camera_from_info(k, info.width, info.height, sdd_mm, pitch)
    if (geometry.width, geometry.height) != (info.width, info.height):
        raise MessageGeometryError(
            f"carm_geometry describes {geometry.width} x {geometry.height} pixels, camera_info {info.width} x {info.height}"
        )
    pitch = (float(geometry.pixel_pitch_mm[0]), float(geometry.pixel_pitch_mm[1]))
    camera = camera_from_info(k, info.width, info.height, float(geometry.sdd_mm), pitch)
    apart = max(abs(a - b) for a, b in zip(camera.piercing_point_px, geometry.piercing_point_px, strict=True))
    if not apart <= PIERCING_POINT_TOLERANCE_PX:
        raise MessageGeometryError(
            f"the piercing points of camera_info {camera.piercing_point_px} and carm_geometry "
            f"{tuple(geometry.piercing_point_px)} are {apart:.2f} pixels apart (limit {PIERCING_POINT_TOLERANCE_PX})"
        )
    return camera


def _check_plain(info: CameraInfo) -> None:
    """Refuse what K does not say: silently ignored, each of these would shift the pose."""
    if any(value != 0.0 for value in info.d):
        raise MessageGeometryError(f"camera_info has distortion coefficients {list(info.d)}; rectify the X-rays first")
    if info.binning_x > 1 or info.binning_y > 1 or info.roi.x_offset or info.roi.y_offset:
        raise MessageGeometryError("camera_info describes a binned or cropped image; publish K of the image as it is sent")


def camera_to_messages(camera: Camera, header: Header) -> tuple[CameraInfo, CArmGeometry]:
    """CameraInfo and CArmGeometry of a camera."""
    k = intrinsic_row_major(camera)
    info = CameraInfo(header=header, width=camera.width, height=camera.height, distortion_model="plumb_bob")
    info.k = k
    info.d = [0.0] * 5
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0]
    geometry = CArmGeometry(header=header, sdd_mm=camera.sdd_mm, width=camera.width, height=camera.height)
    geometry.pixel_pitch_mm = list(camera.pixel_pitch_mm)
    geometry.piercing_point_px = list(camera.piercing_point_px)
    return info, geometry


def pose_from_transform(T_mm: Any) -> Pose:
    """A transform in mm as a Pose in m."""
    T = frames.transform_to_metres(torch.as_tensor(np.asarray(T_mm), dtype=torch.float64))
    x, y, z = (float(value) for value in T[:3, 3])
    qx, qy, qz, qw = (float(value) for value in frames.quaternion_xyzw(T[:3, :3]))
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def transform_from_pose(pose: Pose) -> torch.Tensor:
    """A Pose in m as a ``(4, 4)`` transform in mm.

    Raises:
        MessageGeometryError: not finite, or no unit quaternion.
    """
    q, p = pose.orientation, pose.position
    return _transform((q.x, q.y, q.z, q.w), (p.x, p.y, p.z), "pose")


def transform_from_message(message: TransformStamped) -> torch.Tensor:
    """A TransformStamped in m as a ``(4, 4)`` transform in mm, ``T_parent_child``."""
    q, p = message.transform.rotation, message.transform.translation
    return _transform((q.x, q.y, q.z, q.w), (p.x, p.y, p.z), f"TF {message.header.frame_id} -> {message.child_frame_id}")


def transform_to_message(T_mm: Any, header: Header, child_frame: str) -> TransformStamped:
    """``T_parent_child`` in mm as a TransformStamped in m; the parent and the stamp are the header's."""
    pose = pose_from_transform(T_mm)
    message = TransformStamped(header=header, child_frame_id=child_frame)
    message.transform.translation = Vector3(x=pose.position.x, y=pose.position.y, z=pose.position.z)
    message.transform.rotation = pose.orientation
    return message


def pose_with_covariance(result: RegistrationResult) -> PoseWithCovariance:
    """Pose and covariance of the CT frame's origin, in the meaning of ROS."""
    covariance = frames.covariance_at_origin(
        torch.from_numpy(np.asarray(result.covariance, dtype=np.float64)),
        torch.from_numpy(np.asarray(result.T_camera_ct, dtype=np.float64)),
        torch.from_numpy(np.asarray(result.centre_ct, dtype=np.float64)),
    )
    message = PoseWithCovariance(pose=pose_from_transform(result.T_camera_ct))
    message.covariance = covariance.flatten().tolist()
    return message


def pose_stamped(result: RegistrationResult, header: Header) -> PoseWithCovarianceStamped:
    """The same with a header."""
    return PoseWithCovarianceStamped(header=header, pose=pose_with_covariance(result))


def result_to_message(result: RegistrationResult, header: Header) -> RegistrationResultMsg:
    """One result."""
    message = RegistrationResultMsg(header=header, accepted=result.accepted, reasons=list(result.reasons))
    message.pose = pose_with_covariance(result)
    message.probability = float(result.probability)
    message.expected_error_mm = float(result.expected_error_mm)
    message.score_names, message.scores = list(result.scores), [float(value) for value in result.scores.values()]
    message.stage_names, message.stage_ms = list(result.timings_ms), [float(value) for value in result.timings_ms.values()]
    message.iterations = int(result.iterations)
    message.ct_sha256, message.model_id, message.version = result.ct_sha256, result.model_id, result.version
    return message


def refusal_message(reason: str, header: Header, ct_sha256: str, version: str) -> RegistrationResultMsg:
    """A rejected result of an X-ray that could not be registered at all; its pose is not finite, so that nobody can use it."""
    message = RegistrationResultMsg(header=header, accepted=False, reasons=[reason], ct_sha256=ct_sha256, version=version)
    message.pose.pose.position = Point(x=math.nan, y=math.nan, z=math.nan)
    message.pose.pose.orientation = Quaternion(x=math.nan, y=math.nan, z=math.nan, w=math.nan)
    message.expected_error_mm = math.nan
    return message


def action_without_result(reason: str) -> Register.Result:
    """The answer to a goal that ended without a registration."""
    answer = Register.Result()
    answer.result.accepted, answer.result.reasons = False, [reason]
    return answer


def trace_to_message(result: RegistrationResult, header: Header) -> ConvergenceTrace:
    """Every iteration of a result."""
    return ConvergenceTrace(
        header=header,
        stage=[step.stage for step in result.trace],
        cost=[float(step.cost) for step in result.trace],
        damping=[float(step.damping) for step in result.trace],
        step_norm=[float(step.step_norm) for step in result.trace],
        gradient_norm=[float(step.gradient_norm) for step in result.trace],
        poses=[pose_from_transform(step.T_camera_ct) for step in result.trace],
    )


def _transform(
    quaternion: tuple[float, float, float, float], position_m: tuple[float, float, float], name: str
) -> torch.Tensor:
    q = torch.tensor(quaternion, dtype=torch.float64)
    p = torch.tensor(position_m, dtype=torch.float64)
    if not bool(torch.isfinite(q).all() and torch.isfinite(p).all()) or abs(float(q.norm()) - 1.0) > 1e-3:
        raise MessageGeometryError(f"{name} has a quaternion of length {float(q.norm()):.4g} or values that are not finite")
    T_m = se3.from_rotation_translation(frames.rotation_from_quaternion_xyzw(q), p)
    return frames.transform_to_millimetres(T_m)
