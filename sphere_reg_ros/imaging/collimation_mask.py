"""Which part of an X-ray the beam reached: the shadow of the collimator's blades is found by its edges.

Scatter fills the shadow to the level of a thick patient, so brightness alone cannot tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

COARSE_PX = 128
EDGE_PX = 2
STEP = 0.2
MOST_TILT_DEG = 12.0
COVERED = 0.85
DEEPEST = 0.45
DETAIL = 0.4
NOISE_SHARE = 0.4
"""Of the edge's height: the deeper the shadow, the fewer photons reach it and the more it sparkles."""
SHARPNESS = 0.6
MARGIN_PX = 2.5


@dataclass(frozen=True)
class _Blade:
    """A line ``u = offset + slope·(v - middle)`` of an image turned so that the blade lies to its right."""

    quarter_turns: int
    offset: float
    slope: float

    def keeps(self, shape: tuple[int, ...], margin: float) -> NDArray[np.bool_]:
        """Pixels left of the line, in the image as it was before turning."""
        rows, columns = shape if self.quarter_turns % 2 == 0 else shape[::-1]
        v = np.arange(rows)[:, None] - 0.5 * (rows - 1)
        kept = np.arange(columns) < self.offset + self.slope * v - margin
        return np.asarray(np.rot90(kept, -self.quarter_turns))


def collimation_mask(log_image: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pixels that the beam reached past the collimator; all true where no blade is seen.

    A blade is a straight line within 12° of the image's axes, across which the attenuation rises
    towards the border along at least 85 % of its length, and beyond which there is little detail.
    An iris is a circle that the attenuation rises across, outwards, along 85 % of what is in view.
    The mask keeps a few pixels' distance from the edges.

    Args:
        log_image: ``(h, w)`` attenuation ``-log(I / I0)``, finite.
    """
    height, width = log_image.shape
    scale = min(1.0, COARSE_PX / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    # Averaged before the logarithm: few photons reach the shadow, and the logarithm of their noise would hide its edge.
    coarse = cv2.resize(np.exp(-log_image.astype(np.float32)), size, interpolation=cv2.INTER_AREA)
    smooth = -np.log(np.maximum(cv2.GaussianBlur(coarse, (0, 0), 0.7), np.finfo(np.float32).tiny))
    kept = _inside_blades(smooth) & _inside_iris(smooth)
    enlarged = cv2.resize(kept.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(enlarged > 0)


def _inside_blades(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    field = np.ones(image.shape, dtype=bool)
    blades: list[_Blade] = []
    # A blade's edge shows only where the others leave the beam open: once roughly, once for good.
    for covered in (0.5, COVERED):
        found = [_blade(np.rot90(image, q), np.rot90(field, q), q, covered) for q in range(4)]
        blades = [blade for blade in found if blade is not None]
        field = np.ones(image.shape, dtype=bool)
        for blade in blades:
            field &= blade.keeps(image.shape, 0.0)
    for blade in blades:
        field &= blade.keeps(image.shape, MARGIN_PX)
    return field


def _inside_iris(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    rows, columns = image.shape
    everything = np.ones(image.shape, dtype=bool)
    angle = np.arange(72) * (2.0 * np.pi / 72)
    radii = np.arange(0.3, 0.75, 1.0 / max(rows, columns)) * max(rows, columns)
    best, best_strength = everything, 0.0
    for shift_v, shift_u in np.ndindex(7, 7):
        cu = 0.5 * (columns - 1) + (shift_u - 3) / 24.0 * columns
        cv = 0.5 * (rows - 1) + (shift_v - 3) / 24.0 * rows
        u = np.rint(cu + radii[:, None] * np.cos(angle)).astype(int)
        v = np.rint(cv + radii[:, None] * np.sin(angle)).astype(int)
        seen = (u >= 0) & (u < columns) & (v >= 0) & (v < rows)
        ring = np.where(seen, image[np.clip(v, 0, rows - 1), np.clip(u, 0, columns - 1)], np.nan)
        step = ring[2 * EDGE_PX :] - ring[: -2 * EDGE_PX]
        known = np.isfinite(step)
        count = known.sum(1)
        rising = (np.where(known, step, 0.0) > STEP).sum(1)
        strength = np.where(count >= 36, rising / np.maximum(count, 1), 0.0)
        n = int(strength.argmax())
        if strength[n] >= COVERED and strength[n] > best_strength:
            radius = radii[n + EDGE_PX] - MARGIN_PX
            distance = np.hypot(np.arange(columns) - cu, np.arange(rows)[:, None] - cv)
            best, best_strength = distance < radius, float(strength[n])
    return best


def _blade(
    image: NDArray[np.float32], field: NDArray[np.bool_], quarter_turns: int, covered: float
) -> _Blade | None:
    """The line of a blade that shades the image's right, among rows in which the field is open."""
    rows, columns = image.shape
    step = _rise_along_rows(image)
    open_rows = field[:, : columns // 2].any(1)
    v = np.arange(rows) - 0.5 * (rows - 1)
    best, best_strength = None, 0.0
    for tilt in np.linspace(-MOST_TILT_DEG, MOST_TILT_DEG, 25):
        slope = float(np.tan(np.deg2rad(tilt)))
        offsets = np.arange(int((1.0 - DEEPEST) * columns), columns - EDGE_PX)
        u = np.rint(offsets + slope * v[:, None]).astype(int)
        seen = (u >= EDGE_PX) & (u < columns - EDGE_PX) & open_rows[:, None]
        along = np.where(seen, np.take_along_axis(step, np.clip(u, 0, columns - 1), 1), 0.0)
        count = np.maximum(seen.sum(0), 1)
        share = (along > STEP).sum(0) / count
        strength = np.where(
            (share >= covered) & (count > 0.4 * rows), np.minimum(along, 1.0).sum(0) / count, 0.0
        )
        n = int(strength.argmax())
        if strength[n] > best_strength:
            candidate = _Blade(0, float(offsets[n]), slope)
            if _is_sharp_and_blank(image, candidate, open_rows):
                best, best_strength = candidate, float(strength[n])
    if best is None:
        return None
    return _Blade(quarter_turns, best.offset, best.slope)


def _is_sharp_and_blank(
    image: NDArray[np.float32], blade: _Blade, open_rows: NDArray[np.bool_]
) -> bool:
    """Whether the rise is over within a few pixels, as a chest wall's is not, and little follows."""
    columns = image.shape[1]
    v = np.flatnonzero(open_rows)
    u = np.rint(blade.offset + blade.slope * (v - 0.5 * (image.shape[0] - 1))).astype(int)

    def rise(reach: int) -> float:
        low, high = (np.clip(u + side * reach, 0, columns - 1) for side in (-1, 1))
        return float((image[v, high] - image[v, low]).mean())

    height = rise(EDGE_PX)
    if height < SHARPNESS * rise(3 * EDGE_PX):
        return False
    beyond = ~blade.keeps(image.shape, -2.0 * EDGE_PX) & open_rows[:, None]
    detail = np.abs(_rise_along_rows(image))[beyond & _within_reach(image.shape)]
    return detail.size == 0 or bool(np.percentile(detail, 95) < max(DETAIL, NOISE_SHARE * height))


def _rise_along_rows(image: NDArray[np.float32]) -> NDArray[np.float32]:
    step = np.zeros_like(image)
    step[:, EDGE_PX:-EDGE_PX] = image[:, 2 * EDGE_PX :] - image[:, : -2 * EDGE_PX]
    return step


def _within_reach(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    inner = np.zeros(shape, dtype=bool)
    inner[:, EDGE_PX:-EDGE_PX] = True
    return inner
