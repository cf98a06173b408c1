"""A breathing patient, X-ray by X-ray: followed from the last pose, beside the whole pipeline from the same pose, in one run.

    python benchmarks/tracking.py [--frames 24] [--breath-mm 12] [--rate-hz 4] [--size 256] [--out FILE.csv]

The example CT moves along the body by a sine of `--breath-mm` from end to end and four seconds, turns by a tenth of a degree a
millimetre, and jumps 40 mm once, in the middle. X-rays come from the simulator. Each contender goes on from its own last accepted
pose.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import numpy as np
import torch
from provenance import provenance
from torch import Tensor

from sphere_reg_ros.evaluation.metrics import mtre_mm
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import ap_pose
from sphere_reg_ros.imaging.example import example_landmarks, load_example_ct
from sphere_reg_ros.imaging.simulate import simulate_xray
from sphere_reg_ros.imaging.simulate_settings import XraySettings
from sphere_reg_ros.registration.pipeline import RegistrationPipeline

BREATH_S = 4.0
JUMP_MM = 40.0
DEGREE_A_MM = 0.1
SEED = 4
CONTENDERS = ("tracked", "whole")


def motion(frame: int, frames: int, breath_mm: float, rate_hz: float) -> Tensor:
    """The twist of a frame, in camera axes: y runs down the body."""
    along_mm = 0.5 * breath_mm * math.sin(2.0 * math.pi * frame / (rate_hz * BREATH_S))
    jump_mm = JUMP_MM if frame >= frames // 2 else 0.0
    turn_rad = math.radians(DEGREE_A_MM * along_mm)
    return torch.tensor([jump_mm, along_mm, 0.2 * along_mm, turn_rad, 0.0, 0.5 * turn_rad], dtype=torch.float64)


def main() -> None:
    """Run both, print the table and write a row an X-ray and contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--breath-mm", type=float, default=12.0)
    parser.add_argument("--rate-hz", type=float, default=4.0, help="X-rays a second of the patient's time")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tracking.csv")
    args = parser.parse_args()
    ct = load_example_ct()
    points, camera = example_landmarks(ct).points_mm, Camera.centred(args.size)
    pipeline = RegistrationPipeline(ct, device=args.device)
    pipeline.prepare()
    rest = ap_pose(ct.reference_point())
    last: dict[str, np.ndarray] = dict.fromkeys(CONTENDERS, rest.numpy())
    rows = []
    for frame in range(args.frames):
        truth = se3.apply_twist(rest, motion(frame, args.frames, args.breath_mm, args.rate_hz), ct.reference_point())
        seed = SEED * 1000 + frame
        xray = simulate_xray(ct, camera, truth, XraySettings.realistic(seed), seed)
        for contender in CONTENDERS:
            tracked = contender == "tracked"
            start = last[contender]
            result = pipeline.register(xray, camera, None if tracked else start, T_tracked=start if tracked else None)
            if result.accepted:
                last[contender] = result.T_camera_ct
            rows.append(
                {
                    **provenance(),
                    "pipeline_device": str(pipeline.device),
                    "frame": frame,
                    "contender": contender,
                    "motion_mm": f"{mtre_mm(torch.from_numpy(start), truth, points):.3f}",
                    "mtre_mm": f"{mtre_mm(torch.from_numpy(result.T_camera_ct), truth, points):.4f}",
                    "accepted": int(result.accepted),
                    "followed": int(result.scores.get("tracked", 0.0)),
                    "time_ms": f"{result.timings_ms['total']:.1f}",
                }
            )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print_table(rows)


def print_table(rows: list[dict[str, object]]) -> None:
    """Times and errors of both."""
    print(", ".join(str(rows[0][name]) for name in ("date", "device", "commit", "pipeline_device")))
    print(f"{'':10}{'time 50/95 % [ms]':>20}{'mTRE 50/95 % [mm]':>20}{'accepted':>10}{'followed':>10}")
    for contender in CONTENDERS:
        chosen = [row for row in rows if row["contender"] == contender]
        time_ms, error_mm = (np.array([float(str(row[name])) for row in chosen]) for name in ("time_ms", "mtre_mm"))
        figures = [f"{np.percentile(values, 50):.2f} / {np.percentile(values, 95):.2f}" for values in (time_ms, error_mm)]
        counts = [sum(int(str(row[name])) for row in chosen) for name in ("accepted", "followed")]
        print(f"{contender:10}{figures[0]:>20}{figures[1]:>20}{counts[0]:>7}/{len(chosen)}{counts[1]:>7}/{len(chosen)}")


if __name__ == "__main__":
    main()
