"""Ljubljana: cerebral angiographies of ten patients, two views each, with fiducials (Mitrović, Pernuš et al., IEEE TMI 2013).

The HDF5 that DiffPose distributes of them (``ljubljana.h5``). Field by field, as its two public readers use them (github
eigenvivek/DiffPose, diffpose/ljubljana.py, and eigenvivek/DiffDRR-Datasets, diffdrrdata/ljubljana.py):

==================================  =================================================================================
``subjectNN/volume/pixels``         3-D subtraction angiography, indices (x, y, z), **x reversed**: index 0 lies at the far end
``volume/spacing, origin``          mm per index; world mm of the corner voxel with the smallest coordinates
``subjectNN/points``                fiducials, world mm
``proj-VIEW/extrinsic`` E           world to their camera, rigid; VIEW is ap, lat, ap-max or lat-max
``proj-VIEW/intrinsic`` K           their camera to (column, row), negative focal lengths; SDD = abs(K₀₀ · col-spacing)
``proj-VIEW/pixels``                subtracted image, vessels darker than the background
==================================  =================================================================================

The camera frame is that of DeepFluoro, see `hdf5`. The reversed x is inferred from the readers: the older one's renderer wanted
volumes reversed along x and takes this one as stored; the newer one's does not, and reverses it. The subtracted volume is in no
Hounsfield units: what is below 1000 is background to the newer reader, and air here. Whether the world's axes are LPS is open; no
metric depends on it. A view seen as its maximum over time (``-max``) is not used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sphere_reg_ros.evaluation.datasets.hdf5 import OPTICAL_FROM_THEIRS, Hdf5File, points_outside
from sphere_reg_ros.evaluation.datasets.projection import Projection
from sphere_reg_ros.evaluation.errors import DatasetContentError, DatasetFileError
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.landmarks import Landmarks
from sphere_reg_ros.imaging.xray import XrayImage

SOURCE = (
    "lit.fe.uni-lj.si/en/research/resources/3D-2D-GS-CA (licence as stated there); as ljubljana.h5: "
    "github.com/eigenvivek/DiffPose"
)
SUBJECTS = tuple(f"subject{number:02d}" for number in range(1, 11))
VIEWS = ("ap", "lat")
VESSEL_FROM = 1000.0
AIR_HU = -1000.0


class LjubljanaFile(Hdf5File):
    """The HDF5 file."""

    source = SOURCE

    def specimens(self) -> list[str]:
        """Names of the subjects."""
        with self.open() as file:
            return sorted(name for name in file if name.startswith("subject"))

    def projections(self, specimen: str) -> list[str]:
        """Names of a subject's views."""
        with self.open() as file:
            group = self.top(file, specimen)
            return [view for view in VIEWS if f"proj-{view}" in group]

    def ct(self, specimen: str) -> CtVolume:
        """A subject's vessels; the rest is air."""
        with self.open() as file:
            volume = self.group(self.top(file, specimen), "volume")
            pixels = self.array(volume, "pixels")
            if pixels.ndim != 3:
                raise DatasetContentError(f"{self.path}: {volume.name}/pixels has {pixels.ndim} dimensions, 3 are needed")
            spacing, origin = self.array(volume, "spacing", (3,)), self.array(volume, "origin", (3,))
        T_ct_voxel = np.eye(4)
        T_ct_voxel[:3, :3] = np.diag(spacing)
        T_ct_voxel[:3, 3] = origin
        world = np.ascontiguousarray(pixels[::-1].transpose(2, 1, 0)).astype(np.float32)
        hu = torch.from_numpy(np.where(world < VESSEL_FROM, np.float32(AIR_HU), world))
        return CtVolume.from_array(hu, torch.from_numpy(T_ct_voxel), f"{self.path}#{specimen}")

    def landmarks(self, specimen: str) -> Landmarks:
        """A subject's fiducials, world mm."""
        with self.open() as file:
            points = self.array(self.top(file, specimen), "points")
        if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0 or not np.isfinite(points).all():
            raise DatasetContentError(f"{self.path}: {specimen}/points has shape {points.shape}; n x 3 finite numbers are needed")
        names = tuple(f"fiducial {number}" for number in range(len(points)))
        return Landmarks(names, torch.from_numpy(points.astype(np.float64)))

    def projection(self, specimen: str, name: str) -> Projection:
        """One view with its camera and pose.

        Raises:
            DatasetFileError, DatasetContentError: a field is missing or wrong, or the fiducials are not before the detector.
        """
        points = self.landmarks(specimen).points_mm
        with self.open() as file:
            group = self.group(self.top(file, specimen), f"proj-{name}")
            pixels = self.array(group, "pixels")
            if pixels.ndim != 2:
                raise DatasetContentError(f"{self.path}: {group.name}/pixels has {pixels.ndim} dimensions, 2 are needed")
            K, pitch_mm = self.array(group, "intrinsic", (3, 3)), float(self.array(group, "col-spacing", ()))
            height, width = pixels.shape
            camera = self.mirrored_camera(K, pitch_mm, width, height, f"{group.name}/intrinsic")
            T_camera_ct = OPTICAL_FROM_THEIRS @ self.rigid(group, "extrinsic")
            place = f"{self.path}: {group.name}"
        depth = se3.transform_points(T_camera_ct, points)[:, 2]
        if not bool(((depth > 0.0) & (depth < camera.sdd_mm)).all()):
            raise DatasetContentError(
                f"{place}: fiducials lie {float(depth.min()):.0f} to {float(depth.max()):.0f} mm from the source, "
                f"not between it and the detector at {camera.sdd_mm:.0f} mm: the extrinsic is of another convention"
            )
        darkening = np.median(pixels) - pixels[:, ::-1].astype(np.float32)
        xray = XrayImage(torch.from_numpy(darkening.astype(np.float32)), is_attenuation=True, source=f"{place}")
        return Projection(xray, camera, T_camera_ct, camera.project(se3.transform_points(T_camera_ct, points)))


def check_ljubljana(path: str | Path) -> list[str]:
    """What is found in a file and what is missing, one line a finding.

    Raises:
        DatasetFileError, DatasetContentError: the file cannot be used at all.
    """
    data = LjubljanaFile(path)
    found = data.specimens()
    if not found:
        raise DatasetFileError(f"{path}: no group subject01 to subject10 in it; is this ljubljana.h5? {SOURCE}")
    lines = [f"licence and source: {SOURCE}"]
    for subject in found:
        landmarks, views, broken = data.landmarks(subject), data.projections(subject), []
        outside = points_outside(data.ct(subject), landmarks)
        for view in views:
            try:
                data.projection(subject, view)
            except (DatasetFileError, DatasetContentError) as error:
                broken.append(str(error))
        lines.append(f"{subject}: {len(views)} views, {len(views) - len(broken)} usable, {len(landmarks.names)} fiducials")
        lines += [f"{subject}: no view {view}" for view in VIEWS if view not in views]
        lines += [f"{subject}: {name} lies outside the volume" for name in outside] + broken
    missing = [name for name in SUBJECTS if name not in found]
    return lines + ([f"not in this file: {', '.join(missing)}"] if missing else [])
