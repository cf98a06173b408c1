"""Gradients of the fused renderer: with respect to the volume (image and Jacobian) and to the pose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.geometry.se3 import apply_twist


def small(scene: Any) -> Any:
    """Autograd through the reference is slow: fewer poses, pixels and steps show the same."""
    return replace(scene, camera=scene.camera.resampled(11, 7), T_camera_ct=scene.T_camera_ct[:2])


def volume_gradient(scene: Any, backend: str, weights: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Gradient of a random linear function of image and Jacobian."""
    values = scene.volume.values.clone().requires_grad_()
    renderer = make_renderer(replace(scene.volume, values=values), backend)
    drr = renderer.render_with_jacobian(scene.T_camera_ct, scene.camera, scene.centre_ct, 5.0)
    loss = (drr.image.double() * weights[0]).sum() + (drr.jacobian.double() * weights[1]).sum()
    (gradient,) = torch.autograd.grad(loss, values)
    return gradient


def random_weights(scene: Any) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = (len(scene.T_camera_ct), scene.volume.channels)
    pixels = (scene.camera.height, scene.camera.width)
    image = torch.randn(*size, *pixels, generator=generator, dtype=torch.float64)
    return image, torch.randn(*size, 6, *pixels, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_volume_gradient_is_the_reference_s(scene: Any, backend: str) -> None:
    scene = small(scene)
    weights = random_weights(scene)
    found, expected = volume_gradient(scene, backend, weights), volume_gradient(scene, "reference", weights)
    # float32 sums of some hundred terms of either sign.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()) + 1e-12)


def test_volume_gradient_of_several_channels(channels_scene: Any) -> None:
    scene = small(channels_scene)
    weights = random_weights(scene)
    found, expected = volume_gradient(scene, "cpu", weights), volume_gradient(scene, "reference", weights)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_image_alone_has_the_same_volume_gradient(channels_scene: Any) -> None:
    scene = small(channels_scene)
    weights = random_weights(scene)
    values = scene.volume.values.clone().requires_grad_()
    image = make_renderer(replace(scene.volume, values=values), "cpu").render(scene.T_camera_ct, scene.camera, 5.0)
    (found,) = torch.autograd.grad((image.double() * weights[0]).sum(), values)
    expected = volume_gradient(scene, "reference", (weights[0], torch.zeros_like(weights[1])))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_pose_gradient_is_the_jacobian_s(channels_scene: Any, backend: str) -> None:
    """Through the twist's exponential, at a twist that is not zero, against finite differences of fine images."""
    scene = channels_scene
    weights = random_weights(scene)[0]
    start = torch.tensor([3.0, -2.0, 5.0, 0.05, -0.04, 0.03], dtype=torch.float64).expand(2, 6)

    def loss(twist: torch.Tensor, name: str) -> torch.Tensor:
        pose = apply_twist(scene.T_camera_ct, twist, scene.centre_ct)
        return (make_renderer(scene.volume, name).render(pose, scene.camera, 0.5).double() * weights).sum((1, 2, 3))

    twist = start.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(twist, backend).sum(), twist)
    expected = torch.zeros_like(found)
    for column, size in enumerate([0.2, 0.2, 0.2, 2e-3, 2e-3, 2e-3]):
        change = torch.zeros(6, dtype=torch.float64)
        change[column] = size
        expected[:, column] = (loss(start + change, "cpu") - loss(start - change, "cpu")) / (2 * size)
    # The quadrature's error in a random sum over pixels; the columns differ by factors, not by per cents, if wrong.
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.03 * float(expected[:, :3].abs().mean()))


def test_the_operators_pass_torch_s_own_checks(channels_scene: Any) -> None:
    from sphere_reg_ros.drr.cpu.operators import drr_image, drr_image_and_jacobian
    from sphere_reg_ros.drr.interpolate import PADDING, padded
    from sphere_reg_ros.drr.rays import voxel_from_camera

    scene = channels_scene
    field = padded(scene.volume.values).requires_grad_()
    to_grid = voxel_from_camera(scene.T_camera_ct, scene.volume.T_ct_voxel)
    to_grid[:, :3, 3] += PADDING
    view = [500.0, 9.0, 12.0, 10.3, 4.4]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")
    torch.library.opcheck(drr_image, (field, to_grid, view, 9, 21, 2.5), test_utils=checks)
    centre = torch.tensor([[0.0, 0.0, 290.0], [1.0, 2.0, 495.0]], dtype=torch.float64)
    torch.library.opcheck(drr_image_and_jacobian, (field, to_grid, centre, view, 9, 21, 2.5), test_utils=checks)
