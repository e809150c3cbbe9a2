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

"""Detect in several cameras at once: ros2 launch cgdet_ros multi_camera.launch.py cameras:=a,b."""

from cgdet_ros.launching import declare, detector, DETECTOR_ARGUMENTS, value
from cgdet_ros.node.topics import camera_topics
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import OpaqueFunction

ARGUMENTS = {
    **DETECTOR_ARGUMENTS,
    'cameras': (None, 'Names of the cameras, separated by commas; each has its own topics, '
                'such as front/detections'),
    'image_topic': ('image_raw', "Image topic below each camera's name, or with {camera} in place "
                    'of the name, such as /{camera}_thermal/image_raw'),
}


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start one node for all cameras."""
    topics = camera_topics(value(context, 'cameras'), value(context, 'image_topic'))
    remappings = [(f'{name}/image_raw', topic) for name, topic in topics.items()]
    return [detector(context, remappings, {'cameras': list(topics)})]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start one node."""
    return LaunchDescription([*declare(ARGUMENTS), OpaqueFunction(function=start)])
