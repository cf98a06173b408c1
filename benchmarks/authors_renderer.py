"""The time of Adam on multiscale NCC with the renderer its authors used, diffdrr, beside this package's, on the same X-rays.

    python benchmarks/authors_renderer.py [--images 3] [--iterations 10] [--out benchmarks/results/authors_renderer.csv]

The renderer alone is exchanged: the same pixels, voxels, step along the ray, similarity and 250 iterations; diffdrr's gradient of
the pose is its own autograd's. With diffdrr ``--iterations`` of them are timed and scaled to 250. The renderers of the other
baselines' authors (OpenCL and CUDA programs of their own) do not run on a CPU. scripts/evaluation_page.py makes the table of it.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from time import perf_counter
from typing import Literal

import torch
from provenance import provenance
from torch import Tensor

from sphere_reg_ros.drr.diffdrr_backend import DiffDrrRenderer
from sphere_reg_ros.evaluation.baselines.adam_ncc import SETTINGS, adam_ncc
from sphere_reg_ros.evaluation.baselines.correlation import multiscale_ncc
from sphere_reg_ros.evaluation.baselines.objective import MIDDLE, Objective
from sphere_reg_ros.evaluation.cases import EXAMPLE, Case, open_patient
from sphere_reg_ros.evaluation.problem import Problem
from sphere_reg_ros.geometry.se3 import apply_twist
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.registration.pyramid import VolumePyramid

SEED = 0
START = "0.5"
OURS = "sphere_reg_ros cpu"
HERE = Path(__file__).resolve().parent


def with_diffdrr(
    method: Literal["trilinear", "siddon"], ct: CtVolume, volumes: VolumePyramid, case: Case, iterations: int
) -> float:
    """Milliseconds of all iterations, scaled from a few.

    The poses are those around the start: what an iteration costs does not depend on where it is.
    """
    renderer = DiffDrrRenderer(volumes.renderer(MIDDLE.voxel_mm).volume, method)
    level = MIDDLE.level(Problem(case.xray, case.camera, case.T_start, SEED))
    centre_ct = ct.reference_point().double()

    def loss_and_gradient(twist: Tensor) -> None:
        leaf = twist.clone().requires_grad_(True)
        image = renderer.render(apply_twist(case.T_start[None], leaf, centre_ct), level.camera, MIDDLE.step_mm)[:, 0]
        multiscale_ncc(image, level.line_integral, level.mask).sum().backward()

    loss_and_gradient(torch.zeros(1, 6, dtype=torch.float64))
    began = perf_counter()
    for number in range(iterations):
        loss_and_gradient(torch.full((1, 6), 1e-4 * number, dtype=torch.float64))
    return 1e3 * (perf_counter() - began) / iterations * SETTINGS.iterations


def with_ours(ct: CtVolume, volumes: VolumePyramid, case: Case) -> float:
    """Milliseconds of the whole method, as the evaluation runs it."""
    method = adam_ncc(ct, volumes)
    problem = Problem(case.xray, case.camera, case.T_start, SEED)
    Objective(volumes, ct.reference_point().double(), problem, MIDDLE, multiscale_ncc).value_and_gradient(case.T_start)
    began = perf_counter()
    method(problem)
    return 1e3 * (perf_counter() - began)


def main() -> None:
    """Time all three on every image, print the table and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=10, help="iterations with diffdrr that are timed")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "authors_renderer.csv")
    args = parser.parse_args()
    patient = open_patient(EXAMPLE)
    volumes = VolumePyramid(patient.ct, "cpu", torch.device("cpu"))
    rows = []
    for index in range(args.images):
        case = patient.case(index, SEED, START)
        times = {OURS: with_ours(patient.ct, volumes, case)}
        for method in ("trilinear", "siddon"):
            times[f"diffdrr {method}"] = with_diffdrr(method, patient.ct, volumes, case, args.iterations)
        for renderer, time_ms in times.items():
            timed = SETTINGS.iterations if renderer == OURS else args.iterations
            rows.append(
                {"case": index, "renderer": renderer, "time_ms": f"{time_ms:.0f}", "timed_iterations": timed, **provenance()}
            )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        timed = f"{row['timed_iterations']} iterations timed"
        print(f"{row['case']:>4} {row['renderer']:<20} {float(str(row['time_ms'])) / 1e3:8.1f} s ({timed})")


if __name__ == "__main__":
    main()
