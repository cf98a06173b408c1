"""The command ``sphere_reg``: one module a command, this one for what they share."""

from sphere_reg_ros.cli.app import main

__all__ = ["main"]
