"""What several commands do the same way."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from sphere_reg_ros.errors import InputError
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.landmarks import Landmarks, landmarks_from_labels, read_landmarks
from sphere_reg_ros.imaging.readers import read_ct, read_labels

Item = TypeVar("Item")


class OptionError(InputError):
    """Options that contradict each other, or miss one."""


def load_case(ct_path: str, labels: Path | None, landmarks: Path | None) -> tuple[CtVolume, Landmarks | None]:
    """The CT and its landmarks, from their file or as the centroids of a label map."""
    ct = read_ct(ct_path)
    if landmarks is not None:
        return ct, read_landmarks(landmarks)
    if labels is not None:
        return ct, landmarks_from_labels(read_labels(labels, ct), ct)
    return ct, None


def make_folder(path: Path) -> Path:
    """The output folder, made if need be.

    Raises:
        OptionError: a file is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OptionError(f"--out {path}: a file is in the way; name a folder") from error
    return path


def with_progress(items: Sequence[Item], what: str, quiet: bool) -> Iterator[Item]:
    """Items, with a progress bar on a terminal."""
    hidden = quiet or not sys.stderr.isatty()
    yield from track(items, description=what, console=Console(stderr=True), disable=hidden)


def say(text: str, quiet: bool) -> None:
    """Print unless asked not to."""
    if not quiet:
        print(text, flush=True)
