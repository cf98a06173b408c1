"""Time the fused CUDA renderer beside nanodrr and diffdrr: one device, one CT, equal steps inside the volume, one run.

    python benchmarks/gpu_renderer.py [--ct example|phantom|PATH] [--sizes 200 512 1024] [--batches 1 8 64] [--step-mm 1.0]
        [--repeats 30] [--peers nanodrr diffdrr] [--sweep] [--commit HASH] [--out benchmarks/results/renderer_gpu.csv]

Peers get as many samples as put their mean distance inside the volume at the step. Those that are not installed, or that run
out of memory, are listed with the reason. A stopped run goes on where it stopped; rows of the same commit, device, volume and
step are not measured again. `share_of_gathers`: trilinear samples take eight gathers each; their rate over what the device
does from its nearest cache with nothing else to do. `share_of_copy`: volume read once and result written once, over the time,
over the rate of a copy. `--sweep` times the tile shapes of the kernels instead.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gpu_tools import Rows, captured, inside_mm, load_volume, near_ap_poses, need_cuda, provenance, skip, timed

from sphere_reg_ros.drr.rays import voxel_from_camera
from sphere_reg_ros.drr.renderer import make_renderer
from sphere_reg_ros.drr.volume import AttenuationVolume
from sphere_reg_ros.geometry import se3
from sphere_reg_ros.geometry.camera import Camera

OURS = "sphere_reg_ros cuda"
STORAGE = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
KEY = ("commit", "device", "ct", "step_mm", "size", "batch", "renderer", "mode", "what", "storage")


@dataclass(frozen=True)
class Case:
    """One volume on the device, some poses, one camera."""

    volume: AttenuationVolume
    poses: torch.Tensor
    centre: torch.Tensor
    camera: Camera
    step_mm: float
    samples: float
    """Of all rays together."""
    samples_a_ray: int


@dataclass(frozen=True)
class Contender:
    """One way to make an image; ``prepare`` is not timed and may fail."""

    renderer: str
    mode: str
    what: str
    storage: str
    prepare: Callable[[Case], Callable[[], Any]]


def ours(storage: str) -> list[Contender]:
    """Image and Jacobian, launched from Python and as a CUDA graph; gradients of pose and volume."""

    def stored(case: Case) -> AttenuationVolume:
        return replace(case.volume, values=case.volume.values.to(STORAGE[storage]))

    def image(case: Case) -> Callable[[], Any]:
        renderer = make_renderer(stored(case), "cuda")
        return lambda: renderer.render(case.poses, case.camera, case.step_mm)

    def jacobian(case: Case) -> Callable[[], Any]:
        renderer = make_renderer(stored(case), "cuda")
        return lambda: renderer.render_with_jacobian(case.poses, case.camera, case.centre, case.step_mm)

    def pose_gradient(case: Case) -> Callable[[], Any]:
        renderer, leaf = make_renderer(stored(case), "cuda"), case.poses.clone().requires_grad_()
        return lambda: torch.autograd.grad(renderer.render(leaf, case.camera, case.step_mm).sum(), leaf)

    def volume_gradient(case: Case) -> Callable[[], Any]:
        leaf = stored(case).values.clone().requires_grad_()
        renderer = make_renderer(replace(case.volume, values=leaf), "cuda")
        return lambda: torch.autograd.grad(renderer.render(case.poses, case.camera, case.step_mm).sum(), leaf)

    return [
        Contender(OURS, "eager", "image", storage, image),
        Contender(OURS, "graph", "image", storage, lambda case: captured(image(case))),
        Contender(OURS, "eager", "image+jacobian", storage, jacobian),
        Contender(OURS, "graph", "image+jacobian", storage, lambda case: captured(jacobian(case))),
        Contender(OURS, "eager", "image+pose gradient", storage, pose_gradient),
        Contender(OURS, "eager", "image+volume gradient", storage, volume_gradient),
    ]


def nanodrr_call(case: Case, storage: str) -> tuple[Any, Callable[[torch.Tensor], torch.Tensor]]:
    """The inverse poses, and nanodrr's fused renderer of them."""
    from nanodrr.data import Subject
    from nanodrr.drr import DRR

    values = case.volume.values[None].to(STORAGE[storage])
    to_world = case.volume.T_ct_voxel
    subject = Subject(
        values,
        torch.zeros_like(values),
        to_world.float(),
        torch.linalg.inv(to_world).float(),
        Subject._make_voxel_to_grid(values.shape),
        case.volume.centre_mm().float(),
        max_label=0,
        convert_to_mu=False,
    ).to("cuda")
    half_pixel = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64)
    k_inv = torch.linalg.inv(half_pixel @ case.camera.intrinsic)[None].float()
    batch = len(case.poses)
    sdd = torch.full((batch,), case.camera.sdd_mm)
    module = DRR(k_inv.expand(batch, 3, 3).contiguous(), sdd, case.camera.height, case.camera.width).to("cuda")

    def call(rt_inv: torch.Tensor) -> torch.Tensor:
        rendered: torch.Tensor = module(subject, rt_inv, n_samples=case.samples_a_ray, backend="triton")
        return rendered

    return se3.inverse(case.poses).float(), call


