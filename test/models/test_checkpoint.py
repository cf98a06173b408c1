"""Model files: what is read back, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sphere_reg_ros.models import checkpoint
from sphere_reg_ros.models.checkpoint import ModelCard, find_model, load, read_card, save
from sphere_reg_ros.models.encoder import Encoder, EncoderSettings
from sphere_reg_ros.models.errors import ModelCardError, ModelFileError, ModelMismatchError
from sphere_reg_ros.models.plain_volume import PlainVolume, VolumeSettings
from sphere_reg_ros.models.pose_regressor import PoseRegressor

CARD = ModelCard(
    kind="patient_specific",
    ct_sha256=("a" * 64,),
    geometry="spherical",
    seed=3,
    steps=10,
    training_minutes=0.5,
    versions={"torch": "2"},
    validation={"images": 4, "regressor_mm": [1.0, 2.0, 3.0]},
    settings={"R_mm": 250.0, "voxel_mm": 4.0},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    target = tmp_path / "one.safetensors"
    save(target, Encoder(EncoderSettings(depth=1, embedding=24)), PoseRegressor(), CARD)
    return target


def test_weights_sizes_and_card_come_back(path: Path) -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings(depth=1, embedding=24)).eval()
    model = load(path)
    image = torch.rand(2, 1, 64, 64)
    assert torch.equal(model.encoder(image, "drr").token, encoder(image, "drr").token)
    assert model.encoder.settings.embedding == 24
    assert model.card == CARD
    assert read_card(path) == CARD
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_residual_on_the_ct_comes_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    target, volume = tmp_path / "two.safetensors", PlainVolume(VolumeSettings(scalars=3, vectors=1, tensors=0, kernel=3))
    save(target, Encoder(), PoseRegressor(), CARD, volume)
    read = load(target).volume
    assert read is not None
    field = torch.rand(1, 5, 6, 7) * 0.02
    assert torch.equal(read(field), volume(field))


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        load(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_pickles_are_never_read(kind: str, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    target = tmp_path / "bomb.safetensors"
    if kind == "torch":
        torch.save(Bomb(), target)
    else:
        target.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelFileError, match="pickle"):
        load(target)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_files_are_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelFileError, match=r"one\.safetensors"):
        load(path)


def test_other_safetensors_are_no_models(tmp_path: Path) -> None:
    target = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2)}, target)
    with pytest.raises(ModelFileError, match="sphere_reg train"):
        load(target)


def rewritten(path: Path, **changes: str) -> Path:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    save_file(load_file(path), path, metadata | changes)
    return path


def test_cards_that_lack_something_are_refused(path: Path) -> None:
    entries = dataclasses.asdict(CARD)
    del entries["geometry"]
    with pytest.raises(ModelCardError, match="geometry"):
        load(rewritten(path, card=json.dumps(entries)))
    with pytest.raises(ModelCardError, match="magic"):
        load(rewritten(path, card=json.dumps(dataclasses.asdict(CARD) | {"kind": "magic"})))
    with pytest.raises(ModelCardError, match="cannot be read"):
        load(rewritten(path, card="{"))


def test_weights_that_do_not_fit_the_sizes_are_refused(path: Path) -> None:
    with pytest.raises(ModelCardError, match="do not fit"):
        load(rewritten(path, encoder=json.dumps(dataclasses.asdict(EncoderSettings(depth=2, embedding=24)))))


def test_weights_that_are_nan_are_refused(path: Path) -> None:
    model = load(path)
    model.encoder.to_token.weight.fill_(float("nan"))
    save(path, model.encoder, model.regressor, CARD)
    with pytest.raises(ModelFileError, match="NaN"):
        load(path)


def test_a_model_of_another_patient_is_refused(path: Path) -> None:
    load(path).check_ct("a" * 64)
    with pytest.raises(ModelMismatchError, match="sphere_reg train"):
        find_model("b" * 64, path)


def test_the_model_of_the_ct_comes_before_an_agnostic_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped, cache = tmp_path / "shipped", tmp_path / "cache"
    monkeypatch.setattr(checkpoint, "SHIPPED", shipped)
    monkeypatch.setattr(checkpoint, "CACHE", cache)
    assert find_model("a" * 64) is None
    for folder in (shipped, cache):
        folder.mkdir()
    agnostic = dataclasses.replace(CARD, kind="agnostic", ct_sha256=("c" * 64,))
    save(shipped / "agnostic.safetensors", Encoder(), PoseRegressor(), agnostic)
    save(cache / "patient.safetensors", Encoder(), PoseRegressor(), CARD)
    (cache / "broken.safetensors").write_bytes(b"nothing")
    chosen = [find_model(letter * 64) for letter in "ab"]
    assert [model.name for model in chosen if model is not None] == ["patient", "agnostic"]


def test_of_several_models_of_a_ct_the_narrowest_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    monkeypatch.setattr(checkpoint, "CACHE", tmp_path / "none")
    spans = {"a_any_view": (-105.0, 105.0), "b_lateral": (80.0, 100.0), "c_near_ap": (0.0, 0.0)}
    for name, orbital in spans.items():
        card = dataclasses.replace(CARD, settings={**CARD.settings, "pose_range": {"orbital_deg": list(orbital)}})
        save(tmp_path / f"{name}.safetensors", Encoder(), PoseRegressor(), card)
    found = find_model("a" * 64)
    assert found is not None
    assert [found.path.stem, *(other.path.stem for other in found.others)] == ["c_near_ap", "b_lateral", "a_any_view"]
    assert found.name == "c_near_ap+b_lateral+a_any_view"
