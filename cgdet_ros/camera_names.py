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

"""The topics of several cameras, as the launch file names them."""

import re

NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*')


def camera_topics(cameras: str, image_topic: str) -> dict[str, str]:
    """
    Return each camera's image topic, from names separated by commas or blanks.

    image_topic is relative to the camera's name, or holds "{camera}" in its place. ValueError
    says what is wrong with the names.
    """
    names = cameras.replace(',', ' ').split()
    if not names:
        raise ValueError('The list of cameras is empty; name them, as in cameras:=front,rear.')
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(f'{name!r} is no camera name: letters, digits and underscores, '
                             'a letter first.')
        if names.count(name) > 1:
            raise ValueError(f'The camera {name} is named twice.')
    if '{camera}' in image_topic:
        return {name: image_topic.replace('{camera}', name) for name in names}
    if image_topic.startswith('/'):
        raise ValueError(f'All cameras would read {image_topic}; put {{camera}} where their '
                         'names belong, as in image_topic:=/{camera}/image_raw.')
    return {name: f'{name}/{image_topic}' for name in names}