def nanodrr(storage: str) -> list[Contender]:
    """Forward, and forward with the gradient of the pose; eager and compiled."""

    def contender(mode: str, gradient: bool) -> Contender:
        def prepare(case: Case) -> Callable[[], Any]:
            rt_inv, call = nanodrr_call(case, storage)
            compiled = torch.compile(call, mode="reduce-overhead") if mode == "compiled" else call
            if not gradient:
                return lambda: compiled(rt_inv)
            leaf = rt_inv.clone().requires_grad_()
            return lambda: torch.autograd.grad(compiled(leaf).sum(), leaf)

        return Contender("nanodrr triton", mode, "image+pose gradient" if gradient else "image", storage, prepare)

    return [contender(mode, gradient) for gradient in (False, True) for mode in ("eager", "compiled")]


def diffdrr() -> list[Contender]:
    """Trilinear and Siddon: forward, and forward with the gradient of the pose."""

    def contender(method: str, gradient: bool) -> Contender:
        def prepare(case: Case) -> Callable[[], Any]:
            from diffdrr import renderers

            module = renderers.Trilinear() if method == "trilinear" else renderers.Siddon()
            values = case.volume.values[0].permute(2, 1, 0)
            points = case.camera.pixel_points("cuda", torch.float64).reshape(-1, 3)
            length = torch.linalg.vector_norm(points, dim=-1).float()[None, None]
            options = {"n_points": case.samples_a_ray} if method == "trilinear" else {}

            def call(poses: torch.Tensor) -> torch.Tensor:
                to_voxel = voxel_from_camera(poses, case.volume.T_ct_voxel.cuda())
                source = to_voxel[:, None, :3, 3]
                target = points @ to_voxel[:, :3, :3].mT + source
                lengths = length.expand(len(poses), 1, -1)
                rendered: torch.Tensor = module(values, source.float(), target.float(), lengths, **options)
                return rendered

            if not gradient:
                return lambda: call(case.poses)
            leaf = case.poses.clone().requires_grad_()
            return lambda: torch.autograd.grad(call(leaf).sum(), leaf)

        what = "image+pose gradient" if gradient else "image"
        return Contender(f"diffdrr {method}", "eager", what, "fp32", prepare)

    return [contender(method, gradient) for method in ("trilinear", "siddon") for gradient in (False, True)]


def contenders(peers: list[str]) -> Iterator[Contender]:
    """Ours first, in every storage."""
    for storage in STORAGE:
        yield from ours(storage)
    if "nanodrr" in peers:
        for storage in STORAGE:
            yield from nanodrr(storage)
    if "diffdrr" in peers:
        yield from diffdrr()


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """All sizes and batches."""
    volume, centre = load_volume(arguments.ct)
    placed = volume.to("cuda")
    for size, batch in itertools.product(arguments.sizes, arguments.batches):
        camera, poses = Camera.centred(size), near_ap_poses(centre, batch).cuda()
        lengths = inside_mm(placed, poses, camera)
        a_ray = max(2, round(float(lengths[lengths > 0].mean()) / arguments.step_mm))
        yield Case(placed, poses, centre.cuda(), camera, arguments.step_mm, float(lengths.sum()) / arguments.step_mm, a_ray)


def measured(case: Case, one: Contender, repeats: int, ceilings: Any) -> dict[str, str]:
    """Figures of a contender in a case."""
    timing = timed(one.prepare(case), repeats)
    seconds = timing.median_ms / 1e3
    batch, pixels = len(case.poses), case.camera.width * case.camera.height
    columns = 7 if one.what == "image+jacobian" else 1
    volume_bytes = case.volume.values.numel() * STORAGE[one.storage].itemsize
    traffic = volume_bytes + 4 * columns * pixels * batch
    gathers = 8.0 * case.samples
    forward = one.what in ("image", "image+jacobian") and "siddon" not in one.renderer
    return {
        "median_ms": f"{timing.median_ms:.4f}",
        "ms_an_image": f"{timing.median_ms / batch:.4f}",
        "peak_mib": f"{timing.peak_mib:.1f}",
        "share_of_gathers": f"{gathers / seconds / ceilings.gathered_per_s:.3f}" if forward else "",
        "share_of_copy": f"{traffic / seconds / ceilings.copied_per_s:.3f}" if forward else "",
        "note": "",
    }


