"""The space in which an X-ray and a DRR are compared: one interface for the sphere and its rivals of the ablation."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from sphere_reg_ros.errors import InputError


class GeometryError(InputError):
    """A geometry that does not exist."""


class Geometry(Protocol):
    """A metric space of embeddings."""

    name: str
    sphere_radius: float
    """Of the raw sphere whose projection has the unit sphere's great circles, to first order."""

    def project(self, raw: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """A network's output as a point of the space."""
        ...

    def distance(self, u: Float[Tensor, "*b d"], v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """Geodesic distance; batches broadcast."""
        ...

    def residual(self, u: Float[Tensor, "*b d"], v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """A vector at ``u`` that points to ``v`` and is as long as their distance: what a least-squares solver minimises."""
        ...


def make_geometry(name: str) -> Geometry:
    """``spherical``, ``euclidean`` or ``hyperbolic``.

    Raises:
        GeometryError: another name.
    """
    from sphere_reg_ros.similarity.euclidean import Euclidean
    from sphere_reg_ros.similarity.hyperbolic import Hyperbolic
    from sphere_reg_ros.similarity.spherical import Spherical

    geometries: dict[str, Geometry] = {one.name: one for one in (Spherical(), Euclidean(), Hyperbolic())}
    if name not in geometries:
        raise GeometryError(f"unknown geometry {name!r}: choose one of {', '.join(geometries)}")
    return geometries[name]
