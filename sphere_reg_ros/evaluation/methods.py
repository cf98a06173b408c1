"""The methods by name; each is made for one CT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from sphere_reg_ros.evaluation.baselines.adam_ncc import adam_ncc
from sphere_reg_ros.evaluation.baselines.cma_gradient_ncc import cma_gradient_ncc
from sphere_reg_ros.evaluation.baselines.landmark_net import load_detector
from sphere_reg_ros.evaluation.baselines.landmark_pnp import landmark_pnp
from sphere_reg_ros.evaluation.baselines.learned_descent import by_gradient_descent, by_levenberg_marquardt, prost
from sphere_reg_ros.evaluation.baselines.objective import Journey
from sphere_reg_ros.evaluation.baselines.powell_gradient_ncc import powell_gradient_ncc
from sphere_reg_ros.evaluation.errors import MethodNameError, MissingModelError, SeenPatientError, SplitError, nearest
from sphere_reg_ros.evaluation.problem import Answer, Method, Problem, TracePoint
from sphere_reg_ros.evaluation.variants import DETECTOR, model_file
from sphere_reg_ros.imaging.ct import CtVolume
from sphere_reg_ros.imaging.xray import to_line_integral
from sphere_reg_ros.models.checkpoint import LearnedModel, find_model, load
from sphere_reg_ros.registration.learned import LearnedStages
from sphere_reg_ros.registration.pipeline import RegistrationPipeline
from sphere_reg_ros.registration.pyramid import VolumePyramid
from sphere_reg_ros.registration.result import TraceStep
from sphere_reg_ros.registration.settings import LearnedSettings

Factory = Callable[[CtVolume, VolumePyramid], Method]


def photometric(ct: CtVolume, volumes: VolumePyramid) -> Method:
    """This package without a learned model: Levenberg-Marquardt on locally normalised images, from the given start."""
    del volumes  # the pipeline builds its own, with the patient's continuation
    return _registered_by(RegistrationPipeline(ct, device="cpu"))


def learned(ct: CtVolume, volumes: VolumePyramid) -> Method:
    """This package with the CT's learned model, from the X-ray alone: the start is not used.

    Raises:
        MissingModelError: no model is known for the CT.
    """
    del volumes
    return _registered_by(RegistrationPipeline(ct, device="cpu", model=_model_of(ct)), from_the_start=False)


def regressor(ct: CtVolume, volumes: VolumePyramid) -> Method:
    """The CT's pose regressor alone, without any refinement; the start is not used.

    Raises:
        MissingModelError: no model is known for the CT.
    """
    del volumes
    return _guessed_by(ct, _model_of(ct))


def _guessed_by(ct: CtVolume, model: LearnedModel) -> Method:
    stages = LearnedStages(model, ct, LearnedSettings(), "cpu", torch.device("cpu"))

    def register(problem: Problem) -> Answer:
        journey = Journey(problem.T_start)
        xray = stages.see(*to_line_integral(problem.xray), problem.camera)
        return journey.answer(stages.guess(xray, problem.seed)[0], 0)

    return register


def _model_of(ct: CtVolume) -> LearnedModel:
    model = find_model(ct.sha256)
    if model is None:
        raise MissingModelError(f"{ct.source}: no model for this CT is shipped or cached: make one with 'sphere_reg train --ct'")
    return model


def _unseen(path: str, ct: CtVolume) -> LearnedModel:
    """A model file that was not trained on the CT."""
    model = load(Path(path))
    if ct.sha256 in model.card.ct_sha256:
        raise SeenPatientError(f"{path}: was trained on {ct.source}: an agnostic model must not have seen the patient")
    return model


def _registered_by(pipeline: RegistrationPipeline, from_the_start: bool = True) -> Method:
    pipeline.prepare()

    def register(problem: Problem) -> Answer:
        began = perf_counter()
        times: dict[tuple[str, int], float] = {}

        def observe(step: TraceStep) -> None:
            # All hypotheses take an iteration together; of a stage that is run again, the later time is the one to claim.
            times[step.stage, step.iteration] = 1e3 * (perf_counter() - began)

        T_initial = problem.T_start if from_the_start else None
        result = pipeline.register(problem.xray, problem.camera, T_initial, on_iteration=observe)
        points = [TracePoint(0, 0.0, problem.T_start)]
        for number, step in enumerate(result.trace, 1):
            when = max(points[-1].time_ms, times[step.stage, step.iteration])
            points.append(TracePoint(number, when, torch.from_numpy(step.T_camera_ct)))
        return Answer(torch.from_numpy(result.T_camera_ct), result.accepted, result.iterations, tuple(points))

    return register


METHODS: Mapping[str, Factory] = {
    "photometric": photometric,
    "learned": learned,
    "regressor": regressor,
    "adam-ncc": adam_ncc,
    "cma-gradient-ncc": cma_gradient_ncc,
    "powell-gradient-ncc": powell_gradient_ncc,
}
AGNOSTIC: Mapping[str, Callable[[CtVolume, LearnedModel], Method]] = {
    "learned": lambda ct, model: _registered_by(RegistrationPipeline(ct, device="cpu", model=model), from_the_start=False),
    "regressor": _guessed_by,
}
"""Methods that also take a model file, as ``learned@FILE``, of CTs other than the patient's."""
ARMS: Mapping[str, tuple[str, Callable[[CtVolume, LearnedModel], Method]]] = {
    "sphere": ("sphere-so4", by_levenberg_marquardt),
    "euclidean": ("euclidean-so4", by_levenberg_marquardt),
    "hyperbolic": ("hyperbolic-so4", by_levenberg_marquardt),
    "se3-gradient": ("sphere-se3", by_levenberg_marquardt),
    "encoder-gradient": ("sphere-so4", lambda ct, model: by_levenberg_marquardt(ct, model, "encoder")),
    "gradient-descent": ("sphere-so4", by_gradient_descent),
    "tuned": ("sphere-so4-tuned", by_levenberg_marquardt),
    "equivariant": ("sphere-so4-equivariant", by_levenberg_marquardt),
}
"""The ablation: the model of `variants`, and how it is minimised. The first one is the method; the others differ in one thing."""
MADE: Mapping[str, str] = {**{name: model for name, (model, _) in ARMS.items()}, "prost": "prost", "landmark-pnp": DETECTOR}
"""Methods whose model the evaluation makes for each CT."""
WITHOUT_MODEL = ("photometric", "adam-ncc", "cma-gradient-ncc", "powell-gradient-ncc")
"""What every CT can be registered with."""


