"""Which patients a model may have seen: patient-specific, or patient-agnostic."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sphere_reg_ros.evaluation.errors import SplitError, nearest

SPECIFIC, AGNOSTIC = "specific", "agnostic"
SPLITS = (SPECIFIC, AGNOSTIC)
FEWEST = 2
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Split:
    """Patients by their names in the results.

    Attributes:
        kind: ``specific``: a model of each test patient's own CT; ``agnostic``: one of the training patients' CTs alone.
        train: patients whose CTs the models may be made of.
        test: patients whose X-rays are registered.
    """

    kind: str
    train: tuple[str, ...]
    test: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For ``split.json``."""
        return asdict(self)


def make_split(kind: str, patients: Sequence[str], seed: int) -> Split:
    """Split patients; the same seed gives the same split whatever their order.

    A fifth of the patients, one at least, are for the test of an agnostic model.

    Raises:
        SplitError: an unknown kind, or fewer than two patients for an agnostic split.
    """
    if kind not in SPLITS:
        raise SplitError(f"no split '{kind}': {nearest(kind, SPLITS)}")
    if kind == SPECIFIC:
        return Split(kind, tuple(patients), tuple(patients))
    if len(patients) < FEWEST:
        raise SplitError(f"an agnostic split of {len(patients)} patients leaves none to train on; {FEWEST} are needed")
    shuffled = sorted(patients)
    random.Random(seed).shuffle(shuffled)
    chosen = set(shuffled[: max(1, round(TEST_SHARE * len(shuffled)))])
    return Split(kind, tuple(one for one in patients if one not in chosen), tuple(one for one in patients if one in chosen))
