"""The command line as a user calls it, and a case to call it with."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest

from sphere_reg_ros.cli import main

FOCAL_PX = 1020.0 / (300.0 / 128)
CAMERA_YAML = f"""image_width: 128
image_height: 128
camera_name: carm
camera_matrix:
  rows: 3
  cols: 3
  data: [{FOCAL_PX}, 0.0, 63.5, 0.0, {FOCAL_PX}, 63.5, 0.0, 0.0, 1.0]
distortion_model: plumb_bob
distortion_coefficients: {{rows: 1, cols: 5, data: [0.0, 0.0, 0.0, 0.0, 0.0]}}
sdd_mm: 1020.0
pixel_pitch_mm: 2.34375
"""


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def complaint(self) -> str:
        """The one line of a refusal."""
        assert self.code == 2, f"{self.code}: {self.out}{self.err}"
        lines = self.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("sphere_reg: error: "), self.err
        return lines[0]


@dataclass(frozen=True)
class Case:
    """Files of one patient: CT, X-ray, camera and a start 5 degrees and a cm off; and the truth."""

    ct: Path
    xray: Path
    camera: Path
    init: Path
    frame: object
    folder: Path

    @property
    def scale(self) -> list[str]:
        """The camera as options."""
        return ["--sdd", "1020", "--pixel-pitch", str(300.0 / 128)]

    def register(self, **changes: object) -> list[str]:
        """Arguments of ``register``, some of them exchanged, those that are None left out."""
        options = {"ct": self.ct, "xray": self.xray, "camera": self.camera, "init": self.init, "out": self.folder / "out"}
        every = {**options, **changes}
        given = [(f"--{name.replace('_', '-')}", str(value)) for name, value in every.items() if value is not None]
        return ["register", *(word for pair in given for word in pair)]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call the command line in this process; warnings reach a user's terminal, so they count as output."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("default")
            code = main([str(one) for one in arguments])
        out, err = capfd.readouterr()
        return Outcome(code, out, err + "".join(f"{one.category.__name__}: {one.message}\n" for one in seen))

    return call


@pytest.fixture
def case(phantom_path: Path, frames: list, tmp_path: Path) -> Case:
    """The phantom's files."""
    frame = frames[0]
    xray, camera, init = tmp_path / "xray.png", tmp_path / "camera.yaml", tmp_path / "init.json"
    cv2.imwrite(str(xray), frame.picture)
    camera.write_text(CAMERA_YAML)
    init.write_text(json.dumps({"T_camera_ct": frame.T_prior.tolist()}))
    return Case(phantom_path, xray, camera, init, frame, tmp_path)
