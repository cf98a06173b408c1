"""Time registration and tracking on a GPU, and hold its poses against the CPU's: one CT, the same X-rays, one run.

    python benchmarks/gpu_registration.py --make 50 --cases cases.npz [--ct example|PATH] [--seed 20261124]
    python benchmarks/gpu_registration.py --cases cases.npz [--model FILE] [--ways register track] [--without-cpu] [--commit HASH]
        [--out benchmarks/results/registration_gpu.csv]

`--make` simulates realistic X-rays near AP (512 pixels) with priors, and keeps them with the CT in one file; it needs no GPU. The
second call registers each: `register` from the prior, or without one where `--model` is given; `track` from 2 mm and a degree
beside the truth at the two finest levels, as from the last frame's pose. Times are those of the whole call, image in host memory
to pose in host memory, after two X-rays that do not count. `apart_mm` is the mean distance of bone between the GPU's and the
CPU's pose of the same X-ray, both begun alike. A stopped run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from gpu_tools import Rows, need_cuda, provenance

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.models.checkpoint import find_model
from sphere_reg_ros.registration.pipeline import RegistrationPipeline
from sphere_reg_ros.registration.quality import bone_points
from sphere_reg_ros.registration.result import RegistrationResult
from sphere_reg_ros.registration.settings import RegistrationSettings

KEY = ("commit", "device", "ct_sha256", "way", "start", "case")
AGREEMENT_MM = 0.01
WARM_UP = 2
BESIDE = (1.0, -1.0, 1.5, 0.01, -0.01, 0.01)
"""Twist from the truth to where tracking begins, mm and rad."""


def make(args: argparse.Namespace) -> None:
    """Simulate the X-rays and write them with the CT."""
    from sphere_reg_ros.imaging.example import load_example_ct
    from sphere_reg_ros.imaging.readers import read_ct
    from sphere_reg_ros.imaging.simulated_series import SeriesSettings, SimulatedSeries

    ct = load_example_ct() if args.ct == "example" else read_ct(args.ct)
    series = SimulatedSeries(ct, SeriesSettings(seed=args.seed, image_px=512))
    frames = []
    for index in range(args.make):
        frames.append(series.frame(index))
        print(f"simulated {index + 1} of {args.make}", flush=True)
    np.savez_compressed(
        args.cases,
        hu=ct.hu.numpy().astype(np.int16),
        T_ct_voxel=ct.T_ct_voxel.numpy(),
        pictures=np.stack([frame.picture for frame in frames]),
        truths=np.stack([frame.T_camera_ct.numpy() for frame in frames]),
        priors=np.stack([frame.T_prior.numpy() for frame in frames]),
        detector_mm=series.camera.pixel_pitch_mm[0] * series.camera.width,
        sdd_mm=series.camera.sdd_mm,
    )


def started(pipeline: RegistrationPipeline, data: dict[str, np.ndarray], way: str, case: int) -> RegistrationResult:
    """Register one X-ray in one way."""
    picture, truth = data["pictures"][case], torch.from_numpy(data["truths"][case])
    camera = Camera.centred(picture.shape[1], float(data["detector_mm"]), float(data["sdd_mm"]))
    xray = XrayImage(torch.from_numpy(picture.astype(np.float32)), source=f"case {case}")
    if way == "track":
        beside = se3.apply_twist(truth, torch.tensor(BESIDE, dtype=torch.float64), pipeline.centre_ct)
        return pipeline.register(xray, camera, beside)
    blind = pipeline.model_id != "photometric"
    return pipeline.register(xray, camera, None if blind else torch.from_numpy(data["priors"][case]))


def settings_for(way: str) -> RegistrationSettings:
    """The pipeline's own; tracking knows where the patient was, so one start and the finest levels do."""
    settings = RegistrationSettings()
    if way == "register":
        return settings
    return replace(settings, levels=settings.levels[-2:], hypotheses=replace(settings.hypotheses, count=1, keep=1))


def timed(pipeline: RegistrationPipeline, data: dict[str, np.ndarray], way: str, case: int) -> tuple[float, RegistrationResult]:
    """Milliseconds from image to pose; the pose lies on the host, so the device has finished."""
    begin = time.perf_counter()
    result = started(pipeline, data, way, case)
    return 1e3 * (time.perf_counter() - begin), result


