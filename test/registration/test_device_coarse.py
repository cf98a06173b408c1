"""The learned stage on a device does what it does on the CPU, and queues all of it without waiting; see test_device_levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sphere_reg_ros
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.views import ap_pose
from sphere_reg_ros.models import checkpoint
from sphere_reg_ros.models.canonical import canonical_camera
from sphere_reg_ros.optim.levenberg_marquardt import LevenbergMarquardtSettings, Linearise, minimise
from sphere_reg_ros.registration.coarse import CoarseView, coarse_problem
from sphere_reg_ros.registration.device_coarse import solve_coarse_on_device
from sphere_reg_ros.registration.graphs import StageGraphs
from sphere_reg_ros.similarity.anchors import Anchors
from sphere_reg_ros.similarity.geometry import make_geometry
from sphere_reg_ros.similarity.learned import LearnedSimilarity

WEIGHTS = Path(sphere_reg_ros.__file__).parent / "weights" / "chest_near_ap.safetensors"
LIMITS = LevenbergMarquardtSettings(max_iterations=4, step_tolerance=0.5, scale=(1.0, 1.0, 1.0, 100.0, 100.0, 100.0))
GRADIENTS = ("metric", "encoder")


def problem_on(renderer: Any, device: str, gradient: Any) -> tuple[Callable[[torch.Tensor], Linearise], CoarseView, int]:
    """The shipped encoder's problem, as if it was trained towards anchors."""
    encoder = checkpoint.load(WEIGHTS).encoder.to(device)
    geometry = make_geometry("spherical")
    dimension = encoder.settings.embedding
    similarity = LearnedSimilarity(encoder, geometry, Anchors(geometry, dimension))
    centre = renderer.volume.centre_mm().to(device)
    view = CoarseView(renderer, canonical_camera(), centre, 8.0)
    return lambda points: coarse_problem(similarity, view, points, gradient), view, dimension


def starts(centre_ct: torch.Tensor) -> torch.Tensor:
    """Three poses near AP."""
    spread = torch.tensor([15.0, 15.0, 30.0, 0.1, 0.1, 0.1], dtype=torch.float64)
    twists = spread * torch.randn(3, 6, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    return se3.apply_twist(ap_pose(centre_ct).expand(3, 4, 4), twists, centre_ct)


@pytest.mark.parametrize("gradient", GRADIENTS)
@torch.no_grad()
def test_the_device_s_way_gives_the_same_bits(pipeline: Any, gradient: str) -> None:
    from sphere_reg_ros.drr.renderer import make_renderer

    volume = AttenuationVolume.from_ct(pipeline.ct).downsampled(3)
    problem_of, view, dimension = problem_on(make_renderer(volume, "cpu"), "cpu", gradient)
    generator = torch.Generator().manual_seed(8)
    points = torch.nn.functional.normalize(torch.randn(1, dimension, generator=generator), dim=-1).expand(3, -1)
    poses = starts(view.centre_ct)
    expected = minimise(problem_of(points), poses, view.centre_ct, LIMITS)
    found = solve_coarse_on_device(problem_of, points, poses, view.centre_ct, LIMITS, StageGraphs())
    assert torch.equal(found.T, expected.T) and torch.equal(found.cost, expected.cost)
    assert found.iterations == expected.iterations > 1


@pytest.mark.parametrize("gradient", GRADIENTS)
@torch.no_grad()
def test_nothing_between_start_and_end_waits_for_the_device(gradient: str, watch: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="the CUDA renderer is written in Triton, which is not installed")
    from sphere_reg_ros.drr.cuda import renderer as cuda

    monkeypatch.setattr(cuda, "_check_place", lambda volume: None)
    volume = AttenuationVolume(torch.zeros(1, 20, 30, 30, device="meta"), torch.diag(torch.tensor([8.0, 8.0, 8.0, 1.0]).double()))
    renderer = cuda.CudaRenderer(volume)
    problem_of, view, dimension = problem_on(renderer, "meta", gradient)
    points, poses = torch.zeros(3, dimension, device="meta"), torch.zeros(3, 4, 4, dtype=torch.float64, device="meta")
    # The first call uploads the camera, as the first X-ray's does.
    problem_of(points)(poses)

    class Watched(StageGraphs):
        """Calls the stage as a graph's recording does."""

        def call(self, key: Any, function: Callable, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
            with watch[0], watch[1]:
                outputs = tuple(function(*inputs))
            return tuple(torch.zeros(one.shape, dtype=one.dtype) for one in outputs)

    settings = replace(LIMITS, max_iterations=2)
    found = solve_coarse_on_device(problem_of, points, poses, view.centre_ct, settings, Watched())
    assert found.T.shape == (3, 4, 4)
    assert watch[1].operations > 1000
