"""Sharing the work: the same result on any number of threads, and from several callers at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numba
import pytest
import torch

from sphere_reg_ros.drr.cpu.schedule import share
from sphere_reg_ros.drr.renderer import make_renderer


def test_the_number_of_threads_changes_nothing(channels_scene: Any) -> None:
    scene = channels_scene
    results = []
    before = numba.get_num_threads()
    for threads in {1, before}:
        numba.set_num_threads(threads)
        values = scene.volume.values.clone().requires_grad_()
        renderer = make_renderer(replace(scene.volume, values=values), "cpu")
        drr = renderer.render_with_jacobian(scene.T_camera_ct, scene.camera, scene.centre_ct, 1.0)
        (gradient,) = torch.autograd.grad(drr.jacobian.square().sum(), values)
        results.append((drr.image.detach(), drr.jacobian.detach(), gradient))
    numba.set_num_threads(before)
    for found in results[1:]:
        for a, b in zip(found, results[0], strict=True):
            assert torch.equal(a, b)


def test_several_callers_at_once(channels_scene: Any) -> None:
    scene = channels_scene
    renderer = make_renderer(scene.volume, "cpu")

    def call(_: int) -> torch.Tensor:
        return renderer.render(scene.T_camera_ct, scene.camera, 1.0)

    expected = call(0)
    with ThreadPoolExecutor(4) as callers:
        for image in callers.map(call, range(24)):
            assert torch.equal(image, expected)


def test_a_helper_s_failure_reaches_the_caller() -> None:
    def failing(counter: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        share(failing)
