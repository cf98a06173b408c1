"""Landmark files, in either handedness, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sphere_reg_ros.imaging.errors import LandmarkFileError
from sphere_reg_ros.imaging.landmarks import read_landmarks

LPS = {"L1": [10.0, -20.0, 30.0], "L2": [1.5, 2.5, -3.5]}
FILES = {
    "plain.json": json.dumps(LPS),
    "plain.csv": "name, x, y, z\nL1, 10, -20, 30\nL2, 1.5, 2.5, -3.5\n",
    "slicer.fcsv": "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
    "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label\n"
    "1,10,-20,30,0,0,0,1,1,1,0,L1\n2,1.5,2.5,-3.5,0,0,0,1,1,1,0,L2\n",
    "old.fcsv": "# Markups fiducial file version = 4.6\n# CoordinateSystem = 0\n"
    "a,-10,20,30,0,0,0,1,1,1,0,L1\nb,-1.5,-2.5,-3.5,0,0,0,1,1,1,0,L2\n",
    "lps.mrk.json": json.dumps(
        {"markups": [{"coordinateSystem": "LPS", "controlPoints": [{"label": k, "position": v} for k, v in LPS.items()]}]}
    ),
    "ras.mrk.json": json.dumps(
        {
            "markups": [
                {
                    "coordinateSystem": "RAS",
                    "controlPoints": [{"label": k, "position": [-v[0], -v[1], v[2]]} for k, v in LPS.items()],
                }
            ]
        }
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_points(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name])
    found = read_landmarks(tmp_path / name)
    assert found.names == ("L1", "L2")
    assert found.points_mm.tolist() == list(LPS.values())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "{"),
        ("a.json", "{}"),
        ("a.json", '{"L1": [1, 2]}'),
        ("a.json", '{"L1": [1, 2, "x"]}'),
        ("a.json", '{"L1": [1, 2, NaN]}'),
        ("a.json", "[1, 2, 3]"),
        ("a.csv", "x,y,z\n1,2,3\n"),
        ("a.csv", "name,x,y,z\nL1,1,2\n"),
        ("a.fcsv", "# CoordinateSystem = XYZ\n1,1,2,3\n"),
        ("a.txt", "L1 1 2 3"),
    ],
)
def test_malformed_files_are_one_line(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(LandmarkFileError) as caught:
        read_landmarks(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LandmarkFileError, match="cannot be read"):
        read_landmarks(tmp_path / "absent.json")
