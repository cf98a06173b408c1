"""CTPelvic1K and CTSpine1K: NIfTI CTs, each with a label map whose name says which CT it belongs to.

| set | CT | labels |
|---|---|---|
| CTPelvic1K (Liu et al., IJCARS 2021) | ``X_data.nii.gz`` | ``X_mask_4label.nii.gz``, or ``X_labels.nii.gz`` in later copies |
| CTSpine1K (Deng et al., arXiv 2105.14711) | ``X.nii.gz`` | ``X_seg.nii.gz`` |

The two may lie in any folders below the one that is given. X-rays are simulated; the landmarks are the labels' centroids.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sphere_reg_ros.evaluation.errors import DatasetFileError

NIFTI = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Layout:
    """How the files of a set are named, and where they come from."""

    ct_suffix: str
    label_suffixes: tuple[str, ...]
    source: str


LAYOUTS = {
    "ctpelvic1k": Layout(
        "_data",
        ("_mask_4label", "_labels"),
        "zenodo.org/record/4588403, github.com/MIRACLE-Center/CTPelvic1K; licence as stated there",
    ),
    "ctspine1k": Layout("", ("_seg",), "github.com/MIRACLE-Center/CTSpine1K; CC BY-NC-SA"),
}


@dataclass(frozen=True)
class LabelledFolder:
    """What a folder holds.

    Attributes:
        pairs: case, CT and label map, in the order of their names.
        lonely: CTs without labels, and labels without CT.
    """

    pairs: tuple[tuple[str, Path, Path], ...]
    lonely: tuple[Path, ...]


def read_folder(path: str | Path, suite: str) -> LabelledFolder:
    """Find the pairs of a set.

    Args:
        suite: a key of :data:`LAYOUTS`.

    Raises:
        DatasetFileError: no such folder, or no pair in it.
    """
    layout, folder = LAYOUTS[suite], Path(path)
    if not folder.is_dir():
        raise DatasetFileError(f"{folder}: no such folder; the data are at {layout.source}")
    cts: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        stem = next((file.name.removesuffix(end) for end in NIFTI if file.name.endswith(end)), None)
        if stem is None:
            continue
        ending = next((end for end in layout.label_suffixes if stem.endswith(end)), None)
        if ending is not None:
            labels[stem.removesuffix(ending)] = file
        elif stem.endswith(layout.ct_suffix):
            cts[stem.removesuffix(layout.ct_suffix)] = file
    both = sorted(set(cts) & set(labels))
    if not both:
        raise DatasetFileError(
            f"{folder}: {len(cts)} CTs (*{layout.ct_suffix}.nii.gz) and {len(labels)} label maps "
            f"(*{layout.label_suffixes[0]}.nii.gz), no pair of one name; the data are at {layout.source}"
        )
    lonely = [cts[name] for name in sorted(set(cts) - set(labels))] + [labels[name] for name in sorted(set(labels) - set(cts))]
    return LabelledFolder(tuple((name, cts[name], labels[name]) for name in both), tuple(lonely))


def check_labelled(path: str | Path, suite: str) -> list[str]:
    """What is found in a folder and what is missing, one line a finding.

    Raises:
        DatasetFileError: nothing that can be used.
    """
    found = read_folder(path, suite)
    lines = [f"licence and source: {LAYOUTS[suite].source}", f"{len(found.pairs)} CTs with labels"]
    return lines + [f"without its partner: {file}" for file in found.lonely]
