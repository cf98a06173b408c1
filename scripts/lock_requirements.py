#!/usr/bin/env python3
"""Pins requirements.in, with everything that it pulls in, for the Python that runs this script.

python3.12 scripts/lock_requirements.py        # writes requirements/python3.12.lock
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
OF_TORCH = ("nvidia-", "cuda-")


def main() -> None:
    """Ask pip what it would install into an empty environment, and write that down."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
             "--report", str(report), "-r", str(ROOT / "requirements.in")],
            check=True,
        )  # fmt: skip
        packages = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    # A local part such as +cpu names the build that one index offers; another one offers another build, and each build of
    # torch pins the CUDA libraries that it was compiled with, or none.
    pins = sorted(f"{one['name']}=={one['version'].split('+')[0]}" for one in packages if not one["name"].startswith(OF_TORCH))
    LOCKS.mkdir(exist_ok=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    head = f"# {version}: requirements.in and all that it pulls in. Made by scripts/lock_requirements.py.\n"
    (LOCKS / f"{version}.lock").write_text(head + "\n".join(pins) + "\n")


if __name__ == "__main__":
    main()
