"""The learned residual's Jacobian, through renderer, encoder and logarithm, against finite differences of the pose."""

from __future__ import annotations

import pytest
import torch

from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.views import ap_pose
from sphere_reg_ros.models.canonical import canonical_camera
from sphere_reg_ros.models.encoder import Encoder
from sphere_reg_ros.similarity.geometry import make_geometry
from sphere_reg_ros.similarity.learned import LearnedSimilarity


@pytest.mark.parametrize("name", ["spherical", "euclidean", "hyperbolic"])
def test_the_jacobian_is_the_derivative_of_the_residual(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1, 6, 6, 6, generator=generator)
    values = torch.nn.functional.interpolate(coarse, size=(24, 24, 24), mode="trilinear")[0] * 0.03
    T_ct_voxel = torch.diag(torch.tensor([8.0, 8.0, 8.0, 1.0], dtype=torch.float64))
    volume = AttenuationVolume(values, T_ct_voxel)
    renderer, centre, camera = make_renderer(volume, "reference"), volume.centre_mm(), canonical_camera()
    torch.manual_seed(1)
    similarity = LearnedSimilarity(Encoder().double(), make_geometry(name))
    pose = ap_pose(centre)[None]
    xray = similarity.embed_xray(torch.randn(1, 1, 64, 64, generator=generator, dtype=torch.float64))
    with torch.no_grad():
        rendered = renderer.render_with_jacobian(pose, camera, centre, 0.5)
        result = similarity.residual(xray, rendered.image.double(), rendered.jacobian.double())
        for column, step in enumerate((0.05, 0.05, 0.2, 1e-3, 1e-3, 1e-3)):
            ends = []
            for sign in (1.0, -1.0):
                twist = torch.zeros(1, 6, dtype=torch.float64)
                twist[0, column] = sign * step
                image = renderer.render(se3.apply_twist(pose, twist, centre), camera, 0.5).double()
                ends.append(similarity.residual(xray, image, torch.zeros_like(rendered.jacobian).double()).residual)
            numeric = (ends[0] - ends[1]) / (2.0 * step)
            # Trilinear images have kinks, and the renderer corrects its columns along the ray: a few per cent of the column.
            error = (result.jacobian[0, :, column] - numeric[0]).norm() / numeric.norm()
            assert float(error) < 0.05, f"column {column}"
