"""Every choice of a training, with the reason for its default."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from sphere_reg_ros.similarity.anchors import LENGTH_SCALE_MM, PoseMetric
from sphere_reg_ros.training.augmentation import AugmentationSettings
from sphere_reg_ros.training.errors import TrainingSettingsError
from sphere_reg_ros.training.poses import NEAR_AP, PoseRange


@dataclass(frozen=True)
class FineTuneSettings:
    """An end-to-end fine-tuning of the encoder, after the training.

    Attributes:
        steps: of the optimiser; 0 leaves it out.
        batch: X-rays a step.
        evaluations: of the unrolled solver, the first included.
        learning_rate: falls to zero by half a cosine.
        clip_norm: longest gradient; unrolled solvers have long ones at times.
        equivariant: learn an equivariant residual on the CT's attenuation along with the encoder.
        volume_learning_rate: of that residual, which starts small.
    """

    steps: int = 0
    batch: int = 8
    evaluations: int = 5
    learning_rate: float = 1e-4
    clip_norm: float = 0.5
    equivariant: bool = False
    volume_learning_rate: float = 3e-3


@dataclass(frozen=True)
class TrainSettings:
    """A training.

    Attributes:
        pose_range: which X-rays the model is for.
        variants: deformed patients made out of every CT and trained on instead of it, for an agnostic model; 0 trains on the CTs.
        pairs: rendered X-ray and DRR pairs, shared by the CTs.
        steps: of the optimiser.
        spread: factor on the range's normal spread: what the range calls rare must not be what the networks saw least.
        batch: DRRs a step and a process; each is paired with all other DRRs and all encoded X-rays in the value loss.
        xray_batch: X-rays that are encoded, the DRRs' own among them: they are the harder half.
        regressor_batch: X-rays that the regressor sees, those included; it is cheaper than the encoder and needs more of them.
        learning_rate: of AdamW, the largest; linear warm-up over ``warmup_steps``, then half a cosine to zero.
        matrix_learning_rate: of Muon, which moves the networks' matrices; the same course.
        weight_decay: of both.
        clip_norm: longest gradient.
        average_decay: of the running average of the weights, which is what is saved.
        mixed_share: of the steps, from the first, in which the networks compute in bfloat16; twice as fast on processors that
            have it. The last ones need all digits: a bfloat16 rounds a depth to half a millimetre.
        voxel_mm: of the volume that DRRs are rendered from.
        geometry: of the embeddings: ``spherical``, ``euclidean`` or ``hyperbolic``.
        metric: of the poses: ``so4`` or ``se3``.
        R_mm: length scale of the metric.
        anchor_weight: of the distance from every embedding to the place where SO(4) itself lies on the sphere.
        gradient_weight: of the gradient matching; 0 leaves it out.
        gradient_batch: pairs a step that it is evaluated on.
        augmentation: of the X-rays.
        seed: of poses, weights and everything drawn.
        validation_images: simulated X-rays held out.
        validate_every: steps between validations.
        patience: validations without progress that end the training.
        checkpoint_seconds: between two saved states.
        fine_tune: what comes after.

    Raises:
        TrainingSettingsError: a setting outside its range.
    """

    pose_range: PoseRange = NEAR_AP
    variants: int = 0
    pairs: int = 24_000
    steps: int = 8000
    spread: float = 1.25
    batch: int = 32
    xray_batch: int = 64
    regressor_batch: int = 96
    learning_rate: float = 1.5e-3
    matrix_learning_rate: float = 0.02
    warmup_steps: int = 100
    weight_decay: float = 1e-2
    clip_norm: float = 2.0
    average_decay: float = 0.995
    mixed_share: float = 0.0
    voxel_mm: float = 4.0
    geometry: str = "spherical"
    metric: PoseMetric = "so4"
    R_mm: float = LENGTH_SCALE_MM
    anchor_weight: float = 1.0
    gradient_weight: float = 0.0
    gradient_batch: int = 8
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    seed: int = 0
    validation_images: int = 24
    validate_every: int = 1000
    patience: int = 8
    checkpoint_seconds: float = 60.0
    fine_tune: FineTuneSettings = field(default_factory=FineTuneSettings)

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        least = {"pairs": 2, "steps": 1, "batch": 2, "validation_images": 1, "validate_every": 1, "patience": 1}
        least |= {"seed": 0, "variants": 0}
        for name, limit in least.items():
            if getattr(self, name) < limit:
                raise TrainingSettingsError(f"{name} is {getattr(self, name)}, at least {limit} is needed")
        if not self.batch <= self.xray_batch <= self.regressor_batch:
            raise TrainingSettingsError(
                f"batch {self.batch}, xray_batch {self.xray_batch} and regressor_batch {self.regressor_batch} must not fall"
            )
        if self.pairs < self.batch:
            raise TrainingSettingsError(f"{self.pairs} pairs are fewer than a batch of {self.batch}: lower the batch")
        if not 0.0 <= self.mixed_share <= 1.0:
            raise TrainingSettingsError(f"mixed_share is {self.mixed_share}, it must lie in 0..1")
        for name in ("learning_rate", "matrix_learning_rate", "spread", "voxel_mm", "R_mm", "clip_norm"):
            if not getattr(self, name) > 0.0:
                raise TrainingSettingsError(f"{name} is {getattr(self, name)}, it must be positive")

    def as_json(self) -> dict[str, Any]:
        """For the model card, and to recognise a training that is resumed."""
        return asdict(self)
