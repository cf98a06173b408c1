"""``sphere_reg info``."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from sphere_reg_ros._version import __version__
from sphere_reg_ros.cli.app import DONE

PACKAGES = ("torch", "numpy", "numba", "opencv-python-headless", "SimpleITK", "pydicom", "rosbags", "diffdrr", "escnn")


def print_info(quiet: bool) -> int:
    """Print what a bug report needs."""
    rows = [("sphere_reg_ros", __version__), ("python", platform.python_version()), ("system", platform.platform())]
    for package in PACKAGES:
        try:
            rows.append((package, version(package)))
        except PackageNotFoundError:
            rows.append((package, "not installed"))
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    rows += [
        ("CUDA device", gpu),
        ("CPU threads", str(os.cpu_count())),
        ("renderers", ", ".join(["cpu", "torch", *(["diffdrr"] if find_spec("diffdrr") else [])])),
        ("ROS 2", _ros()),
    ]
    if not quiet:
        width = max(len(name) for name, _ in rows)
        print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
    return DONE


def _ros() -> str:
    if find_spec("rclpy") is None:
        return "not installed"
    messages = "messages built" if find_spec("sphere_reg_ros.msg") else "messages missing: run 'make setup' or colcon build"
    return f"{os.environ.get('ROS_DISTRO', 'jazzy (wheels)')}, {messages}"
