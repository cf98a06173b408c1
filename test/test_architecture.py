"""The package's structure: imports go one way, the core runs without ROS, and files and functions stay readable."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "sphere_reg_ros"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A folder may import those of lower rank only; folders of one rank do not know each other.
RANK = {
    "geometry": 0,
    "imaging": 1,
    "drr": 2,
    "models": 3,
    "similarity": 4,
    "optim": 4,
    "registration": 5,
    "training": 6,
    "evaluation": 7,
    "ros": 8,
    "cli": 9,
}
FREE_FOR_ALL = {"__init__", "_version", "errors"}

# Not needed to register an X-ray: on a bare GPU machine none of them is there.
CORE = ("geometry", "imaging", "drr", "models", "similarity", "optim", "registration", "evaluation")
OPTIONAL = ("rclpy", "diffdrr", "escnn", "pydicom", "rosbags", "typer", "triton")

# Generated beside the package by the build, not part of the source tree.
GENERATED = {"msg", "srv", "action"}


def unit_of(module: Path) -> str:
    """The folder, or the file, directly below the package that a module belongs to."""
    first = module.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def package_imports(module: Path) -> Iterator[tuple[int, str]]:
    """(line, folder) of each import of this package, at any depth: a lazy import is a dependency as well."""
    for node in ast.walk(ast.parse(module.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == PACKAGE.name and len(parts) > 1:
                yield node.lineno, parts[1]


def test_every_folder_has_a_place_in_the_order() -> None:
    units = {unit_of(module) for module in MODULES} - FREE_FOR_ALL
    assert units <= set(RANK), f"without a place: {sorted(units - set(RANK))}"
    assert len(units) > 5


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(module: Path) -> None:
    own = unit_of(module)
    for line, other in package_imports(module):
        if other == own or other in FREE_FOR_ALL or other == "__version__":
            continue
        assert own in RANK, f"{module}:{line}: {own} is for everybody, and must not import {other}"
        if other in GENERATED:
            assert own == "ros", f"{module}:{line}: only ros may import messages"
            continue
        assert RANK[other] < RANK[own], f"{module}:{line}: {own} must not import {other}"


def test_the_core_imports_with_nothing_but_its_own_needs() -> None:
    names = [
        ".".join(["sphere_reg_ros", *module.relative_to(PACKAGE).with_suffix("").parts])
        for module in MODULES
        if unit_of(module) in CORE
    ]
    program = f"""
import importlib, sys
blocked = {OPTIONAL!r} + ("sphere_reg_ros.msg", "sphere_reg_ros.srv", "sphere_reg_ros.action")
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if any(name == one or name.startswith(one + ".") for one in blocked):
            raise ImportError(f"{{name}} is not available")
sys.meta_path.insert(0, Refuse())
for name in {names!r}:
    importlib.import_module(name)
assert not set(blocked) & set(sys.modules)
"""
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False)
    assert outcome.returncode == 0, outcome.stderr[-2000:]


def test_the_pose_of_a_message_is_converted_in_one_module() -> None:
    """Metres meet millimetres once: no other module may scale by a thousand."""
    scaling = re.compile(r"[*/]\s*(1000(\.0)?|1e3|1e-3|0\.001)\b")
    found = [
        f"{module.relative_to(PACKAGE)}:{number}"
        for module in (PACKAGE / "ros").rglob("*.py")
        for number, line in enumerate(module.read_text().splitlines(), 1)
        if module.name != "conversions.py" and scaling.search(line) and "_mm" in line
    ]
    assert not found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_stay_readable(module: Path) -> None:
    text = module.read_text()
    assert len(text.splitlines()) <= 400, "one idea a file: split it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            docstring = ast.get_docstring(node) or ""
            code = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
            # Compiled kernels cannot be cut: a call would spill their registers.
            limit = 120 if "kernel" in module.name or (module.parent.name == "cpu") else 60
            assert code <= limit, f"{node.name} has {code} lines"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_say_what_they_are(module: Path) -> None:
    tree = ast.parse(module.read_text())
    if tree.body:
        assert ast.get_docstring(tree), "a module starts with a docstring"


def test_nothing_unfinished_is_left() -> None:
    unfinished = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")
    found = [
        f"{module.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for module in MODULES
        for number, line in enumerate(module.read_text().splitlines(), 1)
        if unfinished.search(line)
    ]
    assert not found
