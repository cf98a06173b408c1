"""What can go wrong at the node beside the X-rays themselves: it says so, lives on, and keeps its CT and its last result."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from action_msgs.msg import GoalStatus
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from sphere_reg_ros.action import Register
from sphere_reg_ros.msg import RegistrationResult
from tf2_msgs.msg import TFMessage

from sphere_reg_ros.ros import conversions


def test_before_there_is_a_ct_or_an_sdd(client: Any, start: Any, end_process: Any, phantom_path: Path, frames: list) -> None:
    process = start("registration_node")
    client.wait_for_node()
    handle, _ = client.goal(Register.Goal())
    outcome = client.outcome(handle)
    assert outcome.status == GoalStatus.STATUS_ABORTED
    assert "no X-ray" in outcome.result.result.reasons[0]

    stamp_ns = client.stamp()
    image, info, _ = client.messages(frames[0], stamp_ns)
    client.send(image, info, None)
    client.wait(lambda: "the SDD is not known" in client.diagnosis().get("last error", ""), "the missing SDD in diagnostics")
    assert "carm_geometry" in client.result(stamp_ns).reasons[0], "it says where the SDD comes from"
    stamp_ns = client.stamp()
    client.send(*client.messages(frames[0], stamp_ns))
    client.wait(lambda: "no CT is loaded" in client.diagnosis().get("last error", ""), "the missing CT in diagnostics")
    assert client.diagnosis()["CT"] == "none"
    assert not client.of_stamp("result", stamp_ns)
    handle, _ = client.goal(Register.Goal())
    outcome = client.outcome(handle)
    assert outcome.status == GoalStatus.STATUS_ABORTED
    assert "no CT is loaded" in outcome.result.result.reasons[0]

    assert client.load_ct(phantom_path).success
    assert client.register(frames[0]).accepted
    code, output = end_process(process)
    assert code == 0 and "Traceback" not in output, output


def test_a_named_model_that_is_not_there(client: Any, start: Any, end_process: Any, phantom_path: Path) -> None:
    process = start("registration_node", "-p", "model:=/nowhere/model.safetensors")
    client.wait_for_node()
    answer = client.load_ct(phantom_path)
    assert not answer.success
    assert "/nowhere/model.safetensors" in answer.message and "\n" not in answer.message
    client.wait(lambda: client.diagnosis().get("last error") == answer.message, "the error in diagnostics")
    code, output = end_process(process)
    assert code == 0 and "Traceback" not in output, output


@pytest.fixture(scope="module")
def node(client: Any, start: Any, phantom_path: Path) -> Any:
    """A node with the phantom loaded, active."""
    process = start("registration_node")
    client.wait_for_node()
    answer = client.load_ct(phantom_path)
    assert answer.success, answer.message
    return process


@pytest.fixture
def good(node: Any, client: Any, frames: list) -> RegistrationResult:
    """An accepted result, before anything goes wrong."""
    client.reset()
    result = client.register(frames[0])
    assert result.accepted, result.reasons
    client.wait(lambda: client.diagnosis().get("last result") == "accepted", "the result in diagnostics")
    return result


def check_nothing_lost(client: Any, node: Any, good: RegistrationResult, frames: list) -> None:
    """The CT and the last good pose are there, TF was not sent again, and the next X-ray is registered."""
    assert node.poll() is None
    assert client.diagnosis()["CT SHA-256"] == good.ct_sha256
    assert len(client.transforms(conversions.stamp_ns(good.header.stamp))) == 1
    client.reset()
    again = client.register(frames[0])
    assert again.accepted, again.reasons
    assert np.isclose(again.pose.pose.position.z, good.pose.pose.position.z, atol=1e-4)


def test_a_dicom_folder_that_is_no_ct(
    bad_dicom: tuple[Path, str], client: Any, node: Any, good: RegistrationResult, frames: list
) -> None:
    folder, word = bad_dicom
    answer = client.load_ct(folder)
    assert not answer.success
    assert str(folder) in answer.message and word in answer.message and "\n" not in answer.message
    client.wait(lambda: client.diagnosis().get("last error") == answer.message, "the error in diagnostics")
    assert client.diagnosis()["level"] == "2"
    check_nothing_lost(client, node, good, frames)


def test_a_dicom_folder_is_the_same_ct(
    client: Any, node: Any, good: RegistrationResult, frames: list, write_dicom_ct: Callable, tmp_path: Path
) -> None:
    answer = client.load_ct(write_dicom_ct(tmp_path / "dicom"))
    assert answer.success, answer.message
    assert answer.sha256 == good.ct_sha256
    check_nothing_lost(client, node, good, frames)


def test_labels_that_do_not_fit(
    client: Any, node: Any, good: RegistrationResult, frames: list, phantom_path: Path, tmp_path: Path
) -> None:
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 4, 4), np.uint8)), str(tmp_path / "labels.nii.gz"))
    answer = client.load_ct(phantom_path, labels_path=str(tmp_path / "labels.nii.gz"))
    assert not answer.success and "labels.nii.gz" in answer.message
    check_nothing_lost(client, node, good, frames)


def test_the_last_result_waits_for_late_listeners_whatever_came_after(
    client: Any, node: Any, good: RegistrationResult, frames: list
) -> None:
    client.load_ct("/nowhere.nii.gz")
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    heard: list[RegistrationResult] = []
    late = client.node.create_subscription(RegistrationResult, "/registration/result", heard.append, latched)
    try:
        client.wait(lambda: any(one.header.stamp == good.header.stamp and one.accepted for one in list(heard)), "the last result")
    finally:
        client.node.destroy_subscription(late)


@pytest.mark.parametrize("kind", ["NaN", "no rotation", "infinite"])
def test_a_prior_that_is_no_pose_is_reported_and_not_used(
    kind: str, client: Any, node: Any, good: RegistrationResult, frames: list
) -> None:
    stamp_ns = client.stamp()
    message = PoseWithCovarianceStamped(header=client.header(stamp_ns))
    message.pose.pose = conversions.pose_from_transform(frames[0].T_prior)
    if kind == "no rotation":
        message.pose.pose.orientation.w = message.pose.pose.orientation.x = 0.0
        message.pose.pose.orientation.y = message.pose.pose.orientation.z = 0.0
    else:
        message.pose.pose.position.x = float("nan" if kind == "NaN" else "inf")
    client.prior.publish(message)
    client.wait(lambda: "quaternion" in client.diagnosis().get("last error", ""), "the prior's fault in diagnostics")
    # The X-ray of that stamp starts from the last pose instead.
    client.send(*client.messages(frames[0], stamp_ns))
    assert client.result(stamp_ns).accepted
    check_nothing_lost(client, node, good, frames)


def test_tf_that_is_no_transform_is_reported(client: Any, node: Any, good: RegistrationResult, frames: list) -> None:
    broken = conversions.transform_to_message(np.eye(4), client.header(client.stamp(), "world"), "arm")
    broken.transform.rotation.w = 0.0
    client.tf.publish(TFMessage(transforms=[broken]))
    client.wait(lambda: "world -> arm" in client.diagnosis().get("last error", ""), "the broken transform in diagnostics")
    check_nothing_lost(client, node, good, frames)


def spoilt() -> dict[str, tuple[Callable[[Any, Any, Any], None], str]]:
    """Ways to spoil (image, info, geometry) beside those of the X-ray's content, and a word of the reason."""

    def unframed(image: Any, info: Any, geometry: Any) -> None:
        image.header.frame_id = info.header.frame_id = ""

    def no_size(image: Any, info: Any, geometry: Any) -> None:
        image.width = image.height = image.step = 0
        image.data = b""

    def infinite(image: Any, info: Any, geometry: Any) -> None:
        values = np.frombuffer(bytes(image.data), "<u2").astype("<f4")
        values[5] = np.inf
        image.encoding, image.step, image.data = "32FC1", 4 * image.width, values.tobytes()

    def nan_in_k(image: Any, info: Any, geometry: Any) -> None:
        info.k = [float("nan"), *list(info.k)[1:]]

    def other_detector(image: Any, info: Any, geometry: Any) -> None:
        geometry.width = 64

    def no_sdd(image: Any, info: Any, geometry: Any) -> None:
        geometry.sdd_mm = 0.0

    def axis_elsewhere(image: Any, info: Any, geometry: Any) -> None:
        geometry.piercing_point_px = [10.0, 10.0]

    def cropped(image: Any, info: Any, geometry: Any) -> None:
        info.roi.x_offset = 16

    return {
        "no frame": (unframed, "frame_id"),
        "no size": (no_size, "0 x 0"),
        "infinite": (infinite, "infinite"),
        "NaN in K": (nan_in_k, "NaN"),
        "another detector": (other_detector, "64"),
        "no SDD": (no_sdd, "SDD"),
        "axis elsewhere": (axis_elsewhere, "piercing"),
        "cropped": (cropped, "cropped"),
    }


