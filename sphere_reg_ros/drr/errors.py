"""Bad input to the renderer."""

from __future__ import annotations

from sphere_reg_ros.errors import InputError


class AttenuationVolumeError(InputError):
    """A volume that no ray can be integrated through: wrong shape, not finite, singular transform."""


class RayStepError(InputError):
    """A step along the ray that is not a positive, finite length."""


class PoseShapeError(InputError):
    """Poses that are not a batch of finite 4x4 matrices."""


class PoseNotRigidError(InputError):
    """Poses whose upper left block is no rotation."""


class BackendError(InputError):
    """A renderer that does not exist here, or cannot do what was asked of it."""


class VolumeSizeError(InputError):
    """A volume with more elements than a renderer can address."""


class CameraBatchError(InputError):
    """Cameras that do not fit the poses of a batch, or each other."""
