"""Model files: safetensors with a JSON model card in the header. Pickles, which can run code, are never read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sphere_reg_ros.models.encoder import Encoder, EncoderSettings
from sphere_reg_ros.models.errors import ModelCardError, ModelFileError, ModelMismatchError
from sphere_reg_ros.models.plain_volume import PlainVolume, VolumeSettings
from sphere_reg_ros.models.pose_regressor import PoseRegressor

SUFFIX = ".safetensors"
FORMAT = "sphere_reg_model_1"
SHIPPED = Path(__file__).resolve().parent.parent / "weights"
CACHE = Path("~/.cache/sphere_reg_ros/models")
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

ModelKind = Literal["patient_specific", "agnostic"]


@dataclass(frozen=True)
class ModelCard:
    """What a model was made from, and what it can do.

    Attributes:
        kind: for one patient, or for any.
        ct_sha256: content hashes of the CTs that it was trained on.
        geometry: of the embeddings.
        seed: of the training.
        steps: of the optimiser.
        training_minutes: wall time.
        versions: of what it was trained with.
        validation: figures on held-out X-rays of the simulator.
        settings: of the training: range of poses, length scale, augmentation, …
        limits: what it was not trained for, in a sentence.
    """

    kind: ModelKind
    ct_sha256: tuple[str, ...]
    geometry: str
    seed: int
    steps: int
    training_minutes: float
    versions: dict[str, str]
    validation: dict[str, Any]
    settings: dict[str, Any]
    limits: str = ""

    @property
    def orbital_span_deg(self) -> float:
        """Width of the trained range of orbital angles; a card that does not say it counts as narrow."""
        least, largest = self.settings.get("pose_range", {}).get("orbital_deg", (0.0, 0.0))
        return float(largest) - float(least)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Read a card.

        Raises:
            ModelCardError: no JSON, an entry is missing, or an unknown kind.
        """
        try:
            entries = json.loads(text)
            known = {entry.name for entry in fields(cls)}
            card = cls(**{name: value for name, value in entries.items() if name in known})
        except (json.JSONDecodeError, TypeError, AttributeError) as error:
            raise ModelCardError(f"the model card cannot be read: {error}") from error
        if card.kind not in get_args(ModelKind):
            raise ModelCardError(f"the model card names the kind {card.kind!r}; known are {', '.join(get_args(ModelKind))}")
        voxel_mm = card.settings.get("voxel_mm") if isinstance(card.settings, dict) else None
        if not (isinstance(voxel_mm, int | float) and voxel_mm > 0.0):
            raise ModelCardError(f"the model card says voxel_mm = {voxel_mm!r}; the voxel size of its DRRs in mm is needed")
        return cls(**{**card.__dict__, "ct_sha256": tuple(card.ct_sha256)})


@dataclass(frozen=True)
class LearnedModel:
    """A model, ready to use: weights frozen, in evaluation mode.

    Attributes:
        path: where it was read from.
        volume: the learned residual on the CT, for the volume that the similarity renders; none leaves the CT as it is.
        others: further models of the same CT, for views that this one does not know.
    """

    encoder: Encoder
    regressor: PoseRegressor
    card: ModelCard
    path: Path
    volume: PlainVolume | None = None
    others: tuple[LearnedModel, ...] = ()

    @property
    def name(self) -> str:
        """For results and messages."""
        return "+".join([self.path.stem, *(other.name for other in self.others)])

    def check_ct(self, ct_sha256: str) -> None:
        """Refuse a CT that a patient-specific model does not know.

        Raises:
            ModelMismatchError: the card lists other CTs.
        """
        if self.card.kind == "patient_specific" and ct_sha256 not in self.card.ct_sha256:
            trained = ", ".join(value[:12] for value in self.card.ct_sha256)
            raise ModelMismatchError(
                f"{self.path} was trained on the CT {trained}…, this one is {ct_sha256[:12]}…: train a model for it "
                "with 'sphere_reg train', or leave --model out"
            )


