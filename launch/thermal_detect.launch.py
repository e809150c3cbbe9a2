# Copyright 2026 cgdet_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Start the thermal detector: ros2 launch cgdet_ros thermal_detect.launch.py."""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

CONFIG = Path(get_package_share_directory('cgdet_ros')) / 'config'
# Fast DDS 2 (Humble, Jazzy) reads the first name, Fast DDS 3 (Kilted) the second.
PROFILE_NAMES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
ARGUMENTS = {  # name: (default, description); an empty value leaves the parameter file's
    'model_path': ('', 'ONNX file with its card; empty: the parameter file, the shipped model'),
    'image_topic': ('image_raw', 'Thermal image topic'),
    'namespace': ('', 'Namespace of the node'),
    'params_file': (str(CONFIG / 'thermal_detect.yaml'), 'YAML file with the parameters'),
    'autostart': ('', 'Configure and activate at start: true or false'),
    'log_level': ('info', 'Logger level'),
}


def detector(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start the node; arguments that were given win over the parameter file."""
    params_file = Path(LaunchConfiguration('params_file').perform(context))
    if not params_file.is_file():
        raise RuntimeError(f'The parameter file {params_file} does not exist.')
    types = {'model_path': str, 'autostart': bool}
    given = {name: ParameterValue(LaunchConfiguration(name), value_type=kind)
             for name, kind in types.items() if LaunchConfiguration(name).perform(context)}
    return [Node(
        package='cgdet_ros', executable='detector_node', name='thermal_detector',
        namespace=LaunchConfiguration('namespace'), output='screen', emulate_tty=True,
        parameters=[str(params_file), *([given] if given else [])],
        remappings=[('image_raw', LaunchConfiguration('image_topic'))],
        arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level')],
        # A profile of the user's own stays.
        additional_env={name: str(CONFIG / 'fastdds.xml') for name in PROFILE_NAMES
                        if name not in os.environ})]


def generate_launch_description() -> LaunchDescription:
    """Declare six arguments and start one node."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, (default, description) in ARGUMENTS.items()),
        OpaqueFunction(function=detector)])
