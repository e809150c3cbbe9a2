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

"""The image topics of several cameras."""

import re

NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*')


def camera_topics(cameras: str, image_topic: str) -> dict[str, str]:
    """
    Return the image topic of each camera, from names separated by commas or blanks.

    image_topic: relative to the camera's name, or contains "{camera}" in place of the name.
    ValueError if a name or the topic is wrong.
    """
    names = cameras.replace(',', ' ').split()
    if not names:
        raise ValueError('The list of cameras is empty; for example, use cameras:=front,rear.')
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(f'{name!r} is not a camera name: use letters, digits and '
                             'underscores, with a letter first.')
        if names.count(name) > 1:
            raise ValueError(f'The camera {name} is listed twice.')
    if '{camera}' in image_topic:
        return {name: image_topic.replace('{camera}', name) for name in names}
    if image_topic.startswith('/'):
        raise ValueError(f'All cameras would use {image_topic}; put {{camera}} in place of their '
                         'names, for example image_topic:=/{camera}/image_raw.')
    return {name: f'{name}/{image_topic}' for name in names}
