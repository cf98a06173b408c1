"""Gradients of the CUDA renderer, and what PyTorch's compiler makes of it; on a GPU, or in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.se3 import apply_twist


def small(scene: Any) -> Any:
    """Autograd through the reference is slow: fewer pixels and steps show the same."""
    return replace(scene, camera=scene.camera.resampled(11, 7))


def weights_for(scene: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What the pixels of image and Jacobian are worth in a loss."""
    generator = torch.Generator().manual_seed(0)
    size = (len(scene.T_camera_ct), scene.volume.channels)
    pixels = (scene.camera.height, scene.camera.width)
    image = torch.randn(*size, *pixels, generator=generator, dtype=torch.float64)
    return image, torch.randn(*size, 6, *pixels, generator=generator, dtype=torch.float64)


def volume_gradient(scene: Any, backend: str, device: str, values: torch.Tensor | None = None) -> torch.Tensor:
    """Gradient of a random linear function of image and Jacobian."""
    leaf = (scene.volume.values if values is None else values).to(device).clone().requires_grad_()
    renderer = make_renderer(replace(scene.volume, values=leaf), backend)
    drr = renderer.render_with_jacobian(scene.T_camera_ct, scene.camera, scene.centre_ct, 5.0)
    image, jacobian = (weight.to(device) for weight in weights_for(scene))
    loss = (drr.image.double() * image).sum() + (drr.jacobian.double() * jacobian).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient.cpu()


@pytest.fixture
def deterministic() -> Iterator[None]:
    """PyTorch's own switch for results that are the same bits each time."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_volume_gradient_is_the_reference_s(scene: Any, kernel_device: str) -> None:
    scene = small(scene)
    found, expected = volume_gradient(scene, "cuda", kernel_device), volume_gradient(scene, "reference", "cpu")
    # float32 sums of some hundred terms of either sign.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()) + 1e-12)


@pytest.mark.usefixtures("deterministic")
def test_summed_in_integers_it_is_the_same_and_does_not_depend_on_the_order(channels_scene: Any, kernel_device: str) -> None:
    scene = small(channels_scene)
    found, expected = volume_gradient(scene, "cuda", kernel_device), volume_gradient(scene, "reference", "cpu")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    # Both poses with the same weights, so that swapping them changes nothing but the order.
    turned = replace(scene, T_camera_ct=scene.T_camera_ct.flip(0))
    image, jacobian = weights_for(scene)
    results = []
    for one in (scene, turned):
        leaf = one.volume.values.to(kernel_device).clone().requires_grad_()
        renderer = make_renderer(replace(one.volume, values=leaf), "cuda")
        drr = renderer.render_with_jacobian(one.T_camera_ct, one.camera, one.centre_ct, 5.0)
        loss = (drr.image * image[:1].float().to(leaf)).sum() + (drr.jacobian * jacobian[:1].float().to(leaf)).sum()
        results.append(torch.autograd.grad(loss, leaf)[0])
    assert torch.equal(*results)


def test_image_alone_has_the_same_volume_gradient(channels_scene: Any, kernel_device: str) -> None:
    scene = small(channels_scene)
    weight = weights_for(scene)[0]

    def gradient(backend: str, device: str) -> torch.Tensor:
        leaf = scene.volume.values.to(device).clone().requires_grad_()
        image = make_renderer(replace(scene.volume, values=leaf), backend).render(scene.T_camera_ct, scene.camera, 5.0)
        return torch.autograd.grad((image.double() * weight.to(device)).sum(), leaf)[0].cpu()

    expected = gradient("reference", "cpu")
    torch.testing.assert_close(gradient("cuda", kernel_device), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_half_precision_volumes_get_their_own_kind_of_gradient(channels_scene: Any, kernel_device: str) -> None:
    """Summed in float32 and rounded once: half of float16's last digit, relative to each entry."""
    scene = small(channels_scene)
    half = scene.volume.values.half()
    found = volume_gradient(scene, "cuda", kernel_device, half)
    expected = volume_gradient(scene, "cuda", kernel_device, half.float())
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, rtol=2**-10, atol=1e-5 * float(expected.abs().max()))


def test_pose_gradient_is_the_finite_difference(channels_scene: Any, kernel_device: str) -> None:
    """Through the twist's exponential, at a twist that is not zero, against differences of fine images."""
    volume = replace(channels_scene.volume, values=channels_scene.volume.values[:1])
    scene = small(replace(channels_scene, volume=volume))
    weight = weights_for(scene)[0].abs()
    start = torch.tensor([3.0, -2.0, 5.0, 0.05, -0.04, 0.03], dtype=torch.float64).expand(2, 6)

    def loss(twist: torch.Tensor, backend: str, device: str, step_mm: float) -> torch.Tensor:
        pose = apply_twist(scene.T_camera_ct, twist, scene.centre_ct)
        image = make_renderer(volume, backend, device).render(pose, scene.camera, step_mm)
        return (image.double() * weight.to(device)).sum((1, 2, 3))

    # Small steps: the gradient of a trilinear field jumps at every voxel's face.
    sizes = torch.tensor([0.02, 0.02, 0.02, 2e-4, 2e-4, 2e-4], dtype=torch.float64)
    columns = []
    for change in torch.diag(sizes):
        ahead, behind = (loss(start + sign * change, "cpu", "cpu", 0.02) for sign in (1.0, -1.0))
        columns.append((ahead - behind) / (2 * change.sum()))
    expected = torch.stack(columns, dim=1)
    twist = start.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(twist, "cuda", kernel_device, 0.3).sum(), twist)
    scale = sizes * 50.0  # One unit of the scaled twist is 1 mm, or a hundredth of a radian.
    error = ((found - expected) * scale).norm(dim=1) / (expected * scale).norm(dim=1)
    assert float(error.max()) < 0.02, error


