"""Registers the X-rays of a recorded bag on its clock: ``ros2 launch sphere_reg_ros replay.launch.py bag:=BAG ct_path:=CT``."""

import os

from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, RegisterEventHandler, Shutdown
from launch.conditions import UnlessCondition
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node, SetParameter
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

LAUNCH = PathJoinSubstitution([FindPackageShare("sphere_reg_ros"), "launch"])


def generate_launch_description() -> LaunchDescription:
    """Player, registration on the bag's clock, RViz where asked for; without RViz it ends with the bag."""
    player = Node(
        package="sphere_reg_ros",
        executable="bag_player",
        name="bag_player",
        output="screen",
        parameters=[
            {
                "bag": ParameterValue(LaunchConfiguration("bag"), value_type=str),
                "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                "loops": ParameterValue(LaunchConfiguration("loops"), value_type=int),
            }
        ],
        # What the bag says of poses must not mix with what is estimated now.
        remappings=[("/tf", LaunchConfiguration("recorded_tf"))],
    )
    registration = GroupAction(
        [
            SetParameter("use_sim_time", True),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource([LAUNCH, os.sep, "registration.launch.py"]),
                launch_arguments={
                    "ct_path": LaunchConfiguration("ct_path"),
                    "landmarks_path": LaunchConfiguration("landmarks_path"),
                    "sdd_mm": LaunchConfiguration("sdd_mm"),
                    "rviz": LaunchConfiguration("rviz"),
                }.items(),
            ),
        ]
    )
    the_end = RegisterEventHandler(
        OnProcessExit(target_action=player, on_exit=[Shutdown(reason="the bag is played")]),
        condition=UnlessCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="rosbag2 folder with the topics of /carm"),
            DeclareLaunchArgument("ct_path", description="CT file or DICOM folder"),
            DeclareLaunchArgument("landmarks_path", default_value=""),
            DeclareLaunchArgument("sdd_mm", default_value="0.0", description="where the bag has no carm_geometry"),
            DeclareLaunchArgument("rate", default_value="1.0", description="speed of the clock"),
            DeclareLaunchArgument("loops", default_value="1", description="times the bag is played; 0 goes on for ever"),
            DeclareLaunchArgument("recorded_tf", default_value="/recorded/tf", description="where the bag's /tf goes"),
            DeclareLaunchArgument("rviz", default_value="false"),
            registration,
            player,
            the_end,
        ]
    )
