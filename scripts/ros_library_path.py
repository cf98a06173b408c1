"""Lets a sourced ROS 2 find the libraries of the messages that `make setup` built into this virtual environment.

Runs at the start of each Python of the environment. The loader reads LD_LIBRARY_PATH once, when a process starts: to add to it,
the interpreter starts itself again. (The ROS wheels bring the same for an environment without an installed ROS 2.)
"""

import os
import sys


def start_again_with_libraries() -> None:
    """Do nothing where no ROS 2 is sourced, or where the environment's libraries are on the path already."""
    libraries = os.path.join(sys.prefix, "lib")
    searched = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    if not os.environ.get("AMENT_PREFIX_PATH") or libraries in searched:
        return
    environment = dict(os.environ)
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [libraries, *searched]))
    environment["AMENT_PREFIX_PATH"] = os.pathsep.join([sys.prefix, environment["AMENT_PREFIX_PATH"]])
    os.execve(sys.executable, sys.orig_argv, environment)


start_again_with_libraries()
