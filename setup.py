"""Serves pip; all metadata is in setup.cfg. colcon builds with CMakeLists.txt instead."""

from setuptools import setup

setup()
