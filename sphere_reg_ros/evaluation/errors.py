"""Ways in which an evaluation cannot start or go on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sphere_reg_ros.errors import InputError, SphereRegError


class SuiteNameError(InputError):
    """No suite of that name."""


class MethodNameError(InputError):
    """No method of that name."""


class StartNameError(InputError):
    """No way to draw starts of that name."""


class SplitError(InputError):
    """No split of that name, or too few patients for it."""


class SeenPatientError(InputError):
    """A model that shall not know a patient was trained on its CT."""


class MissingModelError(InputError):
    """A learned method is asked for, and there is no model for the CT."""


class ResultsFileError(InputError):
    """The results file of an earlier run has other columns."""


class ResultsWriteError(SphereRegError):
    """A row could not be written; the rows before it are whole."""


class WorkerLostError(SphereRegError):
    """Worker processes died again and again without a row between."""


class SchedulerError(SphereRegError):
    """The Dask scheduler does not answer, or no longer."""


class DatasetFileError(InputError):
    """A data set's file is missing, truncated, or not of the documented layout."""


class DatasetContentError(InputError):
    """A data set's file is of the documented layout, but holds what cannot be used."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean ...?`` and the list of what there is."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, 1, 0.0)
    return f"did you mean '{close[0]}'? There is {', '.join(names)}"
