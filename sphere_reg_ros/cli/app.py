"""Commands, options and exit codes: 0 done, 1 rejected or failed, 2 bad input."""

from __future__ import annotations

import logging
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
import typer

from sphere_reg_ros.errors import InputError, SphereRegError

DONE, FAILED, BAD_INPUT = 0, 1, 2

# Click's root of usage errors; newer versions of typer carry a click of their own, so it is reached through typer.
_USAGE_ERROR = cast(type[typer.BadParameter], typer.BadParameter.__mro__[2])

app = typer.Typer(
    name="sphere_reg",
    help="Register a C-arm X-ray to a CT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
Ct = Annotated[str, typer.Option("--ct", help="DICOM folder, NIfTI, NRRD, MHA or MHD; 'folder#SeriesUID' chooses a series.")]
Out = Annotated[Path, typer.Option(help="Folder for the results.")]
Labels = Annotated[Path | None, typer.Option(help="Label map on the CT's grid.")]
LandmarksFile = Annotated[Path | None, typer.Option("--landmarks", help="Landmarks in LPS mm: .json, .csv, .fcsv, .mrk.json.")]
Model = Annotated[Path | None, typer.Option(help="Learned model; without it the shipped or cached one of this CT, if any.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def _run(work: Callable[[], int], seed: int, debug: bool) -> None:
    """Seed, work, and turn what goes wrong into one line and an exit code."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    logging.getLogger("numba").setLevel(logging.WARNING)
    try:
        code = work()
    except InputError as error:
        code = _complain(error, debug, BAD_INPUT)
    except SphereRegError as error:
        code = _complain(error, debug, FAILED)
    except OSError as error:
        code = _complain(error, debug, BAD_INPUT)
    except KeyboardInterrupt:
        print("sphere_reg: interrupted", file=sys.stderr)
        code = FAILED
    except Exception as error:  # a fault of ours: still one line, and how to report it
        unexpected = RuntimeError(f"unexpected {type(error).__name__}: {error}; run again with --debug and report it")
        code = _complain(unexpected, debug, FAILED)
    raise typer.Exit(code)


def _complain(error: BaseException, debug: bool, code: int) -> int:
    if debug:
        traceback.print_exc()
    print(f"sphere_reg: error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


@app.command()
def register(
    ct: Ct,
    xray: Annotated[list[Path], typer.Option(help="DICOM, PNG, TIFF or NPY; once a view.")],
    out: Out,
    sdd: Annotated[float | None, typer.Option(help="Source-detector distance in mm.")] = None,
    pixel_pitch: Annotated[float | None, typer.Option(help="Pixel pitch on the detector in mm.")] = None,
    camera: Annotated[Path | None, typer.Option(help="ROS camera_info YAML with sdd_mm.")] = None,
    init: Annotated[Path | None, typer.Option(help='Start: {"T_camera_ct": 4x4 in mm}.')] = None,
    model: Model = None,
    labels: Labels = None,
    landmarks: LandmarksFile = None,
    device: Device = "auto",
    seed: Seed = 0,
    debug: Debug = False,
    quiet: Quiet = False,
) -> None:
    """Register one X-ray, or several views, to a CT."""
    from sphere_reg_ros.cli.register import RegisterRequest, register_files

    request = RegisterRequest(ct, tuple(xray), out, sdd, pixel_pitch, camera, init, model, labels, landmarks, device, seed)
    _run(lambda: register_files(request, quiet), seed, debug)


@app.command()
def simulate(
    ct: Ct,
    out: Annotated[Path, typer.Option(help="The rosbag2 to write, a folder that does not exist yet.")],
    poses: Annotated[int, typer.Option(help="Number of X-rays.", min=1)] = 10,
    size: Annotated[int, typer.Option(help="Width and height in pixels.", min=32, max=4096)] = 256,
    seed: Seed = 0,
    debug: Debug = False,
    quiet: Quiet = False,
) -> None:
    """Write realistic X-rays with ground truth as a rosbag2."""
    from sphere_reg_ros.cli.simulate import simulate_bag

    _run(lambda: simulate_bag(ct, out, poses, size, seed, quiet), seed, debug)


@app.command()
def replay(
    bag: Annotated[Path, typer.Argument(help="rosbag2 folder or file.")],
    ct: Ct,
    out: Out,
    model: Model = None,
    labels: Labels = None,
    landmarks: LandmarksFile = None,
    sdd: Annotated[float | None, typer.Option(help="Source-detector distance in mm where the bag has no carm_geometry.")] = None,
    device: Device = "auto",
    seed: Seed = 0,
    debug: Debug = False,
    quiet: Quiet = False,
) -> None:
    """Register every X-ray of a recorded bag and report on it."""
    from sphere_reg_ros.cli.replay import ReplayRequest, replay_bag

    request = ReplayRequest(bag, ct, out, model, labels, landmarks, sdd, device, seed)
    _run(lambda: replay_bag(request, quiet), seed, debug)


@app.command()
def demo(
    out: Out = Path("demo"),
    images: Annotated[int, typer.Option(help="Number of X-rays.", min=1)] = 12,
    seed: Seed = 0,
    debug: Debug = False,
    quiet: Quiet = False,
) -> None:
    """The whole system on the example CT, over real ROS 2."""
    from sphere_reg_ros.cli.demo import run_demo

    _run(lambda: run_demo(out, images, seed, quiet), seed, debug)


@app.command()
def train(
    ct: Annotated[list[str], typer.Option("--ct", help="One CT for a patient-specific model, several for an agnostic one.")],
    out: Annotated[Path, typer.Option(help="The model to write, .safetensors; its loss curve and state go beside it.")],
    initial: Annotated[Path | None, typer.Option("--from", help="Model to start from.")] = None,
    views: Annotated[str, typer.Option("--range", help="near-ap or any-view.")] = "near-ap",
    steps: Annotated[int | None, typer.Option(help="Steps of the optimiser.")] = None,
    pairs: Annotated[int | None, typer.Option(help="Rendered pairs of X-ray and DRR.")] = None,
    rate: Annotated[float | None, typer.Option("--learning-rate", help="Largest learning rate.")] = None,
    variants: Annotated[int | None, typer.Option(help="Deformed patients to make out of each CT, for an agnostic model.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pairs a step and a process.")] = None,
    mixed: Annotated[float | None, typer.Option("--mixed-share", help="Share of the steps computed in bfloat16.")] = None,
    images: Annotated[int | None, typer.Option("--validation-images", help="Simulated X-rays held out.")] = None,
    tune: Annotated[int, typer.Option("--fine-tune-steps", help="Steps of fine-tuning through the solver.", min=0)] = 0,
    equivariant: Annotated[bool, typer.Option("--equivariant", help="Learn a residual on the CT with that.")] = False,
    gradient: Annotated[float | None, typer.Option("--gradient-weight", help="Weight of gradient matching; 0 is off.")] = None,
    seed: Seed = 0,
    debug: Debug = False,
    quiet: Quiet = False,
) -> None:
    """Train a model for one CT, or for any."""
    from sphere_reg_ros.cli.train import TrainRequest, settings_of, train_files
    from sphere_reg_ros.training.settings import FineTuneSettings

    def work() -> int:
        sizes: dict[str, float | None] = {"steps": steps, "pairs": pairs, "batch": batch, "variants": variants, "seed": seed}
        sizes |= {"validation_images": images, "learning_rate": rate}
        tuning = FineTuneSettings(steps=tune, equivariant=equivariant)
        chosen = {**sizes, "mixed_share": mixed, "gradient_weight": gradient, "fine_tune": tuning}
        return train_files(TrainRequest(tuple(ct), out, initial, settings_of(views, **chosen)), quiet)

    _run(work, seed, debug)


@app.command()
def evaluate(
    suite: Annotated[str, typer.Option(help="quick, builtin, ablation, deepfluoro, ctpelvic1k, ctspine1k or ljubljana.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
    ct: Annotated[list[str] | None, typer.Option("--ct", help="CTs to evaluate on instead of the example.")] = None,
    method: Annotated[list[str] | None, typer.Option("--method", help="Methods; those that need no model without it.")] = None,
    start: Annotated[list[str] | None, typer.Option("--start", help="Starts: 0.5, uniform:0.5, grid:40 or grid.")] = None,
    split: Annotated[str, typer.Option(help="specific, or agnostic: models that have not seen the patient.")] = "specific",
    images: Annotated[int | None, typer.Option(help="X-rays per CT and spread of starts.", min=1)] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; one a core without it.", min=1)] = None,
    scheduler: Annotated[str, typer.Option(help="Address of a Dask scheduler, whose workers do the work instead.")] = "",
    data: Annotated[Path | None, typer.Option(help="The data set's file or folder.")] = None,
    model_steps: Annotated[int, typer.Option(help="Training steps of the models that methods need made.", min=1)] = 1000,
    check_data: Annotated[Path | None, typer.Option(help="Say what it holds and lacks, and do nothing else.")] = None,
    seed: Seed = 0,
    debug: Debug = False,
    quiet: Quiet = False,
) -> None:
    """Compare methods on many X-rays; a run that was stopped goes on where it was."""

    def work() -> int:
        from sphere_reg_ros.cli.evaluate import Choice, EvaluateRequest, evaluate_suite

        choice = Choice(tuple(ct or ()), tuple(method or ()), tuple(start or ()), seed, images, data, split)
        return evaluate_suite(EvaluateRequest(suite, out, choice, workers, scheduler, check_data, model_steps), quiet)

    _run(work, seed, debug)


@app.command()
def info(seed: Seed = 0, debug: Debug = False, quiet: Quiet = False) -> None:
    """Versions, devices, backends, ROS distribution."""
    from sphere_reg_ros.cli.info import print_info

    _run(lambda: print_info(quiet), seed, debug)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; answers its exit code."""
    try:
        code = app(args=arguments, standalone_mode=False, prog_name="sphere_reg")
    except typer.Abort:
        return FAILED
    except _USAGE_ERROR as error:
        print(f"sphere_reg: error: {' '.join(error.format_message().split()).rstrip('.')}; see --help", file=sys.stderr)
        return BAD_INPUT
    return code if isinstance(code, int) else DONE
