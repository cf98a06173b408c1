"""What the X-ray simulator refuses."""

from __future__ import annotations

from sphere_reg_ros.errors import InputError


class SimulationSettingsError(InputError):
    """A setting of the simulated X-ray is outside its physical range."""


class PoseSamplingError(InputError):
    """No pose could be drawn in which the patient is clear of the source and the detector."""
