"""Time the fused CPU renderer beside diffdrr and nanodrr: one CT, one view, equal steps inside the volume, in one run.

    python benchmarks/renderer.py [--sizes 128 200 256] [--step-mm 1.0] [--repeats 3] [--out benchmarks/results/renderer_cpu.csv]

The peers are given as many samples as put the mean distance between samples inside the volume at the step. Peers that are
not installed are listed with the reason and skipped. The times of a shared machine scatter: the smallest of the repeats
counts, all contenders take turns within a repeat, and the processor time of all threads stands beside the wall time.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import torch

from sphere_reg_ros.drr.diffdrr_backend import DiffDrrRenderer
from sphere_reg_ros.drr.errors import BackendError
from sphere_reg_ros.drr.rays import camera_rays, voxel_from_camera
from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import ap_pose
from sphere_reg_ros.imaging.example import load_example_ct

OURS = "sphere_reg_ros cpu"
FAST_CALLS = 10
"""Calls of a fast contender within one turn; the smallest counts."""

Contender = tuple[str, str, Callable[[], Any]]


def samples_inside(volume: AttenuationVolume, pose: torch.Tensor, camera: Camera, step_mm: float) -> int:
    """Samples a ray, for a renderer that spreads them over each ray's own stretch inside the volume."""
    rays = camera_rays(camera, torch.device("cpu"), torch.float64)
    to_voxel = voxel_from_camera(pose[None], volume.T_ct_voxel)[0]
    slope = rays.direction @ to_voxel[:3, :3].T
    sizes = torch.tensor(volume.values.shape[:0:-1], dtype=torch.float64)
    ends = torch.stack([-1.0 - to_voxel[:3, 3], sizes - to_voxel[:3, 3]])[:, None, None] / slope
    first, last = ends.amin(0).amax(-1).clamp(min=0.0), ends.amax(0).amin(-1).minimum(rays.length_mm)
    inside = (last - first).clamp(min=0.0)
    return round(float(inside[inside > 0].mean()) / step_mm)


def ours(volume: AttenuationVolume, pose: torch.Tensor, camera: Camera, step_mm: float) -> list[Contender]:
    """Image, image with Jacobian, and image with autograd's gradient of the pose."""
    renderer, centre = make_renderer(volume, "cpu"), volume.centre_mm()

    def with_gradient() -> None:
        leaf = pose[None].clone().requires_grad_()
        renderer.render(leaf, camera, step_mm).sum().backward()

    return [
        (OURS, "image", lambda: renderer.render(pose[None], camera, step_mm)),
        (OURS, "image+jacobian", lambda: renderer.render_with_jacobian(pose[None], camera, centre, step_mm)),
        (OURS, "forward+backward", with_gradient),
    ]


def diffdrr(volume: AttenuationVolume, pose: torch.Tensor, camera: Camera, step_mm: float) -> list[Contender]:
    """diffdrr's two renderers with the gradient of the pose."""
    contenders: list[Contender] = []
    for method in ("trilinear", "siddon"):
        renderer = DiffDrrRenderer(volume, method)

        def forward(renderer: DiffDrrRenderer = renderer) -> None:
            renderer.render(pose[None], camera, step_mm)

        def both(renderer: DiffDrrRenderer = renderer) -> None:
            leaf = pose[None].clone().requires_grad_()
            renderer.render(leaf, camera, step_mm).sum().backward()

        contenders += [(f"diffdrr {method}", "image", forward), (f"diffdrr {method}", "forward+backward", both)]
    return contenders


