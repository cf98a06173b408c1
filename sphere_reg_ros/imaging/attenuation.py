"""Hounsfield units to linear attenuation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

WATER_PER_MM = 0.0206
"""Water at 60 keV: 0.2059 cm²/g (NIST XCOM, Berger et al., total attenuation with coherent scattering) at 1 g/cm³."""

AIR_HU = -1000.0
SOFT_TISSUE_HU = 100.0
BONE_SLOPE = 1.15
"""How much faster attenuation rises in bone at a C-arm's effective energy (about 55-60 keV) than the Hounsfield units of a
CT at 120 kV (about 70 keV) say: cortical bone over water, 0.3148 / 0.2059 cm²/g at 60 keV against 0.2616 / 0.1928 at
70 keV (interpolated XCOM values for ICRU-44 bone), over the part above water."""


def hu_to_mu(hu: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Linear attenuation in 1/mm: linear from air to soft tissue, steeper in bone.

    Monotone and continuous. Air and everything below it, such as padding at -2048, is zero; metal is not clipped.
    """
    values = hu.to(torch.float32)
    soft = (values.clamp_max(SOFT_TISSUE_HU) - AIR_HU).clamp_min(0.0)
    return (soft + BONE_SLOPE * (values - SOFT_TISSUE_HU).clamp_min(0.0)) * (WATER_PER_MM / 1000.0)
