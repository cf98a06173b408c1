"""Where a figure comes from: columns that every CSV of this folder carries."""

from __future__ import annotations

import datetime
import platform
import subprocess
from pathlib import Path

import torch


def provenance() -> dict[str, str]:
    """Date, device and commit; a tree that differs from the commit is marked."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False).stdout.strip()

    changed = "+" if git("status", "--porcelain", "--untracked-files=no") else ""
    return {
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} cpu, {torch.get_num_threads()} threads",
        "commit": git("rev-parse", "--short", "HEAD") + changed,
    }
