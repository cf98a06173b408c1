"""The methods that need a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sphere_reg_ros.evaluation.errors import MissingModelError
from sphere_reg_ros.evaluation.methods import METHODS
from sphere_reg_ros.imaging.readers import read_ct
from sphere_reg_ros.registration.pyramid import VolumePyramid


@pytest.mark.parametrize("name", ["learned", "regressor"])
def test_without_a_model_they_say_how_to_make_one(
    name: str, phantom_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ct = read_ct(phantom_path)
    with pytest.raises(MissingModelError, match="sphere_reg train"):
        METHODS[name](ct, VolumePyramid(ct, "cpu", torch.device("cpu")))
