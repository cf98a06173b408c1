"""Draws the figures of docs/method.md from models.

    python scripts/method_figures.py --model spherical=FILE [--model Euclidean=FILE ...] [--images 24] [--out docs/images]

Every model is one of the example CT. ``landscapes.png`` cuts through each similarity along the six axes of the twist;
``convergence.png`` follows Levenberg-Marquardt and gradient descent on the first model; ``method_figures.csv`` holds the points.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot
from numpy.typing import NDArray
from torch import Tensor

from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.imaging.example import load_example_ct
from sphere_reg_ros.models.canonical import canonical_camera, normalise
from sphere_reg_ros.models.checkpoint import LearnedModel, load
from sphere_reg_ros.optim.levenberg_marquardt import LevenbergMarquardtSettings, minimise
from sphere_reg_ros.registration.coarse import CoarseView, coarse_problem, drr_volume
from sphere_reg_ros.registration.settings import PoseGradient
from sphere_reg_ros.similarity.learned import LearnedSimilarity, similarity_of
from sphere_reg_ros.training.poses import NEAR_AP
from sphere_reg_ros.training.validation import HeldOut, held_out

CAMERA = canonical_camera()
AXES = ("x [mm]", "y [mm]", "depth [mm]", "about x [°]", "about y [°]", "about z [°]")
REACH = torch.tensor([60.0, 60.0, 120.0, *np.radians((40.0, 40.0, 40.0))], dtype=torch.float64)
"""Two standard deviations of the usual starts."""
CUTS = 41
LM_EVALUATIONS, DESCENT_EVALUATIONS = 20, 100

Distance = Callable[[Tensor, int], Tensor]


def learned_distance(model: LearnedModel, view: CoarseView, data: HeldOut) -> Distance:
    """Distance of a DRR to an X-ray by a model."""
    similarity = similarity_of(model)
    xray = similarity.embed_xray(data.xray)

    def distance(T: Tensor, image: int) -> Tensor:
        drr = view.renderer.render(T, CAMERA, view.step_mm)
        return similarity.distance(xray[image : image + 1].expand(len(T), -1), drr)

    return distance


def photometric_distance(view: CoarseView, data: HeldOut) -> Distance:
    """``1 - NCC`` of the whole images, the photometric similarity without its windows."""

    def distance(T: Tensor, image: int) -> Tensor:
        drr = view.renderer.render(T, CAMERA, view.step_mm)
        mask = (data.xray[image] != 0.0).to(drr.dtype).expand_as(drr)
        seen = normalise(data.xray[image : image + 1].expand_as(drr), mask)
        return 1.0 - (normalise(drr, mask) * seen).sum((1, 2, 3)) / mask.sum((1, 2, 3))

    return distance


def landscape(distance: Distance, data: HeldOut) -> NDArray[np.float64]:
    """Mean over the images along every axis, its least brought to 0 and its mean at the ends to 1; ``(6, CUTS)``."""
    curves = np.zeros((6, CUTS))
    for axis in range(6):
        twist = torch.zeros(CUTS, 6, dtype=torch.float64)
        twist[:, axis] = torch.linspace(-1.0, 1.0, CUTS, dtype=torch.float64) * REACH[axis]
        for image in range(len(data.xray)):
            T = se3.apply_twist(data.T_true[image].expand(CUTS, 4, 4), twist, data.centre_ct)
            curves[axis] += distance(T, image).numpy() / len(data.xray)
    least, ends = curves.min(1, keepdims=True), 0.5 * (curves[:, :1] + curves[:, -1:])
    return np.asarray((curves - least) / (ends - least))


def descent(similarity: LearnedSimilarity, view: CoarseView, data: HeldOut) -> list[float]:
    """Median mTRE after every evaluation of Adam on the squared distance; 1 rad counts as 100 mm."""
    unit = torch.tensor([1.0, 1.0, 1.0, 0.01, 0.01, 0.01], dtype=torch.float64)
    problem = coarse_problem(similarity, view, similarity.embed_xray(data.xray))
    T, twist = data.T_start, torch.zeros(len(data.T_start), 6, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([twist], lr=4.0)
    course = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, DESCENT_EVALUATIONS)
    medians = []
    for _ in range(DESCENT_EVALUATIONS):
        medians.append(float(data.mtre_mm(T).median()))
        with torch.no_grad():
            at = problem(T)
            twist.zero_()
            twist.grad = torch.einsum("bn,bnk->bk", at.residual, at.jacobian).double() * unit
        optimiser.step()
        course.step()
        T = se3.apply_twist(T, twist.detach() * unit, data.centre_ct)
    return medians


@torch.no_grad()
def levenberg_marquardt(similarity: LearnedSimilarity, view: CoarseView, data: HeldOut, source: PoseGradient) -> list[float]:
    """Median mTRE after every evaluation."""
    problem = coarse_problem(similarity, view, similarity.embed_xray(data.xray), source)
    solution = minimise(problem, data.T_start, data.centre_ct, LevenbergMarquardtSettings(max_iterations=LM_EVALUATIONS))
    return [float(data.mtre_mm(step.T).median()) for step in solution.trace]


def draw_landscapes(curves: dict[str, NDArray[np.float64]], path: Path) -> None:
    """Six panels, a line a similarity."""
    figure, panels = pyplot.subplots(2, 3, figsize=(10, 5.5), sharey=True)
    scale = REACH.numpy() * np.array([1.0, 1.0, 1.0, *[180.0 / np.pi] * 3])
    for axis, panel in enumerate(panels.flat):
        for name, curve in curves.items():
            panel.plot(np.linspace(-1.0, 1.0, CUTS) * scale[axis], curve[axis], label=name)
        panel.set(xlabel=f"off the true pose, {AXES[axis]}")
    panels[0, 0].legend()
    panels[0, 0].set(ylabel="dissimilarity")
    panels[1, 0].set(ylabel="dissimilarity")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def draw_convergence(courses: dict[str, list[float]], path: Path) -> None:
    """Median error against evaluations."""
    figure, panel = pyplot.subplots(figsize=(7, 4))
    for name, medians in courses.items():
        panel.plot(range(1, len(medians) + 1), medians, label=name)
    panel.set(xlabel="evaluations", ylabel="median mTRE [mm]", xscale="log", yscale="log")
    panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def write_points(curves: dict[str, NDArray[np.float64]], courses: dict[str, list[float]], path: Path) -> None:
    """The figures' numbers."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("figure", "series", "axis", "index", "value"))
        for name, curve in curves.items():
            for axis in range(6):
                writer.writerows(("landscapes", name, AXES[axis], k, f"{v:.5f}") for k, v in enumerate(curve[axis]))
        for name, medians in courses.items():
            writer.writerows(("convergence", name, "", k + 1, f"{v:.4f}") for k, v in enumerate(medians))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    ct = load_example_ct()
    models = {name: load(Path(file)) for name, file in (one.split("=", 1) for one in options.model)}
    data = held_out(ct, CAMERA, NEAR_AP, options.images, 3)
    first = next(iter(models.values()))
    voxel_mm = float(first.card.settings["voxel_mm"])
    view = CoarseView(make_renderer(drr_volume(ct, voxel_mm)), CAMERA, data.centre_ct, voxel_mm)
    with torch.no_grad():
        curves = {name: landscape(learned_distance(model, view, data), data) for name, model in models.items()}
        curves["photometric"] = landscape(photometric_distance(view, data), data)
    similarity = similarity_of(first)
    courses = {
        "Levenberg-Marquardt, gradient of the metric": levenberg_marquardt(similarity, view, data, "metric"),
        "Levenberg-Marquardt, gradient of the encoder": levenberg_marquardt(similarity, view, data, "encoder"),
        "gradient descent (Adam), gradient of the metric": descent(similarity, view, data),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    draw_landscapes(curves, options.out / "landscapes.png")
    draw_convergence(courses, options.out / "convergence.png")
    write_points(curves, courses, options.out / "method_figures.csv")
    for name, medians in courses.items():
        print(f"{name:<50} median mTRE after 5, 10 and all evaluations: {medians[4]:.1f}, {medians[9]:.1f}, {medians[-1]:.1f} mm")


if __name__ == "__main__":
    main()
