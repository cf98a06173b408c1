"""From an X-ray to a pose, in one pass: where to start.

A light convolutional network with weights of its own. It sees the canonical camera's image, in which the source-detector
distance, the pixel pitch and the piercing point have vanished. Rotation by two columns and Gram-Schmidt (Zhou et al., "On the
continuity of rotation representations in neural networks", CVPR 2019); the CT centre's place by the direction in which it is
seen and the logarithm of its depth, which is how a pinhole camera sees it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.views import SOURCE_TO_CENTRE_MM, ap_rotation
from sphere_reg_ros.models.encoder import convolutions

CHANNELS = (1, 32, 64, 96, 128)
IMAGE_PX = 64
HIDDEN = 256
DIRECTION_SCALE, DEPTH_SCALE = 0.1, 0.2
"""What an output of one means: a tenth of the depth sideways, a fifth of it along the axis."""
USUAL_LOG_SIGMA = (3.0, 3.0, 3.5, -1.0, -1.0, -1.0)
"""Of an untrained network: 20 mm, 33 mm of depth, 20 degrees."""


class PosePrediction(NamedTuple):
    """A pose and how sure the network is.

    Attributes:
        rotation: ``(b, 3, 3)`` of ``T_camera_ct``.
        translation_mm: ``(b, 3)`` the CT's reference point in the camera.
        log_sigma: ``(b, 6)`` natural logarithm of the standard deviation of each component of the error's twist, mm and rad.
    """

    rotation: Float[Tensor, "b 3 3"]
    translation_mm: Float[Tensor, "b 3"]
    log_sigma: Float[Tensor, "b 6"]

    def pose(self, centre_ct: Float64[Tensor, "3"]) -> Float64[Tensor, "b 4 4"]:
        """``T_camera_ct`` for the CT's reference point."""
        rotation = _orthonormal(self.rotation[:, 0].double(), self.rotation[:, 1].double())
        return se3.from_rotation_translation(rotation, self.translation_mm.double() - rotation @ centre_ct.double())


class PoseRegressor(nn.Module):
    """X-rays to poses."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = convolutions(CHANNELS)
        side = IMAGE_PX // 2 ** (len(CHANNELS) - 1)
        self.head = nn.Sequential(nn.Linear(CHANNELS[-1] * side * side, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 15))
        self.register_buffer("usual_rows", ap_rotation()[:2].float(), persistent=False)
        self.register_buffer("usual_log_sigma", torch.tensor(USUAL_LOG_SIGMA), persistent=False)

    def forward(self, images: Float[Tensor, "b 1 h w"]) -> PosePrediction:
        """Predict from normalised canonical X-rays."""
        out = self.head(self.trunk(images).flatten(1))
        rows = out[:, :6].reshape(-1, 2, 3) + self.usual_rows
        depth_mm = SOURCE_TO_CENTRE_MM * torch.exp(DEPTH_SCALE * out[:, 8:9])
        translation_mm = torch.cat((DIRECTION_SCALE * out[:, 6:8] * depth_mm, depth_mm), dim=1)
        return PosePrediction(_orthonormal(rows[:, 0], rows[:, 1]), translation_mm, out[:, 9:] + self.usual_log_sigma)


def _orthonormal(first: Float[Tensor, "b 3"], second: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    """Gram-Schmidt: a rotation with these rows."""
    x = nn.functional.normalize(first, dim=1)
    y = nn.functional.normalize(second - (x * second).sum(1, keepdim=True) * x, dim=1)
    return torch.stack((x, y, torch.linalg.cross(x, y)), dim=1)
