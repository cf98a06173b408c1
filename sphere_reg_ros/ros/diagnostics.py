"""The node's state in words, once a second."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from sphere_reg_ros.ros.session import RegistrationSession

RATE_WINDOW_S = 10.0
CAMERA_INFO_PATIENCE_S = 0.5


@dataclass
class Health:
    """Counters that callbacks and the worker fill; all methods are safe from any thread."""

    refused: int = 0
    last_error: str = ""
    last_latency_ms: float = 0.0
    _arrivals_s: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def image_arrived(self) -> None:
        """Count an X-ray."""
        now = time.monotonic()
        with self._lock:
            self._arrivals_s = [one for one in self._arrivals_s if now - one < RATE_WINDOW_S] + [now]

    def failed(self, reason: str) -> None:
        """Remember why an X-ray, a CT or a request was refused."""
        with self._lock:
            self.refused += 1
            self.last_error = reason

    def succeeded(self, latency_ms: float) -> None:
        """Remember how long the last registration took, from arrival to result."""
        with self._lock:
            self.last_latency_ms = latency_ms
            self.last_error = ""

    def cleared(self) -> None:
        """Forget the last error: a CT was loaded, or an operator reset the node."""
        with self._lock:
            self.last_error = ""

    def image_rate_hz(self) -> float:
        """X-rays a second over the last ten seconds."""
        now = time.monotonic()
        with self._lock:
            return sum(1 for one in self._arrivals_s if now - one < RATE_WINDOW_S) / RATE_WINDOW_S

    def image_age_s(self) -> float:
        """Since the last X-ray; infinite before the first."""
        with self._lock:
            return time.monotonic() - self._arrivals_s[-1] if self._arrivals_s else float("inf")


def diagnostic_array(
    name: str, stamp: Time, session: RegistrationSession, health: Health, dropped: int, waiting: int, device: str
) -> DiagnosticArray:
    """One status for the node: an error that was not followed by a success warns, a missing CT too."""
    ct, result = session.ct, session.last_result
    level, message = DiagnosticStatus.OK, "ready"
    if ct is None:
        level, message = DiagnosticStatus.WARN, "no CT loaded"
    elif waiting > 0 and health.image_age_s() > CAMERA_INFO_PATIENCE_S:
        level, message = DiagnosticStatus.WARN, f"{waiting} X-rays wait for a camera_info of the same stamp"
    elif result is not None and not result.accepted:
        level, message = DiagnosticStatus.WARN, "last registration rejected: " + "; ".join(result.reasons)
    device_warning = str(getattr(session.pipeline, "device_warning", ""))
    if device_warning and level == DiagnosticStatus.OK:
        level, message = DiagnosticStatus.WARN, device_warning
    if health.last_error:
        level, message = DiagnosticStatus.ERROR, health.last_error
    values = {
        "image rate [Hz]": f"{health.image_rate_hz():.2f}",
        "image age [s]": f"{health.image_age_s():.2f}",
        "images without camera_info": str(waiting),
        "images dropped": str(dropped),
        "refused": str(health.refused),
        "last error": health.last_error,
        "CT": ct.source if ct is not None else "none",
        "CT SHA-256": ct.sha256 if ct is not None else "",
        "last result": "none" if result is None else ("accepted" if result.accepted else "rejected"),
        "expected error [mm]": "" if result is None else f"{result.expected_error_mm:.3f}",
        "latency [ms]": f"{health.last_latency_ms:.0f}",
        "device": device,
        "device warning": device_warning,
    }
    status = DiagnosticStatus(level=level, name=name, message=message, hardware_id=device)
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticArray(header=Header(stamp=stamp), status=[status])
