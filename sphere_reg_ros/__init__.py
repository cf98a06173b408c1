"""Registers one C-arm X-ray to a CT and publishes the pose, with a covariance and a decision."""

import os
from pkgutil import extend_path

from sphere_reg_ros._version import __version__

# Threads that spin while they wait for each other stall for a time slice whenever another process takes a core: on a busy machine
# a registration took a minute instead of seconds. The OpenMP library reads this when torch or numba loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The messages are generated into another directory of the same package name; without this a source tree on the path
# would hide them.
__path__ = extend_path(__path__, __name__)

__all__ = ["__version__"]
