"""``sphere_reg demo``: C-arm, registration node and recorder as separate processes on a ROS 2 graph of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sphere_reg_ros.cli.app import DONE, FAILED
from sphere_reg_ros.cli.common import OptionError, make_folder, say
from sphere_reg_ros.errors import SphereRegError
from sphere_reg_ros.evaluation import metrics
from sphere_reg_ros.evaluation.report import summary_rows, write_report
from sphere_reg_ros.imaging.example import example_folder, example_landmarks, load_example_ct
from sphere_reg_ros.ros.bags import read_messages, transform_mm

AGREEMENT_MM = 1e-3
START_LIMIT_S = 120.0
IMAGE_LIMIT_S = 25.0
"""Longer than the C-arm waits for a result."""
NODES = "sphere_reg_ros.ros"
REMAPS = [f"{name}:=/carm/{name}" for name in ("image_raw", "camera_info", "carm_geometry", "initial_pose")]


class DemoError(SphereRegError):
    """The system did not do what it shows: no fault of the options."""


def run_demo(out: Path, images: int, seed: int, quiet: bool) -> int:
    """Run the whole system and check the recorded TF against the reported poses."""
    if find_spec("rclpy") is None or find_spec("sphere_reg_ros.msg") is None:
        raise OptionError(
            "the demo needs ROS 2 with this package's messages: run 'make setup', or source your ROS 2 and colcon build"
        )
    make_folder(out)
    shutil.rmtree(out / "bag", ignore_errors=True)
    run_processes(out, images, seed, quiet)
    return summarise_bag(out, quiet)


def run_processes(out: Path, images: int, seed: int, quiet: bool) -> None:
    """Start the three processes, wait for the C-arm's series to end, stop all.

    No pose is given: the shipped model starts every registration from the X-ray alone.
    """
    environment = {**os.environ, "ROS_DOMAIN_ID": str(30 + os.getpid() % 60), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    remaps = [part for remap in REMAPS for part in ("-r", remap)]
    ct = str(example_folder() / "cxr.nii.gz")
    commands = {
        "recorder": ["-m", f"{NODES}.recorder", str(out / "bag")],
        "registration": [
            "-m", f"{NODES}.registration_node", "--ros-args", *remaps, *_parameters(ct_path=ct, use_last_pose="false"),
        ],
        "carm": ["-m", f"{NODES}.carm_simulator", "--ros-args", *_parameters(images=images, seed=seed, publish_prior="false")],
    }
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            with (out / f"{name}.log").open("wb") as log:
                running[name] = subprocess.Popen([sys.executable, *command], env=environment, stdout=log, stderr=log)
        say(f"registering {images} X-rays over ROS 2 (logs in {out})", quiet)
        deadline = time.monotonic() + START_LIMIT_S + images * IMAGE_LIMIT_S
        while running["carm"].poll() is None:
            dead = [name for name, process in running.items() if name != "carm" and process.poll() is not None]
            if dead or time.monotonic() > deadline:
                late = dead[0] if dead else "carm"
                raise DemoError(f"the demo's {late} process ended early or hangs; see {out / late}.log")
            time.sleep(0.2)
        time.sleep(1.5)
    finally:
        for process in running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in running.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _parameters(**values: object) -> list[str]:
    return [part for name, value in values.items() for part in ("-p", f"{name}:={value}")]


def summarise_bag(out: Path, quiet: bool) -> int:
    """The table, from the recording alone: results against the truth, and TF against the results."""
    from sphere_reg_ros.ros.recorder import register_own_types

    register_own_types(Path(sys.prefix) / "share" / "sphere_reg_ros" / "msg")
    truths: dict[int, Any] = {}
    published: dict[int, Any] = {}
    results: dict[int, Any] = {}
    overlays: dict[int, np.ndarray] = {}
    for topic, message in read_messages(out / "bag", {"/tf", "/registration/result", "/registration/overlay"}):
        if topic == "/tf":
            for one in message.transforms:
                target = truths if one.child_frame_id == "ct_truth" else published
                target[_ns(one.header)] = transform_mm(one.transform.translation, one.transform.rotation)
        elif topic == "/registration/result":
            results[_ns(message.header)] = message
        else:
            overlays[_ns(message.header)] = np.asarray(message.data).reshape(message.height, message.width, 3)
    landmarks = example_landmarks(load_example_ct()).points_mm
    usable = [stamp for stamp in sorted(results) if stamp in truths]
    if not usable:
        raise DemoError(f"no result was recorded; see {out / 'registration.log'}")
    rows, errors, apart = [], [], 0.0
    for stamp in usable:
        result = results[stamp]
        pose = transform_mm(result.pose.pose.position, result.pose.pose.orientation)
        error = metrics.mtre_mm(pose, truths[stamp], landmarks)
        errors.append(error)
        if result.accepted:
            again = metrics.mtre_mm(published[stamp], truths[stamp], landmarks) if stamp in published else float("inf")
            apart = max(apart, abs(again - error))
        total = dict(zip(result.stage_names, result.stage_ms, strict=True)).get("total", float("nan"))
        row = {"stamp": f"{stamp / 1e9:.3f}", "accepted": str(result.accepted)}
        rows.append({**row, "mtre_mm": f"{error:.3f}", "time_ms": f"{total:.0f}"})
    decisions = [bool(results[stamp].accepted) for stamp in usable]
    facts = summary_rows(metrics.summarise(errors, decisions, [float(row["time_ms"]) for row in rows]))
    facts.append(("largest difference of mTRE from recorded TF [mm]", f"{apart:.6f}"))
    for index, stamp in enumerate(stamp for stamp in usable if stamp in overlays):
        cv2.imwrite(str(out / f"overlay_{index:02d}.png"), cv2.cvtColor(overlays[stamp], cv2.COLOR_RGB2BGR))
    pictures = [(f"{stamp / 1e9:.3f}", overlays[stamp]) for stamp in usable if stamp in overlays]
    write_report(out / "report.html", "sphere_reg demo", facts, rows, pictures, errors)
    for name, value in facts:
        say(f"{name:<50} {value}", quiet)
    return DONE if apart <= AGREEMENT_MM else FAILED


def _ns(header: Any) -> int:
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
