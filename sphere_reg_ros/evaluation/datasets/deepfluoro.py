"""DeepFluoro: fluoroscopies of six cadaveric pelves (Grupp et al., IPCAI 2020), the full-resolution HDF5.

Layout and conventions as its authors document them (github rg2/DeepFluoroLabeling-IPCAI2020, hdf5_layouts/Readme.md, and
examples_dataset/full_res_3d_viz.py). Their camera frame has its origin at the source, x along the columns, y along the rows,
and **z towards the source**; K has a negative focal length. That frame is right-handed, so the stored images are mirror images of
what the source sees. Field by field:

==================================  =================================================================================
``vol/pixels, origin, spacing``     (z, y, x) HU; LPS mm of voxel (0, 0, 0); ``dir-mat`` is the axes' directions
``vol-landmarks/NAME``              LPS mm
``proj-params/extrinsic`` E         world to their camera, rigid
``gt-poses/cam-to-pelvis-vol`` P    world to LPS of the volume: their camera sees ``E · P⁻¹ · p``
``proj-params/intrinsic`` K         their camera to (column, row), SDD = abs(K₀₀ · pixel-col-spacing)
``rot-180-for-up``                  the image turned by 180° has the patient's head up
==================================  =================================================================================

Into the optical frame of this package (z from the source to the detector): ``diag(-1, 1, -1)``, and the columns reversed. An
image marked ``rot-180-for-up`` is turned by 180° with its camera, ``diag(-1, -1, 1)``, as DiffPose (diffpose/deepfluoro.py) and
the authors' example do it. The poses are taken as stored, as DiffPose does. Open: a program on top of the authors' library xreg
shifts them by half a millimetre along each axis of the volume, for an inconsistency in texture indexing, and calls that a
correction. That could not be settled here without the data: read errors below a millimetre on this set with that in mind.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from sphere_reg_ros.imaging.xray import XrayImage

if TYPE_CHECKING:
    import h5py

LICENCE = "CC BY-NC 4.0, http://tiny.cc/ipcai_2020_full_res_data (ipcai_2020_full_res_data.h5, 2.5 GB)"
SPECIMENS = ("17-1882", "18-1109", "18-0725", "18-2799", "18-2800", "17-1905")
"""In the order of the paper's numbers 1 to 6."""
PROJECTION_PARAMETERS = "proj-params"
OPTICAL_FROM_THEIRS = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
HALF_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
RIGID_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Projection:
    """One fluoroscopy with the pelvis's pose.

    Attributes:
        landmarks_px: ``(n, 2)`` column and row of the specimen's landmarks as annotated in this image, NaN where they are not.
    """

    xray: XrayImage
    camera: Camera
    T_camera_ct: Float64[Tensor, "4 4"]
    landmarks_px: Float64[Tensor, "n 2"]


