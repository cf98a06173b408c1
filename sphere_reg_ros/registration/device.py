"""Where the computing happens."""

from __future__ import annotations

import torch

from sphere_reg_ros.errors import InputError


class DeviceError(InputError):
    """The device that was asked for is not there."""


def choose_device(device: str) -> torch.device:
    """``auto`` takes CUDA where there is one, ``cpu`` and ``cuda`` take what they say.

    Raises:
        DeviceError: an unknown name, or CUDA without a usable GPU.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        return torch.device("cpu")
    if device == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError("device 'cuda' was asked for, but PyTorch finds no usable GPU; use 'auto' or 'cpu'")
        return torch.device("cuda")
    raise DeviceError(f"unknown device '{device}'; choose auto, cpu or cuda")
