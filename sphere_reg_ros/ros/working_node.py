"""Nodes that have one piece of work to do, on a thread of its own, and end with it."""

from __future__ import annotations

import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from sphere_reg_ros.errors import InputError


class WorkingNode(Node, ABC):  # type: ignore[misc]
    """A node with one piece of work to do."""

    @abstractmethod
    def run(self) -> None:
        """Do the work; the node keeps spinning meanwhile."""


def run_to_the_end(name: str, make_node: Callable[[], WorkingNode], args: list[str] | None) -> int:
    """Spin a node until its work is done or it is told to stop.

    Returns:
        The exit code: 0, or 2 after one line about a wrong parameter or input.

    Raises:
        Exception: what the work raised besides; the process must not look as if its work were done.
    """
    rclpy.init(args=args)
    node: WorkingNode | None = None
    problem: list[Exception] = []
    try:
        node = make_node()
        working = threading.Thread(target=_work, args=(node, problem), daemon=True)
        working.start()
        while working.is_alive():
            rclpy.spin_once(node, timeout_sec=0.2)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ValueError, rclpy.exceptions.ParameterException) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    for one in problem:
        if not isinstance(one, InputError):
            raise one
        print(f"{name}: {one}", file=sys.stderr)
    return 2 if problem else 0


def _work(node: WorkingNode, problem: list[Exception]) -> None:
    try:
        node.run()
    except Exception as error:
        if rclpy.ok():  # where the node was told to stop, its work may fail in any way
            problem.append(error)
