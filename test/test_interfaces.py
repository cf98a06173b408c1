"""The interfaces that other software relies on, and what the package says about itself."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import sphere_reg_ros

ROOT = Path(__file__).resolve().parent.parent

INTERFACES = {
    "msg/CArmGeometry.msg": [
        [
            "std_msgs/Header header",
            "float64 sdd_mm",
            "float64[2] pixel_pitch_mm",
            "float64[2] piercing_point_px",
            "uint32 width",
            "uint32 height",
        ]
    ],
    "msg/ConvergenceTrace.msg": [
        [
            "std_msgs/Header header",
            "string[] stage",
            "float64[] cost",
            "float64[] damping",
            "float64[] step_norm",
            "float64[] gradient_norm",
            "geometry_msgs/Pose[] poses",
        ]
    ],
    "msg/RegistrationResult.msg": [
        [
            "std_msgs/Header header",
            "bool accepted",
            "string[] reasons",
            "geometry_msgs/PoseWithCovariance pose",
            "float64 probability",
            "float64 expected_error_mm",
            "string[] score_names",
            "float64[] scores",
            "string[] stage_names",
            "float64[] stage_ms",
            "uint32 iterations",
            "string ct_sha256",
            "string model_id",
            "string version",
        ]
    ],
    "srv/LoadCT.srv": [
        ["string path", "string labels_path", "string landmarks_path"],
        [
            "bool success",
            "string message",
            "string sha256",
            "uint32[3] size",
            "float64[3] spacing_mm",
        ],
    ],
    "action/Register.action": [
        ["bool use_initial_pose", "geometry_msgs/Pose initial_pose", "float64 timeout_s"],
        ["RegistrationResult result"],
        ["string stage", "uint32 iteration", "float64 cost"],
    ],
}


def declared(path: Path) -> list[list[str]]:
    """The fields of each part of an interface file, without comments and alignment."""
    sections: list[list[str]] = [[]]
    for line in path.read_text().splitlines():
        field = " ".join(line.split("#")[0].split())
        if field == "---":
            sections.append([])
        elif field:
            sections[-1].append(field)
    return sections


@pytest.mark.parametrize("name", INTERFACES)
def test_fields_are_those_agreed_upon(name: str) -> None:
    assert declared(ROOT / name) == INTERFACES[name]


def test_no_interface_is_forgotten_by_the_build() -> None:
    on_disk = {f"{folder}/{file.name}" for folder in ("msg", "srv", "action") for file in (ROOT / folder).iterdir()}
    cmake = (ROOT / "CMakeLists.txt").read_text()
    assert on_disk == set(INTERFACES)
    assert {match for match in re.findall(r"(?:msg|srv|action)/\w+\.\w+", cmake)} == on_disk


def test_generated_messages_have_these_fields() -> None:
    """The environment's messages are those of this tree, not of an older one."""
    messages = pytest.importorskip("sphere_reg_ros.msg", reason="the messages are not built: pip installation without ROS")
    for name in ("CArmGeometry", "ConvergenceTrace", "RegistrationResult"):
        fields = getattr(messages, name).get_fields_and_field_types()
        wanted = [field.split()[1] for field in INTERFACES[f"msg/{name}.msg"][0]]
        assert list(fields) == wanted


@pytest.mark.parametrize("folder", ["root", "elsewhere"])
def test_messages_and_modules_are_found_together(folder: str, tmp_path: Path) -> None:
    """The source tree must not hide the generated messages, from wherever Python starts, without any variable."""
    pytest.importorskip("rclpy", reason="no ROS 2")
    program = (
        "from sphere_reg_ros.msg import RegistrationResult; from sphere_reg_ros.srv import LoadCT;"
        "from sphere_reg_ros.action import Register; from tf2_msgs.msg import TFMessage;"
        "from rclpy.serialization import serialize_message, deserialize_message;"
        "sent = RegistrationResult(accepted=True, reasons=['a']);"
        "assert deserialize_message(serialize_message(sent), RegistrationResult) == sent;"
        "import sphere_reg_ros.geometry"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT if folder == "root" else tmp_path,
        check=True,
        timeout=120,
    )


def test_versions_agree() -> None:
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    assert manifest.findtext("version") == sphere_reg_ros.__version__
    assert manifest.findtext("name") == "sphere_reg_ros"
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: sphere_reg_ros._version.__version__"
    assert manifest.findtext("license") == setup["metadata"]["license"]


def test_every_ros_package_in_use_is_declared() -> None:
    """rosdep installs what package.xml lists: a forgotten dependency breaks the node on the next machine only."""
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    listed = {element.text for tag in ("depend", "exec_depend", "build_depend") for element in manifest.findall(tag)}
    files = [*(ROOT / "sphere_reg_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]
    used = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                used.add(node.module.split(".")[0])
    of_ros = {
        name
        for name in used
        if name.endswith(("_msgs", "_srvs", "_interfaces"))
        or name in ("rclpy", "launch", "launch_ros", "ament_index_python", "tf2_ros")
    }
    assert len(of_ros) > 5
    assert of_ros <= listed, f"package.xml lacks {sorted(of_ros - listed)}"


def test_executables_and_console_scripts_are_the_same_programs() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"]["console_scripts"].strip().splitlines()
    entries = dict(line.replace(" ", "").split("=") for line in lines)
    assert set(entries) == {"sphere_reg", "registration_node", "carm_simulator", "bag_player"}
    installed = re.search(r"foreach\(executable ([\w ]+)\)", (ROOT / "CMakeLists.txt").read_text())
    assert installed is not None
    assert set(installed[1].split()) >= set(entries)
    for name, target in entries.items():
        module, function = target.split(":")
        script = (ROOT / "scripts" / name).read_text()
        assert f"from {module} import {function}" in script
        assert (ROOT / "scripts" / name).stat().st_mode & 0o111, f"{name} is not executable"
        path = ROOT / Path(*module.split("."))
        source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        defined = {
            alias.asname or alias.name if isinstance(node, ast.ImportFrom) else node.name
            for node in ast.parse(source.read_text()).body
            if isinstance(node, ast.FunctionDef | ast.ImportFrom)
            for alias in (node.names if isinstance(node, ast.ImportFrom) else [None])
        }
        assert function in defined
