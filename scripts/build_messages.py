#!/usr/bin/env python3
"""Builds this package's messages, and tf2_msgs where it is missing, into the virtual environment that runs this script.

With ROS 2 from wheels the environment is an installation prefix like /opt/ros: CMake finds the generators in it and installs
into it, so that no environment variable is needed afterwards. With an installed ROS 2 the same call builds against that.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PREFIX = Path(sys.prefix)
SITE = Path(sysconfig.get_paths()["purelib"])

TF2_PACKAGE = """<?xml version="1.0"?>
<package format="3">
  <name>tf2_msgs</name><version>0.36.0</version><description>TFMessage, for machines without tf2_msgs.</description>
  <maintainer email="maintainers@sphere-reg-ros.invalid">sphere_reg_ros maintainers</maintainer><license>Apache-2.0</license>
  <buildtool_depend>ament_cmake</buildtool_depend><buildtool_depend>rosidl_default_generators</buildtool_depend>
  <depend>geometry_msgs</depend><exec_depend>rosidl_default_runtime</exec_depend>
  <member_of_group>rosidl_interface_packages</member_of_group><export><build_type>ament_cmake</build_type></export>
</package>
"""
TF2_CMAKE = """cmake_minimum_required(VERSION 3.16)
project(tf2_msgs)
find_package(ament_cmake REQUIRED)
find_package(rosidl_default_generators REQUIRED)
find_package(geometry_msgs REQUIRED)
rosidl_generate_interfaces(${PROJECT_NAME} msg/TFMessage.msg DEPENDENCIES geometry_msgs)
ament_export_dependencies(rosidl_default_runtime)
ament_package()
"""


def main() -> int:
    """Build what is missing; exit status 1 with the end of the build's log where it fails."""
    try:
        repair_wheel_exports()
        with tempfile.TemporaryDirectory(prefix="sphere_reg_messages_") as folder:
            if find_spec("tf2_msgs") is None:
                build(write_tf2_msgs(Path(folder) / "tf2_msgs"), Path(folder) / "build_tf2")
            build(ROOT, Path(folder) / "build", "-DINSTALL_IN_PLACE=ON")
        # pip would take it for an installation of this package, and uninstall the messages with it.
        for metadata in SITE.glob("sphere_reg_ros-*.egg-info"):
            shutil.rmtree(metadata)
        # The generated package comes first on the path; with this __init__ it also finds the modules of the working tree.
        for name in ("__init__.py", "_version.py"):
            shutil.copy(ROOT / "sphere_reg_ros" / name, SITE / "sphere_reg_ros" / name)
        if not (SITE / "ros_wheels_bootstrapper.pth").exists():
            shutil.copy(ROOT / "scripts" / "ros_library_path.py", SITE)
            (SITE / "ros_library_path.pth").write_text("import ros_library_path\n")
    except subprocess.CalledProcessError as error:
        print(error.stdout[-3000:], file=sys.stderr)
        print(f"building the messages failed: {' '.join(map(str, error.cmd[:4]))} ...", file=sys.stderr)
        return 1
    return 0


def repair_wheel_exports() -> None:
    """Point the wheels' exported CMake targets to this Python and this NumPy, not to those of the machine that made them."""
    include = sysconfig.get_paths()["include"]
    numpy = find_spec("numpy")
    if numpy is None or numpy.origin is None:
        raise SystemExit("NumPy is missing: run 'make setup'")
    headers = next(one for one in (Path(numpy.origin).parent / core / "include" for core in ("_core", "core")) if one.is_dir())
    for file in PREFIX.glob("share/*/cmake/*Export.cmake"):
        text = file.read_text()
        fixed = re.sub(r"/opt/python/cp3[^;\" ]*/numpy/_?core/include", str(headers), text)
        fixed = re.sub(r"/opt/python/cp3[^;\" ]*/include/python3\.\d+", include, fixed)
        if fixed != text:
            file.write_text(fixed)


def write_tf2_msgs(folder: Path) -> Path:
    """The sources of tf2_msgs, of which only TFMessage is used."""
    (folder / "msg").mkdir(parents=True)
    (folder / "package.xml").write_text(TF2_PACKAGE)
    (folder / "CMakeLists.txt").write_text(TF2_CMAKE)
    (folder / "msg" / "TFMessage.msg").write_text("geometry_msgs/TransformStamped[] transforms\n")
    return folder


def build(source: Path, folder: Path, *options: str) -> None:
    """Configure, build and install one package with the real rosidl generators."""
    prefixes = [str(PREFIX), *filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep))]
    environment = {
        **os.environ,
        "AMENT_PREFIX_PATH": os.pathsep.join(prefixes),
        "CMAKE_PREFIX_PATH": os.pathsep.join(prefixes),
        "PATH": os.pathsep.join([str(PREFIX / "bin"), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH", "")])),
    }
    cmake = shutil.which("cmake", path=environment["PATH"]) or "cmake"
    configure = [
        cmake, "-S", str(source), "-B", str(folder), "-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_INSTALL_PREFIX={PREFIX}", f"-DPython3_EXECUTABLE={sys.executable}",
        f"-DPYTHON_EXECUTABLE={sys.executable}", f"-DPYTHON_INSTALL_DIR={SITE.relative_to(PREFIX)}", *options,
    ]  # fmt: skip
    for command in (
        configure,
        [cmake, "--build", str(folder), "-j", str(os.cpu_count() or 1)],
        [cmake, "--install", str(folder)],
    ):
        subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


if __name__ == "__main__":
    sys.exit(main())