def nanodrr(volume: AttenuationVolume, pose: torch.Tensor, camera: Camera, step_mm: float) -> list[Contender]:
    """nanodrr's torch renderer (its fused ones need a GPU) with the gradient of the pose."""
    from nanodrr.data import Subject
    from nanodrr.drr import DRR

    values = volume.values[None].float()
    to_world = volume.T_ct_voxel.float()
    subject = Subject(
        values,
        torch.zeros_like(values),
        to_world,
        torch.linalg.inv(volume.T_ct_voxel).float(),
        Subject._make_voxel_to_grid(values.shape),
        volume.centre_mm().float(),
        max_label=0,
        convert_to_mu=False,
    )
    half_pixel = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64)
    k_inv = torch.linalg.inv(half_pixel @ camera.intrinsic)[None].float()
    module = DRR(k_inv, torch.tensor([camera.sdd_mm]), camera.height, camera.width)
    samples = samples_inside(volume, pose, camera, step_mm)
    rt_inv = se3.inverse(pose)[None].float()

    def both() -> None:
        module(subject, rt_inv.clone().requires_grad_(), n_samples=samples, backend="torch").sum().backward()

    reference = make_renderer(volume, "cpu").render(pose[None], camera, step_mm)
    difference = (module(subject, rt_inv, n_samples=samples, backend="torch") - reference).abs().max() / reference.max()
    print(f"nanodrr: {samples} samples a ray; its image differs from ours by {float(difference):.1e} of the maximum")
    return [
        ("nanodrr torch", "image", lambda: module(subject, rt_inv, n_samples=samples, backend="torch")),
        ("nanodrr torch", "forward+backward", both),
    ]


def timed(call: Callable[[], Any], calls: int) -> tuple[float, float]:
    """Smallest wall time and smallest processor time (of all threads), milliseconds."""
    wall, processor = [], []
    for _ in range(calls):
        start, start_processor = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    return 1000.0 * min(wall), 1000.0 * min(processor)


def measure(contenders: list[Contender], repeats: int) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Wall and processor milliseconds of every contender, one pair a repeat, taken in turns."""
    times: dict[tuple[str, str], list[tuple[float, float]]] = {(name, what): [] for name, what, _ in contenders}
    for name, _, call in contenders:
        if name == OURS:
            call()
    for _ in range(repeats):
        for name, what, call in contenders:
            times[name, what].append(timed(call, FAST_CALLS if name == OURS else 1))
    return times


def contenders_at(volume: AttenuationVolume, pose: torch.Tensor, camera: Camera, step_mm: float) -> list[Contender]:
    """Everyone who is installed."""
    found = ours(volume, pose, camera, step_mm)
    for make in (diffdrr, nanodrr):
        try:
            found += make(volume, pose, camera, step_mm)
        except (ImportError, BackendError) as error:
            print(f"skipped {make.__name__}: {error}")
    return found


def context() -> dict[str, str]:
    """What a figure is worth without: machine, versions, date, commit."""
    versions = {}
    for name in ("torch", "numba", "diffdrr", "nanodrr"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        "commit": commit,
        "device": cpu,
        "threads": str(numba.get_num_threads()),
        **versions,
    }


def rows_at(size: int, volume: AttenuationVolume, pose: torch.Tensor, arguments: argparse.Namespace) -> list[dict[str, str]]:
    """Measured rows of one image size, with ratios to ours."""
    camera = Camera.centred(size)
    times = measure(contenders_at(volume, pose, camera, arguments.step_mm), arguments.repeats)
    wall = {key: [pair[0] for pair in values] for key, values in times.items()}
    processor = {key: min(pair[1] for pair in values) for key, values in times.items()}
    rows = []
    for (name, what), values in wall.items():
        counterpart = (OURS, "image" if what == "image" else "image+jacobian")
        rows.append(
            {
                "size": str(size),
                "renderer": name,
                "what": what,
                "step_mm": f"{arguments.step_mm:g}",
                "min_ms": f"{min(values):.1f}",
                "median_ms": f"{statistics.median(values):.1f}",
                "times_ours": f"{min(values) / min(wall[counterpart]):.1f}",
                "min_processor_ms": f"{processor[name, what]:.1f}",
                "times_ours_processor": f"{processor[name, what] / processor[counterpart]:.1f}",
            }
        )
        print("  ".join(f"{value:>18}" for value in rows[-1].values()), flush=True)
    return rows


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 200, 256])
    parser.add_argument("--step-mm", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "renderer_cpu.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(numba.get_num_threads())
    ct = load_example_ct()
    volume = AttenuationVolume.from_ct(ct)
    pose = ap_pose(ct.reference_point())
    about = context()
    rows = [about | row for size in arguments.sizes for row in rows_at(size, volume, pose, arguments)]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
