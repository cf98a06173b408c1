"""Lifecycle, start without a CT, the simulated C-arm and a looping bag, over real DDS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.node import Node

from sphere_reg_ros.ros import conversions
from sphere_reg_ros.ros.bags import XrayBagWriter

CONFIGURE, CLEAN_UP, ACTIVATE, DEACTIVATE = 1, 2, 3, 4
CARM_REMAPPED = [
    word for topic in ("image_raw", "camera_info", "carm_geometry", "initial_pose") for word in ("-r", f"{topic}:=/carm/{topic}")
]


def test_lifecycle(client: Any, start: Any, phantom_path: Path, frames: list, end_process: Any) -> None:
    process = start("registration_node", "-p", "autostart:=false")
    assert client.state() == "unconfigured"
    assert client.transition(CONFIGURE)
    client.wait_for_node()
    assert client.state() == "inactive"
    assert client.load_ct(phantom_path).success

    stamp_ns = client.stamp()
    client.send_prior(frames[0].T_prior, stamp_ns)
    client.send(*client.messages(frames[0], stamp_ns))
    client.wait(lambda: float(client.diagnosis().get("image rate [Hz]", 0)) > 0, "the X-ray in diagnostics")
    assert client.diagnosis()["last result"] == "none"
    assert not client.heard["result"] and not client.heard["tf"], "an inactive node registers nothing"

    assert client.transition(ACTIVATE)
    assert client.state() == "active"
    assert client.register(frames[0]).accepted
    assert client.transition(DEACTIVATE)
    assert client.transition(CLEAN_UP)
    assert client.state() == "unconfigured"
    heard: Node = client.node
    client.wait(lambda: heard.count_publishers("/registration/result") == 0, "the end of the publishers")

    assert client.transition(CONFIGURE) and client.transition(ACTIVATE)
    client.wait_for_node()
    client.wait(lambda: heard.count_publishers("/registration/result") == 1, "one publisher again")
    before = len(client.heard["result"])
    stamp_ns = client.stamp()
    client.send(*client.messages(frames[0], stamp_ns))
    client.wait(lambda: "no CT is loaded" in client.diagnosis().get("last error", ""), "the missing CT in diagnostics")
    assert len(client.heard["result"]) == before
    assert client.load_ct(phantom_path).success
    assert client.register(frames[0]).accepted
    code, output = end_process(process)
    assert code == 0, output
    assert "Traceback" not in output


def test_a_wrong_start_parameter_ends_the_node_in_one_line(start: Any) -> None:
    for module, setting, word in (
        ("registration_node", "device:=gpu", "choose one of"),
        ("registration_node", "timeout_s:=-1.0", "timeout_s"),
        ("carm_simulator", "ct_path:=/nowhere.nii", "/nowhere.nii"),
        ("carm_simulator", "orbital_deg:=[30.0, -30.0]", "the least and the largest"),
        ("carm_simulator", "cranial_deg:=[-30.0, 95.0]", "cranial_deg"),
        ("bag_player", "bag:=/nowhere", "/nowhere"),
    ):
        process = start(module, "-p", setting)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 2, output
        assert word in output and "Traceback" not in output


def test_the_simulated_carm_is_registered_near_its_truth(client: Any, start: Any, phantom_path: Path, end_process: Any) -> None:
    registration = start("registration_node", "-p", "autostart:=false", "-p", f"ct_path:={phantom_path}", *CARM_REMAPPED)
    before = len(client.heard["result"])
    images = ("images:=2", "image_px:=128", "period_s:=0.2", "pose_depth_mm:=20.0", "orbital_deg:=[-20.0, 20.0]")
    carm = start("carm_simulator", *(word for setting in (f"ct_path:={phantom_path}", *images) for word in ("-p", setting)))
    # The C-arm begins when the registration is active: not before we listen to its truth, which is sent once.
    client.wait(lambda: client.publishes("carm", "/tf"), "the C-arm's TF")
    assert client.transition(CONFIGURE) and client.transition(ACTIVATE)
    output, _ = carm.communicate(timeout=120)
    assert carm.returncode == 0, output
    results = client.wait(lambda: len(client.heard["result"]) >= before + 2 and client.heard["result"][before:], "two results")
    for result in results:
        stamp_ns = conversions.stamp_ns(result.header.stamp)
        # TF and results are different topics, which may overtake each other.
        truth = client.wait(lambda stamp_ns=stamp_ns: client.transforms(stamp_ns, "ct_truth"), "the truth")
        assert len(truth) == 1 and truth[0].header.frame_id == "carm_optical"
        if result.accepted:
            apart = conversions.transform_from_message(truth[0]) - conversions.transform_from_pose(result.pose.pose)
            assert float(apart[:3, 3].norm()) < 5.0, "the CT's corner, of a noisy and collimated X-ray"
    end_process(registration)


def test_a_looping_bag_is_registered_every_time(
    client: Any, start: Any, phantom_path: Path, frames: list, tmp_path: Path, end_process: Any
) -> None:
    with XrayBagWriter(tmp_path / "bag") as writer:
        for index, frame in enumerate(frames[:2]):
            writer.write(frame, 1_700_000_000_000_000_000 + index * 500_000_000)
    registration = start("registration_node", "-p", "use_sim_time:=true", "-p", f"ct_path:={phantom_path}", *CARM_REMAPPED)
    last_ns = 1_700_000_000_500_000_000
    player = start("bag_player", "-p", f"bag:={tmp_path / 'bag'}", "-p", "loops:=2", "-r", "/tf:=/recorded/tf")
    output, _ = player.communicate(timeout=120)
    assert player.returncode == 0, output
    client.wait(lambda: len(client.of_stamp("result", last_ns)) == 2, "the last X-ray's result, twice")
    assert all(one.accepted for one in client.of_stamp("result", last_ns))
    assert not client.transforms(last_ns, "ct_truth"), "the bag's own TF must not mix with what is estimated"
    _, output = end_process(registration)
    assert "the clock jumped" in output
