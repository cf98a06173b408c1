"""Bad input that only ROS can bring."""

from sphere_reg_ros.errors import InputError


class ImageMessageError(InputError):
    """An Image message of an encoding or size that cannot be an X-ray."""


class MessageGeometryError(InputError):
    """CameraInfo and CArmGeometry contradict each other, or the scale of the C-arm is not known."""


class NoCtError(InputError):
    """An X-ray arrived before a CT was loaded."""


class StaleImageError(InputError):
    """An X-ray that is older than the last one, or than the age limit."""


class FrameError(InputError):
    """Two frames that TF does not connect at the time of the X-ray."""


class BagError(InputError):
    """A bag that cannot be read, or lacks a topic."""
