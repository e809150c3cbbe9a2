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

"""Shared by the launch files: arguments, checks, and the node with the transport profile."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cgdet_core.runtime.files import share_file
from cgdet_ros.resources import profile_environment
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

Arguments = dict[str, tuple[str | None, str]]  # name: (default or None if required, description)
DETECTOR_ARGUMENTS: Arguments = {  # if empty, the parameter file applies
    'model_path': ('', 'ONNX file with its card; empty: as in the parameter file, or shipped'),
    'namespace': ('', 'Namespace of the node'),
    'params_file': (str(share_file('config/thermal_detect.yaml')),
                    'YAML file with the parameters'),
    'autostart': ('', 'true: configure and activate at start; false: leave the transitions '
                  'to a lifecycle manager'),
    'log_level': ('info', 'Logger level'),
}


def declare(arguments: Arguments) -> list[DeclareLaunchArgument]:
    """Declare launch arguments."""
    return [DeclareLaunchArgument(name, default_value=default, description=description)
            for name, (default, description) in arguments.items()]


def value(context: LaunchContext, name: str) -> str:
    """Return a launch argument, stripped; empty if the launch file does not declare it."""
    return str(LaunchConfiguration(name, default='').perform(context)).strip()


def existing(path: str, what: str) -> Path:
    """Return an absolute path; RuntimeError, which launch prints, if it does not exist."""
    found = Path(path).expanduser().absolute()
    if not found.exists():
        raise RuntimeError(f'{what} {path} does not exist.')
    return found


def detector(
    context: LaunchContext, remappings: Iterable[tuple[str, str]],
    parameters: dict[str, Any] | None = None, **options: Any,
) -> LifecycleNode:
    """
    Return the node action for the launch arguments; RuntimeError if one of them is wrong.

    parameters override launch arguments, and launch arguments that are set override the parameter
    file. options are passed to the action. It is a LifecycleNode so that launch's lifecycle events
    reach it; the action's own autostart (since Kilted) stays off, as the node has the parameter.
    """
    params_file = existing(value(context, 'params_file'), 'The parameter file')
    types = {'model_path': str, 'autostart': bool}
    given: dict[str, Any] = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in types.items() if value(context, name)}
    given |= parameters or {}
    return LifecycleNode(
        package='cgdet_ros', executable='detector_node', name='thermal_detector',
        namespace=value(context, 'namespace'), output='screen', emulate_tty=True,
        parameters=[str(params_file), *([given] if given else [])], remappings=list(remappings),
        arguments=['--ros-args', '--log-level', value(context, 'log_level')],
        additional_env=profile_environment(), **options)
