"""Files to values: CTs, label maps, X-rays."""

from sphere_reg_ros.imaging.readers.ct import read_ct, read_labels
from sphere_reg_ros.imaging.readers.xray import read_xray

__all__ = ["read_ct", "read_labels", "read_xray"]