def run(args: argparse.Namespace) -> None:
    """Every way, every case; the GPU first, then the CPU for agreement."""
    about, rows = provenance(args.commit), Rows(args.out, KEY)
    data = dict(np.load(args.cases))
    ct = CtVolume.from_array(torch.from_numpy(data["hu"]), torch.from_numpy(data["T_ct_voxel"]), str(args.cases))
    points = bone_points(ct)
    model = find_model(ct.sha256, args.model) if args.model is not None else None
    common = {"ct_sha256": ct.sha256, "start": "prior" if model is None else model.name}
    for way in args.ways:
        chosen = model if way == "register" else None
        on_gpu = RegistrationPipeline(ct, settings_for(way), "cuda", chosen)
        on_cpu = None if args.without_cpu else RegistrationPipeline(ct, settings_for(way), "cpu", chosen)
        on_gpu.prepare()
        for case in range(min(WARM_UP, len(data["pictures"]))):
            started(on_gpu, data, way, case)
        for case in range(len(data["pictures"])):
            key = {**common, "way": way, "case": str(case)}
            if rows.known(**about, **key):
                continue
            torch.cuda.reset_peak_memory_stats()
            gpu_ms, found = timed(on_gpu, data, way, case)
            memory = torch.cuda.max_memory_allocated() / 2**20
            cpu_ms, expected = (None, None) if on_cpu is None else timed(on_cpu, data, way, case)
            row = {
                **about,
                **key,
                "gpu_ms": f"{gpu_ms:.2f}",
                "cpu_ms": "" if cpu_ms is None else f"{cpu_ms:.1f}",
                "mtre_mm": f"{apart_mm(found.T_camera_ct, data['truths'][case], points):.4f}",
                "apart_mm": "" if expected is None else f"{apart_mm(found.T_camera_ct, expected.T_camera_ct, points):.5f}",
                "accepted": str(int(found.accepted)),
                "iterations": str(found.iterations),
                "peak_mib": f"{memory:.0f}",
                "stages_ms": " ".join(f"{name}={value:.1f}" for name, value in found.timings_ms.items()),
            }
            rows.add(row)
            print("  ".join(row[name] for name in ("way", "case", "gpu_ms", "cpu_ms", "mtre_mm", "apart_mm")), flush=True)
        table(rows.of(commit=about["commit"], device=about["device"], way=way, **common), way)


def apart_mm(T: np.ndarray, other: np.ndarray, points: torch.Tensor) -> float:
    """Mean distance of points under two poses."""
    first, second = (se3.transform_points(torch.from_numpy(np.asarray(one)), points) for one in (T, other))
    return float((first - second).norm(dim=1).mean())


def table(rows: list[dict[str, str]], way: str) -> None:
    """Medians and the worst, one line each."""
    if not rows:
        return
    for name in ("gpu_ms", "cpu_ms", "mtre_mm", "apart_mm"):
        values = sorted(float(row[name]) for row in rows if row[name])
        if values:
            high = values[min(len(values) - 1, round(0.95 * len(values)))]
            middle = statistics.median(values)
            print(f"{way:>9} {name:>9}  median {middle:9.4f}  95 % {high:9.4f}  worst {values[-1]:9.4f}  n {len(values)}")
    agreeing = sum(float(row["apart_mm"]) <= AGREEMENT_MM for row in rows if row["apart_mm"])
    print(f"{way:>9} GPU and CPU within {AGREEMENT_MM} mm: {agreeing} of {sum(bool(row['apart_mm']) for row in rows)}")


def main() -> None:
    """Make cases, or measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=Path, default=Path("cases.npz"))
    parser.add_argument("--make", type=int, default=0, help="simulate so many X-rays")
    parser.add_argument("--ct", default="example")
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--ways", nargs="+", choices=["register", "track"], default=["register", "track"])
    parser.add_argument("--without-cpu", action="store_true")
    parser.add_argument("--commit", default=None, help="where there is no git")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "registration_gpu.csv")
    args = parser.parse_args()
    if args.make:
        make(args)
        return
    need_cuda("gpu_registration")
    run(args)


if __name__ == "__main__":
    main()
