"""Landmarks detected by a network, and the pose from them: perspective-n-point in RANSAC (after Grupp et al., IPCAI 2020).

The start is not used. The detector is the small one of `landmark_net`, made for the CT; the solver is OpenCV's.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from sphere_reg_ros.evaluation.baselines.landmark_net import LandmarkNet
from sphere_reg_ros.evaluation.baselines.objective import Journey
from sphere_reg_ros.evaluation.problem import Answer, Method, Problem
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.imaging.xray import to_line_integral
from sphere_reg_ros.models.canonical import CANONICAL_PX, canonical_camera, normalise, to_canonical

RIM_PX = 3.0
"""Detections nearer to the rim are of landmarks outside the image, which end there."""
INLIER_PX = 1.5
FEWEST = 6
RANSAC_ITERATIONS = 500


def landmark_pnp(net: LandmarkNet, points_mm: Float64[Tensor, "n 3"]) -> Method:
    """The method with a CT's detector and the landmarks that it detects."""

    def register(problem: Problem) -> Answer:
        journey = Journey(problem.T_start)
        image, valid = to_canonical(*to_line_integral(problem.xray), problem.camera)
        with torch.no_grad():
            place = net(normalise(image, valid.to(image.dtype))[None, None])
        T = pose_from_points(points_mm, place[0].double(), problem.seed)
        answer = journey.answer(problem.T_start if T is None else T, 0)
        return answer if T is not None else Answer(answer.T_camera_ct, False, 0, answer.trace)

    return register


def pose_from_points(
    points_mm: Float64[Tensor, "n 3"], place_px: Float64[Tensor, "n 2"], seed: int
) -> Float64[Tensor, "4 4"] | None:
    """``T_camera_ct`` from landmarks and where they are in the canonical image; None where too few agree on one."""
    used = ((place_px > RIM_PX) & (place_px < CANONICAL_PX - 1 - RIM_PX)).all(1)
    if int(used.sum()) < FEWEST:
        return None
    objects, images = points_mm[used].numpy(), place_px[used].numpy()
    K = canonical_camera().intrinsic.numpy()
    cv2.setRNGSeed(seed % 2**31)
    found, turn, shift, inliers = cv2.solvePnPRansac(
        objects, images, K, np.zeros(4), iterationsCount=RANSAC_ITERATIONS, reprojectionError=INLIER_PX, flags=cv2.SOLVEPNP_EPNP
    )
    if not found or inliers is None or len(inliers) < FEWEST:
        return None
    chosen = inliers[:, 0]
    turn, shift = cv2.solvePnPRefineLM(objects[chosen], images[chosen], K, np.zeros(4), turn, shift)
    rotation = se3.so3_exp(torch.from_numpy(np.asarray(turn, dtype=np.float64)[:, 0]))
    return se3.from_rotation_translation(rotation, torch.from_numpy(np.asarray(shift, dtype=np.float64)[:, 0]))
