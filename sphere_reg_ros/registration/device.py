"""Where the computing happens."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import torch

from sphere_reg_ros.errors import InputError


class DeviceError(InputError):
    """The device that was asked for is not there."""


class DeviceLostError(DeviceError):
    """The device that was asked for by name ran out of memory, or broke down, in the middle."""


class DeviceWarning(UserWarning):
    """The computing goes on on the CPU, slower, though there is a GPU."""


OF_CUDA = re.compile(r"\bCUDA\b|\bCUBLAS|\bCUSOLVER|\bCUFFT|\bcuDNN|\bNVRTC|\bTriton Error", re.IGNORECASE)
DRIVER = Path("/proc/driver/nvidia/version")


def is_device_failure(error: BaseException) -> bool:
    """Whether an error is the device's own: no memory left, a fault of the driver or of a library on it."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and OF_CUDA.search(str(error)) is not None


def unusable_gpu() -> str:
    """Why a GPU that is in the machine cannot be used; empty where there is none, or it can."""
    if torch.cuda.is_available() or not DRIVER.exists():
        return ""
    if torch.version.cuda is None:
        return f"there is an NVIDIA GPU, but PyTorch {torch.__version__} was built without CUDA: computing on the CPU"
    return (
        f"there is an NVIDIA GPU, but PyTorch {torch.__version__}, built for CUDA {torch.version.cuda}, cannot use it "
        "(an old driver, or no right to it): computing on the CPU"
    )


def choose_device(device: str) -> torch.device:
    """``auto`` takes CUDA where there is one, ``cpu`` and ``cuda`` take what they say.

    Warns (`DeviceWarning`) where ``auto`` leaves a GPU unused that is there.

    Raises:
        DeviceError: an unknown name, or CUDA without a usable GPU.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if unusable_gpu():
            warnings.warn(unusable_gpu(), DeviceWarning, stacklevel=2)
        return torch.device("cpu")
    if device == "cpu":
        return torch.device("cpu")
    if device == "cuda":
        if not torch.cuda.is_available():
            raise DeviceError("device 'cuda' was asked for, but PyTorch finds no usable GPU; use 'auto' or 'cpu'")
        return torch.device("cuda")
    raise DeviceError(f"unknown device '{device}'; choose auto, cpu or cuda")
