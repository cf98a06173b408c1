"""``sphere_reg register``: what it writes, its exit codes, and the options that every command has."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "sphere_reg"
TOLERANCE_MM = 1.0
"""Of a noise-free X-ray of 128 pixels of 2.3 mm at 3 mm voxels."""


def corner_error_mm(T: Any, truth: Any) -> float:
    """Largest displacement of the corners of the phantom's box."""
    corners = np.array([[x, y, z, 1.0] for x in (0, 267) for y in (0, 189) for z in (0, 237)])
    return float(np.linalg.norm(corners @ (np.asarray(T) - np.asarray(truth)).T, axis=1).max())


def check_schema(content: dict[str, Any]) -> None:
    """Section by section what ``result.json`` promises."""
    T = np.array(content["T_camera_ct"], dtype=float)
    assert T.shape == (4, 4)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)
    assert T[3].tolist() == [0, 0, 0, 1]
    assert isinstance(content["accepted"], bool)
    assert isinstance(content["reasons"], list) and all(isinstance(one, str) and one for one in content["reasons"])
    assert content["accepted"] == (not content["reasons"])
    covariance = np.array(content["covariance"], dtype=float)
    assert covariance.shape == (6, 6)
    np.testing.assert_allclose(covariance, covariance.T, rtol=1e-6, atol=1e-12)
    assert np.linalg.eigvalsh(covariance)[0] > 0
    assert content["scores"] and all(np.isfinite(value) for value in content["scores"].values())
    timings = content["timings_ms"]
    stages = [value for name, value in timings.items() if name != "total"]
    assert stages and min(stages) >= 0
    assert timings["total"] >= sum(stages) - 1e-6, "the stages are parts of the total"
    assert isinstance(content["iterations"], int) and content["iterations"] > 0


def check_pictures(folder: Path, size: int) -> None:
    overlay = cv2.imread(str(folder / "overlay.png"), cv2.IMREAD_UNCHANGED)
    assert overlay.shape == (size, size, 3)
    # Edges are drawn in colour over a grey X-ray.
    assert 0.002 < float((overlay.max(2) != overlay.min(2)).mean()) < 0.5
    convergence = cv2.imread(str(folder / "convergence.png"))
    assert convergence.shape[0] > 100 and convergence.std() > 1


def test_an_accepted_result(run: Callable, case: Any) -> None:
    outcome = run(*case.register())
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert outcome.out.startswith("accepted; expected error") and outcome.out.count("\n") == 1
    content = json.loads((case.folder / "out" / "result.json").read_text())
    check_schema(content)
    assert content["accepted"]
    assert corner_error_mm(content["T_camera_ct"], case.frame.T_camera_ct) < TOLERANCE_MM
    check_pictures(case.folder / "out", 128)


def test_sdd_and_pitch_say_the_same_as_a_camera_file_and_a_seed_repeats(run: Callable, case: Any) -> None:
    first = case.register(camera=None, sdd=1020, pixel_pitch=300.0 / 128, seed=5, out=case.folder / "a")
    second = case.register(seed=5, out=case.folder / "b")
    assert run(*first).code == 0 and run(*second).code == 0
    poses = [json.loads((case.folder / name / "result.json").read_text())["T_camera_ct"] for name in "ab"]
    assert corner_error_mm(*poses) < 1e-6


def test_a_rejected_result_is_written_too(run: Callable, case: Any) -> None:
    noise = np.random.default_rng(0).integers(20000, 40000, (128, 128)).astype(np.uint16)
    cv2.imwrite(str(case.xray), noise)
    outcome = run(*case.register())
    assert outcome.code == 1, outcome.out
    assert outcome.out.startswith("rejected: ")
    content = json.loads((case.folder / "out" / "result.json").read_text())
    check_schema(content)
    assert not content["accepted"] and content["reasons"]
    check_pictures(case.folder / "out", 128)


def test_without_a_start_it_searches(run: Callable, case: Any) -> None:
    assert run(*case.register(init=None)).code == 0
    content = json.loads((case.folder / "out" / "result.json").read_text())
    assert corner_error_mm(content["T_camera_ct"], case.frame.T_camera_ct) < TOLERANCE_MM


def test_quiet_prints_nothing(run: Callable, case: Any) -> None:
    outcome = run(*case.register(), "--quiet")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_landmarks_are_projected(run: Callable, case: Any) -> None:
    (case.folder / "points.json").write_text('{"corner": [0.0, 0.0, 0.0], "middle": [135.0, 96.0, 120.0]}')
    assert run(*case.register(landmarks=case.folder / "points.json")).code == 0
    content = json.loads((case.folder / "out" / "result.json").read_text())
    for name, point in (("corner", (0, 0, 0, 1)), ("middle", (135, 96, 120, 1))):
        x, y, z = (np.array(content["T_camera_ct"]) @ point)[:3]
        expected = 1020 / 2.34375 * np.array([x, y]) / z + 63.5
        np.testing.assert_allclose(content["landmarks_px"][name], expected, atol=1e-6)


def test_a_second_view_pins_the_depth(run: Callable, case: Any, frames: list) -> None:
    """The second frame's camera stands where both truths put it; covariance of the depth must shrink."""
    assert run(*case.register(out=case.folder / "one")).code == 0
    second = case.folder / "second.png"
    cv2.imwrite(str(second), frames[1].picture)
    relative = (frames[1].T_camera_ct @ frames[0].T_camera_ct.inverse()).tolist()
    case.camera.write_text(f"{case.camera.read_text()}---\n{case.camera.read_text()}T_camera_reference: {relative}\n")
    outcome = run(*case.register(out=case.folder / "two"), "--xray", second)
    assert outcome.code == 0, outcome.err + outcome.out
    one, two = (json.loads((case.folder / name / "result.json").read_text()) for name in ("one", "two"))
    assert corner_error_mm(two["T_camera_ct"], case.frame.T_camera_ct) < TOLERANCE_MM
    assert two["covariance"][2][2] < one["covariance"][2][2]


def test_as_a_process_of_its_own(case: Any) -> None:
    good = subprocess.run([sys.executable, SCRIPT, *case.register()], capture_output=True, text=True, timeout=200, check=False)
    assert good.returncode == 0, good.stderr
    assert good.stderr == ""
    assert (case.folder / "out" / "result.json").exists()
    arguments = case.register(ct=case.folder / "absent.nii.gz")
    bad = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=100, check=False)
    assert bad.returncode == 2
    assert bad.stdout == ""
    assert bad.stderr.count("\n") == 1 and "absent.nii.gz" in bad.stderr


def test_debug_shows_the_traceback_and_nothing_else_does(run: Callable, case: Any) -> None:
    arguments = case.register(ct=case.folder / "absent.nii.gz")
    assert "absent.nii.gz" in run(*arguments).complaint()
    outcome = run(*arguments, "--debug")
    assert outcome.code == 2
    assert "Traceback" in outcome.err and outcome.err.rstrip().splitlines()[-1].startswith("sphere_reg: error: ")


def test_a_fault_of_ours_and_an_interrupt_are_one_line(run: Callable, case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sphere_reg_ros.cli import register

    for error, word in ((RuntimeError("broken\nin two lines"), "unexpected RuntimeError: broken in two lines"),
                        (KeyboardInterrupt(), "interrupted")):  # fmt: skip

        def fail(*arguments: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(register, "read_xray", fail)
        outcome = run(*case.register())
        assert outcome.code == 1
        assert word in outcome.err and outcome.err.count("\n") == 1
