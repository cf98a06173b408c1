"""A GPU that failed is told in the node's diagnostics."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from sphere_reg_ros.ros.diagnostics import Health, diagnostic_array
from sphere_reg_ros.ros.session import RegistrationSession


class Pipeline:
    """What the diagnostics ask of a pipeline."""

    def __init__(self, device_warning: str) -> None:
        self.device_warning = device_warning


@pytest.mark.parametrize("warning", ["", "the GPU failed (RuntimeError: CUDA error): computing on the CPU"])
def test_the_warning_is_the_message_unless_something_worse_is(warning: str) -> None:
    session = RegistrationSession("cpu", 0)
    session.ct = type("Ct", (), {"source": "phantom", "sha256": "0"})()  # type: ignore[assignment]
    session.pipeline = Pipeline(warning)  # type: ignore[assignment]
    health = Health()

    def status() -> DiagnosticStatus:
        return diagnostic_array("/registration", Time(), session, health, 0, 0, "cpu").status[0]

    assert status().level == (DiagnosticStatus.WARN if warning else DiagnosticStatus.OK)
    assert status().message == (warning or "ready")
    assert {one.key: one.value for one in status().values}["device warning"] == warning
    health.last_error = "no CT is loaded"
    assert (status().level, status().message) == (DiagnosticStatus.ERROR, "no CT is loaded")
