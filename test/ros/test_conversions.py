"""Messages to core types and back, against numbers written by hand."""

from __future__ import annotations

import array

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from geometry_msgs.msg import Point, Pose, Quaternion
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sphere_reg_ros.geometry.camera import Camera
from sphere_reg_ros.geometry.errors import ContradictingIntrinsicsError, IntrinsicsError
from sphere_reg_ros.ros import conversions
from sphere_reg_ros.ros.errors import ImageMessageError, MessageGeometryError
from sphere_reg_ros.ros.pixels import image_to_xray


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding, kind", [("mono8", "u1"), ("mono16", "u2"), ("32FC1", "f4")])
def test_pixels_survive_byte_order_and_padded_rows(encoding: str, kind: str, big_endian: bool) -> None:
    pixels = np.array([[1, 2, 250], [4, 5, 6]])
    stored = pixels.astype((">" if big_endian else "<") + kind)
    rows = np.full((2, 3 * stored.itemsize + 5), 99, dtype=np.uint8)
    rows[:, : 3 * stored.itemsize] = stored.view(np.uint8).reshape(2, -1)
    message = Image(height=2, width=3, encoding=encoding, is_bigendian=int(big_endian), step=rows.shape[1])
    message.data = array.array("B", rows.tobytes())
    xray = image_to_xray(message)
    assert np.array_equal(xray.pixels.numpy(), pixels)
    assert not xray.is_attenuation


def test_images_that_are_no_xrays_are_refused() -> None:
    good = {"height": 2, "width": 2, "encoding": "mono16", "step": 4}
    for change in ({"encoding": "rgb8"}, {"encoding": ""}, {"step": 3}, {"height": 3}, {"width": 0}):
        message = Image(**{**good, **change})
        message.data = bytes(8)
        with pytest.raises(ImageMessageError):
            image_to_xray(message)


def test_a_picture_keeps_its_pixels() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    message = conversions.picture_to_image(picture, Header(frame_id="carm"))
    assert (message.encoding, message.width, message.height, message.step) == ("rgb8", 4, 2, 12)
    assert bytes(message.data) == picture.tobytes()
    assert message.header.frame_id == "carm"


def test_the_camera_comes_back_from_its_messages() -> None:
    camera = Camera(640, 480, 1020.0, (0.4, 0.5), (310.0, 250.5))
    info, geometry = conversions.camera_to_messages(camera, Header())
    assert info.k[0] == pytest.approx(1020.0 / 0.4) and info.k[4] == pytest.approx(1020.0 / 0.5)
    back = conversions.camera_from_messages(info, geometry, 0.0, 0.0)
    assert back.sdd_mm == camera.sdd_mm
    assert back.pixel_pitch_mm == pytest.approx(camera.pixel_pitch_mm)
    assert back.piercing_point_px == pytest.approx(camera.piercing_point_px)
    alone = conversions.camera_from_messages(info, None, 1020.0, 0.0)
    assert alone.pixel_pitch_mm == pytest.approx(camera.pixel_pitch_mm), "the SDD alone fixes the scale of K"


def test_cameras_that_contradict_themselves_are_refused() -> None:
    camera = Camera.centred(256)

    def refused(error: type[Exception], info: dict, geometry: dict, sdd_mm: float = 0.0, pitch_mm: float = 0.0) -> None:
        messages = conversions.camera_to_messages(camera, Header())
        for message, changes in zip(messages, (info, geometry), strict=True):
            for name, value in changes.items():
                setattr(message, name, value)
        with pytest.raises(error) as caught:
            conversions.camera_from_messages(messages[0], None if sdd_mm or pitch_mm else messages[1], sdd_mm, pitch_mm)
        assert "\n" not in str(caught.value)

    k = conversions.camera_to_messages(camera, Header())[0].k
    refused(IntrinsicsError, {"k": [0.0] * 9}, {})
    refused(IntrinsicsError, {"k": [float("nan"), *k[1:]]}, {})
    refused(ContradictingIntrinsicsError, {}, {"sdd_mm": 1100.0})
    refused(ContradictingIntrinsicsError, {}, {"pixel_pitch_mm": [1.0, 1.0]})
    refused(ContradictingIntrinsicsError, {}, {}, sdd_mm=1100.0, pitch_mm=300.0 / 256)
    refused(MessageGeometryError, {}, {"width": 128})
    refused(MessageGeometryError, {}, {"piercing_point_px": [120.0, 127.5]})
    refused(MessageGeometryError, {}, {}, pitch_mm=1.0)
    refused(MessageGeometryError, {"d": [0.1, 0.0, 0.0, 0.0, 0.0]}, {})
    refused(MessageGeometryError, {"binning_x": 2}, {})


def test_poses_are_metres_outside_and_millimetres_inside() -> None:
    half = np.sqrt(0.5)
    pose = Pose(position=Point(x=0.1, y=-0.2, z=0.76), orientation=Quaternion(x=0.0, y=0.0, z=half, w=half))
    T = conversions.transform_from_pose(pose)
    expected = [[0, -1, 0, 100], [1, 0, 0, -200], [0, 0, 1, 760], [0, 0, 0, 1]]
    assert np.allclose(T, expected, atol=1e-9)
    back = conversions.pose_from_transform(T)
    assert back.position.z == pytest.approx(0.76)
    assert abs(back.orientation.z) == pytest.approx(half)
    stamped = conversions.transform_to_message(T, Header(frame_id="carm"), "ct")
    assert (stamped.header.frame_id, stamped.child_frame_id) == ("carm", "ct")
    assert np.allclose(conversions.transform_from_message(stamped), T, atol=1e-9)


@pytest.mark.parametrize("w, x", [(0.0, 0.0), (2.0, 0.0), (float("nan"), 0.0), (1.0, float("inf"))])
def test_poses_that_are_none_are_refused(w: float, x: float) -> None:
    with pytest.raises(MessageGeometryError):
        conversions.transform_from_pose(Pose(position=Point(x=x), orientation=Quaternion(w=w)))


def test_a_refusal_carries_no_pose() -> None:
    message = conversions.refusal_message("why", Header(), "hash", "1")
    assert message.reasons == ["why"] and not message.accepted
    with pytest.raises(MessageGeometryError):
        conversions.transform_from_pose(message.pose.pose)


def test_stamps_are_nanoseconds() -> None:
    header = Header()
    header.stamp.sec, header.stamp.nanosec = 1_700_000_000, 5
    assert conversions.stamp_ns(header.stamp) == 1_700_000_000_000_000_005
