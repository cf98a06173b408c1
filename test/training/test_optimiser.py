"""Muon through views: the networks' kernels move, and nothing is left out or moved twice."""

from __future__ import annotations

import torch

from sphere_reg_ros.models.encoder import Encoder
from sphere_reg_ros.models.pose_regressor import PoseRegressor
from sphere_reg_ros.similarity.geometry import make_geometry
from sphere_reg_ros.training.optimiser import Optimiser
from sphere_reg_ros.training.settings import TrainSettings
from sphere_reg_ros.training.student import Student

SETTINGS = TrainSettings()


def student() -> Student:
    torch.manual_seed(0)
    return Student(Encoder(), PoseRegressor(), make_geometry("spherical"), SETTINGS)


def with_gradients(module: Student) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_every_parameter_moves() -> None:
    module = student()
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    with_gradients(module)
    Optimiser(module, SETTINGS).step(1.0)
    assert all(not torch.equal(value.detach(), before[name]) for name, value in module.named_parameters())


def test_the_step_of_a_kernel_is_nearly_orthogonal() -> None:
    """Muon's first step is the orthogonal factor of the gradient, up to its five Newton-Schulz iterations."""
    module = student()
    kernel = dict(module.named_parameters())["encoder.stem.3.weight"]
    before = kernel.detach().clone()
    with_gradients(module)
    Optimiser(module, SETTINGS).step(1.0)
    rate = SETTINGS.matrix_learning_rate
    moved = (before * (1.0 - rate * SETTINGS.weight_decay) - kernel.detach()).flatten(1) / rate
    singular = torch.linalg.svdvals(moved)
    # Jordan's coefficients bring singular values into 0.7..1.2, not to one; bfloat16 adds a little.
    assert float(singular.min()) > 0.6
    assert float(singular.max()) < 1.3


def test_restored_moments_go_on_as_before() -> None:
    one, other = student(), student()
    first, second = Optimiser(one, SETTINGS), Optimiser(other, SETTINGS)
    with_gradients(one)
    first.step(1.0)
    other.load_state_dict(one.state_dict())
    second.restore({name: value.clone() for name, value in first.moments().items()})
    for module, optimiser in ((one, first), (other, second)):
        with_gradients(module)
        optimiser.step(0.5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