def tolerated(one: Contender) -> tuple[type[Exception], ...]:
    """What a contender may fail with: ours only for want of memory."""
    return (torch.cuda.OutOfMemoryError,) if one.renderer == OURS else (Exception,)


def run(arguments: argparse.Namespace) -> None:
    """Measure what is missing, and print the table."""
    import gpu_ceilings

    about = provenance(arguments.commit)
    rows = Rows(arguments.out, KEY)
    ceilings = gpu_ceilings.measure()
    limits = {"copy_gb_per_s": f"{ceilings.copied_per_s / 1e9:.0f}", "gather_g_per_s": f"{ceilings.gathered_per_s / 1e9:.0f}"}
    print(f"{about['device']}: copy {limits['copy_gb_per_s']} GB/s, gather {limits['gather_g_per_s']} G/s", flush=True)
    empty = dict.fromkeys(("median_ms", "ms_an_image", "peak_mib", "share_of_gathers", "share_of_copy"), "")
    common = {"ct": arguments.ct, "step_mm": f"{arguments.step_mm:g}"}
    for case in cases(arguments):
        for one in contenders(arguments.peers):
            names = {"renderer": one.renderer, "mode": one.mode, "what": one.what, "storage": one.storage}
            where = {"size": str(case.camera.width), "batch": str(len(case.poses)), **names}
            if rows.known(**about, **common, **where):
                continue
            try:
                figures = measured(case, one, arguments.repeats, ceilings)
            except tolerated(one) as error:
                skip(f"{one.renderer} {one.mode}", error)
                figures = empty | {"note": type(error).__name__}
            torch.cuda.empty_cache()
            rows.add({**about, **common, "samples_a_ray": str(case.samples_a_ray), **where, **figures, **limits})
            print("  ".join(f"{value:>22}" for value in (*where.values(), figures["median_ms"], figures["note"])), flush=True)
    table(rows, about, common)


def table(rows: Rows, about: dict[str, str], common: dict[str, str]) -> None:
    """Best times of an image, and with what the pose needs, by renderer; milliseconds."""
    found = [row for row in rows.of(commit=about["commit"], device=about["device"], **common) if row["median_ms"]]
    print("\nmilliseconds, best of modes and storages")
    print(f"{'size':>5} {'batch':>5} {'renderer':>22} {'image':>10} {'with pose':>10} ratio")
    for size, batch in sorted({(int(row["size"]), int(row["batch"])) for row in found}):
        here = [row for row in found if (row["size"], row["batch"]) == (str(size), str(batch))]
        for name in sorted({row["renderer"] for row in here}, reverse=True):
            image, pose = best(here, name, ("image",)), best(here, name, ("image+jacobian", "image+pose gradient"))
            print(f"{size:>5} {batch:>5} {name:>22} {image:>10.3f} {pose:>10.3f} {pose / image:>5.2f}")


def best(rows: list[dict[str, str]], renderer: str, what: tuple[str, ...]) -> float:
    """Shortest time of a renderer, NaN where it has none."""
    times = [float(row["median_ms"]) for row in rows if row["renderer"] == renderer and row["what"] in what]
    return min(times, default=float("nan"))


def sweep(arguments: argparse.Namespace) -> None:
    """Times of every tile shape, for choosing the defaults in `sphere_reg_ros.drr.cuda.launch`."""
    from sphere_reg_ros.drr.cuda import launch

    for case in cases(arguments):
        for threads, segments, width in itertools.product((32, 64, 128, 256), (1, 2, 4, 8, 16), (4, 8, 16, 32)):
            height = threads // segments // width
            if height < 1:
                continue
            plan = launch.Tiling(width, height, segments, threads // 32)
            launch.tiling = lambda rays, plan=plan: plan  # type: ignore[assignment,misc]
            times = [timed(one.prepare(case), arguments.repeats).median_ms for one in ours("fp32")[1:4:2]]
            figures = "  ".join(f"{time:9.4f}" for time in times)
            print(f"{case.camera.width:>5} {len(case.poses):>3}  {width:>2} x {height:>2} x {segments:>2}  {figures}", flush=True)


def main() -> None:
    """Measure, or sweep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ct", default="example")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 512, 1024])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--step-mm", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--peers", nargs="*", choices=["nanodrr", "diffdrr"], default=["nanodrr", "diffdrr"])
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--commit", default=None, help="where there is no git")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "renderer_gpu.csv")
    arguments = parser.parse_args()
    need_cuda("gpu_renderer")
    sweep(arguments) if arguments.sweep else run(arguments)


if __name__ == "__main__":
    main()
