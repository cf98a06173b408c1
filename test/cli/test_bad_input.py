"""What a user can get wrong: one clear line on stderr, exit code 2, no traceback, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

Spoil = Callable[[Any], dict[str, Any]]


def written(name: str, content: bytes | str, option: str) -> Spoil:
    """Another file in an option's place."""

    def spoil(case: Any) -> dict[str, Any]:
        path = case.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return {option: path}

    return spoil


def given(**options: Any) -> Spoil:
    """Other options; a word that begins with a slash is a path below the case."""
    return lambda case: {
        name: case.folder / value[1:] if isinstance(value, str) and value.startswith("/") else value
        for name, value in options.items()
    }


def pixels(change: Callable[[np.ndarray], np.ndarray], name: str = "bad.npy") -> Spoil:
    """Another X-ray of the same name as its format."""

    def spoil(case: Any) -> dict[str, Any]:
        array = change(case.frame.picture)
        if name.endswith(".npy"):
            np.save(case.folder / name, array)
        else:
            cv2.imwrite(str(case.folder / name), array)
        return {"xray": case.folder / name}

    return spoil


def camera(old: str, new: str) -> Spoil:
    """A word of the camera file exchanged."""

    def spoil(case: Any) -> dict[str, Any]:
        text = case.camera.read_text()
        assert old in text
        case.camera.write_text(text.replace(old, new))
        return {}

    return spoil


def start(change: Callable[[np.ndarray], Any]) -> Spoil:
    """Another initial pose."""

    def spoil(case: Any) -> dict[str, Any]:
        pose = change(np.array(case.frame.T_prior))
        case.init.write_text(json.dumps({"T_camera_ct": pose.tolist() if isinstance(pose, np.ndarray) else pose}))
        return {}

    return spoil