def test_products_are_the_stored_jacobian_s(scene: Any, kernel_device: str) -> None:
    """`Jᵀg` without J: the same arithmetic, summed by tiles."""
    scene = small(scene)
    weight = weights_for(scene)[0].float().to(kernel_device)
    renderer = make_renderer(scene.volume, "cuda", kernel_device)
    pose = scene.T_camera_ct.clone().requires_grad_()
    (found,) = torch.autograd.grad((renderer.render(pose, scene.camera, 6.0) * weight).sum(), pose)
    centre = scene.volume.centre_mm()
    image = renderer.render_with_jacobian(pose, scene.camera, centre, 6.0).image
    (expected,) = torch.autograd.grad((image * weight).sum(), pose)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()) + 1e-12)


def operator_arguments(scene: Any, device: str) -> tuple[torch.Tensor, ...]:
    """Field, poses, grid, box, views and centre, as the renderer hands them on."""
    renderer: Any = make_renderer(scene.volume, "cuda", device)
    poses, views = renderer._request(scene.T_camera_ct, (scene.camera,), 25.0)
    return renderer._field().requires_grad_(), poses, renderer._grid, renderer._box, views, scene.centre_ct.to(poses)


def test_the_operators_pass_torch_s_own_checks(channels_scene: Any, kernel_device: str) -> None:
    from sphere_reg_ros.drr.cuda import operators

    volume = replace(channels_scene.volume, values=channels_scene.volume.values[:1])
    scene = replace(channels_scene, volume=volume, camera=channels_scene.camera.resampled(5, 3))
    field, *rest = operator_arguments(scene, kernel_device)
    twist = torch.zeros(2, 6, device=field.device).requires_grad_()
    image_gradient, jacobian_gradient = (weight.float().to(field.device) for weight in weights_for(scene))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")
    plain = ("test_schema", "test_faketensor")
    opcheck = torch.library.opcheck
    opcheck(operators.drr_cuda_image, (field, None, *rest, 3, 5), test_utils=checks)
    opcheck(operators.drr_cuda_image, (field, twist, *rest, 3, 5), test_utils=checks)
    opcheck(operators.drr_cuda_image_and_jacobian, (field, *rest, 3, 5), test_utils=checks)
    opcheck(operators.drr_cuda_pose_products, (image_gradient, field.detach(), *rest), test_utils=plain)
    shape = list(field.shape)
    for columns, exact in ((None, False), (jacobian_gradient, True)):
        opcheck(operators.drr_cuda_adjoint, (image_gradient, columns, shape, *rest, exact), test_utils=plain)


def test_compiled_without_a_graph_break(channels_scene: Any, kernel_device: str) -> None:
    """Image, Jacobian and both gradients in one graph."""
    scene = small(channels_scene)
    values = scene.volume.values.to(kernel_device)
    renderer = make_renderer(replace(scene.volume, values=values), "cuda")
    camera, centre = scene.camera, scene.centre_ct.to(kernel_device)

    def loss(pose: torch.Tensor) -> torch.Tensor:
        drr = renderer.render_with_jacobian(pose, camera, centre, 9.0)
        return renderer.render(pose, camera, 9.0).square().sum() + drr.image.sum() + drr.jacobian.square().sum()

    results = []
    for function in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        pose = scene.T_camera_ct.to(kernel_device).requires_grad_()
        value = function(pose)
        results.append((value, *torch.autograd.grad(value, pose)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_captured_graph_renders_at_new_poses(channels_scene: Any) -> None:
    scene = channels_scene
    renderer = make_renderer(scene.volume, "cuda", "cuda")
    pose, centre = scene.T_camera_ct.cuda(), scene.centre_ct.cuda()
    other = apply_twist(pose, torch.full((2, 6), 0.01, dtype=torch.float64, device="cuda"), centre)
    renderer.render_with_jacobian(pose, scene.camera, centre, 4.0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = renderer.render_with_jacobian(pose, scene.camera, centre, 4.0)
    pose.copy_(other)
    graph.replay()
    eager = renderer.render_with_jacobian(other, Camera(**vars(scene.camera)), centre, 4.0)
    assert torch.equal(captured.image, eager.image) and torch.equal(captured.jacobian, eager.jacobian)
