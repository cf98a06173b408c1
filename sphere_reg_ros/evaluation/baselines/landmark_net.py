"""A landmark detector for one CT: a small convolutional network, heat-maps, and their centres of mass.

After Bier et al. (MICCAI 2018) and Grupp et al. (IPCAI 2020), but small: 64 pixels, four dilated layers on half of the
resolution, trained on simulated projections of the CT itself with this package's domain randomisation. Landmarks outside the
image do not count in the loss.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.models.canonical import CANONICAL_PX, canonical_camera, normalise
from sphere_reg_ros.training.augmentation import AugmentationSettings, randomised_xrays
from sphere_reg_ros.training.pairs import Pairs, render_pairs
from sphere_reg_ros.training.poses import NEAR_AP

WIDTH = 64
BATCH = 32
VOXEL_MM = 4.0
PAIRS_A_STEP = 6
CHECKPOINT_STEPS = 100
RATE = 2e-3


class LandmarkNet(nn.Module):
    """Heat-maps of ``n`` landmarks."""

    def __init__(self, n: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, WIDTH // 2, 5, padding=2), nn.GroupNorm(8, WIDTH // 2), nn.GELU()]
        layers += [nn.Conv2d(WIDTH // 2, WIDTH, 3, stride=2, padding=1), nn.GroupNorm(8, WIDTH), nn.GELU()]
        for dilation in (1, 2, 4, 8):
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=dilation, dilation=dilation), nn.GroupNorm(8, WIDTH), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(WIDTH, n, 1))

    def forward(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b n 2"]:
        """Column and row in canonical pixels."""
        heat = self.layers(images)
        b, n, h, w = heat.shape
        share = heat.flatten(2).softmax(-1).reshape(b, n, h, w)
        stride = images.shape[-1] / w
        columns, rows = ((torch.arange(size) + 0.5) * stride - 0.5 for size in (w, h))
        return torch.stack(((share.sum(2) * columns).sum(-1), (share.sum(3) * rows).sum(-1)), dim=-1)


def train_detector(
    ct: CtVolume, points_mm: Sequence[Sequence[float]], out: Path, steps: int, seed: int, told: Callable[[int, int], None]
) -> None:
    """Train, and write the weights; what a killed training left beside them is gone on from.

    Args:
        points_mm: ``(n, 3)`` landmarks of the CT, LPS.
        told: steps done, of how many.
    """
    from safetensors.torch import load_file, save_file

    points = torch.tensor(points_mm, dtype=torch.float64)
    camera = canonical_camera()
    pairs = render_pairs(ct, camera, NEAR_AP, max(BATCH, PAIRS_A_STEP * steps), seed, VOXEL_MM)
    torch.manual_seed(seed)
    net = LandmarkNet(len(points))
    partial, first = out.with_name(out.stem + ".partial"), 0
    if partial.exists():
        tensors = load_file(partial)
        first = int(tensors.pop("step"))
        net.load_state_dict(tensors)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE)
    for step in range(first, steps):
        optimiser.param_groups[0]["lr"] = RATE * (1.0 - step / steps)
        loss = detector_loss(net, pairs, points, camera, seed * 1_000_003 + step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        told(step + 1, steps)
        if (step + 1) % CHECKPOINT_STEPS == 0:
            save_file({**net.state_dict(), "step": torch.tensor(step + 1)}, partial)
    fresh = out.with_name(out.stem + ".fresh")
    save_file(net.state_dict(), fresh)
    os.replace(fresh, out)
    partial.unlink(missing_ok=True)


def detector_loss(net: LandmarkNet, pairs: Pairs, points: Float64[Tensor, "n 3"], camera: Camera, seed: int) -> Float[Tensor, ""]:
    """Mean distance of the centres of mass from the landmarks inside the image, in pixels."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(pairs), generator=generator)[:BATCH]
    image, mask = randomised_xrays(pairs.materials[index].float(), generator, AugmentationSettings())
    wanted = camera.project(se3.transform_points(pairs.T_xray[index], points[None])).float()
    inside = ((wanted > -0.5) & (wanted < CANONICAL_PX - 0.5)).all(-1).float()
    place = net(normalise(image, mask)[:, None])
    apart = (place - wanted).square().sum(-1).add(1e-4).sqrt()
    return (apart * inside).sum() / inside.sum().clamp_min(1.0)


def load_detector(path: Path) -> LandmarkNet:
    """A detector that :func:`train_detector` wrote."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    last = max((name for name in tensors if name.endswith(".bias")), key=lambda name: int(name.split(".")[1]))
    net = LandmarkNet(len(tensors[last]))
    net.load_state_dict(tensors)
    return net.eval()
