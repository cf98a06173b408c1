"""The recorder as a process of its own; what it wrote is read by rosbags alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("rosbags", reason="rosbags is not installed")

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, Image
from sphere_reg_ros.msg import CArmGeometry, ConvergenceTrace, RegistrationResult
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from sphere_reg_ros.ros import conversions

COUNT = 5


@pytest.fixture
def recorder(domain_id: int, tmp_path: Path) -> Iterator[tuple[subprocess.Popen, Path]]:
    """A recorder, and its bag."""
    path = tmp_path / "bag"
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain_id), "ROS_LOG_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "sphere_reg_ros.ros.recorder", str(path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    yield process, path
    if process.poll() is None:
        process.kill()
        process.communicate()


def read_back(path: Path) -> list[tuple[str, Any, bytes]]:
    """``(topic, message, bytes)``; types that Jazzy does not know come out of the bag itself."""
    with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        return [(one.topic, reader.deserialize(raw, one.msgtype), bytes(raw)) for one, _, raw in reader.messages()]


def ended(process: subprocess.Popen, how: signal.Signals) -> None:
    process.send_signal(how)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def publishers(client: Any) -> dict[str, Any]:
    """One publisher a topic that the recorder must hear, beside the client's own."""
    from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data

    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    kinds = {
        "/registration/result": (RegistrationResult, latched),
        "/registration/convergence": (ConvergenceTrace, 10),
        "/carm/image_raw": (Image, 10),
        "/carm/camera_info": (CameraInfo, 10),
        "/carm/carm_geometry": (CArmGeometry, 10),
        "/carm/initial_pose": (PoseWithCovarianceStamped, 10),
    }
    made = {topic: client.node.create_publisher(kind, topic, qos) for topic, (kind, qos) in kinds.items()}
    # A stream of a sensor may be best effort only; asking for more would hear nothing.
    made["/sensor"] = client.node.create_publisher(Image, "/sensor", qos_profile_sensor_data)
    return {**made, "/tf": client.tf}


def sent(client: Any, frames: list) -> list[tuple[str, Any]]:
    """Messages of every topic, each with a stamp of its own."""
    messages: list[tuple[str, Any]] = []
    for index in range(COUNT):
        header = client.header(client.stamp())
        info, geometry = conversions.camera_to_messages(frames[0].camera, header)
        image = conversions.picture_to_image(frames[0].picture, header)
        truth = conversions.transform_to_message(frames[0].T_camera_ct, header, "ct_truth")
        result = RegistrationResult(header=header, accepted=bool(index % 2), reasons=["why"] * index, iterations=index)
        trace = ConvergenceTrace(header=header, stage=["64 px"] * index, cost=[0.5 * one for one in range(index)])
        messages += [
            ("/carm/image_raw", image), ("/carm/camera_info", info), ("/carm/carm_geometry", geometry),
            ("/carm/initial_pose", PoseWithCovarianceStamped(header=header)), ("/tf", TFMessage(transforms=[truth])),
            ("/registration/result", result), ("/registration/convergence", trace), ("/sensor", image),
        ]  # fmt: skip
    return messages


def test_every_topic_is_recorded_as_it_was_sent(client: Any, recorder: Any, frames: list) -> None:
    process, path = recorder
    every = publishers(client)
    # A latched message of before is as good as new for a late comer.
    early = RegistrationResult(header=Header(frame_id="early"))
    every["/registration/result"].publish(early)
    # The client hears results and TF itself.
    wanted = {topic: 2 if topic in ("/tf", "/registration/result", "/registration/convergence") else 1 for topic in every}
    try:
        client.wait(lambda: all(one.get_subscription_count() >= wanted[topic] for topic, one in every.items()), "the recorder")
        messages = sent(client, frames)
        for topic, message in messages:
            every[topic].publish(message)
        for publisher in every.values():
            assert publisher.wait_for_all_acked()
        # What has arrived is still to be written.
        time.sleep(1.0)
        ended(process, signal.SIGINT)
    finally:
        for topic, publisher in every.items():
            if topic != "/tf":
                client.node.destroy_publisher(publisher)
    assert list(path.glob("*.mcap"))
    recorded = read_back(path)
    messages.insert(0, ("/registration/result", early))
    for topic in {topic for topic, _ in messages}:
        expected = [message for of, message in messages if of == topic]
        found = [deserialize_message(raw, type(expected[0])) for of, _, raw in recorded if of == topic]
        # A best-effort stream may lose some.
        assert found == expected or (topic == "/sensor" and found and all(one in expected for one in found)), topic
    decoded = {topic: message for topic, message, _ in recorded}
    assert list(decoded["/registration/result"].reasons) == ["why"] * (COUNT - 1)
    np.testing.assert_allclose(decoded["/registration/convergence"].cost, [0.5 * one for one in range(COUNT - 1)])
    assert decoded["/carm/carm_geometry"].sdd_mm == frames[0].camera.sdd_mm
    picture = np.frombuffer(decoded["/carm/image_raw"].data.tobytes(), "<u2").reshape(frames[0].picture.shape)
    np.testing.assert_array_equal(picture, frames[0].picture)


def test_it_ends_cleanly_when_it_is_terminated_and_nothing_was_said(client: Any, recorder: Any) -> None:
    process, path = recorder
    client.wait(path.exists, "the recorder")
    ended(process, signal.SIGTERM)
    assert (path / "metadata.yaml").exists()
