"""``sphere_reg simulate``."""

from __future__ import annotations

from pathlib import Path

from sphere_reg_ros.cli.app import DONE
from sphere_reg_ros.cli.common import OptionError, say, with_progress
from sphere_reg_ros.imaging.readers import read_ct
from sphere_reg_ros.imaging.simulated_series import SeriesSettings, SimulatedSeries
from sphere_reg_ros.ros.bags import XrayBagWriter

START_NS = 1_700_000_000_000_000_000
"""A fixed time, so that the same seed writes the same bag."""
PERIOD_NS = 1_000_000_000


def simulate_bag(ct_path: str, out: Path, poses: int, size_px: int, seed: int, quiet: bool) -> int:
    """Write realistic X-rays around AP, with a prior and the ground truth each."""
    if out.exists():
        raise OptionError(f"--out {out}: exists already; name a bag that does not")
    ct = read_ct(ct_path)
    series = SimulatedSeries(ct, SeriesSettings(image_px=size_px, seed=seed))
    out.parent.mkdir(parents=True, exist_ok=True)
    with XrayBagWriter(out) as bag:
        for index in with_progress(range(poses), "simulating", quiet):
            bag.write(series.frame(index), START_NS + index * PERIOD_NS)
    say(f"{poses} X-rays of {size_px} x {size_px} pixels written to {out}", quiet)
    return DONE
