"""Registers one C-arm X-ray to a CT and publishes the pose, with a covariance and a decision."""

from pkgutil import extend_path

from sphere_reg_ros._version import __version__

# The messages are generated into another directory of the same package name; without this a source tree on the path
# would hide them.
__path__ = extend_path(__path__, __name__)

__all__ = ["__version__"]
