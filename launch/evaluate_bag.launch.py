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

"""Score the node on a bag: ros2 launch cgdet_ros evaluate_bag.launch.py bag:=b data:=val.json."""

from pathlib import Path
import sys
from typing import Any

from cgdet_core.data.bags.io import is_compressed
from cgdet_core.errors import UserError
from cgdet_core.runtime import DetectionCard, load_card
from cgdet_core.runtime.detection.detector import evaluation_threshold
from cgdet_core.runtime.inference.choice import shipped_model
from cgdet_ros.launching import declare, detector, DETECTOR_ARGUMENTS, existing, value
from cgdet_ros.resources import profile_environment
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import ExecuteProcess, OpaqueFunction, Shutdown
from launch.events.process import ProcessExited
import numpy as np

ARGUMENTS = {
    **{name: DETECTOR_ARGUMENTS[name] for name in ('params_file', 'log_level')},
    'model_path': ('', 'ONNX file with its card; by default the shipped model'),
    'namespace': ('evaluate_bag', 'Namespace of node and images, in which no camera publishes'),
    'bag': (None, 'Bag to play'),
    'topic': ('', 'Image topic of the bag; required if it has several'),
    'data': (None, 'COCO file with the ground truth of its frames'),
    'rate': ('1.0', 'Speed relative to the recording'),
    'output': ('evaluation', 'Folder for report.json, images and video'),
}


def finish(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    """Shut down after the first process ends; RuntimeError if it failed without an interrupt."""
    if context.is_shutdown:  # a second Shutdown raises an error in launch
        return None
    if event.returncode:
        raise RuntimeError(f'{event.process_name} failed, exit status {event.returncode}.')
    return Shutdown(reason=f'{event.process_name} is done')


def parameters(bag: Path, topic: str, model: Path) -> dict[str, Any]:
    """Return the parameters of an evaluation, which override those of the parameter file."""
    card = load_card(model, DetectionCard)
    try:
        compressed = is_compressed(bag, topic or None)
    except UserError as error:
        raise RuntimeError(f'{error} (topic:=)' if 'topic' in error.fields else error) from None
    minimums = np.broadcast_to(evaluation_threshold(card), len(card.classes)).tolist()
    return {
        'model_path': str(model), 'autostart': True, 'track': False, 'cameras': [''],
        'class_names': False, 'while_shutter_closed': 'publish',  # each image has an answer
        'image_transport': 'compressed' if compressed else 'raw',
        'use_sim_time': True, 'max_image_age_s': 0.0,  # the time is that of the bag
        # Average precision requires all detections.
        'score_threshold': min(minimums),
        **{f'class_thresholds.{name}': low for name, low in zip(card.classes, minimums)}}


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start the node, and the player that evaluates it."""
    bag = existing(value(context, 'bag'), 'The bag', folder=True)
    data = existing(value(context, 'data'), 'The annotation file')
    topic = value(context, 'topic')
    given = value(context, 'model_path')
    model = existing(given, 'The model') if given else shipped_model()
    command = [
        sys.executable, '-m', 'cgdet_ros.tools.demo', '--running', '--bag', str(bag),
        '--data', str(data), '--model', str(model),
        *(['--topic', topic] if topic else []),
        '--rate', value(context, 'rate'), '--output', value(context, 'output'),
        '--ros-args', '-r', f'__ns:=/{value(context, "namespace").strip("/")}']
    return [
        detector(context, [], parameters(bag, topic, model), on_exit=finish),
        # Without a terminal, in which each step of the progress bar would be a line.
        ExecuteProcess(cmd=command, output='screen', on_exit=finish,
                       additional_env={**profile_environment(), 'PYTHONUNBUFFERED': '1'})]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start node and player."""
    return LaunchDescription([*declare(ARGUMENTS), OpaqueFunction(function=start)])