def make_method(name: str, ct: CtVolume, volumes: VolumePyramid, points_mm: Tensor, models: Path) -> Method:
    """A method by its name, bound to a CT.

    Args:
        points_mm: the CT's landmarks.
        models: folder of the models that the evaluation made.

    Raises:
        SeenPatientError: ``NAME@FILE`` with a model of the CT itself.
        MissingModelError: no model in the folder.
    """
    kind, _, path = name.partition("@")
    if path:
        return AGNOSTIC[kind](ct, _unseen(path, ct))
    if kind not in MADE:
        return METHODS[kind](ct, volumes)
    file = model_file(models, MADE[kind], ct)
    if not file.exists():
        raise MissingModelError(f"{file}: the model of method '{kind}' is not there; 'sphere_reg evaluate' makes it first")
    if kind == "landmark-pnp":
        return landmark_pnp(load_detector(file), points_mm)
    return prost(ct, volumes, load(file)) if kind == "prost" else ARMS[kind][1](ct, load(file))


def check_method(name: str) -> str:
    """The name of a method.

    Raises:
        MethodNameError: there is none of that name; the nearest one is told.
    """
    kind, separator, path = name.partition("@")
    known = AGNOSTIC if separator else {*METHODS, *MADE}
    if kind not in known or (separator and not path):
        raise MethodNameError(f"no method '{name}': {nearest(kind, known)}")
    return name


def check_unseen(names: Sequence[str]) -> None:
    """Refuse methods that would look for a model of the test patient's own CT.

    Raises:
        SplitError: such a method.
    """
    for name in names:
        if name in AGNOSTIC or name in MADE:
            raise SplitError(f"method '{name}' takes the patient's own model; an agnostic split has learned@FILE, regressor@FILE")
