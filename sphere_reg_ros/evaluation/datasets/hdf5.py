"""What the HDF5 data sets have in common: checked reading, and the camera frame of xreg, which both of them use.

That frame has its origin at the source, x along the columns, y along the rows, and z **towards** the source; K has negative focal
lengths. It is right-handed, so the stored images are mirror images of what the source sees. Into the optical frame of this
package (z from the source to the detector): ``diag(-1, 1, -1)``, and the columns reversed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray
from torch import Tensor

from sphere_reg_ros.evaluation.errors import DatasetContentError, DatasetFileError, nearest
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.landmarks import Landmarks

if TYPE_CHECKING:
    import h5py

OPTICAL_FROM_THEIRS = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
RIGID_TOLERANCE = 1e-4


class Hdf5File:
    """An HDF5 file of a data set; every call opens and closes it.

    Raises:
        DatasetFileError: no such file; the message says where it comes from.
    """

    source = ""
    """Licence and address, for messages."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DatasetFileError(f"{self.path}: no such file; get it from {self.source}")

    def open(self) -> h5py.File:
        """The file.

        Raises:
            DatasetFileError: truncated, or no HDF5.
        """
        import h5py

        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            raise DatasetFileError(f"{self.path}: not a whole HDF5 file ({error}); download it again: {self.source}") from error

    def top(self, file: h5py.File, name: str, others: frozenset[str] = frozenset()) -> h5py.Group:
        """A group of the file by its name; ``others`` are groups of another kind."""
        if name not in file:
            known = set(file) - others or {"-"}
            raise DatasetFileError(f"{self.path}: no specimen '{name}': {nearest(name, known)}")
        return file[name]

    def group(self, parent: h5py.Group, key: str) -> h5py.Group:
        """A group or data set within another."""
        if key not in parent:
            place = f"{self.path}: {parent.name.rstrip('/')}/{key}"
            raise DatasetFileError(f"{place} is not there; is this the documented file? {self.source}")
        return parent[key]

    def array(self, parent: h5py.Group, key: str, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
        """Values of a data set; with a shape as float64, finite and of that shape.

        Raises:
            DatasetFileError, DatasetContentError: missing or damaged; not finite, or of another size.
        """
        try:
            values = np.asarray(self.group(parent, key)[()])
        except (OSError, TypeError) as error:
            raise DatasetFileError(f"{self.path}: {parent.name}/{key} is damaged ({error}); download the file again") from error
        if shape is None:
            return values
        if values.size != int(np.prod(shape)) or not np.isfinite(values).all():
            place = f"{self.path}: {parent.name}/{key}"
            raise DatasetContentError(f"{place} holds {values.tolist()}; finite numbers of shape {shape} are needed")
        return values.astype(np.float64).reshape(shape)

    def rigid(self, parent: h5py.Group, key: str) -> Float64[Tensor, "4 4"]:
        """A rigid motion.

        Raises:
            DatasetContentError: strained, or a reflection.
        """
        matrix = self.array(parent, key, (4, 4))
        strain = float(np.abs(matrix[:3, :3] @ matrix[:3, :3].T - np.eye(3)).max())
        if strain > RIGID_TOLERANCE or np.linalg.det(matrix[:3, :3]) < 0.0:
            place = f"{self.path}: {parent.name}/{key}"
            raise DatasetContentError(f"{place} is no rigid motion (R·Rᵀ is {strain:.2g} off the identity)")
        return torch.from_numpy(matrix)

    def mirrored_camera(self, K: NDArray[Any], column_pitch_mm: float, width: int, height: int, place: str) -> Camera:
        """The camera of the image with its columns reversed.

        Args:
            K: their intrinsic matrix, from their camera frame to column and row.
            place: where K stands in the file.

        Raises:
            DatasetContentError: focal lengths that are not negative.
        """
        if not (K[0, 0] < 0.0 and K[1, 1] < 0.0):
            raise DatasetContentError(
                f"{self.path}: the focal lengths in {place} are {K[0, 0]:g} and {K[1, 1]:g}; "
                "both are negative where z points to the source, as documented"
            )
        sdd_mm = float(abs(K[0, 0]) * column_pitch_mm)
        stored = Camera(width, height, sdd_mm, (column_pitch_mm, sdd_mm / float(abs(K[1, 1]))), (float(K[0, 2]), float(K[1, 2])))
        return reversed_camera(stored, columns=True)


def reversed_camera(camera: Camera, columns: bool = False, rows: bool = False) -> Camera:
    """The camera of an image whose columns or rows run the other way."""
    cx, cy = camera.piercing_point_px
    centre = (camera.width - 1 - cx if columns else cx, camera.height - 1 - cy if rows else cy)
    return Camera(camera.width, camera.height, camera.sdd_mm, camera.pixel_pitch_mm, centre)


def points_outside(ct: CtVolume, landmarks: Landmarks) -> list[str]:
    """Names of the landmarks that are not in the CT."""
    voxels = se3.transform_points(torch.linalg.inv(ct.T_ct_voxel), landmarks.points_mm)
    size = torch.tensor(ct.size, dtype=torch.float64)
    inside = ((voxels >= -0.5) & (voxels <= size - 0.5)).all(1).tolist()
    return [name for name, within in zip(landmarks.names, inside, strict=True) if not within]
