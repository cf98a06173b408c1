"""Ways in which a registration cannot start or go on."""

from sphere_reg_ros.errors import InputError, SphereRegError


class InitialPoseError(InputError):
    """The initial pose is no rigid transform, or the CT is not in the X-ray under it."""


class ViewMismatchError(InputError):
    """An X-ray and its camera disagree, or there is no camera at all."""


class RegistrationCancelled(SphereRegError):
    """The caller asked to stop; there is no result."""


class RegistrationTimeout(SphereRegError):
    """The time limit passed before the pipeline had a result."""
