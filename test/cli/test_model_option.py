"""A learned model on the command line: named, cached, of another patient, damaged; and never a wrong pose because of it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("safetensors", reason="safetensors is not installed")

from sphere_reg_ros.imaging.readers import read_ct
from sphere_reg_ros.models import checkpoint
from sphere_reg_ros.models.checkpoint import ModelCard, save
from sphere_reg_ros.models.encoder import Encoder, EncoderSettings
from sphere_reg_ros.models.pose_regressor import PoseRegressor


def write_model(
    path: Path, ct_sha256: str, kind: Any = "patient_specific", spoil: float | None = None, voxel_mm: object = 4.0
) -> Path:
    """A model that has learned nothing: its poses are nonsense, so that whoever trusts it is found out."""
    torch.manual_seed(0)
    encoder, regressor = Encoder(EncoderSettings(depth=1, embedding=24)), PoseRegressor()
    if spoil is not None:
        next(encoder.parameters()).data[:] = spoil
    card = ModelCard(kind, (ct_sha256,), "spherical", 0, 1, 0.1, {"torch": "2"}, {}, {"R_mm": 250.0, "voxel_mm": voxel_mm})
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, encoder, regressor, card)
    return path


@pytest.fixture
def sha256(case: Any) -> str:
    return read_ct(case.ct).sha256


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of models, empty."""
    monkeypatch.setattr(checkpoint, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def result(case: Any) -> dict[str, Any]:
    return dict(json.loads((case.folder / "out" / "result.json").read_text()))


def check_right_or_rejected(code: int, case: Any) -> None:
    content = result(case)
    assert content["accepted"] == (code == 0)
    if content["accepted"]:
        apart = np.array(content["T_camera_ct"]) - np.asarray(case.frame.T_camera_ct)
        assert np.linalg.norm(apart @ [135, 96, 120, 1]) < 2.0


@pytest.mark.parametrize("with_start", [True, False])
def test_a_model_that_knows_nothing_does_no_harm(with_start: bool, run: Callable, case: Any, sha256: str, cache: Path) -> None:
    model = write_model(case.folder / "blank.safetensors", sha256)
    changes = {} if with_start else {"init": None}
    outcome = run(*case.register(model=model, **changes))
    assert outcome.code == 0, outcome.out + outcome.err
    check_right_or_rejected(outcome.code, case)
    assert result(case)["model_id"] == "blank"


@pytest.mark.parametrize("kind", ["patient_specific", "agnostic"])
def test_a_cached_model_is_found_by_the_ct(kind: str, run: Callable, case: Any, sha256: str, cache: Path) -> None:
    write_model(cache / "mine.safetensors", sha256 if kind == "patient_specific" else "b" * 64, kind)
    write_model(cache / "another.safetensors", "a" * 64)
    outcome = run(*case.register(), "--quiet")
    assert outcome.code == 0, outcome.err
    assert result(case)["model_id"] == "mine"
    check_right_or_rejected(outcome.code, case)


def test_a_damaged_model_that_nobody_named_is_passed_over(run: Callable, case: Any, sha256: str, cache: Path) -> None:
    whole = write_model(cache / "nan.safetensors", sha256, spoil=float("nan"))
    (cache / "cut.safetensors").write_bytes(whole.read_bytes()[:3000])
    (cache / "text.safetensors").write_text("no model")
    outcome = run(*case.register(), "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    assert result(case)["model_id"] == "photometric"


def test_a_named_model_must_be_whole_and_of_this_ct(run: Callable, case: Any, sha256: str, cache: Path) -> None:
    whole = write_model(case.folder / "whole.safetensors", sha256)
    cut, pickled, text = (case.folder / name for name in ("cut.safetensors", "pickled.safetensors", "text.safetensors"))
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    pickled.write_bytes(pickle.dumps({"weights": [1.0]}))
    text.write_text("no model")
    for path, word in (
        (case.folder / "none.safetensors", "no such file"),
        (cut, "truncated"),
        (pickled, "pickle"),
        (text, "truncated or no safetensors"),
        (write_model(case.folder / "nan.safetensors", sha256, spoil=float("nan")), "NaN"),
        (write_model(case.folder / "card.safetensors", sha256, voxel_mm="four"), "voxel_mm"),
        (write_model(case.folder / "other.safetensors", "a" * 64), "train a model"),
    ):
        line = run(*case.register(model=path)).complaint()
        assert path.name in line and word in line
        assert not (case.folder / "out" / "result.json").exists()
