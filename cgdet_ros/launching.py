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

from collections.abc import Callable, Iterable
from pathlib import Path
import sys
from typing import Any

from cgdet_ros.resources import profile_environment
from launch import Action, LaunchContext
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue
from rclpy.exceptions import NameValidationException
from rclpy.validate_namespace import validate_namespace
from rclpy.validate_node_name import validate_node_name
from rclpy.validate_topic_name import validate_topic_name

DETECTOR, TRACKER = 'thermal_detector', 'target_tracker'
Arguments = dict[str, tuple[str | None, str]]  # name: (default or None if required, description)
# What is not set is left to the parameter file, then to an including launch file (SetParameter),
# then to the node.
NODE_ARGUMENTS: Arguments = {
    'model_path': ('', 'ONNX file with its card; by default the shipped model'),
    'namespace': ('', 'Namespace of the node'),
    'backend': ('', 'Parameter of that name: auto, onnxruntime, tensorrt ...'),
    'image_transport': ('', 'raw or compressed; by default as the image topic ends, or raw'),
    'use_sim_time': ('', 'true: take the time of /clock'),
    'autostart': ('', 'true: configure and activate at start; false: leave the transitions '
                  'to a lifecycle manager'),
    'respawn': ('false', 'true: start the node again when it has ended'),
    'required': ('false', 'true: end the whole launch if the node dies and is not started again; '
                 'false: the launch goes on, and ends with an error'),
    'log_level': ('info', 'Logger level: debug, info, warn, error or fatal; or of one logger, '
                  'such as thermal_detector:=debug'),
}
DETECTOR_ARGUMENTS: Arguments = {
    **NODE_ARGUMENTS,
    'node_name': (DETECTOR, 'Name of the node'),
    'params_file': ('', 'YAML file with parameters, as in config/thermal_detect.yaml'),
    'score_threshold': ('', 'Parameter of that name, from 0 to 1'),
}
TRACKER_ARGUMENTS: Arguments = {
    **NODE_ARGUMENTS,
    'node_name': (TRACKER, 'Name of the node'),
    'params_file': ('', 'YAML file with parameters, as in config/track_target.yaml'),
    'image_topic': ('image_raw', 'Thermal image topic'),
    'detections_topic': ('detections', 'Topic of the detector, for ~/follow_id and ~/point'),
    'detector_model_path': ('', 'Detector that finds lost targets: an ONNX file with its card, '
                            'shipped (the default), or none'),
    'rgb_topic': ('', 'Parameter of that name: RGB image topic, for a model that takes RGB'),
    'max_targets': ('', 'Parameter of that name'),
}
LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')
TRANSPORTS = ('raw', 'compressed')
COMPRESSED = '/compressed'
# Arguments that launch itself reads, besides those with a hyphen, such as launch-prefix.
OF_LAUNCH = ('emulate_tty', 'ros_namespace', 'sigkill_timeout', 'sigterm_timeout')
RESPAWN_DELAY_S = 2.0


def declare(arguments: Arguments) -> list[Action]:
    """Declare launch arguments; RuntimeError for others that are typed after the launch file."""
    def refuse_others(context: LaunchContext) -> None:
        path = context.get_locals_as_dict().get('current_launch_file_path')
        if path is None or not _is_typed(Path(path)):  # included: they may be another file's
            return
        file = Path(path).name
        for name in (a.partition(':=')[0] for a in context.argv):
            if not (name in arguments or name in OF_LAUNCH or '-' in name):
                raise RuntimeError(f'{name}:= is not an argument of {file}; --show-args lists '
                                   'them.')

    return [*(DeclareLaunchArgument(name, default_value=default, description=description)
              for name, (default, description) in arguments.items()),
            OpaqueFunction(function=refuse_others)]


def _is_typed(path: Path) -> bool:
    """Return whether this launch file of ours is the one that `ros2 launch` was told to run."""
    pairs = zip(sys.argv, sys.argv[1:])
    return ('cgdet_ros', path.name) in pairs or any(
        Path(word).name == path.name and Path(word).resolve() == path.resolve()
        for word in sys.argv)


def value(context: LaunchContext, name: str) -> str:
    """Return a launch argument, stripped; empty if the launch file does not declare it."""
    return str(LaunchConfiguration(name, default='').perform(context)).strip()


def flag(context: LaunchContext, name: str) -> bool | None:
    """Return a launch argument that is true or false, None if it is not set."""
    text = value(context, name).lower()
    if text not in ('', 'true', 'false'):
        raise RuntimeError(f'{name}:={text} is neither true nor false.')
    return text == 'true' if text else None


def number(context: LaunchContext, name: str) -> float | None:
    """Return a launch argument that is a number, None if it is not set."""
    text = value(context, name)
    try:
        return float(text) if text else None
    except ValueError:
        raise RuntimeError(f'{name}:={text} is not a number.') from None


def existing(path: str, what: str, folder: bool = False) -> Path:
    """
    Return an absolute path, with ~ expanded; RuntimeError, which launch prints, if it is wrong.

    folder: it may also be a folder.
    """
    found = Path(path).expanduser().absolute()
    if not found.exists():
        raise RuntimeError(f'{what} {path} does not exist.')
    if found.is_dir() and not folder:
        raise RuntimeError(f'{what} {path} is a folder; name a file.')
    return found


