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
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "evaluation.md"
AUTHORS = ROOT / "benchmarks" / "results" / "authors_renderer.csv"


def main() -> None:
    """Replace what stands between the marks: the suite's table, and that of benchmarks/authors_renderer.py."""
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
    page = between(PAGE.read_text(encoding="utf-8"), "measured", facts + table)
    PAGE.write_text(between(page, "authors", authors_table()), encoding="utf-8")


def between(page: str, mark: str, text: str) -> str:
    """The page with a new text between the marks of that name."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{text}{end}{rest.partition(end)[2]}"


def authors_table() -> str:
    """Median times of one method with different renderers, with where they come from."""
    with AUTHORS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(dict.fromkeys(row["renderer"] for row in rows))
    seconds = {name: statistics.median(float(row["time_ms"]) / 1e3 for row in rows if row["renderer"] == name) for name in names}
    lines = [
        f"{rows[0]['date']}, commit {rows[0]['commit']}, {rows[0]['device']}, {len(rows) // len(names)} X-rays.\n",
        "| adam-ncc with the renderer | time [s] | relative | timed iterations, of 250 |",
        "| --- | --- | --- | --- |",
    ]
    for name in names:
        timed = next(row["timed_iterations"] for row in rows if row["renderer"] == name)
        lines.append(f"| {name} | {seconds[name]:.1f} | {seconds[name] / seconds[names[0]]:.1f} | {timed} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
