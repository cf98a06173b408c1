"""The registration node alone, for a real C-arm: ``ros2 launch sphere_reg_ros registration.launch.py ct_path:=CT``."""

import os

from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

CONFIG = PathJoinSubstitution([FindPackageShare("sphere_reg_ros"), "config"])


def generate_launch_description() -> LaunchDescription:
    """One node, RViz where asked for."""
    carm = LaunchConfiguration("carm")
    return LaunchDescription(
        [
            DeclareLaunchArgument("ct_path", default_value="", description="CT file or DICOM folder; empty waits for ~/load_ct"),
            DeclareLaunchArgument("labels_path", default_value="", description="label map on the CT's grid"),
            DeclareLaunchArgument("landmarks_path", default_value="", description="landmarks in LPS mm"),
            DeclareLaunchArgument("anchor_frame", default_value="", description="parent of the published TF; empty: the camera"),
            DeclareLaunchArgument("sdd_mm", default_value="0.0", description="where the C-arm publishes no carm_geometry"),
            DeclareLaunchArgument("autostart", default_value="true", description="false: a lifecycle manager does it"),
            DeclareLaunchArgument("carm", default_value="/carm", description="namespace of the C-arm's topics"),
            DeclareLaunchArgument("params_file", default_value=[CONFIG, os.sep, "registration.yaml"]),
            DeclareLaunchArgument("rviz", default_value="false"),
            Node(
                package="sphere_reg_ros",
                executable="registration_node",
                name="registration",
                output="screen",
                parameters=[
                    LaunchConfiguration("params_file"),
                    {
                        "ct_path": ParameterValue(LaunchConfiguration("ct_path"), value_type=str),
                        "labels_path": ParameterValue(LaunchConfiguration("labels_path"), value_type=str),
                        "landmarks_path": ParameterValue(LaunchConfiguration("landmarks_path"), value_type=str),
                        "anchor_frame": ParameterValue(LaunchConfiguration("anchor_frame"), value_type=str),
                        "sdd_mm": ParameterValue(LaunchConfiguration("sdd_mm"), value_type=float),
                        "autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool),
                    },
                ],
                remappings=[
                    ("image_raw", [carm, "/image_raw"]),
                    ("camera_info", [carm, "/camera_info"]),
                    ("carm_geometry", [carm, "/carm_geometry"]),
                    ("initial_pose", [carm, "/initial_pose"]),
                ],
            ),
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", [CONFIG, os.sep, "sphere_reg.rviz"]],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )
