"""The Jacobian is the derivative of the image: against central differences of a very fine float64 integral.

The integral is written here once more, from the camera's pixels and inverted matrices.
"""

from __future__ import annotations

import pytest
import torch

from sphere_reg_ros.drr.interpolate import padded, sample
from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.se3 import apply_twist

CAMERA = Camera(7, 5, 500.0, (14.0, 17.0), (3.3, 1.9))
SIZES = [0.01, 0.01, 0.01, 1e-4, 1e-4, 1e-4]


def fine_image(volume: AttenuationVolume, pose: torch.Tensor) -> torch.Tensor:
    """Line integrals from the source to the detector in 8000 cells a ray."""
    ends = CAMERA.pixel_points().reshape(-1, 3)
    share = (torch.arange(8000, dtype=torch.float64) + 0.5) / 8000
    points = share[:, None, None] * ends
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    indices = homogeneous @ torch.linalg.inv(pose @ volume.T_ct_voxel).T
    values, _ = sample(padded(volume.values.double()), indices[..., :3])
    return (values[0].mean(0) * torch.linalg.vector_norm(ends, dim=-1)).reshape(CAMERA.height, CAMERA.width)


@pytest.mark.parametrize("depth_mm", [300.0, 11.0, 500.0], ids=["in front", "source inside", "detector inside"])
def test_columns_are_finite_differences_of_the_image(depth_mm: float) -> None:
    """Volume in front of the source, around it, and around the detector: there the ends of the ray count."""
    noise = torch.rand(1, 1, 16, 18, 20, generator=torch.Generator().manual_seed(5))
    values = torch.nn.functional.avg_pool3d(noise, 5, 1, 2)[0]
    volume = AttenuationVolume(values, torch.diag(torch.tensor([6.0, 5.0, 7.0, 1.0], dtype=torch.float64)))
    pose = torch.eye(4, dtype=torch.float64)[None].clone()
    pose[0, :3, 3] = torch.tensor([4.1, -2.9, depth_mm]) - volume.centre_mm()
    centre = volume.centre_mm() + torch.tensor([8.0, -6.0, 4.0])
    jacobian = make_renderer(volume, "cpu").render_with_jacobian(pose, CAMERA, centre, 0.02).jacobian[0, 0]
    for column, size in enumerate(SIZES):
        twist = torch.zeros(6, dtype=torch.float64)
        twist[column] = size
        ahead, behind = (fine_image(volume, apply_twist(pose[0], s * twist, centre)) for s in (1.0, -1.0))
        expected = (ahead - behind) / (2.0 * size)
        error = torch.linalg.vector_norm(jacobian[column] - expected) / torch.linalg.vector_norm(expected)
        # What is left is the quadrature of the gradient, which jumps at the faces of the voxels.
        assert error < 2e-3, f"column {column}: {error:.1e}"
