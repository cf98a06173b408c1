"""One pipeline of the phantom, and how far a pose is off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.readers import read_ct
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.registration.pipeline import RegistrationPipeline


@pytest.fixture(scope="session")
def phantom(phantom_path: Path) -> CtVolume:
    """The phantom."""
    return read_ct(phantom_path)


@pytest.fixture(scope="session")
def pipeline(phantom: CtVolume) -> RegistrationPipeline:
    """A pipeline of the phantom."""
    return RegistrationPipeline(phantom, device="cpu")


@pytest.fixture(scope="session")
def xray() -> Callable[[Any], XrayImage]:
    """The X-ray of a simulated frame."""
    return lambda frame: XrayImage(torch.from_numpy(frame.picture.astype(np.float32)), source="simulated")


@pytest.fixture(scope="session")
def error_mm() -> Callable[[Any, Any], float]:
    """Mean displacement of the corners of the phantom's bony inside, by numpy alone."""
    corners = np.array([[x, y, z, 1.0] for x in (48.0, 222.0) for y in (42.0, 150.0) for z in (24.0, 216.0)])

    def measure(T: Any, truth: Any) -> float:
        return float(np.linalg.norm(corners @ (np.asarray(T) - np.asarray(truth)).T, axis=1).mean())

    return measure
