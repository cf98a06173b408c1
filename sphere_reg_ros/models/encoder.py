"""The encoder of X-rays and DRRs: a convolutional stem and transformer blocks, shared by both, with a token that says which.

Small on purpose: with its derivative along six tangents it runs in every iteration of the coarse registration. GroupNorm, so
that an image's embedding does not depend on the batch; attention in plain products, which forward-mode differentiation and
`torch.func.vmap` understand; nothing in place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sphere_reg_ros.models.errors import ModelCardError

Domain = Literal["xray", "drr"]
STEM_STRIDE = 8


class Embedding(NamedTuple):
    """What an image looks like to the similarity; raw, before the geometry's projection.

    Attributes:
        token: ``(b, d)`` of the whole image.
        patches: ``(b, p, e)`` of its patches.
    """

    token: Float[Tensor, "b d"]
    patches: Float[Tensor, "b p e"]


@dataclass(frozen=True)
class EncoderSettings:
    """Sizes.

    Attributes:
        channels: of the images; more than one with an equivariant volume.
        image_px: side of the image, a multiple of 8.
        embedding: dimension of the token.
        patch_dim: dimension of a patch's embedding.
        width: of the transformer.
        depth: its blocks.
        heads: of the attention.

    Raises:
        ModelCardError: sizes that do not fit each other.
    """

    channels: int = 1
    image_px: int = 64
    embedding: int = 64
    patch_dim: int = 16
    width: int = 96
    depth: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.image_px % STEM_STRIDE or self.width % self.heads or self.width % 8:
            raise ModelCardError(
                f"an encoder needs image_px divisible by {STEM_STRIDE}, and width by heads and by 8; "
                f"got image_px {self.image_px}, width {self.width}, heads {self.heads}"
            )


class Encoder(nn.Module):
    """Images to embeddings."""

    def __init__(self, settings: EncoderSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or EncoderSettings()
        sizes = self.settings
        patches = (sizes.image_px // STEM_STRIDE) ** 2
        self.stem = convolutions((sizes.channels, 24, 48, sizes.width))
        self.place = nn.Parameter(0.02 * torch.randn(1, patches + 1, sizes.width))
        self.domain = nn.Parameter(0.02 * torch.randn(2, 1, 1, sizes.width))
        self.blocks = nn.ModuleList(Block(sizes.width, sizes.heads) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(sizes.width)
        self.to_token = nn.Linear(sizes.width, sizes.embedding)
        self.to_patches = nn.Linear(sizes.width, sizes.patch_dim)
        # Attention averages; where a structure lies reaches the token by this map of all patches in their order.
        self.gather = nn.Linear(patches * sizes.patch_dim, sizes.embedding)

    def forward(self, images: Float[Tensor, "b c h w"], domain: Domain) -> Embedding:
        """Embed normalised images of one kind."""
        features = self.stem(images).flatten(2).transpose(1, 2)
        kind = self.domain[0 if domain == "xray" else 1].expand(len(images), -1, -1)
        tokens = torch.cat((kind, features), dim=1) + self.place
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        patches = self.to_patches(tokens[:, 1:])
        return Embedding(self.to_token(tokens[:, 0]) + self.gather(patches.flatten(1)), patches)


class Block(nn.Module):
    """One pre-norm transformer block (Xiong et al., ICML 2020)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Attention, then a perceptron, each on top of what comes in."""
        b, n, width = tokens.shape
        projected = self.query_key_value(self.norm_attention(tokens)).reshape(b, n, 3, self.heads, width // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        attention = (query @ key.transpose(-1, -2) * math.sqrt(self.heads / width)).softmax(-1)
        tokens = tokens + self.out((attention @ value).transpose(1, 2).reshape(b, n, width))
        return tokens + self.mlp(self.norm_mlp(tokens))


def convolutions(channels: tuple[int, ...]) -> nn.Sequential:
    """A stem that halves the image at every entry: 5x5 at first, then pairs of 3x3, with GroupNorm."""
    layers: list[nn.Module] = [nn.Conv2d(channels[0], channels[1], 5, 2, 2), nn.GroupNorm(8, channels[1]), nn.GELU()]
    for before, after in pairwise(channels[1:]):
        for source, stride in ((before, 2), (after, 1)):
            layers += [nn.Conv2d(source, after, 3, stride, 1), nn.GroupNorm(8, after), nn.GELU()]
    return nn.Sequential(*layers)
