"""Bad input to the geometry."""

from sphere_reg_ros.errors import InputError


class CameraError(InputError):
    """A camera that cannot exist: size, distance or pitch is not positive, or not finite."""


class IntrinsicsError(InputError):
    """An intrinsic matrix that is not ``[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]`` with positive focal lengths."""


class ContradictingIntrinsicsError(InputError):
    """The intrinsic matrix and the stated SDD and pixel pitch say different things."""


class CameraFileError(InputError):
    """A camera file that cannot be read, or lacks a field."""


class TransformError(InputError):
    """A matrix that is no rigid transform."""
