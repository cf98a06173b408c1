"""What each part of the learned similarity brings: variants trained alike, compared on the same held-out X-rays.

    python benchmarks/learned_similarity.py [--minutes 4 | --steps 1000] [--seeds 3] [--images 100] [--out FILE.csv]

Every row is one variant and seed, judged by the share of starts of N(0, 20°), N(0, 30 mm) in-plane and N(0, 60 mm) depth (and of
1.5 times that) that end under 10 mm from the similarity alone: Levenberg-Marquardt in 10 evaluations with the pose gradient of
the bi-invariant metric and with the encoder's own, and gradient descent (Adam on the twist) in 10 and in 100 with the first.
Rows that are in the file are not computed again: the script can be ended and started at will.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from provenance import provenance
from rich.progress import track
from torch import Tensor

from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.example import load_example_ct
from sphere_reg_ros.imaging.readers import read_ct
from sphere_reg_ros.models.canonical import canonical_camera
from sphere_reg_ros.models.checkpoint import ModelCard, save
from sphere_reg_ros.models.encoder import Encoder
from sphere_reg_ros.models.pose_regressor import PoseRegressor
from sphere_reg_ros.registration.coarse import CoarseView, coarse_problem, drr_volume
from sphere_reg_ros.similarity.geometry import make_geometry
from sphere_reg_ros.similarity.learned import LearnedSimilarity
from sphere_reg_ros.training.batches import Patient, batch_seed, draw_batch
from sphere_reg_ros.training.coarse_figures import coarse_poses
from sphere_reg_ros.training.optimiser import Optimiser
from sphere_reg_ros.training.pairs import render_pairs
from sphere_reg_ros.training.settings import TrainSettings
from sphere_reg_ros.training.student import Student
from sphere_reg_ros.training.trainer import schedule
from sphere_reg_ros.training.validation import ARRIVED_MM, HeldOut, held_out, sample_starts

CAMERA = canonical_camera()
HARDER = 1.5


@dataclass(frozen=True)
class Row:
    """A variant's figures; shares of the starts that end under 10 mm."""

    variant: str
    seed: int
    steps: int
    seconds: float
    median_mm: float
    metric_lm: float
    metric_lm_harder: float
    encoder_lm: float
    descent_10: float
    descent_100: float
    date: str
    device: str
    commit: str


def variants(base: TrainSettings) -> dict[str, TrainSettings]:
    """What is compared; all but one choice as in the first."""
    return {
        "spherical, SO(4)": base,
        "Euclidean": replace(base, geometry="euclidean"),
        "hyperbolic": replace(base, geometry="hyperbolic"),
        "se(3)": replace(base, metric="se3"),
        "gradient matching": replace(base, gradient_weight=0.1),
        "distances only": replace(base, anchor_weight=0.0),
        "R = 150 mm": replace(base, R_mm=150.0),
        "R = 400 mm": replace(base, R_mm=400.0),
    }


def trained(patient: Patient, settings: TrainSettings, minutes: float | None) -> tuple[Student, int, float]:
    """Train for the steps of the settings, or for as many as fit into the minutes."""
    if minutes is not None:
        _, steps, seconds = trained(patient, replace(settings, steps=20), None)
        settings = replace(settings, steps=max(20, int(60.0 * minutes * steps / seconds)))
    torch.manual_seed(settings.seed)
    student = Student(Encoder(), PoseRegressor(), make_geometry(settings.geometry), settings)
    optimiser = Optimiser(student, settings)
    started = time.monotonic()
    for step in range(settings.steps):
        mixed = step < settings.mixed_share * settings.steps
        batch = draw_batch([patient], CAMERA, settings, batch_seed(settings.seed, step, 0), mixed)
        student.zero_grad()
        student(batch).total.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), settings.clip_norm)
        optimiser.step(schedule(step, settings))
    return student.eval(), settings.steps, time.monotonic() - started


@torch.no_grad()
def descended(similarity: LearnedSimilarity, view: CoarseView, data: HeldOut, evaluations: int) -> Tensor:
    """Adam on the twist from the starts, on the squared distance, 1 rad as 100 mm; the rate falls to a twentieth."""
    unit = torch.tensor([1.0, 1.0, 1.0, 0.01, 0.01, 0.01], dtype=torch.float64)
    T, first, second = data.T_start, torch.zeros(len(data.T_start), 6).double(), torch.zeros(len(data.T_start), 6).double()
    problem = coarse_problem(similarity, view, similarity.embed_xray(data.xray))
    for k in range(1, evaluations):
        at = problem(T)
        gradient = torch.einsum("bn,bnk->bk", at.residual, at.jacobian).double() * unit
        first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient.square()
        step = (first / (1.0 - 0.9**k)) / ((second / (1.0 - 0.99**k)).sqrt() + 1e-12)
        rate_mm = 200.0 / evaluations * 0.05 ** (k / evaluations)
        T = se3.apply_twist(T, -rate_mm * step * unit, data.centre_ct)
    return T


