"""The reference itself, against closed forms and finite differences: everything else is held against it."""

from __future__ import annotations

import pytest
import torch

from sphere_reg_ros.drr.reference import ReferenceRenderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.se3 import apply_twist


def test_a_slab_absorbs_by_its_thickness() -> None:
    values = torch.full((1, 20, 40, 40), 0.02)
    volume = AttenuationVolume(values, torch.diag(torch.tensor([10.0, 10.0, 2.0, 1.0], dtype=torch.float64)))
    pose = torch.eye(4, dtype=torch.float64)[None].clone()
    pose[0, :3, 3] = torch.tensor([0.0, 0.0, 300.0]) - volume.centre_mm()
    camera = Camera.centred(9, detector_mm=200.0, sdd_mm=1000.0)
    image = ReferenceRenderer(volume).render(pose, camera, step_mm=0.05)
    points = camera.pixel_points()
    slope = torch.linalg.vector_norm(points, dim=-1) / points[..., 2]
    # 19 voxels between the outermost centres, and half a voxel's worth in the ramp at either end.
    expected = 0.02 * 20 * 2.0 * slope
    torch.testing.assert_close(image[0, 0], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("depth_mm", [300.0, 10.0, 500.0])
def test_columns_are_finite_differences_of_the_image(depth_mm: float) -> None:
    """Volume in front of the source, around it, and around the detector: there the ends of the ray count."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.rand(1, 1, 16, 18, 20, generator=generator)
    values = torch.nn.functional.avg_pool3d(noise, 5, 1, 2)[0]
    volume = AttenuationVolume(values, torch.diag(torch.tensor([6.0, 5.0, 7.0, 1.0], dtype=torch.float64)))
    pose = torch.eye(4, dtype=torch.float64)[None].clone()
    pose[0, :3, 3] = torch.tensor([3.0, -4.0, depth_mm]) - volume.centre_mm()
    centre = volume.centre_mm() + torch.tensor([8.0, -6.0, 4.0])
    renderer, camera = ReferenceRenderer(volume), Camera(6, 5, 500.0, (8.0, 9.0), (2.3, 1.9))
    jacobian = renderer.render_with_jacobian(pose, camera, centre, 0.02).jacobian[0, 0]
    sizes = [0.02, 0.02, 0.02, 2e-4, 2e-4, 2e-4]
    for column, size in enumerate(sizes):
        twist = torch.zeros(1, 6, dtype=torch.float64)
        twist[0, column] = size
        ahead, behind = (renderer.render(apply_twist(pose, s * twist, centre), camera, 0.02) for s in (1.0, -1.0))
        expected = (ahead - behind)[0, 0] / (2.0 * size)
        error = torch.linalg.vector_norm(jacobian[column] - expected) / torch.linalg.vector_norm(expected)
        # What is left is the quadrature of 0.02 mm steps across the faces of 6 mm voxels, where the gradient jumps.
        assert error < 3e-3, f"column {column}: {error:.1e}"


def test_depth_column_vanishes_on_the_axis() -> None:
    """A motion along a ray that begins and ends in air changes nothing on that ray."""
    values = torch.rand(1, 8, 8, 8, generator=torch.Generator().manual_seed(6))
    volume = AttenuationVolume(values, torch.diag(torch.tensor([5.0, 5.0, 5.0, 1.0], dtype=torch.float64)))
    pose = torch.eye(4, dtype=torch.float64)[None].clone()
    pose[0, :3, 3] = torch.tensor([1.0, 2.0, 300.0]) - volume.centre_mm()
    camera = Camera(1, 1, 600.0, (1.0, 1.0), (0.0, 0.0))
    jacobian = ReferenceRenderer(volume).render_with_jacobian(pose, camera, volume.centre_mm(), 1.7).jacobian
    assert abs(float(jacobian[0, 0, 2, 0, 0])) < 1e-14
    assert abs(float(jacobian[0, 0, 0, 0, 0])) > 1e-3
