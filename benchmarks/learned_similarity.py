"""What each part of the learned similarity brings: variants trained alike, compared on the same held-out X-rays.

    python benchmarks/learned_similarity.py [--minutes 4 | --steps 600] [--seeds 3] [--images 100] [--out FILE.csv]

Every row is one variant and seed, judged by the share of starts of N(0, 20°), N(0, 30 mm) in-plane and N(0, 60 mm) depth (and of
1.5 times that) that end under 10 mm from the similarity alone: Levenberg-Marquardt with 10 evaluations, and gradient descent
(Adam on the twist) with 10 and with 100. Rows that are in the file are not computed again: the script can be
ended and started at will.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.example import load_example_ct
from sphere_reg_ros.imaging.readers import read_ct
from sphere_reg_ros.models.canonical import canonical_camera
from sphere_reg_ros.models.encoder import Encoder
from sphere_reg_ros.models.pose_regressor import PoseRegressor
from sphere_reg_ros.registration.coarse import drr_volume
from sphere_reg_ros.similarity.geometry import make_geometry
from sphere_reg_ros.similarity.learned import LearnedSimilarity
from sphere_reg_ros.training.batches import Patient, batch_seed, draw_batch
from sphere_reg_ros.training.coarse_figures import coarse_poses
from sphere_reg_ros.training.pairs import render_pairs
from sphere_reg_ros.training.settings import TrainSettings
from sphere_reg_ros.training.student import Student
from sphere_reg_ros.training.trainer import schedule
from sphere_reg_ros.training.validation import ARRIVED_MM, HeldOut, held_out, sample_starts

CAMERA = canonical_camera()
HARDER = 1.5


@dataclass(frozen=True)
class Row:
    """A variant's figures; shares under 10 mm."""

    variant: str
    seed: int
    steps: int
    seconds: float
    median_mm: float
    lm: float
    lm_harder: float
    descent_10: float
    descent_100: float


def variants(base: TrainSettings) -> dict[str, TrainSettings]:
    """What is compared; all but one choice as in the first."""
    return {
        "spherical, SO(4)": base,
        "Euclidean": replace(base, geometry="euclidean"),
        "hyperbolic": replace(base, geometry="hyperbolic"),
        "se(3) metric": replace(base, metric="se3"),
        "gradient matching": replace(base, gradient_weight=0.1),
        "R = 150 mm": replace(base, R_mm=150.0),
        "R = 400 mm": replace(base, R_mm=400.0),
    }


def trained(patient: Patient, settings: TrainSettings, minutes: float | None) -> tuple[Student, int, float]:
    """Train for the steps of the settings, or for as many as fit into the minutes."""
    if minutes is not None:
        _, steps, seconds = trained(patient, replace(settings, steps=max(10, settings.steps // 40)), None)
        settings = replace(settings, steps=max(10, int(60.0 * minutes * steps / seconds)))
    torch.manual_seed(settings.seed)
    student = Student(Encoder(), PoseRegressor(), make_geometry(settings.geometry), settings)
    optimiser = torch.optim.AdamW(student.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    started = time.monotonic()
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * schedule(step, settings)
        batch = draw_batch([patient], CAMERA, settings, batch_seed(settings.seed, step, 0), mixed=False)
        optimiser.zero_grad()
        student(batch).total.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), settings.clip_norm)
        optimiser.step()
    return student.eval(), settings.steps, time.monotonic() - started


def descended(similarity: LearnedSimilarity, patient: Patient, data: HeldOut, step_mm: float, evaluations: int) -> Tensor:
    """Adam on the twist from the starts, on the squared distance, 1 rad as 100 mm; the rate falls to a twentieth."""
    unit = torch.tensor([1.0, 1.0, 1.0, 0.01, 0.01, 0.01], dtype=torch.float64)
    T, first, second = data.T_start, torch.zeros(len(data.T_start), 6).double(), torch.zeros(len(data.T_start), 6).double()
    rate_mm = 200.0 / evaluations
    with torch.no_grad():
        xray = similarity.embed_xray(data.xray)
        for k in range(1, evaluations):
            drr = patient.renderer.render_with_jacobian(T, CAMERA, data.centre_ct, step_mm)
            residual, jacobian = similarity.residual(xray, drr.image, drr.jacobian)
            gradient = torch.einsum("bn,bnk->bk", residual, jacobian).double() * unit
            first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient.square()
            step = (first / (1.0 - 0.9**k)) / ((second / (1.0 - 0.99**k)).sqrt() + 1e-12)
            rate = rate_mm * 0.05 ** (k / evaluations)
            T = se3.apply_twist(T, -rate * step * unit, data.centre_ct)
    return T


def measured(name: str, patient: Patient, settings: TrainSettings, data: HeldOut, harder: HeldOut, minutes: float | None) -> Row:
    """Train one variant and judge it."""
    student, steps, seconds = trained(patient, settings, minutes)
    similarity = LearnedSimilarity(student.encoder, student.geometry)
    ends = coarse_poses(similarity, patient.renderer, CAMERA, settings.voxel_mm, data)
    far = coarse_poses(similarity, patient.renderer, CAMERA, settings.voxel_mm, harder)
    slow, slower = (descended(similarity, patient, data, settings.voxel_mm, n) for n in (10, 100))
    errors = [data.mtre_mm(ends), harder.mtre_mm(far), data.mtre_mm(slow), data.mtre_mm(slower)]
    shares = [float((e < ARRIVED_MM).double().mean()) for e in errors]
    return Row(name, settings.seed, steps, round(seconds, 1), round(float(errors[0].median()), 2), *shares)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", help="the example CT where left out")
    parser.add_argument("--minutes", type=float, help="train every variant as long; else as many steps")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=6000)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/learned_similarity.csv"))
    options = parser.parse_args()
    ct: CtVolume = load_example_ct() if options.ct is None else read_ct(options.ct)
    base = TrainSettings(pairs=options.pairs, steps=options.steps, regressor_batch=32, gradient_batch=8)
    jobs = [(name, seed) for seed in range(options.seeds) for name in variants(base) if (name, seed) not in done(options.out)]
    pairs = render_pairs(ct, CAMERA, base.pose_range, base.pairs, 0, base.voxel_mm)
    patient = Patient(pairs, ct.reference_point(), make_renderer(drr_volume(ct, base.voxel_mm)))
    data = held_out(ct, CAMERA, base.pose_range, options.images, 1)
    starts = sample_starts(ct, CAMERA, data.T_true, torch.Generator().manual_seed(2), HARDER)
    for name, seed in track(jobs, description="variants"):
        settings = replace(variants(base)[name], seed=seed)
        append(options.out, measured(name, patient, settings, data, replace(data, T_start=starts), options.minutes))


if __name__ == "__main__":
    main()