class DeepFluoroFile:
    """The HDF5 file; every call opens and closes it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DatasetFileError(f"{self.path}: no such file; DeepFluoro is {LICENCE}")

    def specimens(self) -> list[str]:
        """Names of the specimens, in the paper's order where they are the paper's."""
        with self._open() as file:
            found = [name for name in file if name != PROJECTION_PARAMETERS]
        return sorted(found, key=lambda name: (SPECIMENS.index(name) if name in SPECIMENS else len(SPECIMENS), name))

    def projections(self, specimen: str) -> list[str]:
        """Names of a specimen's images."""
        with self._open() as file:
            return sorted(self._group(self._specimen(file, specimen), "projections"))

    def ct(self, specimen: str) -> CtVolume:
        """A specimen's CT."""
        with self._open() as file:
            volume = self._group(self._specimen(file, specimen), "vol")
            pixels = self._array(volume, "pixels")
            if pixels.ndim != 3:
                raise DatasetContentError(f"{self.path}: {volume.name}/pixels has {pixels.ndim} dimensions, 3 are needed")
            T_ct_voxel = np.eye(4)
            T_ct_voxel[:3, :3] = self._array(volume, "dir-mat", (3, 3)) * self._array(volume, "spacing", (3,))
            T_ct_voxel[:3, 3] = self._array(volume, "origin", (3,))
        hu = torch.from_numpy(pixels.astype(np.float32))
        return CtVolume.from_array(hu, torch.from_numpy(T_ct_voxel), f"{self.path}#{specimen}")

    def landmarks(self, specimen: str) -> Landmarks:
        """A specimen's landmarks, LPS mm."""
        with self._open() as file:
            group = self._group(self._specimen(file, specimen), "vol-landmarks")
            names = sorted(group)
            points = [self._array(group, name, (3,)) for name in names]
        if not points:
            raise DatasetContentError(f"{self.path}: {specimen}/vol-landmarks is empty; nothing to measure errors at")
        return Landmarks(tuple(names), torch.from_numpy(np.stack(points)))

    def projection(self, specimen: str, name: str) -> Projection:
        """One image, head up, with its camera and pose."""
        with self._open() as file:
            group = self._group(self._specimen(file, specimen), f"projections/{name}")
            pixels = self._array(group, "image/pixels")
            pose = self._rigid(group, "gt-poses/cam-to-pelvis-vol")
            turned = bool(self._array(group, "rot-180-for-up", ()))
            parameters = self._group(file, PROJECTION_PARAMETERS)
            camera = self._camera(parameters)
            extrinsic = self._rigid(parameters, "extrinsic")
            shown = {key: self._array(group, f"gt-landmarks/{key}", (2,)) for key in group.get("gt-landmarks", ())}
            names = sorted(self._group(self._specimen(file, specimen), "vol-landmarks"))
        if pixels.shape != (camera.height, camera.width):
            raise DatasetContentError(
                f"{self.path}: {group.name}/image/pixels is {pixels.shape}, proj-params say {(camera.height, camera.width)}"
            )
        missing = np.full(2, np.nan)
        landmarks_px = np.stack([shown.get(key, missing) for key in names]) if names else np.zeros((0, 2))
        landmarks_px[:, 0] = camera.width - 1 - landmarks_px[:, 0]
        image, T_camera_ct = pixels[:, ::-1], OPTICAL_FROM_THEIRS @ extrinsic @ se3.inverse(pose)
        if turned:
            image, T_camera_ct, camera = image[::-1, ::-1], HALF_TURN @ T_camera_ct, _reversed(camera, columns=True, rows=True)
            landmarks_px = np.array([camera.width - 1, camera.height - 1]) - landmarks_px
        xray = XrayImage(torch.from_numpy(image.astype(np.float32)), source=f"{self.path}#{specimen}/{name}")
        return Projection(xray, camera, T_camera_ct, torch.from_numpy(landmarks_px))

    def _camera(self, parameters: h5py.Group) -> Camera:
        K = self._array(parameters, "intrinsic", (3, 3))
        spacing = tuple(float(self._array(parameters, key, ())) for key in ("pixel-col-spacing", "pixel-row-spacing"))
        size = tuple(int(self._array(parameters, key, ())) for key in ("num-cols", "num-rows"))
        sdd_mm = float(abs(K[0, 0]) * spacing[0])
        if not (K[0, 0] < 0.0 and K[1, 1] < 0.0):
            raise DatasetContentError(
                f"{self.path}: the focal lengths in proj-params/intrinsic are {K[0, 0]:g} and {K[1, 1]:g}; "
                "both are negative where z points to the source, as documented"
            )
        rows_pitch_mm = sdd_mm / float(abs(K[1, 1]))
        return _reversed(
            Camera(size[0], size[1], sdd_mm, (spacing[0], rows_pitch_mm), (float(K[0, 2]), float(K[1, 2]))), columns=True
        )

    def _open(self) -> h5py.File:
        import h5py

        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            raise DatasetFileError(f"{self.path}: not a whole HDF5 file ({error}); download it again: {LICENCE}") from error

    def _specimen(self, file: h5py.File, name: str) -> h5py.Group:
        if name not in file:
            known = set(file) - {PROJECTION_PARAMETERS} or {"-"}
            raise DatasetFileError(f"{self.path}: no specimen '{name}': {nearest(name, known)}")
        return file[name]

    def _group(self, parent: h5py.Group, key: str) -> h5py.Group:
        if key not in parent:
            place = f"{self.path}: {parent.name.rstrip('/')}/{key}"
            raise DatasetFileError(f"{place} is not there; is this the full-resolution file? {LICENCE}")
        return parent[key]

    def _array(self, parent: h5py.Group, key: str, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
        try:
            values = np.asarray(self._group(parent, key)[()])
        except OSError as error:
            raise DatasetFileError(f"{self.path}: {parent.name}/{key} is damaged ({error}); download the file again") from error
        if shape is None:
            return values
        if values.size != int(np.prod(shape)) or not np.isfinite(values).all():
            place = f"{self.path}: {parent.name}/{key}"
            raise DatasetContentError(f"{place} holds {values.tolist()}; finite numbers of shape {shape} are needed")
        return values.astype(np.float64).reshape(shape)

    def _rigid(self, parent: h5py.Group, key: str) -> Float64[Tensor, "4 4"]:
        matrix = self._array(parent, key, (4, 4))
        strain = float(np.abs(matrix[:3, :3] @ matrix[:3, :3].T - np.eye(3)).max())
        if strain > RIGID_TOLERANCE or np.linalg.det(matrix[:3, :3]) < 0.0:
            place = f"{self.path}: {parent.name}/{key}"
            raise DatasetContentError(f"{place} is no rigid motion (R·Rᵀ is {strain:.2g} off the identity)")
        return torch.from_numpy(matrix)


def _reversed(camera: Camera, columns: bool = False, rows: bool = False) -> Camera:
    """The camera of an image whose columns or rows run the other way."""
    cx, cy = camera.piercing_point_px
    centre = (camera.width - 1 - cx if columns else cx, camera.height - 1 - cy if rows else cy)
    return Camera(camera.width, camera.height, camera.sdd_mm, camera.pixel_pitch_mm, centre)


def check_deepfluoro(path: str | Path) -> list[str]:
    """What is found in a file and what is missing, one line a finding.

    Raises:
        DatasetFileError, DatasetContentError: the file cannot be used at all.
    """
    data = DeepFluoroFile(path)
    lines = [f"licence and source: {LICENCE}"]
    for specimen in data.specimens():
        names, points = data.projections(specimen), data.landmarks(specimen)
        outside = points_outside(data.ct(specimen), points)
        broken = []
        for name in names:
            try:
                data.projection(specimen, name)
            except (DatasetFileError, DatasetContentError) as error:
                broken.append(str(error))
        lines.append(f"{specimen}: {len(names)} projections, {len(names) - len(broken)} usable, {len(points.names)} landmarks")
        lines += [f"{specimen}: landmark {name} lies outside the CT" for name in outside] + broken
    missing = [name for name in SPECIMENS if name not in data.specimens()]
    return lines + ([f"not in this file: {', '.join(missing)}"] if missing else [])


def points_outside(ct: CtVolume, landmarks: Landmarks) -> list[str]:
    """Names of the landmarks that are not in the CT."""
    voxels = se3.transform_points(torch.linalg.inv(ct.T_ct_voxel), landmarks.points_mm)
    size = torch.tensor(ct.size, dtype=torch.float64)
    inside = ((voxels >= -0.5) & (voxels <= size - 0.5)).all(1).tolist()
    return [name for name, within in zip(landmarks.names, inside, strict=True) if not within]
