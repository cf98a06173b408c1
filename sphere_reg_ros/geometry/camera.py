"""The C-arm as a pinhole camera.

The origin of the optical frame is the X-ray source, +z points to the detector, x along image columns, y down the rows
(REP-103, optical frame). Integer pixel coordinates are pixel centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sphere_reg_ros.geometry.errors import CameraError, ContradictingIntrinsicsError, IntrinsicsError

CONTRADICTION_TOLERANCE = 5e-3
"""Relative difference between K and SDD / pitch that rounding in headers explains; half a per cent of the focal length is
5 mm of depth at 1 m."""

ROUNDING_TOLERANCE = 1e-12
"""Below this the stated pitch is kept as it is, so that writing and reading a camera gives the same one."""


@dataclass(frozen=True)
class Camera:
    """Intrinsics of a C-arm with their absolute scale.

    Attributes:
        width, height: image size in pixels.
        sdd_mm: distance from the source to the detector.
        pixel_pitch_mm: ``(du, dv)``, spacing of columns and of rows on the detector.
        piercing_point_px: ``(cx, cy)``, where the axis through the source meets the detector.

    Raises:
        CameraError: a figure that is not finite, or not positive.
    """

    width: int
    height: int
    sdd_mm: float
    pixel_pitch_mm: tuple[float, float]
    piercing_point_px: tuple[float, float]

    def __post_init__(self) -> None:
        """Refuse a camera that cannot exist."""
        if self.width < 1 or self.height < 1:
            raise CameraError(f"image size is {self.width} x {self.height}; both must be at least one pixel")
        du, dv = self.pixel_pitch_mm
        for name, value in (("SDD", self.sdd_mm), ("column pitch", du), ("row pitch", dv)):
            if not (math.isfinite(value) and value > 0.0):
                raise CameraError(f"{name} is {value} mm; it must be a positive length")
        if not all(math.isfinite(value) for value in self.piercing_point_px):
            raise CameraError(f"piercing point is {self.piercing_point_px}; both coordinates must be finite")

    @classmethod
    def centred(
        cls, size_px: int | tuple[int, int], detector_mm: float = 300.0, sdd_mm: float = 1020.0
    ) -> Camera:
        """A C-arm whose axis meets the middle of the detector.

        Args:
            size_px: width and height, or one number for both.
            detector_mm: width of the detector; pixels are square.
        """
        width, height = (size_px, size_px) if isinstance(size_px, int) else size_px
        pitch = detector_mm / width
        return cls(width, height, sdd_mm, (pitch, pitch), ((width - 1) / 2.0, (height - 1) / 2.0))

    @classmethod
    def from_intrinsic(
        cls,
        K: Float[Tensor, "3 3"],
        width: int,
        height: int,
        sdd_mm: float,
        pixel_pitch_mm: tuple[float, float] | None = None,
    ) -> Camera:
        """A camera from its intrinsic matrix and its absolute scale.

        Args:
            K: ``[[SDD/du, 0, cx], [0, SDD/dv, cy], [0, 0, 1]]``.
            pixel_pitch_mm: checked against K where given, derived from it where not. Within the tolerance K wins, because
                it says where the rays go.

        Raises:
            IntrinsicsError: K has zeros on its diagonal, skew, or is not finite.
            ContradictingIntrinsicsError: K contradicts SDD and pitch by more than half a per cent.
        """
        fx, fy, cx, cy = _checked_intrinsic(torch.as_tensor(K, dtype=torch.float64))
        if not (math.isfinite(sdd_mm) and sdd_mm > 0.0):
            raise CameraError(f"SDD is {sdd_mm} mm; it must be a positive length")
        derived = (sdd_mm / fx, sdd_mm / fy)
        if pixel_pitch_mm is None:
            return cls(width, height, sdd_mm, derived, (cx, cy))
        for axis, stated, implied in zip(("column", "row"), pixel_pitch_mm, derived, strict=True):
            if not abs(stated - implied) <= CONTRADICTION_TOLERANCE * implied:
                raise ContradictingIntrinsicsError(
                    f"{axis} pitch is stated as {stated:.6g} mm, but K and an SDD of {sdd_mm:.6g} mm imply {implied:.6g} mm "
                    f"(more than {CONTRADICTION_TOLERANCE:.1%} apart); correct one of the three"
                )
        du, dv = (
            stated if math.isclose(stated, implied, rel_tol=ROUNDING_TOLERANCE) else implied
            for stated, implied in zip(pixel_pitch_mm, derived, strict=True)
        )
        return cls(width, height, sdd_mm, (du, dv), (cx, cy))

    @property
    def intrinsic(self) -> Float64[Tensor, "3 3"]:
        """``K = [[SDD/du, 0, cx], [0, SDD/dv, cy], [0, 0, 1]]``."""
        (du, dv), (cx, cy) = self.pixel_pitch_mm, self.piercing_point_px
        rows = [[self.sdd_mm / du, 0.0, cx], [0.0, self.sdd_mm / dv, cy], [0.0, 0.0, 1.0]]
        return torch.tensor(rows, dtype=torch.float64)

    def resampled(self, width: int, height: int) -> Camera:
        """The same detector with another number of pixels; every physical point keeps its place."""
        scale_x, scale_y = width / self.width, height / self.height
        (du, dv), (cx, cy) = self.pixel_pitch_mm, self.piercing_point_px
        centre = ((cx + 0.5) * scale_x - 0.5, (cy + 0.5) * scale_y - 0.5)
        return Camera(width, height, self.sdd_mm, (du / scale_x, dv / scale_y), centre)

    def cropped(self, left: int, top: int, width: int, height: int) -> Camera:
        """A window of the image; ``left`` and ``top`` are the first column and row kept."""
        cx, cy = self.piercing_point_px
        return Camera(width, height, self.sdd_mm, self.pixel_pitch_mm, (cx - left, cy - top))

    def project(self, points_camera: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 2"]:
        """Pixel coordinates of points in camera mm; meaningful only in front of the source, z > 0."""
        (du, dv), (cx, cy) = self.pixel_pitch_mm, self.piercing_point_px
        x, y, z = points_camera.unbind(-1)
        scale = self.sdd_mm / z
        return torch.stack((x * scale / du + cx, y * scale / dv + cy), dim=-1)

    def pixel_points(
        self, device: torch.device | str | None = None, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "h w 3"]:
        """Centres of the pixels on the detector plane, camera mm."""
        (du, dv), (cx, cy) = self.pixel_pitch_mm, self.piercing_point_px
        x = (torch.arange(self.width, device=device, dtype=dtype) - cx) * du
        y = (torch.arange(self.height, device=device, dtype=dtype) - cy) * dv
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        return torch.stack((columns, rows, torch.full_like(rows, self.sdd_mm)), dim=-1)


def _checked_intrinsic(K: Float64[Tensor, "3 3"]) -> tuple[float, float, float, float]:
    if tuple(K.shape) != (3, 3):
        raise IntrinsicsError(f"K has shape {tuple(K.shape)}; a 3x3 matrix is needed")
    if not bool(torch.isfinite(K).all()):
        raise IntrinsicsError("K holds NaN or infinite values; check the calibration")
    fx, fy = float(K[0, 0]), float(K[1, 1])
    if fx <= 0.0 or fy <= 0.0:
        raise IntrinsicsError(f"K has focal lengths {fx:g} and {fy:g} pixels; both must be positive: is the camera calibrated?")
    stray = float(torch.stack((K[0, 1], K[1, 0], K[2, 0], K[2, 1], K[2, 2] - 1.0)).abs().max())
    if stray > 1e-6 * fx:
        raise IntrinsicsError("K has skew or a last row other than [0, 0, 1]; rectify the image first")
    return fx, fy, float(K[0, 2]), float(K[1, 2])
