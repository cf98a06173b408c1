"""An Image message's bytes as an X-ray, whether rclpy or rosbags brought it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sphere_reg_ros.imaging.xray import XrayImage
from sphere_reg_ros.ros.errors import ImageMessageError

PIXEL_TYPES = {"mono8": "u1", "8UC1": "u1", "mono16": "u2", "16UC1": "u2", "32FC1": "f4"}


def image_to_xray(message: Any, is_attenuation: bool = False) -> XrayImage:
    """An Image (mono8, mono16, 32FC1; padded rows, either byte order) as an X-ray.

    Raises:
        ImageMessageError: another encoding, or data that do not fill the stated size.
    """
    kind = PIXEL_TYPES.get(message.encoding)
    if kind is None:
        raise ImageMessageError(f"image encoding '{message.encoding}' is no X-ray; publish {', '.join(PIXEL_TYPES)}")
    dtype = np.dtype((">" if message.is_bigendian else "<") + kind)
    height, width, step = int(message.height), int(message.width), int(message.step)
    if height == 0 or width == 0 or step < width * dtype.itemsize or len(message.data) < height * step:
        raise ImageMessageError(
            f"image says {width} x {height} pixels, rows of {step} bytes, and has {len(message.data)} bytes; "
            f"{message.encoding} needs rows of at least {width * dtype.itemsize}"
        )
    rows = np.frombuffer(message.data, dtype=np.uint8, count=height * step).reshape(height, step)
    pixels = np.ascontiguousarray(rows[:, : width * dtype.itemsize]).view(dtype)
    return XrayImage(torch.from_numpy(pixels.astype(np.float32)), is_attenuation, source="image message")
