"""The registration node as a process of its own, over real DDS."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import torch
from action_msgs.msg import GoalStatus
from sphere_reg_ros.action import Register
from tf2_msgs.msg import TFMessage

from sphere_reg_ros.ros import conversions

TOLERANCE_MM = 1.0
"""Of a noise-free X-ray of 128 pixels of 2.3 mm; what is tested here is the way through ROS, not accuracy."""


@pytest.fixture(scope="module")
def node(client: Any, start: Any, phantom_path: Path) -> Any:
    """A node with the phantom loaded, active."""
    process = start("registration_node")
    client.wait_for_node()
    answer = client.load_ct(phantom_path)
    assert answer.success, answer.message
    client.wait(lambda: client.heard["markers"], "markers")
    return process


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest, node: Any, client: Any) -> None:
    client.reset()


def error_mm(T_mm: Any, frame: Any) -> float:
    """Largest displacement of the corners of a 200 mm cube at the phantom."""
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 200.0], dtype=torch.float64)] * 3)
    apart = (torch.as_tensor(np.asarray(T_mm)) - frame.T_camera_ct)[:3]
    return float((corners @ apart[:, :3].T + apart[:, 3]).norm(dim=1).max())


def test_load_ct_answers_what_it_loaded_and_keeps_it_from_bad_ones(client: Any, phantom_path: Path, tmp_path: Path) -> None:
    good = client.load_ct(phantom_path)
    assert good.success
    assert list(good.size) == [90, 64, 80]
    assert np.allclose(good.spacing_mm, 3.0)
    assert len(good.sha256) == 64

    truncated = tmp_path / "truncated.nii.gz"
    truncated.write_bytes(phantom_path.read_bytes()[:2000])
    no_series = tmp_path / "empty"
    no_series.mkdir()
    for bad in (tmp_path / "missing.nii.gz", truncated, no_series):
        answer = client.load_ct(bad)
        assert not answer.success
        assert str(bad) in answer.message
        assert "\n" not in answer.message
        client.wait(lambda answer=answer: client.diagnosis().get("last error") == answer.message, "the error in diagnostics")
        assert client.diagnosis()["CT SHA-256"] == good.sha256
    bad_landmarks = client.load_ct(phantom_path, landmarks_path=str(tmp_path / "none.json"))
    assert not bad_landmarks.success
    assert "none.json" in bad_landmarks.message


def test_an_xray_is_answered_on_every_topic_with_its_own_stamp(client: Any, frames: list) -> None:
    stamp_ns = client.stamp()
    client.send_prior(frames[0].T_prior, stamp_ns)
    client.send(*client.messages(frames[0], stamp_ns))
    result = client.result(stamp_ns)

    assert result.accepted, result.reasons
    assert result.header.frame_id == "carm_optical"
    assert error_mm(conversions.transform_from_pose(result.pose.pose), frames[0]) < TOLERANCE_MM
    assert result.iterations > 0 and "total" in result.stage_names
    transform = client.wait(lambda: client.transforms(stamp_ns), "TF")[0]
    assert transform.header.frame_id == "carm_optical"
    assert error_mm(conversions.transform_from_message(transform), frames[0]) < TOLERANCE_MM
    pose = client.wait(lambda: client.of_stamp("pose", stamp_ns), "pose")[0]
    covariance = np.array(pose.pose.covariance).reshape(6, 6)
    assert np.allclose(covariance, covariance.T) and np.linalg.eigvalsh(covariance)[0] > 0
    drr = client.wait(lambda: client.of_stamp("drr", stamp_ns), "drr")[0]
    overlay = client.wait(lambda: client.of_stamp("overlay", stamp_ns), "overlay")[0]
    assert (drr.encoding, drr.width, drr.height, len(drr.data)) == ("mono8", 128, 128, 128 * 128)
    assert (overlay.encoding, len(overlay.data)) == ("rgb8", 3 * 128 * 128)
    trace = client.wait(lambda: client.of_stamp("convergence", stamp_ns), "trace")[0]
    assert len(trace.stage) == len(trace.cost) == len(trace.damping) == len(trace.step_norm) == len(trace.poses) > 3
    # The trace's poses are in metres, as the pose is.
    assert np.isclose(trace.poses[-1].position.z, result.pose.pose.position.z, atol=0.01)
    names = {marker.ns: marker.header.frame_id for marker in client.wait(lambda: client.heard["markers"], "markers")[-1].markers}
    assert names["bone"] == "ct"
    client.wait(lambda: client.diagnosis().get("last result") == "accepted", "diagnostics")
    assert not client.heard["tf_static"]


def test_the_covariance_is_of_the_ct_origin(client: Any, frames: list) -> None:
    result = client.register(frames[0])
    covariance = torch.tensor(result.pose.covariance, dtype=torch.float64).reshape(6, 6)
    # The origin is a corner of the volume, c its middle: moved there, the position must become better known, not worse.
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3] = conversions.transform_from_pose(result.pose.pose)[:3, :3]
    lever_m = T[:3, :3] @ torch.tensor([0.135, 0.096, 0.12], dtype=torch.float64)
    move = torch.eye(6, dtype=torch.float64)
    move[:3, 3:] = torch.tensor(np.cross(np.eye(3), lever_m.numpy()).T)
    at_middle = move @ covariance @ move.T
    other_way = torch.linalg.inv(move) @ covariance @ torch.linalg.inv(move).T
    in_plane = torch.diagonal(at_middle)[:2].sum()
    assert in_plane < torch.diagonal(covariance)[:2].sum()
    assert in_plane < torch.diagonal(other_way)[:2].sum()


def bad_inputs() -> dict[str, tuple[Callable[[Any, Any, Any], None], str]]:
    """Ways to spoil (image, info, geometry), and a word that the reason must have."""

    def pixels(change: Callable[[np.ndarray], np.ndarray], encoding: str = "") -> Callable[[Any, Any, Any], None]:
        def spoil(image: Any, info: Any, geometry: Any) -> None:
            old = np.frombuffer(bytes(image.data), "<u2").reshape(image.height, image.width)
            new = change(old)
            image.encoding = encoding or image.encoding
            image.step = new.strides[0]
            image.data = new.tobytes()

        return spoil

    def attribute(which: int, name: str, value: Any) -> Callable[[Any, Any, Any], None]:
        return lambda *messages: setattr(messages[which], name, value)

    def k_without_focal_length(image: Any, info: Any, geometry: Any) -> None:
        info.k = [0.0] * 9

    def other_sdd(image: Any, info: Any, geometry: Any) -> None:
        geometry.sdd_mm = 1.1 * geometry.sdd_mm

    def another_size(image: Any, info: Any, geometry: Any) -> None:
        image.height, image.data = 64, image.data[: 64 * image.step]

    return {
        "encoding": (attribute(0, "encoding", "bgr8"), "encoding"),
        "short data": (lambda image, info, geometry: setattr(image, "data", image.data[:100]), "bytes"),
        "size": (another_size, "128 x 64"),
        "zeros": (pixels(np.zeros_like), "zero"),
        "constant": (pixels(lambda old: np.full_like(old, 500)), "every pixel"),
        "nan": (pixels(lambda old: np.where(np.arange(128)[None] < 5, np.nan, old).astype("<f4"), "32FC1"), "NaN"),
        "saturated": (pixels(lambda old: np.where(np.arange(128)[None] < 110, 65535, old).astype("<u2")), "saturated"),
        "K zeros": (k_without_focal_length, "focal"),
        "K contradicts": (other_sdd, ""),
        "distorted": (attribute(1, "d", [0.1, 0.0, 0.0, 0.0, 0.0]), "distortion"),
    }


@pytest.mark.parametrize("kind", bad_inputs())
def test_a_bad_xray_is_refused_in_one_line_and_nothing_is_lost(kind: str, client: Any, frames: list, node: Any) -> None:
    spoil, word = bad_inputs()[kind]
    before = client.diagnosis().get("CT SHA-256")
    stamp_ns = client.stamp()
    messages = client.messages(frames[0], stamp_ns)
    spoil(*messages)
    client.send_prior(frames[0].T_prior, stamp_ns)
    client.send(*messages)
    result = client.result(stamp_ns)

    assert not result.accepted
    assert len(result.reasons) == 1 and word in result.reasons[0] and "\n" not in result.reasons[0]
    assert np.isnan(result.pose.pose.position.x), "a pose that nobody may use"
    client.wait(lambda: client.diagnosis().get("last error") == result.reasons[0], "the reason in diagnostics")
    assert client.diagnosis()["level"] == "2"
    assert client.diagnosis()["CT SHA-256"] == before
    assert node.poll() is None
    assert not client.transforms(stamp_ns)
    assert client.register(frames[0]).accepted


def test_an_initial_pose_that_looks_past_the_ct_is_refused(client: Any, frames: list) -> None:
    stamp_ns = client.stamp()
    beside = frames[0].T_camera_ct.clone()
    beside[0, 3] += 2000.0
    client.send_prior(beside, stamp_ns)
    client.send(*client.messages(frames[0], stamp_ns))
    result = client.result(stamp_ns)
    assert not result.accepted
    assert "looks past the CT" in result.reasons[0]


def test_a_rejected_registration_gives_reasons_pictures_and_no_tf(client: Any, frames: list) -> None:
    stamp_ns = client.stamp()
    image, info, geometry = client.messages(frames[0], stamp_ns)
    image.data = np.random.default_rng(0).integers(20000, 40000, (128, 128)).astype("<u2").tobytes()
    client.send_prior(frames[0].T_prior, stamp_ns)
    client.send(image, info, geometry)
    result = client.result(stamp_ns)
    assert not result.accepted
    assert result.reasons
    client.wait(lambda: client.of_stamp("overlay", stamp_ns), "the overlay, which comes after TF would")
    assert not client.transforms(stamp_ns)
    assert not client.of_stamp("pose", stamp_ns)
    # No older transform may be sent again with a new stamp either.
    client.wait(lambda: client.diagnosis().get("last result") == "rejected", "diagnostics")
    sent = [one for message in client.heard["tf"] for one in message.transforms if one.child_frame_id == "ct"]
    assert all(conversions.stamp_ns(one.header.stamp) < stamp_ns for one in sent)


def test_an_image_waits_for_its_camera_info(client: Any, frames: list) -> None:
    stamp_ns = client.stamp()
    client.send_prior(frames[0].T_prior, stamp_ns)
    image, info, geometry = client.messages(frames[0], stamp_ns)
    client.send(image, None, geometry)
    client.wait(lambda: "wait for a camera_info" in client.diagnosis().get("message", ""), "the warning")
    assert not client.of_stamp("result", stamp_ns)
    client.send(None, info, None)
    assert client.result(stamp_ns).accepted


def test_a_stamp_from_the_past_is_refused_until_a_reset(client: Any, frames: list) -> None:
    assert client.register(frames[0]).accepted
    old_ns = client.stamp(-5.0)
    client.send(*client.messages(frames[0], old_ns))
    client.wait(lambda: "older than the last one" in client.diagnosis().get("last error", ""), "the refusal")
    assert not client.of_stamp("result", old_ns)
    assert not client.transforms(old_ns)
    client.reset()
    client.send_prior(frames[0].T_prior, old_ns)
    client.send(*client.messages(frames[0], old_ns))
    assert client.result(old_ns).accepted


def test_the_action_registers_the_last_xray_with_feedback(client: Any, frames: list) -> None:
    client.register(frames[1])
    request = Register.Goal(use_initial_pose=True, initial_pose=conversions.pose_from_transform(frames[1].T_prior))
    handle, feedback = client.goal(request)
    assert handle.accepted
    outcome = client.outcome(handle)
    assert outcome.status == GoalStatus.STATUS_SUCCEEDED
    assert outcome.result.result.accepted
    assert error_mm(conversions.transform_from_pose(outcome.result.result.pose.pose), frames[1]) < TOLERANCE_MM
    # How much feedback overtakes the result is up to DDS and to the client library.
    client.wait(lambda: feedback, "feedback")
    assert all(one.stage and np.isfinite(one.cost) for one in feedback)


def test_a_goal_that_looks_past_the_ct_or_is_out_of_time_is_aborted_with_the_reason(client: Any, frames: list) -> None:
    client.register(frames[0])
    beside = frames[0].T_camera_ct.clone()
    beside[0, 3] += 2000.0
    bad = Register.Goal(use_initial_pose=True, initial_pose=conversions.pose_from_transform(beside))
    late = Register.Goal(timeout_s=1e-6)
    for goal, words in ((bad, "looks past the CT"), (late, "limit")):
        handle, _ = client.goal(goal)
        outcome = client.outcome(handle)
        assert outcome.status == GoalStatus.STATUS_ABORTED
        assert words in outcome.result.result.reasons[0]


def test_a_goal_can_be_cancelled(client: Any, frames: list) -> None:
    client.register(frames[0])
    client.reset()
    stamp_ns = client.stamp()
    client.send(*client.messages(frames[0], stamp_ns))
    # The search that this X-ray starts, without a prior, keeps the worker busy while the goal is cancelled. A goal that
    # overtakes the X-ray finds none, or is replaced by it in the queue.
    time.sleep(0.3)
    handle, _ = client.goal(Register.Goal())
    future = handle.cancel_goal_async()
    client.wait(future.done, "the cancellation's answer")
    assert client.outcome(handle).status == GoalStatus.STATUS_CANCELED
    client.result(stamp_ns)
    assert client.register(frames[0]).accepted


def test_of_a_burst_the_latest_is_registered_and_the_dropped_are_counted(client: Any, frames: list) -> None:
    client.register(frames[0])
    client.wait(client.diagnosis, "diagnostics")
    before = int(client.diagnosis()["images dropped"])
    stamps = [client.stamp() for _ in range(8)]
    for stamp_ns in stamps:
        client.send(*client.messages(frames[0], stamp_ns))
    client.result(stamps[-1])
    answered = sum(1 for stamp_ns in stamps if client.of_stamp("result", stamp_ns))
    assert answered < len(stamps)
    # Best-effort topics may lose some of a burst before the node sees them; those it cannot count.
    client.wait(lambda: 0 < int(client.diagnosis()["images dropped"]) - before <= len(stamps) - answered, "the count")


def test_the_anchor_frame_is_the_parent_at_the_time_of_the_xray(client: Any, frames: list) -> None:
    T_base_carm = torch.eye(4, dtype=torch.float64)
    T_base_carm[0, 3] = 500.0
    stamp_ns = client.stamp()
    # The arm moves: half way between the two transforms it stood 50 mm further.
    moved = T_base_carm.clone()
    moved[0, 3] = 600.0
    try:
        assert client.set_parameter("anchor_frame", "robot_base").successful
        moving = [
            conversions.transform_to_message(T, client.header(stamp_ns + offset_ns, "robot_base"), "carm_base")
            for T, offset_ns in ((T_base_carm, -50_000_000), (moved, 50_000_000))
        ]
        optical = conversions.transform_to_message(torch.eye(4), client.header(0, "carm_base"), "carm_optical")
        client.tf_static.publish(TFMessage(transforms=[optical]))
        client.tf.publish(TFMessage(transforms=moving))
        time.sleep(0.3)
        client.send_prior(frames[0].T_prior, stamp_ns)
        client.send(*client.messages(frames[0], stamp_ns))
        transform = client.wait(lambda: client.transforms(stamp_ns), "TF")[0]
        assert transform.header.frame_id == "robot_base"
        shifted = conversions.transform_from_message(transform)
        shifted[0, 3] -= 550.0
        assert error_mm(shifted, frames[0]) < TOLERANCE_MM

        later_ns = client.stamp() + 10**9
        client.send_prior(frames[0].T_prior, later_ns)
        client.send(*client.messages(frames[0], later_ns))
        assert client.result(later_ns).accepted
        client.wait(lambda: "not known at the time" in client.diagnosis().get("last error", ""), "the missing TF in diagnostics")
        assert not client.transforms(later_ns)
    finally:
        client.set_parameter("anchor_frame", "")
        client.heard["tf_static"].clear()


def test_a_prior_in_another_frame_goes_through_tf(client: Any, frames: list) -> None:
    T_world_camera = torch.eye(4, dtype=torch.float64)
    T_world_camera[1, 3] = 800.0
    stamp_ns = client.stamp()
    client.tf.publish(TFMessage(transforms=[
        conversions.transform_to_message(T_world_camera, client.header(stamp_ns, "room"), "carm_optical")
    ]))  # fmt: skip
    client.send_prior(T_world_camera @ frames[0].T_prior, stamp_ns, "room")
    client.send(*client.messages(frames[0], stamp_ns))
    assert client.result(stamp_ns).accepted
    other_ns = client.stamp()
    client.reset()
    client.send_prior(frames[0].T_prior, other_ns, "nowhere")
    client.send(*client.messages(frames[0], other_ns))
    result = client.result(other_ns)
    assert not result.accepted
    assert "nowhere" in result.reasons[0]


def test_wrong_parameters_are_refused_with_the_reason(client: Any) -> None:
    for name, value, word in (("max_image_age_s", -1.0, ""), ("ct_frame", "other", "read-only"), ("timeout_s", "soon", "type")):
        answer = client.set_parameter(name, value)
        assert not answer.successful
        assert answer.reason and word in answer.reason
    assert client.set_parameter("max_image_age_s", 5.0).successful
    assert client.set_parameter("max_image_age_s", 0.0).successful


def test_tracking_follows_the_last_pose(client: Any, frames: list) -> None:
    assert client.set_parameter("tracking", True).successful
    try:
        whole = client.register(frames[0])
        assert whole.accepted and "tracked" not in whole.score_names
        stamp_ns = client.stamp()
        client.send(*client.messages(frames[0], stamp_ns))
        followed = client.result(stamp_ns)
        assert followed.accepted
        assert dict(zip(followed.score_names, followed.scores, strict=True))["tracked"] == 1.0
        assert "32 px" not in followed.stage_names
        client.wait(lambda: client.transforms(stamp_ns), "the tracked pose's TF, which may be overtaken by the result")
        assert error_mm(conversions.transform_from_pose(followed.pose.pose), frames[0]) < TOLERANCE_MM
    finally:
        client.set_parameter("tracking", False)
