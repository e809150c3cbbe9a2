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

"""What the launch files share: arguments, checks, and the node under the transport profile."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cgdet_ros.resources import profile_environment, share_file
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

Arguments = dict[str, tuple[str | None, str]]  # name: (default, None if needed; description)
DETECTOR_ARGUMENTS: Arguments = {  # an empty value leaves the parameter file's
    'model_path': ('', 'ONNX file with its card; empty: the parameter file, the shipped model'),
    'namespace': ('', 'Namespace of the node'),
    'params_file': (str(share_file('config/thermal_detect.yaml')),
                    'YAML file with the parameters'),
    'autostart': ('', 'Configure and activate at start: true; false leaves the transitions to '
                  'a lifecycle manager'),
    'log_level': ('info', 'Logger level'),
}


def declare(arguments: Arguments) -> list[DeclareLaunchArgument]:
    """Declare launch arguments."""
    return [DeclareLaunchArgument(name, default_value=default, description=description)
            for name, (default, description) in arguments.items()]


def value(context: LaunchContext, name: str) -> str:
    """Return a launch argument without blanks around it; empty if the launch file lacks it."""
    return str(LaunchConfiguration(name, default='').perform(context)).strip()


def existing(path: str, what: str) -> Path:
    """Return an absolute path; RuntimeError, as launch prints it, if nothing is there."""
    found = Path(path).expanduser().absolute()
    if not found.exists():
        raise RuntimeError(f'{what} {path} does not exist.')
    return found


def detector(
    context: LaunchContext, remappings: Iterable[tuple[str, str]],
    parameters: dict[str, Any] | None = None, **options: Any,
) -> LifecycleNode:
    """
    Make the detector of the launch arguments; RuntimeError says which of them is wrong.

    parameters win over arguments, arguments that were given over the parameter file; options
    go to the action, which launch's own events of lifecycle nodes reach.
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
