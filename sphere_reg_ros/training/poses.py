"""Ranges of poses that a model is trained for, and draws from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import SOURCE_TO_CENTRE_SHARE, sample_perturbation, view_pose
from sphere_reg_ros.imaging.ct import BONE_HU, MIN_BONE_VOXELS, CtVolume
from sphere_reg_ros.training.errors import BonelessCtError, PoseRangeError

MARGIN_MM = 10.0
MAX_ROUNDS = 200
MIN_BONE_IN_VIEW = 0.2
"""A pose that shows less of the CT's bone than this has lost the CT."""
MAX_LOST_SHARE = 0.02
CHECKED_POSES = 1000
BONE_POINTS = 1000


@dataclass(frozen=True)
class PoseRange:
    """Views, drawn uniformly, and a normal perturbation of each.

    Attributes:
        orbital_deg, cranial_deg: least and largest angle of the view, see `geometry.views.view_rotation`.
        rotation_deg: standard deviation of each component of the rotation vector.
        in_plane_mm: standard deviation of the shift along image columns and rows.
        depth_mm: standard deviation along the optical axis.
    """

    orbital_deg: tuple[float, float] = (0.0, 0.0)
    cranial_deg: tuple[float, float] = (0.0, 0.0)
    rotation_deg: float = 20.0
    in_plane_mm: float = 30.0
    depth_mm: float = 60.0

    def widened(self, factor: float) -> PoseRange:
        """The same views with that many times the normal spread."""
        wider = {name: factor * getattr(self, name) for name in ("rotation_deg", "in_plane_mm", "depth_mm")}
        return replace(self, **wider)


NEAR_AP = PoseRange()
ANY_VIEW = PoseRange(orbital_deg=(-105.0, 105.0), cranial_deg=(-30.0, 30.0), rotation_deg=5.0)
RANGES = {"near-ap": NEAR_AP, "any-view": ANY_VIEW}


def sample_range(
    ct: CtVolume, camera: Camera, pose_range: PoseRange, n: int, generator: torch.Generator
) -> Float64[Tensor, "n 4 4"]:
    """Poses of a range with the whole patient between source and detector; others are drawn again.

    Raises:
        PoseRangeError: hardly any pose of the range keeps the patient clear of source and detector.
    """
    found: list[Tensor] = []
    count = 0
    for _ in range(MAX_ROUNDS):
        drawn = _draw(ct, camera, pose_range, max(n, 64), generator)
        clear = drawn[_clear(ct, camera, drawn)]
        found.append(clear)
        count += len(clear)
        if count >= n:
            return torch.cat(found)[:n]
    raise PoseRangeError(
        f"only {count / (MAX_ROUNDS * max(n, 64)):.2%} of the poses keep the patient {MARGIN_MM:g} mm clear of the source and "
        f"the detector (source-detector distance {camera.sdd_mm:g} mm): narrow the range, or crop the CT"
    )


def perturbed(
    ct: CtVolume, camera: Camera, T_camera_ct: Float64[Tensor, "n 4 4"], pose_range: PoseRange, generator: torch.Generator
) -> Float64[Tensor, "n 4 4"]:
    """Each pose moved by the range's spread times a factor: half of them log-uniform in 0.03..1, half uniform in 0.7..1.4.

    A solver that starts one spread away from a pose that is itself one spread from the middle, and overshoots, meets DRRs far
    from the middle; it ends near the pose, where small differences count. A move that brings the patient to the source or the
    detector is halved until it does not.
    """
    n = len(T_camera_ct)
    drawn, kind = torch.rand(2, n, 1, generator=generator, dtype=torch.float64)
    near, far = torch.exp(drawn * torch.log(torch.tensor(0.03))), 0.7 + 0.7 * drawn
    scale = torch.where(kind < 0.5, near, far)
    spread = NEAR_AP if pose_range.rotation_deg < NEAR_AP.rotation_deg else pose_range
    twist = scale * sample_perturbation(generator, spread.rotation_deg, spread.in_plane_mm, spread.depth_mm, n)
    centre = ct.reference_point()
    for _ in range(8):
        moved = se3.apply_twist(T_camera_ct, twist, centre)
        clear = _clear(ct, camera, moved)
        twist = torch.where(clear[:, None], twist, 0.5 * twist)
    return se3.apply_twist(T_camera_ct, twist, centre)


