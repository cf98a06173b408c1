"""The reference itself, against closed forms: everything else is held against it."""

from __future__ import annotations

import torch

from sphere_reg_ros.drr.reference import ReferenceRenderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera


def test_a_slab_absorbs_by_its_thickness() -> None:
    values = torch.full((1, 20, 40, 40), 0.02)
    volume = AttenuationVolume(values, torch.diag(torch.tensor([10.0, 10.0, 2.0, 1.0], dtype=torch.float64)))
    pose = torch.eye(4, dtype=torch.float64)[None].clone()
    pose[0, :3, 3] = torch.tensor([0.0, 0.0, 300.0]) - volume.centre_mm()
    camera = Camera.centred(9, detector_mm=200.0, sdd_mm=1000.0)
    image = ReferenceRenderer(volume).render(pose, camera, step_mm=0.5)
    points = camera.pixel_points()
    slope = torch.linalg.vector_norm(points, dim=-1) / points[..., 2]
    # 19 voxels between the outermost centres, and half a voxel's worth in the ramp at either end.
    expected = 0.02 * 20 * 2.0 * slope
    # Four steps a voxel.
    torch.testing.assert_close(image[0, 0], expected, rtol=1e-3, atol=0)


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
