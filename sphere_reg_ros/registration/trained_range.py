"""Which poses a model knows: those of the range that its card says it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.views import SOURCE_TO_CENTRE_MM, view_rotation

GRID_DEG = 10.0
ROTATION_SPREADS = 2.5
SHIFT_SPREADS = 3.0


@dataclass(frozen=True)
class TrainedRange:
    """Views and how far around them.

    Attributes:
        views: ``(n, 3, 3)`` rotations of the views, no farther apart than 10°.
        rotation_rad: largest turn away from the nearest of them.
        shift_mm: largest shift of the CT's centre from its usual place along each camera axis.
    """

    views: Float64[Tensor, "n 3 3"]
    rotation_rad: float
    shift_mm: Float64[Tensor, "3"]

    @classmethod
    def of(cls, settings: dict[str, Any]) -> TrainedRange | None:
        """The range of a card's settings; none where the card does not say it."""
        given = settings.get("pose_range")
        if given is None:
            return None
        axes = [_grid(*given[name]) for name in ("orbital_deg", "cranial_deg")]
        views = torch.stack([view_rotation(orbital, cranial) for orbital in axes[0] for cranial in axes[1]])
        half_cell_deg = 0.75 * GRID_DEG if len(views) > 1 else 0.0
        shift = SHIFT_SPREADS * torch.tensor([given["in_plane_mm"], given["in_plane_mm"], given["depth_mm"]], dtype=torch.float64)
        return cls(views, float(torch.pi / 180.0 * (ROTATION_SPREADS * given["rotation_deg"] + half_cell_deg)), shift)

    def holds(self, T_camera_ct: Float64[Tensor, "4 4"], centre_ct: Float64[Tensor, "3"]) -> bool:
        """Whether a pose lies in it."""
        place = T_camera_ct[:3, :3] @ centre_ct + T_camera_ct[:3, 3]
        usual = place.new_tensor([0.0, 0.0, SOURCE_TO_CENTRE_MM])
        turn = se3.so3_log(T_camera_ct[:3, :3] @ self.views.mT).norm(dim=-1).min()
        return bool(turn <= self.rotation_rad) and bool(((place - usual).abs() <= self.shift_mm).all())


def _grid(low_deg: float, high_deg: float) -> list[float]:
    steps = max(1, round((high_deg - low_deg) / GRID_DEG))
    return [low_deg] if high_deg == low_deg else [low_deg + k * (high_deg - low_deg) / steps for k in range(steps + 1)]
