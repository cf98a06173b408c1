"""What a model of other patients is worth: its coarse stage beside the photometric one, from the same full-spread starts.

    python benchmarks/agnostic.py --model FILE --ct CT [--images 100] [--out FILE.csv]

The model must not have seen the CT. X-rays and starts are those of benchmarks/accuracy.py at full spread, N(0, 20°), N(0, 30 mm)
in-plane and N(0, 60 mm) depth. ``learned`` is Levenberg-Marquardt on the similarity from the start, 10 evaluations;
``photometric`` the 32 px level alone from the same start; ``photometric, 16 starts`` the 32 and 64 px levels as the pipeline runs
them, with hypotheses around it. Rows that are in the file are not computed again.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import numpy as np
import torch
from provenance import provenance
from rich.progress import track

from sphere_reg_ros.evaluation.metrics import bootstrap_interval, mtre_mm
from sphere_reg_ros.imaging.example import load_example_ct
from sphere_reg_ros.imaging.readers import read_ct
from sphere_reg_ros.imaging.simulated_series import SeriesSettings, SimulatedSeries
from sphere_reg_ros.imaging.xray import XrayImage, to_line_integral
from sphere_reg_ros.models.checkpoint import load
from sphere_reg_ros.registration.learned import LearnedStages
from sphere_reg_ros.registration.pipeline import RegistrationPipeline
from sphere_reg_ros.registration.settings import (
    COARSE,
    MEDIUM,
    GateSettings,
    HypothesisSettings,
    LearnedSettings,
    RegistrationSettings,
)
from sphere_reg_ros.training.poses import bone_points

ARRIVED_MM = 10.0
STAGES = ("start", "learned", "photometric", "photometric, 16 starts")


def done(path: Path) -> list[dict[str, str]]:
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
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def table(rows: list[dict[str, str]]) -> str:
    """Shares under 10 mm, and what the learned stage adds on the same X-rays, with bootstrap intervals."""
    errors = {stage: np.array([float(row[stage]) for row in rows]) for stage in STAGES}
    lines = [f"{'stage':<26}{'50 / 75 / 95 % [mm]':>26}{'under 10 mm [%]':>18}"]
    for stage, values in errors.items():
        middle = " / ".join(f"{value:.1f}" for value in np.percentile(values, (50, 75, 95)))
        lines.append(f"{stage:<26}{middle:>26}{100.0 * (values < ARRIVED_MM).mean():>18.1f}")
    for other in STAGES[2:]:
        gain = 100.0 * ((errors["learned"] < ARRIVED_MM).astype(float) - (errors[other] < ARRIVED_MM))
        low, high = bootstrap_interval(list(gain), lambda drawn: drawn.mean(-1))
        lines.append(f"learned more than {other}: {gain.mean():.1f} points ({low:.1f} to {high:.1f})")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--ct", help="the example CT where left out")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "agnostic.csv")
    options = parser.parse_args()
    ct = load_example_ct() if options.ct is None else read_ct(options.ct)
    model = load(options.model)
    if ct.sha256 in model.card.ct_sha256:
        raise SystemExit(f"{options.model} was trained on this CT: choose another")
    learned = LearnedStages(model, ct, LearnedSettings(), "auto", torch.device("cpu"))
    one = HypothesisSettings(count=1, keep=1)
    # Whatever the stage ends at counts: no second attempt.
    anything = GateSettings(0.0, 0.0, min_overlap_share=0.0, max_expected_error_mm=math.inf, max_last_step_mm=math.inf)
    alone = RegistrationSettings(levels=(COARSE,), hypotheses=one, gate=anything)
    single = RegistrationPipeline(ct, alone, "cpu")
    # The second 64 px level goes on with the best pose only, and says which of the three it is.
    usual = RegistrationSettings(levels=(COARSE, MEDIUM, MEDIUM), gate=anything)
    many = RegistrationPipeline(ct, usual, "cpu")
    spread = {"prior_rotation_deg": 20.0, "prior_in_plane_mm": 30.0, "prior_depth_mm": 60.0}
    series = SimulatedSeries(ct, SeriesSettings(seed=options.seed, **spread))
    points_mm = bone_points(ct)
    key: dict[str, object] = {"model": options.model.stem, "ct": ct.sha256[:12], "seed": options.seed}
    seen = {int(row["index"]) for row in done(options.out) if all(row[name] == str(value) for name, value in key.items())}
    for index in track([k for k in range(options.images) if k not in seen], description="X-rays"):
        frame = series.frame(index)
        xray = XrayImage(torch.from_numpy(frame.picture.astype("float32")))
        canonical = learned.see(*to_line_integral(xray), frame.camera)
        refined = learned.refine(canonical, frame.T_prior[None], lambda step: None)[0][0]
        ends = [frame.T_prior, refined]
        for pipeline in (single, many):
            ends.append(torch.from_numpy(pipeline.register(xray, frame.camera, frame.T_prior).T_camera_ct))
        errors = {stage: f"{mtre_mm(T, frame.T_camera_ct, points_mm):.3f}" for stage, T in zip(STAGES, ends, strict=True)}
        append(options.out, {**provenance(), **key, "index": index, **errors})
    print(table([row for row in done(options.out) if all(row[name] == str(value) for name, value in key.items())]))


if __name__ == "__main__":
    main()
