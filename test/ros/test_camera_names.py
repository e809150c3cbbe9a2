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

"""Camera names and their image topics."""

from cgdet_ros.node.topics import camera_topics
import pytest


@pytest.mark.parametrize(('cameras', 'topic', 'expected'), [
    ('front,rear', 'image_raw', {'front': 'front/image_raw', 'rear': 'rear/image_raw'}),
    (' front  rear ', 'thermal/image', {'front': 'front/thermal/image',
                                        'rear': 'rear/thermal/image'}),
    ('a/b', 'x', {'a/b': 'a/b/x'}),
    ('l,r', '/{camera}_cam/raw', {'l': '/l_cam/raw', 'r': '/r_cam/raw'})])
def test_topics_of_cameras(cameras: str, topic: str, expected: dict[str, str]) -> None:
    assert camera_topics(cameras, topic) == expected


@pytest.mark.parametrize(('cameras', 'topic', 'words'), [
    ('', 'image_raw', 'empty'), (' , ', 'image_raw', 'empty'),
    ('a,b,a', 'image_raw', 'camera a is listed twice'),
    ('a,1b', 'image_raw', "'1b' is not a camera name"), ('a:b', 'image_raw', 'not a camera name'),
    ('a,b', '/image', 'All cameras would use /image')])
def test_wrong_cameras_are_named(cameras: str, topic: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        camera_topics(cameras, topic)
