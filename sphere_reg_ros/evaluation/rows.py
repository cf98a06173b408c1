"""The results file: one row an image, appended and synchronised at once, so that a killed run loses nothing."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from sphere_reg_ros.evaluation.errors import ResultsFileError, ResultsWriteError

FIELDS = (
    "method", "dataset", "case", "seed", "spread", "start_mm", "mtre_mm", "mpe_mm", "mrpe_mm", "dgeo_mm", "iterations", "time_ms",
    "accepted", "version", "commit", "device", "T_camera_ct", "T_start", "T_true", "trace",
)  # fmt: skip
KEY = ("method", "dataset", "case", "seed", "spread")
Row = Mapping[str, str]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Whole rows of an earlier run; a last line that was cut off is not among them.

    Raises:
        ResultsFileError: a file with other columns.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().decode("utf-8", "replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    if not lines:
        return []
    reader = csv.DictReader(lines)
    if tuple(reader.fieldnames or ()) != FIELDS:
        raise ResultsFileError(f"{path}: its columns are not those of this version; name another --out, or delete the file")
    return [row for row in reader if None not in row and None not in row.values()]


def key_of(row: Row) -> tuple[str, ...]:
    """What names a row's task."""
    return tuple(row[name] for name in KEY)


class RowWriter:
    """Appends rows; what an earlier run left incomplete at the end is cut off first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        whole = 0
        if path.exists():
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(path, whole)
        if whole == 0:
            self._append(",".join(FIELDS) + "\n")

    def write(self, row: Row) -> None:
        """Append a row, on disk when this returns.

        Raises:
            ResultsWriteError: it could not be written, e.g. for want of space; the rows before are whole.
        """
        buffer = io.StringIO()
        csv.DictWriter(buffer, FIELDS, lineterminator="\n").writerow(dict(row))
        self._append(buffer.getvalue())

    def _append(self, text: str) -> None:
        before = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("ab", buffering=0) as file:
                data = text.encode()
                while data:
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
        except OSError as error:
            if self._path.exists():
                os.truncate(self._path, before)
            raise ResultsWriteError(
                f"{self._path}: a row cannot be written ({error.strerror}); earlier rows are whole: make room and run again"
            ) from error


def columns(rows: Sequence[Row], name: str) -> list[float]:
    """A numeric column."""
    return [float(row[name]) for row in rows]
