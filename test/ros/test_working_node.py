"""A node with one piece of work: a failure of the work is a failure of the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

PROGRAM = """
import sys
from sphere_reg_ros.errors import InputError
from sphere_reg_ros.ros.working_node import WorkingNode, run_to_the_end

class Failing(WorkingNode):
    def __init__(self):
        super().__init__("failing")

    def run(self):
        {work}

sys.exit(run_to_the_end("failing", Failing, None))
"""


def run(work: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(work=work)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_work_that_ends_is_success() -> None:
    done = run("pass")
    assert (done.returncode, done.stderr) == (0, "")


def test_work_that_raises_is_no_success() -> None:
    done = run("raise KeyError('what the programmer forgot')")
    assert done.returncode == 1
    assert "KeyError" in done.stderr and "what the programmer forgot" in done.stderr


def test_bad_input_is_one_line() -> None:
    done = run("raise InputError('the CT is gone')")
    assert done.returncode == 2
    assert done.stderr.strip() == "failing: the CT is gone"
