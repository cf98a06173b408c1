"""A CT: Hounsfield units on a regular grid in the patient."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.errors import CtContentError

BONE_HU = (250.0, 2500.0)
MIN_BONE_VOXELS = 1000
TISSUE_HU = -300.0
CORNER_TOLERANCE = 1e-3


@dataclass(frozen=True)
class CtVolume:
    """A CT.

    Attributes:
        hu: ``(z, y, x)`` Hounsfield units, int16 or float32; padding below -1000 counts as air.
        T_ct_voxel: ``(4, 4)`` float64, voxel indices ``(i = x, j = y, k = z)`` to LPS mm; any orientation.
        sha256: see :func:`content_hash`.
        source: where it was read from.

    Raises:
        CtContentError: not three-dimensional, fewer than two voxels along an axis, or axes that span no space.
    """

    hu: Float[Tensor, "z y x"]
    T_ct_voxel: Float64[Tensor, "4 4"]
    sha256: str
    source: str

    def __post_init__(self) -> None:
        """Refuse what is no volume."""
        if self.hu.ndim != 3 or min(self.hu.shape) < 2:
            raise CtContentError(
                f"{self.source or 'CT'}: shape {tuple(self.hu.shape)} is no volume; "
                "at least 2 voxels along each of 3 axes are needed"
            )
        determinant = float(torch.linalg.det(self.T_ct_voxel[:3, :3]))
        if not abs(determinant) > 1e-9:
            raise CtContentError(
                f"{self.source or 'CT'}: the voxel axes span a volume of {determinant:g} mm³; "
                "check the header's spacing and directions"
            )

    @classmethod
    def from_array(
        cls, hu: Float[Tensor, "z y x"], T_ct_voxel: Float64[Tensor, "4 4"], source: str = ""
    ) -> CtVolume:
        """A CT with its hash computed."""
        T = T_ct_voxel.to(torch.float64)
        return cls(hu, T, content_hash(hu, T), source)

    @property
    def size(self) -> tuple[int, int, int]:
        """Number of voxels along i, j, k."""
        z, y, x = self.hu.shape
        return (int(x), int(y), int(z))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along i, j, k."""
        x, y, z = self.T_ct_voxel[:3, :3].norm(dim=0).tolist()
        return (x, y, z)

    def centre_mm(self) -> Float64[Tensor, "3"]:
        """Middle of the voxel grid, LPS mm."""
        middle = torch.tensor([(size - 1) / 2.0 for size in self.size], dtype=torch.float64)
        return self.T_ct_voxel[:3, :3] @ middle + self.T_ct_voxel[:3, 3]

    def reference_point(self) -> Float64[Tensor, "3"]:
        """The point c that twists turn about, LPS mm.

        Left and posterior are the medians of the voxels with 250 to 2500 HU, superior is the middle of the volume; the
        middle throughout where there are fewer than 1000 such voxels.
        """
        return self._reference_point.clone()

    def body_corners(self) -> Float64[Tensor, "8 3"]:
        """Corners, LPS mm, of the box of voxels around the patient: where a tenth of a per cent of a plane is above -300 HU."""
        return self._body_corners.clone()

    @cached_property
    def _reference_point(self) -> Float64[Tensor, "3"]:
        centre = self.centre_mm()
        hu = self.hu.numpy()
        # One plane at a time: a mask and its indices of a whole CT would take more memory than the CT.
        found = [np.nonzero((plane >= BONE_HU[0]) & (plane <= BONE_HU[1])) for plane in hu]
        counts = [len(rows) for rows, _ in found]
        if sum(counts) < MIN_BONE_VOXELS:
            return centre
        i = np.concatenate([columns for _, columns in found]).astype(np.float64)
        j = np.concatenate([rows for rows, _ in found]).astype(np.float64)
        k = np.repeat(np.arange(len(hu), dtype=np.float64), counts)
        T = self.T_ct_voxel.numpy()
        medians = [float(np.median(T[axis, 0] * i + T[axis, 1] * j + T[axis, 2] * k + T[axis, 3])) for axis in (0, 1)]
        return torch.tensor([*medians, float(centre[2])], dtype=torch.float64)

    @cached_property
    def _body_corners(self) -> Float64[Tensor, "8 3"]:
        x, y, z = self.size
        counts = (np.zeros(x), np.zeros(y), np.zeros(z))
        # Plane by plane: a mask of the whole CT would be computed from a float copy of it.
        for k, plane in enumerate(self.hu.numpy()):
            tissue = plane > TISSUE_HU
            counts[0][:] += tissue.sum(0)
            counts[1][:] += tissue.sum(1)
            counts[2][k] = tissue.sum()
        bounds = []
        for count, others in zip(counts, (y * z, x * z, x * y), strict=True):
            inside = np.flatnonzero(count / others > CORNER_TOLERANCE)
            bounds.append((float(inside[0]), float(inside[-1])) if len(inside) else (0.0, len(count) - 1.0))
        corners = torch.cartesian_prod(*(torch.tensor(bound, dtype=torch.float64) for bound in bounds))
        return corners @ self.T_ct_voxel[:3, :3].T + self.T_ct_voxel[:3, 3]


def content_hash(hu: Float[Tensor, "z y x"], T_ct_voxel: Float64[Tensor, "4 4"]) -> str:
    """SHA-256 of what the CT says, not of the file that says it.

    Over the size, ``T_ct_voxel`` rounded to a thousandth of a mm, and the voxels rounded to int16, so that compression, and
    DICOM fields that identify the patient, do not change it.
    """
    digest = hashlib.sha256()
    digest.update(np.asarray(hu.shape, dtype="<i8").tobytes())
    # Adding zero turns -0.0 into 0.0, which has other bytes.
    digest.update((np.round(T_ct_voxel.numpy(), 3) + 0.0).astype("<f8").tobytes())
    for plane in hu:
        values = plane if plane.dtype == torch.int16 else plane.round().clamp(-32768, 32767).to(torch.int16)
        digest.update(values.contiguous().numpy().astype("<i2", copy=False).tobytes())
    return digest.hexdigest()


def patient_clear_of_source_and_detector(
    ct: CtVolume, camera: Camera, T_camera_ct: Float64[Tensor, "4 4"], margin_mm: float = 10.0
) -> bool:
    """Whether the whole patient lies between the source and the detector, with a margin to both."""
    depth = se3.transform_points(T_camera_ct.to(torch.float64), ct.body_corners())[:, 2]
    return bool((depth > margin_mm).all() and (depth < camera.sdd_mm - margin_mm).all())
