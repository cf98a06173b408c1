"""The GPU benchmarks say in one line that there is nothing to measure on, where there is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure on")
@pytest.mark.parametrize("program", sorted(path.name for path in BENCHMARKS.glob("gpu_re*.py")))
def test_without_a_gpu_there_is_one_line_and_no_file(program: str, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    command = [sys.executable, str(BENCHMARKS / program), "--out", str(out)]
    outcome = subprocess.run(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False)
    assert outcome.returncode == 1
    assert len(outcome.stderr.splitlines()) == 1 and "no CUDA device" in outcome.stderr
    assert not out.exists()
