"""What RViz shows beside the images: bone, landmarks, the C-arm's frustum."""

from __future__ import annotations

import torch
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Vector3
from jaxtyping import Float64
from std_msgs.msg import ColorRGBA, Header
from torch import Tensor
from visualization_msgs.msg import Marker, MarkerArray

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.frames import MM_PER_M
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.landmarks import Landmarks

SURFACE_POINTS = 6000
BONE_HU = 250


def bone_surface_points(ct: CtVolume) -> Float64[Tensor, "n 3"]:
    """Bone voxels with air or soft tissue beside them, thinned to a few thousand, LPS mm."""
    stride = max(1, round((ct.hu.numel() / 8e6) ** (1.0 / 3.0)))
    bone = ct.hu[::stride, ::stride, ::stride] >= BONE_HU
    inner = bone[1:-1, 1:-1, 1:-1]
    buried = inner.clone()
    for axis in range(3):
        for side in (0, 2):
            window = [slice(1, -1)] * 3
            window[axis] = slice(side, bone.shape[axis] - 2 + side)
            buried &= bone[tuple(window)]
    found = torch.nonzero(inner & ~buried)
    chosen = found[torch.linspace(0, max(len(found) - 1, 0), min(SURFACE_POINTS, len(found))).long()] if len(found) else found
    voxels = (chosen + 1).flip(1).to(torch.float64) * stride
    return voxels @ ct.T_ct_voxel[:3, :3].T + ct.T_ct_voxel[:3, 3]


def marker_array(
    bone_points_mm: Float64[Tensor, "n 3"],
    landmarks: Landmarks | None,
    ct_frame: str,
    camera: Camera | None,
    camera_frame: str,
) -> MarkerArray:
    """All markers; those of the CT move with its TF, the frustum with the camera's."""
    markers = [_points(bone_points_mm, ct_frame, "bone", 0.002, (0.9, 0.85, 0.7, 1.0))]
    if landmarks is not None:
        markers.append(_points(landmarks.points_mm, ct_frame, "landmarks", 0.006, (1.0, 0.3, 0.2, 1.0)))
    if camera is not None:
        markers.append(_frustum(camera, camera_frame))
    return MarkerArray(markers=markers)


def _points(
    points_mm: Float64[Tensor, "n 3"], frame: str, name: str, size_m: float, colour: tuple[float, float, float, float]
) -> Marker:
    marker = _marker(frame, name, Marker.POINTS, colour)
    marker.scale = Vector3(x=size_m, y=size_m, z=size_m)
    marker.points = [Point(x=x, y=y, z=z) for x, y, z in (points_mm / MM_PER_M).tolist()]
    return marker


def _frustum(camera: Camera, frame: str) -> Marker:
    plane = camera.pixel_points(dtype=torch.float64)[[0, 0, -1, -1], [0, -1, -1, 0]] / MM_PER_M
    corners = [Point(x=x, y=y, z=z) for x, y, z in plane.tolist()]
    marker = _marker(frame, "carm", Marker.LINE_LIST, (0.3, 0.7, 1.0, 1.0))
    marker.scale.x = 0.002
    for index, corner in enumerate(corners):
        marker.points += [Point(), corner, corner, corners[(index + 1) % 4]]
    return marker


def _marker(frame: str, name: str, kind: int, colour: tuple[float, float, float, float]) -> Marker:
    red, green, blue, alpha = colour
    # A zero stamp makes RViz use the newest transform.
    marker = Marker(header=Header(frame_id=frame, stamp=Time()), ns=name, id=0, type=kind, action=Marker.ADD)
    marker.pose.orientation.w = 1.0
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=alpha)
    marker.frame_locked = True
    return marker