def keep(student: Student, ct: CtVolume, steps: int, seconds: float, path: Path) -> None:
    """Write a variant's weights, for scripts/method_figures.py."""
    settings = student.settings
    card = ModelCard(
        kind="patient_specific",
        ct_sha256=(ct.sha256,),
        geometry=settings.geometry,
        seed=settings.seed,
        steps=steps,
        training_minutes=round(seconds / 60.0, 1),
        versions={"torch": str(torch.__version__)},
        validation={},
        settings=settings.as_json(),
        limits="A variant of an ablation, trained for minutes.",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, student.encoder, student.regressor, card)


def measured(
    name: str,
    ct: CtVolume,
    patient: Patient,
    settings: TrainSettings,
    data: HeldOut,
    harder: HeldOut,
    options: argparse.Namespace,
) -> Row:
    """Train one variant and judge it."""
    student, steps, seconds = trained(patient, settings, options.minutes)
    if options.keep is not None:
        keep(student, ct, steps, seconds, options.keep / f"{name.replace(' ', '_')}_{settings.seed}.safetensors")
    similarity = student.similarity()
    view = CoarseView(patient.renderer, CAMERA, data.centre_ct, settings.voxel_mm)
    ends = coarse_poses(similarity, patient.renderer, CAMERA, settings.voxel_mm, data)
    far = coarse_poses(similarity, patient.renderer, CAMERA, settings.voxel_mm, harder)
    own = coarse_poses(similarity, patient.renderer, CAMERA, settings.voxel_mm, data, pose_gradient="encoder")
    slow, slower = (descended(similarity, view, data, n) for n in (10, 100))
    errors = [data.mtre_mm(ends), harder.mtre_mm(far), data.mtre_mm(own), data.mtre_mm(slow), data.mtre_mm(slower)]
    shares = [round(float((e < ARRIVED_MM).double().mean()), 4) for e in errors]
    return Row(name, settings.seed, steps, round(seconds, 1), round(float(errors[0].median()), 2), *shares, **provenance())


def done(path: Path) -> set[tuple[str, int]]:
    """Variants and seeds that the file has."""
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {(row["variant"], int(row["seed"])) for row in csv.DictReader(file)}


def append(path: Path, row: Row) -> None:
    """Add a row."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row.__dict__))
        if new:
            writer.writeheader()
        writer.writerow(row.__dict__)


def table(path: Path) -> str:
    """The shares in per cent, mean over the seeds with the least and the largest."""
    shown = [entry.name for entry in fields(Row) if entry.name.startswith(("metric", "encoder", "descent"))]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [f"{'variant':<20}{'seeds':>6}{'steps':>7}" + "".join(f"{name:>20}" for name in shown)]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        cells = [_spread([100.0 * float(row[name]) for row in own]) for name in shown]
        steps = statistics.mean(int(row["steps"]) for row in own)
        lines.append(f"{variant:<20}{len(own):>6}{steps:>7.0f}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", help="the example CT where left out")
    parser.add_argument("--minutes", type=float, help="train every variant as long; else as many steps")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=12000)
    parser.add_argument("--mixed-share", type=float, default=0.85, help="of the steps in bfloat16")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="folder for the variants' weights")
    parser.add_argument("--variants", nargs="*", help="only these")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/learned_similarity.csv"))
    options = parser.parse_args()
    ct: CtVolume = load_example_ct() if options.ct is None else read_ct(options.ct)
    sizes = {"pairs": options.pairs, "steps": options.steps, "mixed_share": options.mixed_share}
    base = TrainSettings(xray_batch=32, regressor_batch=32, **sizes)
    names = options.variants or list(variants(base))
    jobs = [(name, seed) for seed in range(options.seeds) for name in names if (name, seed) not in done(options.out)]
    pairs = render_pairs(ct, CAMERA, base.pose_range.widened(base.spread), base.pairs, 0, base.voxel_mm)
    patient = Patient(pairs, ct.reference_point(), make_renderer(drr_volume(ct, base.voxel_mm)))
    data = held_out(ct, CAMERA, base.pose_range, options.images, 1)
    starts = sample_starts(ct, CAMERA, data.T_true, torch.Generator().manual_seed(2), HARDER)
    for name, seed in track(jobs, description="variants"):
        settings = replace(variants(base)[name], seed=seed)
        append(options.out, measured(name, ct, patient, settings, data, replace(data, T_start=starts), options))
    print(table(options.out))


if __name__ == "__main__":
    main()
