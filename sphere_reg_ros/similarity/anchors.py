"""Where poses belong on the unit sphere, and how they move on it: the bi-invariant geometry that embeddings are trained towards.

SO(4) itself lies on a sphere: ``vec(P)/2`` is a point of S¹⁵, and great circles between such points keep the bi-invariance:
``cos φ = tr(PᵀQ)/4 = (cos θ1 + cos θ2)/2``, so that ``φ ≈ d/√2``. An embedding that is told of distances only has to find such a
place by itself; told the place, it needs a fifth of the steps. And the pose derivative of an embedding that was trained so is
known without differentiating any network: it is that of ``vec(P)/2``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.func import jvp, vmap

from sphere_reg_ros.errors import InputError
from sphere_reg_ros.geometry import se3, so4
from sphere_reg_ros.geometry.views import SOURCE_TO_CENTRE_MM, view_pose
from sphere_reg_ros.similarity.geometry import Geometry

PoseMetric = Literal["so4", "se3"]
LENGTH_SCALE_MM = 250.0
"""R: what one radian weighs. At 250 mm in-plane shifts of 30 mm, depths of 60 mm and rotations of 20° all count."""
SPHERE_SCALE = 0.5**0.5
"""Distance on the sphere of two near anchors over that of their poses."""


class PoseMetricError(InputError):
    """A metric of poses that does not exist."""


def anchors(
    T_camera_ct: Float64[Tensor, "n 4 4"], centre_ct: Float64[Tensor, "3"], metric: PoseMetric, R_mm: float = LENGTH_SCALE_MM
) -> Float64[Tensor, "n d"]:
    """Points of the unit sphere: of S¹⁵ for SO(4).

    For SE(3)'s logarithm, which no sphere can hold without distortion, the exponential map of ``(t/R, w)/√2`` at a pole of S⁶.

    Raises:
        PoseMetricError: an unknown metric.
    """
    if metric == "so4":
        return 0.5 * embedded(T_camera_ct, centre_ct, R_mm).flatten(-2)
    if metric == "se3":
        usual = view_pose(centre_ct.double(), 0.0, 0.0, SOURCE_TO_CENTRE_MM).expand_as(T_camera_ct)
        twist = se3.twist_between(usual, T_camera_ct, centre_ct)
        tangent = SPHERE_SCALE * torch.cat((twist[..., :3] / R_mm, twist[..., 3:]), dim=-1)
        angle = (tangent.square().sum(-1, keepdim=True) + torch.finfo(tangent.dtype).tiny).sqrt()
        return torch.cat((torch.cos(angle), torch.sin(angle) / angle * tangent), dim=-1)
    raise PoseMetricError(f"unknown pose metric {metric!r}: choose one of {', '.join(get_args(PoseMetric))}")


def embedded(T: Float64[Tensor, "*b 4 4"], centre_ct: Float64[Tensor, "3"], R_mm: float) -> Float64[Tensor, "*b 4 4"]:
    """McCarthy's 4-D rotation of the CT's pose about the place where its centre usually is.

    About the source, far from there, SO(4) would see little of a shift.
    """
    place = (T[..., :3, :3] @ centre_ct.to(T)[:, None]).squeeze(-1) + T[..., :3, 3]
    # Only the depth is shifted: a vector made from numbers would be copied to the device at every call.
    from_usual = torch.cat((place[..., :2], place[..., 2:] - SOURCE_TO_CENTRE_MM), dim=-1)
    return so4.embed_mccarthy(se3.from_rotation_translation(T[..., :3, :3], from_usual), R_mm)


@dataclass(frozen=True)
class Anchors:
    """The anchors in a space of embeddings.

    Attributes:
        geometry: of the embeddings.
        dimension: of the embeddings; anchors fill the first coordinates.
        metric: of the poses.
        R_mm: its length scale.
    """

    geometry: Geometry
    dimension: int
    metric: PoseMetric = "so4"
    R_mm: float = LENGTH_SCALE_MM

    def points(self, T_camera_ct: Float64[Tensor, "n 4 4"], centre_ct: Float64[Tensor, "3"]) -> Float64[Tensor, "n d"]:
        """Where poses belong."""
        place = anchors(T_camera_ct, centre_ct, self.metric, self.R_mm)
        padded = torch.nn.functional.pad(place, (0, self.dimension - place.shape[-1]))
        return self.geometry.project(self.geometry.sphere_radius * padded)

    def jacobian(self, T_camera_ct: Float64[Tensor, "n 4 4"], centre_ct: Float64[Tensor, "3"]) -> Float64[Tensor, "n d 6"]:
        """Derivative of :meth:`points` by the twist about the CT's centre, exact, by forward mode."""
        still = T_camera_ct.new_zeros(len(T_camera_ct), 6)

        def at(twist: Float64[Tensor, "n 6"]) -> Float64[Tensor, "n d"]:
            return self.points(se3.apply_twist(T_camera_ct, twist, centre_ct), centre_ct)

        def column(direction: Float64[Tensor, "6"]) -> Tensor:
            derivative: Tensor = jvp(at, (still,), (direction.expand_as(still),))[1]
            return derivative

        return vmap(column, out_dims=-1)(torch.eye(6, dtype=still.dtype, device=still.device))
