"""What one registration answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float64
from numpy.typing import NDArray

from sphere_reg_ros.geometry.camera import Camera

Matrix4 = Float64[NDArray[Any], "4 4"]
Matrix6 = Float64[NDArray[Any], "6 6"]


@dataclass(frozen=True)
class TraceStep:
    """One iteration of the optimiser.

    Attributes:
        stage: name of the pipeline stage, e.g. ``"fine 256 px"``.
        iteration: counted from 0 within the stage.
        cost: half the weighted sum of squared residuals, dimensionless.
        damping: the Levenberg-Marquardt parameter of the step.
        step_norm: length of the step in mm, rotations counted at 100 mm a radian.
        gradient_norm: length of the scaled gradient.
        T_camera_ct: pose after the step, mm.
    """

    stage: str
    iteration: int
    cost: float
    damping: float
    step_norm: float
    gradient_norm: float
    T_camera_ct: Matrix4


@dataclass(frozen=True)
class RegistrationResult:
    """The pose of the CT in the X-ray camera, and how far it can be trusted.

    Attributes:
        T_camera_ct: best estimate, mm; also given where the result is rejected.
        accepted: whether the pose may be acted on.
        reasons: why not; empty exactly where ``accepted``.
        covariance: of the twist ``[t, w]`` in mm and rad, in camera axes, about ``centre_ct``.
        probability: estimated probability that the mean error is below 2 mm.
        expected_error_mm: root mean square error of the bone surface that the covariance implies.
        scores: named figures of the quality gate.
        timings_ms: per stage, and ``"total"``.
        iterations: evaluations of the renderer on the way to the pose, all stages.
        trace: every iteration of the hypothesis that won.
        ct_sha256: content hash of the CT.
        model_id: the model that took part, ``"photometric"`` without a learned one.
        version: version of this package.
        centre_ct: reference point of the CT, LPS mm.
        camera: camera of the X-ray that the pose refers to.
    """

    T_camera_ct: Matrix4
    accepted: bool
    reasons: tuple[str, ...]
    covariance: Matrix6
    probability: float
    expected_error_mm: float
    scores: dict[str, float]
    timings_ms: dict[str, float]
    iterations: int
    trace: tuple[TraceStep, ...] = field(repr=False)
    ct_sha256: str
    model_id: str
    version: str
    centre_ct: Float64[NDArray[Any], "3"]
    camera: Camera
