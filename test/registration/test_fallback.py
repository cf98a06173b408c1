"""A device that fails in the middle: the call is repeated on the CPU and the caller hears of it, or there is one clear error.

No GPU is needed: the pipeline believes that it is on one, computes on the CPU, and is made to fail like one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.registration import device as device_module
from sphere_reg_ros.registration import fallback as fallback_module
from sphere_reg_ros.registration.device import DeviceError, DeviceLostError, DeviceWarning, choose_device, is_device_failure
from sphere_reg_ros.registration.fallback import FallbackPipeline
from sphere_reg_ros.registration.pipeline import RegistrationPipeline

FAILURES = {
    "no memory": lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."),
    "device lost": lambda: RuntimeError("CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA` ..."),
    "kernel": lambda: RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
    "library": lambda: RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"),
}


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a device other than the CPU gets one whose name only is another."""

    class NamedCuda:
        type = "cuda"

    def choose(device: str) -> Any:
        return torch.device("cpu") if device == "cpu" else NamedCuda()

    built = RegistrationPipeline.__init__

    def build(self: Any, ct: CtVolume, settings: Any = None, device: str = "auto", model: Any = None) -> None:
        built(self, ct, settings, "cpu", model)
        if device != "cpu":
            self.device = NamedCuda()

    monkeypatch.setattr(fallback_module, "choose_device", choose)
    monkeypatch.setattr(RegistrationPipeline, "__init__", build)


def failing(original: Callable, failure: Exception) -> Callable:
    """The method of a pipeline, on the CPU; the failure, elsewhere."""

    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        if self.device.type != "cpu":
            raise failure
        return original(self, *arguments, **options)

    return method


@pytest.mark.usefixtures("on_a_gpu")
@pytest.mark.parametrize("kind", FAILURES)
def test_a_drr_that_the_device_cannot_finish_is_made_on_the_cpu(
    kind: str, phantom: CtVolume, frames: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = FAILURES[kind]()
    pipeline = FallbackPipeline(phantom)
    assert pipeline.device_warning == ""
    monkeypatch.setattr(RegistrationPipeline, "drr", failing(RegistrationPipeline.drr, failure))
    frame = frames[0]
    with pytest.warns(DeviceWarning, match="computing on the CPU"):
        found = pipeline.drr(frame.T_camera_ct, frame.camera)
    assert str(failure).splitlines()[0] in pipeline.device_warning and "\n" not in pipeline.device_warning
    assert pipeline.device == torch.device("cpu") and pipeline.ct is phantom
    expected = RegistrationPipeline(phantom, device="cpu").drr(frame.T_camera_ct, frame.camera)
    assert torch.equal(found, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(pipeline.drr(frame.T_camera_ct, frame.camera), expected)


@pytest.mark.usefixtures("on_a_gpu")
def test_a_registration_is_begun_again_on_the_cpu(
    phantom: CtVolume, frames: list, xray: Callable, pipeline: RegistrationPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = frames[0]
    resilient = FallbackPipeline(phantom)
    failure = FAILURES["device lost"]()
    monkeypatch.setattr(RegistrationPipeline, "register", failing(RegistrationPipeline.register, failure))
    with pytest.warns(DeviceWarning, match="launch failure"):
        found = resilient.register(xray(frame), frame.camera, frame.T_prior)
    expected = pipeline.register(xray(frame), frame.camera, frame.T_prior)
    assert np.array_equal(found.T_camera_ct, expected.T_camera_ct)


@pytest.mark.usefixtures("on_a_gpu")
def test_a_device_asked_for_by_name_is_one_clear_error(
    phantom: CtVolume, frames: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = FallbackPipeline(phantom, device="cuda")
    monkeypatch.setattr(RegistrationPipeline, "drr", failing(RegistrationPipeline.drr, FAILURES["no memory"]()))
    with pytest.raises(DeviceLostError, match=r"device 'cuda' failed .*out of memory.*use 'auto'") as caught:
        pipeline.drr(frames[0].T_camera_ct, frames[0].camera)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("on_a_gpu")
def test_a_device_without_room_for_the_ct_is_left_at_once(phantom: CtVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    build = RegistrationPipeline.__init__

    def full(self: Any, ct: CtVolume, settings: Any = None, device: str = "auto", model: Any = None) -> None:
        if device != "cpu":
            raise FAILURES["no memory"]()
        build(self, ct, settings, device, model)

    monkeypatch.setattr(RegistrationPipeline, "__init__", full)
    with pytest.warns(DeviceWarning, match="out of memory"):
        pipeline = FallbackPipeline(phantom)
    assert pipeline.device == torch.device("cpu") and pipeline.ct is phantom
    with pytest.raises(DeviceLostError, match="out of memory"):
        FallbackPipeline(phantom, device="cuda")


@pytest.mark.usefixtures("on_a_gpu")
def test_other_errors_stay_what_they_are(phantom: CtVolume, frames: list, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = FallbackPipeline(phantom)
    bug = RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")
    monkeypatch.setattr(RegistrationPipeline, "drr", failing(RegistrationPipeline.drr, bug))
    with pytest.raises(RuntimeError, match="size of tensor"):
        pipeline.drr(frames[0].T_camera_ct, frames[0].camera)
    assert pipeline.device_warning == ""
    assert not is_device_failure(ValueError("CUDA error"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a usable GPU")
@pytest.mark.parametrize("built_for", [None, "13.0"])
def test_a_gpu_that_cannot_be_used_is_told(built_for: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without one is silent; the warning stands in the way of nothing."""
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(device_module, "DRIVER", tmp_path / "none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(device_module, "DRIVER", tmp_path)
    with pytest.warns(DeviceWarning, match="without CUDA" if built_for is None else "old driver"):
        assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match="'cuda' was asked for"):
        choose_device("cuda")
