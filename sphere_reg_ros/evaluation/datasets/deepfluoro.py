"""DeepFluoro: fluoroscopies of six cadaveric pelves (Grupp et al., IPCAI 2020), the full-resolution HDF5.

Layout and conventions as its authors document them (github rg2/DeepFluoroLabeling-IPCAI2020, hdf5_layouts/Readme.md, and
examples_dataset/full_res_3d_viz.py). Their camera frame, and how it becomes this package's, stands in `hdf5`. Field by field:

==================================  =================================================================================
``vol/pixels, origin, spacing``     (z, y, x) HU; LPS mm of voxel (0, 0, 0); ``dir-mat`` is the axes' directions
``vol-landmarks/NAME``              LPS mm
``proj-params/extrinsic`` E         world to their camera, rigid
``gt-poses/cam-to-pelvis-vol`` P    world to LPS of the volume: their camera sees ``E · P⁻¹ · p``
``proj-params/intrinsic`` K         their camera to (column, row), SDD = abs(K₀₀ · pixel-col-spacing)
``rot-180-for-up``                  the image turned by 180° has the patient's head up
==================================  =================================================================================

An image marked ``rot-180-for-up`` is turned by 180° with its camera, ``diag(-1, -1, 1)``, as DiffPose (diffpose/deepfluoro.py),
DiffDRR-Datasets (diffdrrdata/deepfluoro.py), whose files xvr reads, and the authors' example do it. The poses are taken as
stored, as all three do. Open: a program on top of the authors' library xreg shifts them by half a millimetre along each axis
of the volume, for an inconsistency in texture indexing, and calls that a correction. That could not be settled here without the
data: read errors below a millimetre on this set with that in mind.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sphere_reg_ros.evaluation.datasets.hdf5 import OPTICAL_FROM_THEIRS, Hdf5File, points_outside, reversed_camera
from sphere_reg_ros.evaluation.datasets.projection import Projection
from sphere_reg_ros.evaluation.errors import DatasetContentError, DatasetFileError
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
HALF_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))


class DeepFluoroFile(Hdf5File):
    """The HDF5 file."""

    source = LICENCE

    def specimens(self) -> list[str]:
        """Names of the specimens, in the paper's order where they are the paper's."""
        with self.open() as file:
            found = [name for name in file if name != PROJECTION_PARAMETERS]
        return sorted(found, key=lambda name: (SPECIMENS.index(name) if name in SPECIMENS else len(SPECIMENS), name))

    def projections(self, specimen: str) -> list[str]:
        """Names of a specimen's images."""
        with self.open() as file:
            return sorted(self.group(self._specimen(file, specimen), "projections"))

    def ct(self, specimen: str) -> CtVolume:
        """A specimen's CT."""
        with self.open() as file:
            volume = self.group(self._specimen(file, specimen), "vol")
            pixels = self.array(volume, "pixels")
            if pixels.ndim != 3:
                raise DatasetContentError(f"{self.path}: {volume.name}/pixels has {pixels.ndim} dimensions, 3 are needed")
            T_ct_voxel = np.eye(4)
            T_ct_voxel[:3, :3] = self.array(volume, "dir-mat", (3, 3)) * self.array(volume, "spacing", (3,))
            T_ct_voxel[:3, 3] = self.array(volume, "origin", (3,))
        hu = torch.from_numpy(pixels.astype(np.float32))
        return CtVolume.from_array(hu, torch.from_numpy(T_ct_voxel), f"{self.path}#{specimen}")

    def landmarks(self, specimen: str) -> Landmarks:
        """A specimen's landmarks, LPS mm."""
        with self.open() as file:
            group = self.group(self._specimen(file, specimen), "vol-landmarks")
            names = sorted(group)
            points = [self.array(group, name, (3,)) for name in names]
        if not points:
            raise DatasetContentError(f"{self.path}: {specimen}/vol-landmarks is empty; nothing to measure errors at")
        return Landmarks(tuple(names), torch.from_numpy(np.stack(points)))

    def projection(self, specimen: str, name: str) -> Projection:
        """One image, head up, with its camera and pose."""
        with self.open() as file:
            group = self.group(self._specimen(file, specimen), f"projections/{name}")
            pixels = self.array(group, "image/pixels")
            pose = self.rigid(group, "gt-poses/cam-to-pelvis-vol")
            turned = bool(self.array(group, "rot-180-for-up", ()))
            parameters = self.group(file, PROJECTION_PARAMETERS)
            camera = self._camera(parameters)
            extrinsic = self.rigid(parameters, "extrinsic")
            shown = {key: self.array(group, f"gt-landmarks/{key}", (2,)) for key in group.get("gt-landmarks", ())}
            names = sorted(self.group(self._specimen(file, specimen), "vol-landmarks"))
        if pixels.shape != (camera.height, camera.width):
            raise DatasetContentError(
                f"{self.path}: {group.name}/image/pixels is {pixels.shape}, proj-params say {(camera.height, camera.width)}"
            )
        missing = np.full(2, np.nan)
        landmarks_px = np.stack([shown.get(key, missing) for key in names]) if names else np.zeros((0, 2))
        landmarks_px[:, 0] = camera.width - 1 - landmarks_px[:, 0]
        image, T_camera_ct = pixels[:, ::-1], OPTICAL_FROM_THEIRS @ extrinsic @ se3.inverse(pose)
        if turned:
            image, T_camera_ct = image[::-1, ::-1], HALF_TURN @ T_camera_ct
            camera = reversed_camera(camera, columns=True, rows=True)
            landmarks_px = np.array([camera.width - 1, camera.height - 1]) - landmarks_px
        xray = XrayImage(torch.from_numpy(image.astype(np.float32)), source=f"{self.path}#{specimen}/{name}")
        return Projection(xray, camera, T_camera_ct, torch.from_numpy(landmarks_px))

    def _camera(self, parameters: h5py.Group) -> Camera:
        K = self.array(parameters, "intrinsic", (3, 3))
        width, height = (int(self.array(parameters, key, ())) for key in ("num-cols", "num-rows"))
        pitch_mm = float(self.array(parameters, "pixel-col-spacing", ()))
        return self.mirrored_camera(K, pitch_mm, width, height, "proj-params/intrinsic")

    def _specimen(self, file: h5py.File, name: str) -> h5py.Group:
        return self.top(file, name, frozenset({PROJECTION_PARAMETERS}))


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
