"""``sphere_reg train``: from a CT to a model that loads, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from sphere_reg_ros.cli import main
from sphere_reg_ros.imaging.readers import read_ct
from sphere_reg_ros.models.checkpoint import find_model, load, read_card

SMALL = ["--steps", "2", "--pairs", "16", "--batch", "4", "--validation-images", "3", "--quiet"]


@pytest.fixture(scope="module")
def model_path(phantom_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "phantom.safetensors"
    assert main(["train", "--ct", str(phantom_path), "--out", str(path), *SMALL]) == 0
    return path


def test_the_model_says_what_it_is(model_path: Path, phantom_path: Path) -> None:
    ct = read_ct(phantom_path)
    card = read_card(model_path)
    assert card.kind == "patient_specific"
    assert card.ct_sha256 == (ct.sha256,)
    assert card.steps == 2
    assert card.validation["images"] == 3
    assert card.settings["pose_range"]["rotation_deg"] == 20.0
    found = find_model(ct.sha256, model_path)
    assert found is not None
    assert found.name == "phantom"
    assert not any(parameter.requires_grad for parameter in found.encoder.parameters())
    folder = model_path.with_name("phantom.training")
    assert {"loss.csv", "loss.png", "state.safetensors"} <= {path.name for path in folder.iterdir()}


def test_a_training_starts_from_a_model(model_path: Path, phantom_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "next.safetensors"
    arguments = ["train", "--ct", str(phantom_path), "--from", str(model_path), "--out", str(out), *SMALL]
    assert main(arguments) == 0
    before, after = (dict(load(path).encoder.named_parameters()) for path in (model_path, out))
    moved = max(float((before[name] - after[name]).abs().max()) for name in before)
    # Two steps of a warming-up AdamW move a weight by less than 1e-4; another seed's start is 0.1 away.
    assert 0.0 < moved < 1e-3


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--out", "model.pt"], "--out model.pt: a model is a .safetensors file"),
        (["--out", "new.safetensors", "--range", "lateral"], "--range lateral: choose one of near-ap, any-view"),
        (["--out", "new.safetensors", "--steps", "0"], "steps is 0"),
        (["--out", "new.safetensors", "--from", "missing.safetensors"], "missing.safetensors: no such file"),
    ],
)
def test_bad_options_are_refused(
    options: list[str],
    complaint: str,
    phantom_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--ct", str(phantom_path), *options]) == 2
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_existing_model_is_not_overwritten(model_path: Path, phantom_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = model_path.read_bytes()
    assert main(["train", "--ct", str(phantom_path), "--out", str(model_path), *SMALL]) == 2
    assert "exists already" in capsys.readouterr().err
    assert model_path.read_bytes() == before


def test_a_ct_without_bone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    import SimpleITK as sitk

    path = tmp_path / "soft.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.full((20, 20, 20), 30, np.int16)), str(path))
    assert main(["train", "--ct", str(path), "--out", str(tmp_path / "m.safetensors")]) == 2
    assert "0 voxels of 250 to 2500 HU" in capsys.readouterr().err
