"""The canonical camera: a DRR rendered for another C-arm, brought there, is the DRR rendered there."""

from __future__ import annotations

import pytest
import torch

from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import ap_pose
from sphere_reg_ros.models.canonical import canonical_camera, normalise, to_canonical

CAMERAS = {
    "larger and finer": Camera(400, 380, 1100.0, (1.0, 1.0), (205.0, 180.0)),
    "coarser": Camera(60, 60, 980.0, (6.0, 6.0), (28.0, 31.0)),
    "oblong pixels": Camera(300, 220, 1020.0, (1.1, 1.6), (149.5, 109.5)),
}


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS.keys())
def test_an_image_of_another_camera_becomes_the_canonical_one(camera: Camera) -> None:
    coarse = torch.rand(1, 1, 5, 5, 5, generator=torch.Generator().manual_seed(2))
    values = torch.nn.functional.interpolate(coarse, size=(30, 30, 30), mode="trilinear")[0] * 0.02
    volume = AttenuationVolume(values, torch.diag(torch.tensor([7.0, 7.0, 7.0, 1.0], dtype=torch.float64)))
    renderer, pose = make_renderer(volume, "torch"), ap_pose(volume.centre_mm())[None]
    seen = renderer.render(pose, camera, 3.0)[0, 0]
    wanted = renderer.render(pose, canonical_camera(), 3.0)[0, 0]
    image, mask = to_canonical(seen, torch.ones_like(seen, dtype=torch.bool), camera)
    inner = mask.clone()
    inner[[0, -1]] = inner[:, [0, -1]] = False
    assert float(inner.float().mean()) > 0.7
    # Averaging over a pixel of 4.7 mm and interpolating a smooth image: within 2 % of its range.
    assert float((image - wanted)[inner].abs().mean()) < 0.02 * float(wanted.max() - wanted.min())


def test_what_the_detector_does_not_reach_is_masked() -> None:
    small = Camera.centred(100, detector_mm=150.0)
    _, mask = to_canonical(torch.ones(100, 100), torch.ones(100, 100, dtype=torch.bool), small)
    # Half as wide: a quarter of the canonical detector.
    assert float(mask.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert bool(mask[32, 32]) and not bool(mask[2, 2])


def test_normalised_images_lose_gain_and_offset_and_stay_differentiable() -> None:
    image = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mask = torch.ones_like(image)
    mask[:, :, :4] = 0.0
    torch.testing.assert_close(normalise(3.0 * image + 7.0, mask), normalise(image, mask), rtol=1e-6, atol=1e-6)
    assert not bool(normalise(image, mask)[:, :, :4].any())
    assert torch.autograd.gradcheck(lambda x: normalise(x, mask), (image.requires_grad_(),))