def transport_of(topic: str, transport: str) -> tuple[str, str]:
    """
    Return the raw topic of an image topic, and the transport, empty if it is not known.

    As in image_transport, compressed images are on the raw topic with /compressed.
    """
    if transport not in ('', *TRANSPORTS):
        raise RuntimeError(
            f'image_transport:={transport} is not one of {", ".join(TRANSPORTS)}.')
    if not topic.endswith(COMPRESSED):
        return topic, transport
    if transport == 'raw':
        raise RuntimeError(f'image_topic:={topic} has compressed images, but image_transport is '
                           'raw; leave that out.')
    return topic.removesuffix(COMPRESSED), 'compressed'


def check_name(argument: str, name: str, validate: Callable[[str], object]) -> None:
    """Raise RuntimeError, which states the argument, for a name that rclpy does not accept."""
    try:
        validate(name)
    except NameValidationException as error:
        reason = str(error).splitlines()[0].rpartition(': ')[2].rstrip(':.')
        raise RuntimeError(f'{argument}:={name} is not valid: {reason}.') from None


def detector(
    context: LaunchContext, remappings: Iterable[tuple[str, str]],
    parameters: dict[str, Any] | None = None, **options: Any,
) -> LifecycleNode:
    """
    Return the node action for the launch arguments; RuntimeError if one of them is wrong.

    parameters override launch arguments, and launch arguments that are set override the parameter
    file. options are passed to the action.
    """
    wanted = {'score_threshold': number(context, 'score_threshold')}
    return _lifecycle_node(context, 'detector_node', DETECTOR, remappings, wanted,
                           parameters or {}, options)


def tracker(context: LaunchContext) -> LifecycleNode:
    """Return the node action for the launch arguments; RuntimeError if one of them is wrong."""
    model, targets = value(context, 'detector_model_path'), number(context, 'max_targets')
    if targets is not None and not targets.is_integer():
        raise RuntimeError(f'max_targets:={targets} is not a whole number.')
    rgb, detections = value(context, 'rgb_topic'), value(context, 'detections_topic')
    for name, topic in (('rgb_topic', rgb), ('detections_topic', detections)):
        if topic:
            check_name(name, topic, validate_topic_name)
    if model not in ('', 'shipped', 'none'):
        model = str(existing(model, 'The model'))
    wanted = {'detector_model_path': {'': None, 'none': ''}.get(model, model),
              'rgb_topic': rgb or None,
              'max_targets': None if targets is None else int(targets)}
    return _lifecycle_node(
        context, 'tracker_node', TRACKER, [('image_raw', value(context, 'image_topic'))], wanted,
        {}, {}, [('detections', detections)] if detections else [])


def _lifecycle_node(
    context: LaunchContext, executable: str, default_name: str,
    images: Iterable[tuple[str, str]], wanted: dict[str, Any], parameters: dict[str, Any],
    options: dict[str, Any], others: Iterable[tuple[str, str]] = (),
) -> LifecycleNode:
    """
    Return the action of a program; images and others: remappings of image and other topics.

    It is a LifecycleNode so that launch's lifecycle events reach it; the action's own autostart
    (since Kilted) stays off, as the node has the parameter.
    """
    transport = value(context, 'image_transport')
    topics = {}
    for name, topic in images:
        topics[name], transport = transport_of(topic, transport)
        check_name('image_topic', topics[name], validate_topic_name)
    node_name, namespace = value(context, 'node_name'), value(context, 'namespace')
    check_name('node_name', node_name or default_name, validate_node_name)
    check_name('namespace', '/' + namespace.lstrip('/'), validate_namespace)
    model, params = value(context, 'model_path'), value(context, 'params_file')
    wanted = {
        'model_path': str(existing(model, 'The model')) if model else None,
        'backend': value(context, 'backend') or None, 'image_transport': transport or None,
        'use_sim_time': flag(context, 'use_sim_time'), 'autostart': flag(context, 'autostart'),
        **wanted}
    given = {name: ParameterValue(v, value_type=type(v))
             for name, v in wanted.items() if v is not None} | parameters
    if flag(context, 'respawn'):
        options = {'respawn': True, 'respawn_delay': RESPAWN_DELAY_S, **options}
    else:
        handler = end_if_died if flag(context, 'required') else fail_if_died
        options = {'on_exit': handler, **options}
    return LifecycleNode(
        package='cgdet_ros', executable=executable, name=node_name or default_name,
        namespace=namespace, output='screen', emulate_tty=True,
        parameters=[*([str(existing(params, 'The parameter file'))] if params else []),
                    *([given] if given else [])],
        remappings=[*topics.items(), *others],
        arguments=['--ros-args', '--log-level', _log_level(context)],
        additional_env=profile_environment(), **options)


def end_if_died(event: ProcessExited, context: LaunchContext) -> None:
    """Raise RuntimeError, which ends the launch with status 1, if a process has died."""
    if event.returncode and not context.is_shutdown:  # then it was asked to end
        raise RuntimeError(f'{event.process_name} died, exit status {event.returncode}.')


def fail_if_died(event: ProcessExited, context: LaunchContext) -> None:
    """Have the launch end with status 1, when its other processes have, if a process has died."""
    try:
        end_if_died(event, context)
    except RuntimeError as error:  # launch handles what nobody has caught by its status alone
        context.asyncio_loop.call_exception_handler({'message': str(error)})


def _log_level(context: LaunchContext) -> str:
    level = value(context, 'log_level') or 'info'
    if level.rpartition(':=')[2].lower() not in LEVELS:
        raise RuntimeError(f'log_level:={level} is not one of {", ".join(LEVELS)}, or such as '
                           'thermal_detector:=debug.')
    return level