def save(path: Path, encoder: Encoder, regressor: PoseRegressor, card: ModelCard, volume: PlainVolume | None = None) -> None:
    """Write a model; an interrupted write leaves what was there."""
    from safetensors.torch import save_file

    modules: dict[str, nn.Module] = {"encoder": encoder, "regressor": regressor}
    if volume is not None:
        modules["volume"] = volume
    tensors = {
        f"{prefix}.{name}": value.detach().cpu().contiguous()
        for prefix, module in modules.items()
        for name, value in module.state_dict().items()
    }
    metadata = {
        "format": FORMAT,
        "card": json.dumps(asdict(card), sort_keys=True),
        "encoder": json.dumps(asdict(encoder.settings), sort_keys=True),
    }
    if volume is not None:
        metadata["volume"] = json.dumps(asdict(volume.settings), sort_keys=True)
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata)
    # safetensors writes for its owner alone; an installed model is for everybody.
    partial.chmod(0o644)
    os.replace(partial, path)


def load(path: Path) -> LearnedModel:
    """Read a model.

    Raises:
        ModelFileError: missing, truncated, a pickle, or of another format.
        ModelCardError: no usable card, or weights that do not fit it.
    """
    metadata, tensors = _read(path, with_tensors=True)
    card = _card(path, metadata)
    try:
        settings = EncoderSettings(**json.loads(metadata["encoder"]))
        encoder, regressor = Encoder(settings), PoseRegressor()
        volume = PlainVolume(VolumeSettings(**json.loads(metadata["volume"]))) if "volume" in metadata else None
        modules: dict[str, nn.Module | None] = {"encoder.": encoder, "regressor.": regressor, "volume.": volume}
        present = {prefix: module for prefix, module in modules.items() if module is not None}
        for prefix, module in present.items():
            own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            module.load_state_dict(own)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelCardError(f"{path}: weights and settings do not fit each other: {error}") from error
    for module in present.values():
        module.eval().requires_grad_(False)
    return LearnedModel(encoder, regressor, card, path, volume)


def read_card(path: Path) -> ModelCard:
    """The card alone, without reading the weights; errors as in :func:`load`."""
    return _card(path, _read(path, with_tensors=False)[0])


def find_model(ct_sha256: str, explicit: Path | None = None) -> LearnedModel | None:
    """The model for a CT: the one that is named, else the shipped and cached ones of this CT, else an agnostic one, else none.

    Of several models of the CT the one of the narrowest range of views leads, for it is the most accurate; the others follow it.

    Raises:
        ModelFileError, ModelCardError: the named model cannot be read.
        ModelMismatchError: the named model is of another patient.
    """
    if explicit is not None:
        model = load(explicit)
        model.check_ct(ct_sha256)
        return model
    cards = list(_known_cards())
    own = [(path, card) for path, card in cards if card.kind == "patient_specific" and ct_sha256 in card.ct_sha256]
    models = list(_loadable(path for path, card in sorted(own, key=lambda one: one[1].orbital_span_deg)))
    if models:
        return replace(models[0], others=tuple(models[1:]))
    return next(_loadable(path for path, card in cards if card.kind == "agnostic"), None)


def _loadable(paths: Iterable[Path]) -> Iterator[LearnedModel]:
    for path in paths:
        try:
            yield load(path)
        except (ModelFileError, ModelCardError):
            continue


def _known_cards() -> Iterator[tuple[Path, ModelCard]]:
    for folder in (SHIPPED, CACHE.expanduser()):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            # A damaged file that nobody asked for must not stop a registration that can do without it.
            try:
                yield path, read_card(path)
            except (ModelFileError, ModelCardError):
                continue


def _card(path: Path, metadata: dict[str, str]) -> ModelCard:
    if metadata.get("format") != FORMAT or "card" not in metadata:
        raise ModelFileError(f"{path}: a safetensors file, but no {FORMAT}; was it made by 'sphere_reg train'?")
    try:
        return ModelCard.from_json(metadata["card"])
    except ModelCardError as error:
        raise ModelCardError(f"{path}: {error}") from error


def _read(path: Path, with_tensors: bool) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelFileError(f"{path}: no such file; name a model made by 'sphere_reg train'")
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(PICKLE_STARTS):
        raise ModelFileError(f"{path}: a pickle, which could run code when it is read, is refused; models are {SUFFIX} files")
    try:
        with safe_open(path, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()} if with_tensors else {}  # noqa: SIM118
            metadata = dict(opened.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"{path}: truncated or no safetensors file ({error}); copy or train it again") from error
    if any(not bool(torch.isfinite(value).all()) for value in tensors.values() if value.is_floating_point()):
        raise ModelFileError(f"{path}: the weights hold NaN or infinity; train it again")
    return metadata, tensors
