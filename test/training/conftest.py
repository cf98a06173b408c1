"""A small patient for training."""

from __future__ import annotations

from pathlib import Path

import pytest

from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.readers import read_ct


@pytest.fixture(scope="session")
def phantom(phantom_path: Path) -> CtVolume:
    return read_ct(phantom_path)
