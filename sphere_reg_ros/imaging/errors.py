"""Bad images, one type a kind."""

from sphere_reg_ros.errors import InputError


class ImageFileError(InputError):
    """A file that is missing, unreadable, truncated, or of no known format."""


class DicomSeriesError(InputError):
    """A folder that holds no CT series, or several."""


class SliceGeometryError(InputError):
    """Slices that do not make a regular grid: missing, doubled, tilted, or of mixed orientation."""


class CtContentError(InputError):
    """A CT that is not a three-dimensional image of Hounsfield units."""


class LabelMapError(InputError):
    """A label map that does not lie on the CT's grid, or lacks a label."""


class LandmarkFileError(InputError):
    """A landmark file that cannot be read or holds no usable points."""


class XrayFormatError(InputError):
    """An X-ray of the wrong kind: modality, number of frames, colour, data type."""


class XraySizeError(InputError):
    """An X-ray and its camera differ in size."""


class EmptyXrayError(InputError):
    """Every pixel of an X-ray is zero."""


class ConstantXrayError(InputError):
    """Every pixel of an X-ray has the same value."""


class NotFiniteXrayError(InputError):
    """An X-ray holds NaN or infinite values."""


class SaturatedXrayError(InputError):
    """Most of an X-ray is at the end of its range."""
