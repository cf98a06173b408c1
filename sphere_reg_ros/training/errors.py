"""What training refuses."""

from __future__ import annotations

from sphere_reg_ros.errors import InputError, SphereRegError


class TrainingSettingsError(InputError):
    """A setting outside its range."""


class PoseRangeError(InputError):
    """A range of poses in which the patient is not in the picture, or not between source and detector."""


class BonelessCtError(InputError):
    """A CT without bone: its X-rays show too little to register by."""


class ResumeError(InputError):
    """A training state that does not belong to this training."""


class NotFiniteLossError(SphereRegError):
    """The loss became NaN or infinite; the message names the batch's seed."""
