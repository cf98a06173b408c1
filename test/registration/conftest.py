"""One pipeline of the phantom, and how far a pose is off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.readers import read_ct
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.registration.pipeline import RegistrationPipeline

WAITING = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "unique")
UPLOADING = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)


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


class NothingWaits(TorchDispatchMode):
    """Refuses operations that a device would be waited for, and tensors of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        self.operations += 1
        name = func._schema.name.split("::")[1]
        assert name not in WAITING, f"{name} waits for the device"
        result = func(*args, **(kwargs or {}))
        flat = torch.utils._pytree.tree_leaves((args, kwargs, result))
        for tensor in flat:
            # Python's own numbers travel as tensors without dimensions.
            hosted = isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu" and tensor.ndim > 0
            assert not hosted, f"{name} of a tensor of the host, {tuple(tensor.shape)}"
        return result


class NothingIsUploaded(TorchFunctionMode):
    """Refuses tensors made from Python's numbers: they would be copied to the device."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        assert func not in UPLOADING, f"{func.__name__} copies from the host"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def watch() -> tuple[NothingIsUploaded, NothingWaits]:
    """Both, for code that a CUDA graph shall record: it is run on tensors without values, of the "meta" device."""
    return NothingIsUploaded(), NothingWaits()
