"""Processes that talk over DDS in a domain of their own."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
DOMAINS = (*range(1, 30), *range(90, 102))
"""Beside those that the demo takes."""
CLAIM_PORT = 21000


@pytest.fixture(scope="module")
def domain_id() -> Iterator[int]:
    """A DDS domain that no other test module, of this run or of another on this machine, is in."""
    before = os.environ.get("ROS_DOMAIN_ID")
    with claimed_domain() as chosen:
        os.environ["ROS_DOMAIN_ID"] = str(chosen)
        yield chosen
    if before is None:
        del os.environ["ROS_DOMAIN_ID"]
    else:
        os.environ["ROS_DOMAIN_ID"] = before


@contextmanager
def claimed_domain() -> Iterator[int]:
    """A free domain; a port that is bound meanwhile says that it is taken."""
    for domain in DOMAINS:
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", CLAIM_PORT + domain))
        except OSError:
            claim.close()
            continue
        with claim:
            yield domain
        return
    raise AssertionError("every domain is in use")


Starter = Callable[..., subprocess.Popen]


@pytest.fixture(scope="module")
def start(domain_id: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Start one of the package's nodes as a process; all are ended with the module."""
    running: list[subprocess.Popen] = []
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain_id), "ROS_LOG_DIR": str(tmp_path_factory.mktemp("log"))}

    def begin(module: str, *ros_args: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"sphere_reg_ros.ros.{module}", "--ros-args", *ros_args]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        running.append(process)
        return process

    yield begin
    for process in running:
        end(process)


@pytest.fixture(scope="module")
def client(domain_id: int) -> Iterator[Any]:
    """Everybody else on the graph; see client.py."""
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    path = Path(__file__).with_name("client.py")
    spec = importlib.util.spec_from_file_location("ros_test_client", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    one = module.Client(domain_id)
    yield one
    one.close()


@pytest.fixture(scope="session")
def end_process() -> Callable[[subprocess.Popen], tuple[int, str]]:
    """See :func:`end`."""
    return end


def end(process: subprocess.Popen) -> tuple[int, str]:
    """Interrupt a process as a terminal does; its exit code and output."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    return process.returncode, output or ""
