#!/usr/bin/env python3
"""Puts the table of a finished evaluation into docs/evaluation.md, so that no number is typed by hand.

python scripts/evaluation_page.py OUT --command "sphere_reg evaluate --suite quick --out OUT"
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import platform
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "evaluation.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def main() -> None:
    """Replace what stands between the marks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder that sphere_reg evaluate wrote")
    parser.add_argument("--command", required=True, help="the command that made it")
    args = parser.parse_args()
    with (args.out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    day = datetime.datetime.fromtimestamp((args.out / "results.csv").stat().st_mtime, datetime.timezone.utc).date()
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    device = ", ".join(sorted({row["device"] for row in rows}))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    facts = f"{day}, commit {commits}; {machine}; each worker {device}; {len(rows)} rows.\n\n    {args.command}\n\n"
    table = (args.out / "tables.md").read_text(encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{facts}{table}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
