"""Every choice of the pipeline, with the reason for its default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

PoseGradient = Literal["metric", "encoder"]
"""Where the learned residual's pose derivative comes from: the bi-invariant metric, or the renderer and the encoder."""


@dataclass(frozen=True)
class LevelSettings:
    """One resolution of the pyramid.

    Attributes:
        longest_side_px: the X-ray is averaged down to this; a smaller X-ray is taken as it is.
        voxel_mm: the CT is averaged to about this spacing; 0 keeps the CT's own.
        step_mm: sampling step of the DRR along the ray.
        window_mm: side of the normalisation window on the detector. Large windows widen the basin, small ones
            sharpen the optimum and resist scatter.
        max_iterations: renderings allowed at this level.
        step_tolerance_mm: a shorter step ends the level.
        outside_mm: a ray that would cross more than this of the patient outside the CT is left out.
        beyond_the_ct: render the patient's continuation beyond the CT's ends; affordable at coarse voxels only.
    """

    longest_side_px: int
    voxel_mm: float
    step_mm: float
    window_mm: float
    max_iterations: int
    step_tolerance_mm: float
    outside_mm: float
    beyond_the_ct: bool

    @property
    def name(self) -> str:
        return f"{self.longest_side_px} px"


COARSE = LevelSettings(32, 8.0, 8.0, 280.0, 10, 0.5, 100.0, True)
MEDIUM = LevelSettings(64, 4.0, 4.0, 155.0, 20, 0.2, 50.0, True)
FINE = LevelSettings(128, 2.0, 2.5, 40.0, 16, 0.05, 5.0, False)
FINEST = LevelSettings(256, 0.0, 1.5, 15.0, 8, 0.01, 5.0, False)


@dataclass(frozen=True)
class HypothesisSettings:
    """Starts that are tried together at the coarsest level, spread around the given one.

    Attributes:
        count: number of starts, the given one included.
        rotation_deg: standard deviation of each component of the rotation vector.
        in_plane_mm: standard deviation along image columns and rows.
        depth_mm: standard deviation along the optical axis.
        keep: how many of them go on to the second level.
    """

    count: int = 16
    rotation_deg: float = 10.0
    in_plane_mm: float = 15.0
    depth_mm: float = 30.0
    keep: int = 3


@dataclass(frozen=True)
class SearchSettings:
    """Views that are tried where nothing is known about the pose.

    Attributes:
        orbital_deg: orbital angles, 0 is AP.
        cranial_deg: cranial angles.
        roll_deg: turns about the optical axis.
        source_to_centre_share: distances of the reference point from the source, as shares of the SDD.
        max_shift_share: how far off the axis the patient may be, as a share of the image's size.
        count: views that are registered, those whose DRR, shifted, correlates best with the X-ray.
        keep: how many of them go on to the second level.
    """

    orbital_deg: tuple[float, ...] = tuple(float(angle) for angle in range(-105, 106, 15))
    cranial_deg: tuple[float, ...] = (-30.0, -15.0, 0.0, 15.0, 30.0)
    roll_deg: tuple[float, ...] = (-30.0, -15.0, 0.0, 15.0, 30.0)
    source_to_centre_share: tuple[float, ...] = (0.68, 0.745, 0.81)
    max_shift_share: float = 0.375
    count: int = 48
    keep: int = 6


@dataclass(frozen=True)
class LearnedSettings:
    """The stages before the photometric ones, where a model is given.

    Attributes:
        regressor: start from the regressor's guess and poses drawn from the uncertainty that it states.
        coarse: where that fails, refine the starts on the learned similarity first.
        hypotheses: the regressor's pose and those drawn around it.
        keep: how many of them go on to the photometric levels.
        first_level: photometric level that follows; the coarsest one is not needed after the learned stages.
        max_iterations: renderings allowed.
        step_tolerance_mm: a shorter step ends a hypothesis.
        pose_gradient: from the bi-invariant metric, or by forward mode through renderer and encoder.
    """

    regressor: bool = True
    coarse: bool = True
    hypotheses: int = 16
    keep: int = 2
    first_level: int = 1
    max_iterations: int = 10
    step_tolerance_mm: float = 0.5
    pose_gradient: PoseGradient = "metric"


