"""What launch files and the RViz config name must exist in the code; and a real launch where launch_ros is installed."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from sphere_reg_ros.ros.parameters import CARM_PARAMETERS, PLAYER_PARAMETERS, REGISTRATION_PARAMETERS

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
SOURCES = "\n".join(path.read_text() for path in (ROOT / "sphere_reg_ros" / "ros").glob("*.py"))
NODES = {
    "registration_node": ("registration", REGISTRATION_PARAMETERS),
    "carm_simulator": ("carm", CARM_PARAMETERS),
    "bag_player": ("bag_player", PLAYER_PARAMETERS),
}


def calls(path: Path, name: str) -> list[ast.Call]:
    tree = ast.parse(path.read_text())
    return [one for one in ast.walk(tree) if isinstance(one, ast.Call) and getattr(one.func, "id", "") == name]


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((one.value for one in call.keywords if one.arg == name), None)


def text(node: ast.expr | None) -> str:
    assert isinstance(node, ast.Constant)
    return str(node.value)


def our_nodes() -> list[tuple[Path, ast.Call]]:
    every = [(path, call) for path in LAUNCH_FILES for call in calls(path, "Node")]
    return [(path, call) for path, call in every if text(keyword(call, "package")) == "sphere_reg_ros"]


def test_the_three_launch_files_are_there() -> None:
    assert [path.name for path in LAUNCH_FILES] == ["demo.launch.py", "registration.launch.py", "replay.launch.py"]


def test_executables_and_node_names_exist() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"]
    assert our_nodes()
    for path, call in our_nodes():
        executable = text(keyword(call, "executable"))
        assert f"{executable} =" in scripts, path.name
        name, _ = NODES[executable]
        assert text(keyword(call, "name")) == name
        assert f'super().__init__("{name}"' in SOURCES


def test_parameters_are_declared() -> None:
    for path, call in our_nodes():
        declared = {one.name for one in NODES[text(keyword(call, "executable"))][1]}
        given = {text(key) for table in ast.walk(call) if isinstance(table, ast.Dict) for key in table.keys}
        assert given and given <= declared, f"{path.name}: {given - declared}"


def test_launch_arguments_are_declared_where_they_are_used() -> None:
    for path in LAUNCH_FILES:
        declared = {text(call.args[0]) for call in calls(path, "DeclareLaunchArgument")}
        used = {text(call.args[0]) for call in calls(path, "LaunchConfiguration")}
        assert used == declared, path.name
    registration = {text(call.args[0]) for call in calls(ROOT / "launch" / "registration.launch.py", "DeclareLaunchArgument")}
    for path in LAUNCH_FILES:
        for include in calls(path, "IncludeLaunchDescription"):
            given = {text(key) for table in ast.walk(include) if isinstance(table, ast.Dict) for key in table.keys}
            assert given <= registration, path.name


def test_remapped_topics_are_those_of_the_nodes() -> None:
    for path, call in our_nodes():
        remappings = keyword(call, "remappings")
        for pair in remappings.elts if isinstance(remappings, ast.List) else []:
            assert isinstance(pair, ast.Tuple)
            topic = text(pair.elts[0])
            assert re.search(rf'"{topic}"', SOURCES), f"{path.name}: {topic}"
            if topic != "/tf":
                assert f'"/carm/{topic}"' in SOURCES, "the simulated C-arm publishes it"


def test_the_parameter_file_has_declared_parameters_of_the_right_type_and_range() -> None:
    from sphere_reg_ros.ros.parameters import problem_with

    table = yaml.safe_load((ROOT / "config" / "registration.yaml").read_text())
    assert list(table) == ["/registration"]
    declared = {one.name: one for one in REGISTRATION_PARAMETERS}
    for name, value in table["/registration"]["ros__parameters"].items():
        assert type(value) is type(declared[name].default), name
        assert problem_with(declared[name], value) == ""


def test_rviz_shows_topics_and_frames_that_exist() -> None:
    config = yaml.safe_load((ROOT / "config" / "sphere_reg.rviz").read_text())["Visualization Manager"]
    shown = {}
    for display in config["Displays"]:
        shown.setdefault(display["Class"].split("/")[1], []).append(display)
    for kind in ("TF", "MarkerArray", "Image"):
        assert shown[kind]
    topics = {one["Topic"]["Value"]: one["Topic"] for several in shown.values() for one in several if "Topic" in one}
    assert {"/registration/overlay", "/registration/drr", "/registration/markers"} <= set(topics)
    for topic in topics:
        assert f'"{topic.replace("/registration", "~")}"' in SOURCES
    assert topics["/registration/markers"]["Durability Policy"] == "Transient Local"
    for name in shown["MarkerArray"][0]["Namespaces"]:
        assert f'"{name}"' in SOURCES
    frames = {config["Global Options"]["Fixed Frame"], *shown["TF"][0]["Frames"]} - {"All Enabled"}
    defaults = {one.default for several in (REGISTRATION_PARAMETERS, CARM_PARAMETERS) for one in several}
    assert frames <= defaults


@pytest.mark.skipif(importlib.util.find_spec("launch_ros") is None, reason="launch_ros is not installed: no real launch")
def test_demo_launch_registers_and_ends(phantom_path: Path, domain_id: int) -> None:
    program = (
        "import sys; from launch import LaunchService; from launch.actions import IncludeLaunchDescription;"
        "from launch.launch_description_sources import PythonLaunchDescriptionSource as Source;"
        "from launch import LaunchDescription; service = LaunchService();"
        "arguments = {'ct_path': sys.argv[2], 'images': '1'}.items();"
        "included = IncludeLaunchDescription(Source(sys.argv[1]), launch_arguments=arguments);"
        "service.include_launch_description(LaunchDescription([included])); sys.exit(service.run())"
    )
    command = [sys.executable, "-c", program, str(ROOT / "launch" / "demo.launch.py"), str(phantom_path)]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain_id)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "published 1 X-rays" in output
    assert "[registration]: loaded" in output
    assert "Traceback" not in output


def test_the_documented_parameters_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|.*\| (yes)? ?\| (.*) \|$", (ROOT / "docs" / "parameters.md").read_text(), re.M)
    declared = [one for _, table in NODES.values() for one in table]
    assert [(name, bool(fixed), meaning) for name, _, fixed, meaning in rows] == [
        (one.name, one.read_only, one.description) for one in declared
    ]
    shown = {"True": "true", "False": "false", "": "empty"}
    for (name, default, _, _), one in zip(rows, declared, strict=True):
        written = str(list(one.default) if isinstance(one.default, tuple) else one.default)
        assert default == shown.get(written, f"`{written}`"), name