def bone_points(ct: CtVolume) -> Float64[Tensor, "n 3"]:
    """A thousand points of the CT's bone, LPS mm, spread evenly over its voxels.

    Raises:
        BonelessCtError: fewer than a thousand voxels of bone.
    """
    indices = torch.nonzero((ct.hu >= BONE_HU[0]) & (ct.hu <= BONE_HU[1]))
    if len(indices) < MIN_BONE_VOXELS:
        raise BonelessCtError(
            f"{ct.source or 'CT'}: {len(indices)} voxels of {BONE_HU[0]:g} to {BONE_HU[1]:g} HU, at least {MIN_BONE_VOXELS} are "
            "needed: is it a CT in Hounsfield units, and does it show the bones?"
        )
    chosen = indices[torch.linspace(0, len(indices) - 1, BONE_POINTS).long()].flip(1).to(torch.float64)
    return chosen @ ct.T_ct_voxel[:3, :3].T + ct.T_ct_voxel[:3, 3]


def lost_share(ct: CtVolume, camera: Camera, pose_range: PoseRange, seed: int) -> float:
    """Share of the range's poses in which less than a fifth of the CT's bone is in the picture."""
    generator = torch.Generator().manual_seed(seed)
    poses = sample_range(ct, camera, pose_range, CHECKED_POSES, generator)
    pixels = camera.project(se3.transform_points(poses, bone_points(ct)[None]))
    size = torch.tensor([camera.width, camera.height], dtype=torch.float64)
    inside = ((pixels > -0.5) & (pixels < size - 0.5)).all(-1)
    return float((inside.double().mean(1) < MIN_BONE_IN_VIEW).double().mean())


def check_range(ct: CtVolume, camera: Camera, pose_range: PoseRange, seed: int) -> None:
    """Refuse a range before hours are spent on it.

    Raises:
        BonelessCtError: a CT without bone.
        PoseRangeError: the CT leaves the detector, or meets it, in too many poses.
    """
    share = lost_share(ct, camera, pose_range, seed)
    if share > MAX_LOST_SHARE:
        raise PoseRangeError(
            f"the CT leaves the detector in {share:.1%} of the poses (less than {MIN_BONE_IN_VIEW:.0%} of its bone in view, "
            f"limit {MAX_LOST_SHARE:.0%} of the poses): narrow the range's shifts"
        )


def _draw(ct: CtVolume, camera: Camera, pose_range: PoseRange, n: int, generator: torch.Generator) -> Float64[Tensor, "n 4 4"]:
    centre = ct.reference_point()
    uniform = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    twist = sample_perturbation(generator, pose_range.rotation_deg, pose_range.in_plane_mm, pose_range.depth_mm, n)
    (o0, o1), (c0, c1) = pose_range.orbital_deg, pose_range.cranial_deg
    distance_mm = SOURCE_TO_CENTRE_SHARE * camera.sdd_mm
    views = [view_pose(centre, o0 + (o1 - o0) * float(a), c0 + (c1 - c0) * float(b), distance_mm) for a, b in uniform]
    return se3.apply_twist(torch.stack(views), twist, centre)


def _clear(ct: CtVolume, camera: Camera, T_camera_ct: Float64[Tensor, "n 4 4"]) -> Bool[Tensor, " n"]:
    depth = se3.transform_points(T_camera_ct, ct.body_corners()[None])[..., 2]
    return (depth > MARGIN_MM).all(1) & (depth < camera.sdd_mm - MARGIN_MM).all(1)
