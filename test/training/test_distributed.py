"""Two processes under torchrun train one model with the same command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sphere_reg_ros.models.checkpoint import load
from sphere_reg_ros.training.curves import read_rows

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch is built without torch.distributed")
def test_torchrun_trains_one_model(phantom_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "two.safetensors"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    train = [str(ROOT / "scripts" / "sphere_reg"), "train", "--ct", str(phantom_path), "--out", str(out)]
    small = ["--steps", "2", "--pairs", "16", "--batch", "4", "--validation-images", "2", "--debug"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *train, *small], capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("regressor mTRE") == 1, "one process speaks"
    assert [row.step for row in read_rows(tmp_path / "two.training" / "loss.csv")] == [1, 2]
    assert load(out).card.steps == 2
    from safetensors import safe_open

    with safe_open(tmp_path / "two.training" / "state.safetensors", "pt") as state:
        assert json.loads(state.metadata()["header"])["processes"] == 2
