"""The parts of the nodes that know no ROS: TF buffer, synchroniser, worker, priors."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from sphere_reg_ros.geometry import se3
from sphere_reg_ros.ros.errors import FrameError, NoCtError, StaleImageError
from sphere_reg_ros.ros.session import PRIORS_KEPT, Prior, RegistrationSession
from sphere_reg_ros.ros.synchroniser import KEEP, StampedHistory, StampSynchroniser
from sphere_reg_ros.ros.tf_buffer import TransformBuffer
from sphere_reg_ros.ros.worker import Job, Worker

PATIENCE_S = 30.0


def shifted(x: float, turn_rad: float = 0.0) -> torch.Tensor:
    return se3.exp(torch.tensor([x, 0.0, 0.0, 0.0, 0.0, turn_rad], dtype=torch.float64))


def test_tf_chains_up_and_down_and_interpolates() -> None:
    buffer = TransformBuffer()
    buffer.insert("world", "robot", 0, shifted(10.0), is_static=True)
    buffer.insert("world", "arm", 1000, shifted(100.0), is_static=False)
    buffer.insert("world", "arm", 2000, shifted(200.0), is_static=False)
    buffer.insert("arm", "camera", 0, shifted(1.0), is_static=True)
    assert torch.allclose(buffer.lookup("robot", "camera", 1500), shifted(141.0))
    assert torch.allclose(buffer.lookup("camera", "robot", 1500), shifted(-141.0))
    assert torch.allclose(buffer.lookup("camera", "camera", 0), torch.eye(4, dtype=torch.float64))


def test_tf_interpolates_rotations_half_way_and_takes_messages_out_of_order() -> None:
    buffer = TransformBuffer()
    buffer.insert("a", "b", 2000, shifted(0.0, 0.8), is_static=False)
    buffer.insert("a", "b", 1000, shifted(0.0, 0.2), is_static=False)
    assert torch.allclose(buffer.lookup("a", "b", 1500), shifted(0.0, 0.5), atol=1e-12)


def test_tf_never_extrapolates_and_says_by_how_much_it_would() -> None:
    buffer = TransformBuffer()
    for stamp_ns in (10**9, 2 * 10**9):
        buffer.insert("a", "b", stamp_ns, shifted(0.0), is_static=False)
    for stamp_ns in (5 * 10**8, 25 * 10**8):
        with pytest.raises(FrameError, match="500 ms"):
            buffer.lookup("a", "b", stamp_ns)
    with pytest.raises(FrameError, match="does not connect"):
        buffer.lookup("elsewhere", "b", 10**9)
    buffer.insert("b", "a", 10**9, shifted(0.0), is_static=False)
    with pytest.raises(FrameError):
        buffer.lookup("elsewhere", "b", 10**9)


def test_a_gap_above_the_common_frame_does_no_harm() -> None:
    buffer = TransformBuffer()
    buffer.insert("map", "world", 0, shifted(1.0), is_static=False)
    buffer.insert("world", "robot", 0, shifted(10.0), is_static=True)
    buffer.insert("world", "camera", 0, shifted(30.0), is_static=True)
    assert torch.allclose(buffer.lookup("robot", "camera", 10**9), shifted(20.0))


def test_clearing_tf_keeps_what_does_not_move() -> None:
    buffer = TransformBuffer()
    buffer.insert("a", "fixed", 0, shifted(1.0), is_static=True)
    buffer.insert("a", "moving", 0, shifted(1.0), is_static=False)
    buffer.clear()
    buffer.lookup("a", "fixed", 0)
    with pytest.raises(FrameError):
        buffer.lookup("a", "moving", 0)


def test_pairs_have_one_stamp_in_whichever_order_they_come() -> None:
    pairs: StampSynchroniser[str, str] = StampSynchroniser()
    assert pairs.add_first(1, "image 1") is None
    assert pairs.add_second(2, "info 2") is None
    assert pairs.add_first(2, "image 2") == ("image 2", "info 2")
    assert pairs.waiting_first == 0, "what is older than a pair is of no use"
    assert pairs.add_second(1, "info 1") is None
    assert pairs.add_first(3, "image 3") is None
    assert pairs.add_second(3, "info 3") == ("image 3", "info 3")


def test_waiting_messages_do_not_pile_up() -> None:
    pairs: StampSynchroniser[int, int] = StampSynchroniser()
    for stamp_ns in range(5 * KEEP):
        pairs.add_first(stamp_ns, stamp_ns)
    assert pairs.waiting_first == KEEP
    assert pairs.add_second(5 * KEEP - 1, 0) == (5 * KEEP - 1, 0)


def test_the_geometry_of_an_xray_is_what_held_at_its_stamp() -> None:
    history: StampedHistory[str] = StampedHistory()
    assert history.at(5) is None
    history.add(20, "second")
    assert history.at(5) == "second", "nothing else is known"
    history.add(10, "first, late")
    assert [history.at(one) for one in (5, 10, 19, 20, 99)] == ["first, late", "first, late", "first, late", "second", "second"]
    history.add(10, "first, corrected")
    assert history.at(15) == "first, corrected"
    for stamp_ns in range(100, 100 + 2 * KEEP):
        history.add(stamp_ns, str(stamp_ns))
    assert history.at(15) == str(100 + KEEP), "the newest are kept, and no more"


def test_of_waiting_images_the_latest_wins_and_other_jobs_all_run() -> None:
    errors: list[BaseException] = []
    worker, gate, ran = Worker(errors.append), threading.Event(), []
    started = threading.Event()

    def block() -> None:
        started.set()
        gate.wait(PATIENCE_S)

    worker.submit(Job(block))
    assert started.wait(PATIENCE_S)
    images = [Job(lambda index=index: ran.append(index), is_image=True) for index in range(4)]
    load, faulty = Job(lambda: ran.append("load")), Job(lambda: 1 / 0)
    for job in (images[0], load, images[1], faulty, images[2], images[3]):
        worker.submit(job)
    assert [job.dropped for job in images] == [True, True, True, False]
    assert worker.dropped_images == 3
    gate.set()
    assert images[3].done.wait(PATIENCE_S)
    assert ran == ["load", 3]
    assert [type(error) for error in errors] == [ZeroDivisionError]
    worker.stop()
    late = Job(lambda: ran.append("late"))
    worker.submit(late)
    assert late.done.is_set() and late.dropped and ran == ["load", 3], "nobody waits for a stopped worker"


def test_a_prior_serves_the_xray_of_its_stamp_once() -> None:
    session = RegistrationSession("cpu", 0)
    for stamp_ns in (10, 20, 30):
        session.add_prior(Prior(stamp_ns, "camera", np.eye(4) * stamp_ns))
    assert session.take_prior(5) is None
    taken = session.take_prior(25)
    assert taken is not None and taken.stamp_ns == 20
    assert session.take_prior(25) is None, "it and older ones are used up"
    later = session.take_prior(30)
    assert later is not None and later.stamp_ns == 30
    for stamp_ns in range(3 * PRIORS_KEPT):
        session.add_prior(Prior(stamp_ns, "camera", np.eye(4)))
    session.forget()
    assert session.take_prior(10**6) is None


class Scripted:
    """A pipeline that answers as it is told, and keeps what it was given."""

    def __init__(self, ct: object) -> None:
        self.accept = True
        self.given: list[tuple[object, object]] = []

    def prepare(self) -> None:
        pass

    def register(self, xray: object, camera: object, T_initial: object, *, T_tracked: object, **_: object) -> SimpleNamespace:
        self.given.append((T_initial, T_tracked))
        return SimpleNamespace(accepted=self.accept, T_camera_ct=len(self.given))


def test_tracking_follows_an_accepted_pose_and_nothing_else(phantom_path: Path) -> None:
    session = RegistrationSession("cpu", 0, pipeline_factory=Scripted)  # type: ignore[arg-type]
    session.load_ct(str(phantom_path), "", "")
    scripted: Any = session.pipeline

    def next_start(accept: bool = True, **options: Any) -> tuple[object, object]:
        scripted.accept = accept
        session.register(None, None, len(scripted.given), tracking=True, **options)  # type: ignore[arg-type]
        return scripted.given[-1]

    assert next_start() == (None, None), "nothing is known of the first X-ray"
    assert next_start() == (1, 1)
    assert next_start(T_initial=99) == (99, None), "another's pose goes before"
    assert next_start(accept=False) == (3, 3)
    assert next_start() == (3, None), "lost: the whole pipeline, from the last pose that was accepted"
    assert next_start() == (5, 5), "found again"
    assert next_start(use_last_pose=False) == (None, None)
    session.forget()
    assert next_start() == (None, None), "a reset forgets the track"


def test_a_session_without_a_ct_or_with_an_old_stamp_refuses() -> None:
    session = RegistrationSession("cpu", 0)
    with pytest.raises(NoCtError, match="load_ct"):
        session.register(None, None, 0)  # type: ignore[arg-type]
    session.last_stamp_ns = 2 * 10**9
    with pytest.raises(StaleImageError, match=r"1\.000 s older"):
        session.check_stamp(10**9)
    session.forget()
    session.check_stamp(10**9)