@dataclass(frozen=True)
class TrackingSettings:
    """From one X-ray of a series to the next, see :meth:`sphere_reg_ros.registration.pipeline.RegistrationPipeline.register`.

    Attributes:
        first_level: photometric level to begin with, counted in `RegistrationSettings.levels`.
        last_iterations: renderings at the last level; the level before has left little to do.
        max_motion_mm: mean motion of the bone since the last X-ray, beyond which the whole pipeline has to confirm the pose.
    """

    first_level: int = 1
    last_iterations: int = 4
    max_motion_mm: float = 15.0


@dataclass(frozen=True)
class GateSettings:
    """Limits of the quality gate; each one that is passed over gives a reason for rejection.

    Attributes:
        min_probability: calibrated probability that the mean error is below 2 mm, see
            :mod:`sphere_reg_ros.registration.probability`.
        sure_probability: below it, the next way to start is tried too, and the poses are compared.
        same_pose_mm: mean distance of bone up to which two poses are the same answer.
        min_overlap_share: share of the X-ray's valid pixels that the CT explains.
        max_expected_error_mm: root mean square error of the bone that the covariance implies.
        max_last_step_mm: a pose that still moves further an iteration has not converged.
        max_learned_distance_rad: angle on the sphere between X-ray and DRR, where a model knows the view; at true poses of the
            shipped model 0.11 at most in 99 % of the X-rays, at half the usual start errors 0.21 in the middle.
        covariance_scale: brings the cluster-robust covariance to measured errors, see ``benchmarks/calibrate_gate.py``.
    """

    min_probability: float = 0.85
    sure_probability: float = 0.997
    same_pose_mm: float = 2.0
    min_overlap_share: float = 0.15
    max_expected_error_mm: float = 1.0
    max_last_step_mm: float = 0.15
    max_learned_distance_rad: float = 0.3
    covariance_scale: float = 4.1


@dataclass(frozen=True)
class RegistrationSettings:
    """The pipeline.

    Attributes:
        levels: from coarse to fine; the first one runs all hypotheses in one batch.
        hypotheses: starts around a given initial pose.
        second_hypotheses: more of them, wider, where the gate is not sure of what the first ones led to.
        around_reported: starts around the angles that the C-arm reports; the patient's place is not in them.
        search: starts where nothing is known.
        second_search: more of them, where the gate is not sure of what the first ones led to.
        learned: the stages of a model, where one is given.
        tracking: the short way from the pose in the X-ray before.
        deviation_floor: contrast, as a line integral, below which a window counts as noise.
        tukey_cutoff: residuals beyond this many robust deviations lose all weight at the finest levels.
        gate: limits of the accept/reject decision.
        backend: renderer, see :func:`sphere_reg_ros.drr.renderer.make_renderer`.
        seed: of the hypotheses.
    """

    levels: tuple[LevelSettings, ...] = (COARSE, MEDIUM, FINE, FINEST)
    hypotheses: HypothesisSettings = field(default_factory=HypothesisSettings)
    second_hypotheses: HypothesisSettings = field(
        default_factory=lambda: HypothesisSettings(count=48, rotation_deg=12.0, in_plane_mm=20.0, depth_mm=40.0, keep=6)
    )
    around_reported: HypothesisSettings = field(
        default_factory=lambda: HypothesisSettings(count=48, rotation_deg=10.0, in_plane_mm=40.0, depth_mm=60.0, keep=4)
    )
    search: SearchSettings = field(default_factory=SearchSettings)
    second_search: SearchSettings = field(default_factory=lambda: SearchSettings(count=192, keep=16))
    learned: LearnedSettings = field(default_factory=LearnedSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    deviation_floor: float = 0.05
    tukey_cutoff: float = 4.685
    gate: GateSettings = field(default_factory=GateSettings)
    backend: str = "auto"
    seed: int = 0