@pytest.mark.parametrize("kind", spoilt())
def test_an_xray_that_cannot_be_placed(kind: str, client: Any, node: Any, good: RegistrationResult, frames: list) -> None:
    change, word = spoilt()[kind]
    stamp_ns = client.stamp()
    messages = client.messages(frames[0], stamp_ns)
    change(*messages)
    client.send(*messages)
    result = client.result(stamp_ns)
    assert not result.accepted
    assert len(result.reasons) == 1 and word in result.reasons[0] and "\n" not in result.reasons[0]
    client.wait(lambda: client.diagnosis().get("last error") == result.reasons[0], "the reason in diagnostics")
    assert not client.transforms(stamp_ns)
    check_nothing_lost(client, node, good, frames)


def test_an_xray_that_is_too_old(client: Any, node: Any, good: RegistrationResult, frames: list) -> None:
    assert client.set_parameter("max_image_age_s", 2.0).successful
    try:
        client.reset()
        old_ns = client.stamp() - 10 * 10**9
        client.send_prior(frames[0].T_prior, old_ns)
        client.send(*client.messages(frames[0], old_ns))
        client.wait(lambda: "max_image_age_s" in client.diagnosis().get("last error", ""), "its age in diagnostics")
        assert not client.of_stamp("result", old_ns) and not client.transforms(old_ns)
    finally:
        client.set_parameter("max_image_age_s", 0.0)
    check_nothing_lost(client, node, good, frames)


def test_a_camera_info_without_an_image_is_nobodys_business(
    client: Any, node: Any, good: RegistrationResult, frames: list
) -> None:
    stamp_ns = client.stamp()
    _, info, geometry = client.messages(frames[0], stamp_ns)
    client.send(None, info, geometry)
    time.sleep(0.5)
    assert not client.of_stamp("result", stamp_ns)
    assert client.diagnosis()["last error"] == ""
    check_nothing_lost(client, node, good, frames)
