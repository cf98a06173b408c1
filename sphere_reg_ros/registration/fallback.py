"""A pipeline that survives its device: what a GPU cannot finish is done again on the CPU."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.models.checkpoint import LearnedModel
from sphere_reg_ros.registration.device import (
    DeviceLostError,
    DeviceWarning,
    choose_device,
    is_device_failure,
    unusable_gpu,
)
from sphere_reg_ros.registration.pipeline import RegistrationPipeline
from sphere_reg_ros.registration.result import RegistrationResult
from sphere_reg_ros.registration.settings import RegistrationSettings

T = TypeVar("T")


class FallbackPipeline(RegistrationPipeline):
    """A `RegistrationPipeline` that moves to the CPU when its GPU fails, and says so.

    With device ``auto`` the call that failed is repeated on the CPU, and so is every later one: a device that is lost does not
    come back within the process. With ``cuda``, asked for by name, the failure is an error of one line. The CT is never lost: it
    stays in the host's memory.

    Attributes:
        device_warning: why the GPU is not used, for diagnostics; empty while all is well.
    """

    def __init__(
        self,
        ct: CtVolume,
        settings: RegistrationSettings | None = None,
        device: str = "auto",
        model: LearnedModel | None = None,
    ) -> None:
        """As `RegistrationPipeline`; also what fails here already falls back.

        Raises:
            DeviceError: CUDA was asked for by name, and is not there or fails.
        """
        self._asked = device
        self.device_warning = unusable_gpu() if device == "auto" else ""
        self.device = choose_device(device)
        on_device = self.device.type != "cpu"
        # Networks move to the device as they are; a copy on the host outlives it.
        self._on_host = (ct, settings, "cpu", copy.deepcopy(model) if on_device else model)
        if on_device:
            self._guarded(lambda: RegistrationPipeline.__init__(self, ct, settings, device, model), again=False)
        else:
            super().__init__(*self._on_host)

    def prepare(self) -> None:
        """See `RegistrationPipeline.prepare`."""
        self._guarded(super().prepare)

    def drr(self, T_camera_ct: ArrayLike, camera: Camera) -> Float[Tensor, "h w"]:
        """See `RegistrationPipeline.drr`."""
        return self._guarded(lambda: RegistrationPipeline.drr(self, T_camera_ct, camera))

    def register(
        self, xray: XrayImage, camera: Camera, T_initial: ArrayLike | None = None, **options: Any
    ) -> RegistrationResult:
        """See `RegistrationPipeline.register`; a time limit begins anew on the CPU.

        Raises:
            DeviceLostError: the device failed, and was asked for by name.
        """
        return self._guarded(lambda: RegistrationPipeline.register(self, xray, camera, T_initial, **options))

    def _guarded(self, call: Callable[[], T], again: bool = True) -> T:
        if self.device.type == "cpu":
            return call()
        try:
            return call()
        except RuntimeError as error:
            if not is_device_failure(error):
                raise
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            if self._asked != "auto":
                raise DeviceLostError(f"device '{self._asked}' failed ({reason}); use 'auto' to go on on the CPU") from error
        # Out of the handler, whose traceback holds the failed call's tensors: they are freed before the CPU begins.
        self._go_on_on_the_cpu(reason)
        return call() if again else None  # type: ignore[return-value]

    def _go_on_on_the_cpu(self, reason: str) -> None:
        self.device_warning = f"the GPU failed ({reason}): computing on the CPU, slower, until the process is started anew"
        warnings.warn(self.device_warning, DeviceWarning, stacklevel=4)
        self.__dict__.update(dict.fromkeys(("_graphs", "_volumes", "_truncation", "_learned", "_planner")))
        RegistrationPipeline.__init__(self, *self._on_host)
        try:
            torch.cuda.empty_cache()
        except RuntimeError:
            # A lost device has no cache to empty.
            return
