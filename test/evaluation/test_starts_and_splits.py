"""Starts by their names, and which patients a model may have seen."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from sphere_reg_ros.evaluation import methods
from sphere_reg_ros.evaluation.errors import MethodNameError, SeenPatientError, SplitError, StartNameError
from sphere_reg_ros.evaluation.metrics import capture_range_mm, mtre_mm
from sphere_reg_ros.evaluation.splits import make_split
from sphere_reg_ros.evaluation.starts import draw, expanded
from sphere_reg_ros.evaluation.suites import Choice, tasks_of
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.views import ap_pose
from sphere_reg_ros.imaging.readers import read_ct
from sphere_reg_ros.registration.pyramid import VolumePyramid

CENTRE = torch.tensor([10.0, -20.0, 30.0], dtype=torch.float64)
POINTS = CENTRE + torch.tensor([[80.0, 0, 0], [0, 60.0, 0], [0, 0, -90.0], [-50.0, 40.0, 20.0]], dtype=torch.float64)
TRUE = ap_pose(CENTRE)


def twists(name: str, n: int = 400) -> torch.Tensor:
    poses = torch.stack([draw(name, TRUE, POINTS, CENTRE, seed) for seed in range(n)])
    return se3.twist_between(TRUE.expand(n, 4, 4), poses, CENTRE)


@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_normal_starts_have_their_deviations(factor: float) -> None:
    """Of 400 draws the deviation is known to 3.5 %, four times that is chance one in ten thousand; long turns wrap a little."""
    wanted = factor * torch.tensor([30.0, 30.0, 60.0, *[math.radians(20.0)] * 3], dtype=torch.float64)
    torch.testing.assert_close(twists(f"{factor:g}").std(0), wanted, rtol=0.15, atol=0.0)


def test_uniform_starts_fill_their_box() -> None:
    reach = 0.5 * torch.tensor([30.0, 30.0, 60.0, *[math.radians(20.0)] * 3], dtype=torch.float64)
    share = twists("uniform:0.5") / reach
    assert float(share.abs().max()) <= 1.0 + 1e-9
    # Deviation of a uniform variable on -1..1.
    torch.testing.assert_close(share.std(0), torch.full((6,), 3.0**-0.5, dtype=torch.float64), rtol=0.15, atol=0.0)


@pytest.mark.parametrize("distance", [20.0, 160.0])
def test_grid_starts_have_their_distance(distance: float) -> None:
    for seed in range(20):
        assert mtre_mm(draw(f"grid:{distance}", TRUE, POINTS, CENTRE, seed), TRUE, POINTS) == pytest.approx(distance, abs=1e-3)


def test_names_of_starts() -> None:
    assert expanded(["0.50", "1", "uniform:1.0", "grid:40"]) == ["0.5", "1", "uniform:1", "grid:40"]
    assert expanded(["grid", "grid:40"]) == [f"grid:{distance}" for distance in range(20, 161, 20)]
    for name in ("half", "-1", "0", "nan", "grid:", "gird:40", "uniform"):
        with pytest.raises(StartNameError, match="give a factor"):
            expanded([name])


def test_starts_on_the_command_line_replace_the_suites() -> None:
    tasks = tasks_of("quick", Choice(methods=("photometric",), starts=("uniform:1", "grid:40"), images=2))
    assert [(task.spread, task.case) for task in tasks] == [("uniform:1", 0), ("uniform:1", 1), ("grid:40", 0), ("grid:40", 1)]


@pytest.mark.parametrize(
    ("starts", "errors", "wanted"),
    [
        ([20.0, 20.0, 40.0, 40.0], [0.5, 1.9, 0.1, 0.2], 40.0),
        ([20.0, 20.0, 40.0, 40.0], [0.5, 1.9, 0.1, 2.1], 20.0),
        ([20.0, 40.0, 60.0], [0.5, 3.0, 0.5], 20.0),
        ([20.0, 40.0], [9.0, 0.5], 0.0),
        ([5.0, 39.9], [0.5, 0.5], 40.0),
        ([], [], None),
    ],
)
def test_capture_range_by_hand(starts: list[float], errors: list[float], wanted: float | None) -> None:
    assert capture_range_mm(starts, errors) == wanted


def test_one_failure_in_twenty_is_still_captured() -> None:
    assert capture_range_mm([30.0] * 20, [0.5] * 19 + [50.0]) == 40.0
    assert capture_range_mm([30.0] * 19, [0.5] * 18 + [50.0]) == 0.0


def test_splits() -> None:
    patients = [f"p{number}" for number in range(10)]
    assert make_split("specific", patients, 0).train == make_split("specific", patients, 0).test == tuple(patients)
    split = make_split("agnostic", patients, 0)
    assert len(split.test) == 2 and not set(split.test) & set(split.train) and {*split.test, *split.train} == set(patients)
    assert set(make_split("agnostic", patients[::-1], 0).test) == set(split.test)
    assert {make_split("agnostic", patients, seed).test for seed in range(5)} != {split.test}
    with pytest.raises(SplitError, match="leaves none"):
        make_split("agnostic", patients[:1], 0)
    with pytest.raises(SplitError, match="did you mean 'agnostic'"):
        make_split("agnostc", patients, 0)


def test_an_agnostic_split_registers_its_test_patients_only() -> None:
    cts = tuple(f"ct{number}.nii" for number in range(5))
    tasks = tasks_of("quick", Choice(cts=cts, methods=("photometric", "learned@m.safetensors"), images=1, split="agnostic"))
    assert len({task.dataset for task in tasks}) == 1 and len(tasks) == 2
    with pytest.raises(SplitError, match="learned@FILE"):
        tasks_of("quick", Choice(cts=cts, methods=("learned",), split="agnostic"))
    with pytest.raises(MethodNameError, match="did you mean 'learned'"):
        tasks_of("quick", Choice(methods=("photometric@m.safetensors",)))


def test_a_model_that_knows_the_patient_is_refused(phantom_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    ct = read_ct(phantom_path)
    model = SimpleNamespace(card=SimpleNamespace(ct_sha256=(ct.sha256,)))
    monkeypatch.setattr(methods, "load", lambda path: model)
    with pytest.raises(SeenPatientError, match="must not have seen"):
        methods.make_method("learned@m.safetensors", ct, VolumePyramid(ct, "cpu", torch.device("cpu")), POINTS, Path())
