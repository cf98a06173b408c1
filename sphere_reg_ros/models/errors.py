"""What is wrong with a model."""

from __future__ import annotations

from sphere_reg_ros.errors import InputError


class ModelFileError(InputError):
    """A file that is no model: missing, truncated, a pickle, or of another format."""


class ModelCardError(InputError):
    """A model whose card lacks something, or contradicts its weights."""


class ModelMismatchError(InputError):
    """A patient-specific model of another CT."""