def shifted(axis: int, by_mm: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(T: np.ndarray) -> np.ndarray:
        T[axis, 3] += by_mm
        return T

    return change


def truncated_ct(case: Any) -> dict[str, Any]:
    path = case.folder / "cut.nii.gz"
    path.write_bytes(case.ct.read_bytes()[:2000])
    return {"ct": path}


def truncated_png(case: Any) -> dict[str, Any]:
    case.xray.write_bytes(case.xray.read_bytes()[:300])
    return {}


def two_pages(case: Any) -> dict[str, Any]:
    path = case.folder / "two.tiff"
    cv2.imwritemulti(str(path), [case.frame.picture] * 2)
    return {"xray": path}


def with_nan(picture: np.ndarray) -> np.ndarray:
    return np.where(np.arange(128) < 5, np.nan, picture)


def saturated(picture: np.ndarray) -> np.ndarray:
    return np.where(np.arange(128) < 110, 65535, picture).astype(np.uint16)


FOCAL = "435.2"

# What is spoilt, and the words that the line must have.
CASES: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "CT missing": (given(ct="/none.nii.gz"), ("none.nii.gz", "no such file")),
    "CT folder empty": (lambda case: {"ct": _folder(case, "empty")}, ("empty", "no DICOM")),
    "CT no image": (written("ct.nii.gz", b"not an image at all" * 30, "ct"), ("ct.nii.gz",)),
    "CT empty file": (written("ct.nii.gz", b"", "ct"), ("ct.nii.gz",)),
    "CT truncated": (truncated_ct, ("cut.nii.gz",)),
    "CT unknown format": (written("ct.zip", b"PK", "ct"), ("ct.zip", "unknown CT format")),
    "X-ray missing": (given(xray="/none.png"), ("none.png", "no such file")),
    "X-ray a folder": (given(xray="/"), ("no such file",)),
    "X-ray truncated": (truncated_png, ("xray.png",)),
    "X-ray no image": (written("x.dcm", b"not an image at all" * 30, "xray"), ("x.dcm",)),
    "X-ray empty file": (written("x.png", b"", "xray"), ("x.png",)),
    "X-ray size": (pixels(lambda old: old[:64]), ("128 x 64", "128 x 128")),
    "X-ray tiny": (pixels(lambda old: old[:8, :8]), ("bad.npy", "16")),
    "X-ray colour": (pixels(lambda old: np.dstack([old, old // 2, old]), "bad.png"), ("bad.png", "colour")),
    "X-ray stack": (pixels(lambda old: np.stack([old] * 3)), ("bad.npy", "two dimensions")),
    "X-ray complex": (pixels(lambda old: old.astype(complex)), ("bad.npy", "numbers")),
    "X-ray text": (pixels(lambda old: old.astype(str)), ("bad.npy", "numbers")),
    "X-ray zeros": (pixels(np.zeros_like, "bad.png"), ("bad.png", "zero")),
    "X-ray constant": (pixels(lambda old: np.full_like(old, 700), "bad.png"), ("bad.png", "every pixel is 700")),
    "X-ray NaN": (pixels(with_nan), ("bad.npy", "640 pixels are NaN")),
    "X-ray infinite": (pixels(lambda old: np.where(old == old.max(), np.inf, old)), ("bad.npy", "infinite")),
    "X-ray beyond float": (pixels(lambda old: old * 1e300), ("bad.npy", "infinite")),
    "X-ray negative": (pixels(lambda old: old.astype(float) - 70000.0), ("bad.npy", "above zero")),
    "X-ray all but black": (pixels(lambda old: np.where(np.arange(old.size).reshape(old.shape) < 9, old, 0)), ("above zero",)),
    "X-ray of two pages": (two_pages, ("two.tiff", "2 pages")),
    "X-ray saturated": (pixels(saturated, "bad.png"), ("bad.png", "saturated")),
    "no geometry": (given(camera=None), ("xray.png", "--sdd", "--pixel-pitch")),
    "SDD alone": (given(camera=None, sdd=1020), ("--pixel-pitch",)),
    "pitch alone": (given(camera=None, pixel_pitch=0.5), ("--sdd",)),
    "camera and SDD": (given(sdd=1020), ("--camera", "--sdd")),
    "SDD zero": (given(camera=None, sdd=0, pixel_pitch=0.5), ("SDD", "0")),
    "SDD NaN": (given(camera=None, sdd="nan", pixel_pitch=0.5), ("SDD", "nan")),
    "pitch negative": (given(camera=None, sdd=1020, pixel_pitch=-0.5), ("pitch", "-0.5")),
    "camera missing": (given(camera="/none.yaml"), ("none.yaml",)),
    "camera no YAML": (written("bad.yaml", "a: [1, 2\nb: }", "camera"), ("bad.yaml", "YAML")),
    "camera empty": (written("bad.yaml", "", "camera"), ("bad.yaml", "no camera")),
    "camera a list": (written("bad.yaml", "- 1\n- 2\n", "camera"), ("bad.yaml",)),
    "camera without SDD": (camera("sdd_mm", "distance"), ("camera.yaml", "sdd_mm")),
    "camera without size": (camera("image_width", "columns"), ("camera.yaml", "image_width")),
    "K with zeros": (camera(FOCAL, "0.0"), ("camera.yaml", "focal")),
    "K too short": (camera(f"0.0, {FOCAL}, 63.5, 0.0, 0.0, 1.0]", "0.0]"), ("camera.yaml",)),
    "K contradicts the SDD": (camera("sdd_mm: 1020.0", "sdd_mm: 1100.0"), ("camera.yaml", "pitch", "1100")),
    "K contradicts the pitch": (camera("pixel_pitch_mm: 2.34375", "pixel_pitch_mm: 0.3"), ("camera.yaml", "0.3")),
    "distortion": (camera("data: [0.0, 0.0, 0.0, 0.0, 0.0]", "data: [0.1, 0.0, 0.0, 0.0, 0.0]"), ("camera.yaml", "distortion")),
    "another size of camera": (camera("image_height: 128", "image_height: 256"), ("128 x 256",)),
    "init missing": (given(init="/none.json"), ("none.json",)),
    "init no JSON": (written("bad.json", "{", "init"), ("bad.json",)),
    "init without its key": (written("bad.json", '{"T": []}', "init"), ("bad.json", "T_camera_ct")),
    "init a list": (written("bad.json", "[1, 2]", "init"), ("bad.json", "T_camera_ct")),
    "init 3x3": (start(lambda T: T[:3, :3]), ("init.json", "(3, 3)")),
    "init ragged": (start(lambda T: [[1, 2], [3]]), ("init.json",)),
    "init NaN": (start(shifted(0, float("nan"))), ("init.json", "NaN")),
    "init not rigid": (start(lambda T: 1.2 * T), ("init.json", "not rigid")),
    "init a mirror": (start(lambda T: T @ np.diag([-1.0, 1.0, 1.0, 1.0])), ("init.json", "not rigid")),
    "init beside the CT": (start(shifted(0, 2000.0)), ("looks past the CT",)),
    "init behind the source": (start(shifted(2, -2000.0)), ("looks past the CT",)),
    "init behind the detector": (start(shifted(2, 2000.0)), ("looks past the CT",)),
    "init the other way round": (start(np.linalg.inv), ("looks past the CT",)),
    "landmarks missing": (given(landmarks="/none.json"), ("none.json",)),
    "landmarks malformed": (written("points.json", '{"a": [1, 2]}', "landmarks"), ("points.json", "malformed")),
    "landmarks infinite": (written("points.csv", "name,x,y,z\na,1,2,inf\n", "landmarks"), ("points.csv", "finite")),
    "landmarks unknown": (written("points.doc", "a", "landmarks"), ("points.doc", "format")),
    "labels missing": (given(labels="/none.nii.gz"), ("none.nii.gz",)),
    "labels elsewhere": (lambda case: {"labels": _other_grid(case)}, ("labels.nii.gz", "voxels")),
    "model": (given(model="/model.safetensors"), ("model.safetensors",)),
    "device unknown": (given(device="gpu"), ("gpu", "auto, cpu or cuda")),
    "out is a file": (given(out="/xray.png"), ("xray.png", "folder")),
    "out below a file": (given(out="/xray.png/out"), ("xray.png", "folder")),
    "seed negative": (given(seed=-1), ("--seed",)),
    "SDD no number": (given(camera=None, sdd="far", pixel_pitch=1), ("--sdd", "number")),
    "no CT": (given(ct=None), ("--ct",)),
    "no X-ray": (given(xray=None), ("--xray",)),
    "no folder": (given(out=None), ("--out",)),
}


def _folder(case: Any, name: str) -> Path:
    (case.folder / name).mkdir()
    return Path(case.folder / name)


def _other_grid(case: Any) -> Path:
    sitk = pytest.importorskip("SimpleITK")
    path = case.folder / "labels.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 4, 4), np.uint8)), str(path))
    return Path(path)


@pytest.mark.parametrize("name", CASES)
def test_register_refuses(name: str, run: Callable, case: Any) -> None:
    spoil, words = CASES[name]
    arguments = case.register(**spoil(case))
    line = run(*arguments).complaint()
    for word in words:
        assert word in line
    assert not (case.folder / "out" / "result.json").exists()


def test_register_refuses_cuda_where_there_is_none(run: Callable, case: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "cuda" in run(*case.register(device="cuda")).complaint()


def test_two_xrays_need_two_cameras(run: Callable, case: Any) -> None:
    assert "--camera" in run(*case.register(), "--xray", case.xray).complaint()
    pitch = case.register(camera=None, sdd=1020, pixel_pitch=300 / 128)
    assert "T_camera_reference" in run(*pitch, "--xray", case.xray).complaint()
    case.camera.write_text(f"{case.camera.read_text()}---\n{case.camera.read_text()}")
    assert "T_camera_reference" in run(*case.register(), "--xray", case.xray).complaint()


@pytest.mark.parametrize(
    ("arguments", "word"), [(("fly",), "fly"), (("register", "--fast"), "--fast"), (("simulate",), "--ct"), (("replay",), "bag")]
)
def test_what_is_no_command_or_option(arguments: tuple[str, ...], word: str, run: Callable) -> None:
    assert word in run(*arguments).complaint()


def test_a_result_is_not_lost_when_the_next_call_is_wrong(run: Callable, case: Any) -> None:
    assert run(*case.register(), "--quiet").code == 0
    before = (case.folder / "out" / "result.json").read_bytes()
    case.init.write_text("{")
    run(*case.register()).complaint()
    assert (case.folder / "out" / "result.json").read_bytes() == before
