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

"""The node over DDS and `cgdet bag track` say the same of the same images."""

from collections.abc import Callable
import csv
from pathlib import Path
import subprocess
from typing import Any

from cgdet_core.data.bags.io import open_bag, write_bag
from cgdet_core.data.sources import Frame
import numpy as np
import pytest
from toy_tracker import draw, write_toy_tracker
from tracker_client import center, detection

pytestmark = pytest.mark.ros
CENTERS = [(60.0 + 5 * i, 120.0 + i) for i in range(12)]


def test_the_node_follows_as_bag_track_does(
    track: Callable[..., Any], run_cgdet: Callable[..., subprocess.CompletedProcess],
    tmp_path: Path,
) -> None:
    noise = np.random.default_rng(0).integers(0, 3, (12, 240, 320)).astype(np.uint8)
    frames = [draw(place) + more for place, more in zip(CENTERS, noise)]
    write_bag(tmp_path / 'drive', (Frame('', lambda f=f: f) for f in frames), 10.0)
    model, table = write_toy_tracker(tmp_path / 'toy.onnx'), tmp_path / 'target.csv'
    done = run_cgdet('bag', 'track', tmp_path / 'drive', '--model', model, '--box', '40,100,40,40',
                     '--backend', 'onnxruntime', '--output', table)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(table.open()))
    # Without watching the frames for a closed shutter: the first ones are of another scene.
    with track(model_path=model, ffc_topic='ffc') as client:
        client.wait_active()
        found = []
        with open_bag(tmp_path / 'drive') as reader:
            for connection, _, raw in reader.messages():
                image = reader.deserialize(raw, connection.msgtype)
                message = client.image(image.data.reshape(240, 320), 'mono8')
                message.header.stamp.sec = image.header.stamp.sec
                message.header.stamp.nanosec = image.header.stamp.nanosec
                found += client.send(message)
                if not found:
                    client.start.publish(detection(60, 120, 40, 40, message.header.stamp))
                    client.wait_for(1.0)
    assert [f'{t.header.stamp.sec}.{t.header.stamp.nanosec:09d}' for t in found] == [
        row['stamp'] for row in rows[1:]]
    for target, row in zip(found, rows[1:]):
        x, y, w, h = (float(row[key]) for key in 'xywh')
        assert center(target) == pytest.approx((x + w / 2, y + h / 2), abs=0.02)
        assert (target.bbox.size_x, target.bbox.size_y) == pytest.approx((w, h), abs=0.02)
        assert target.results[0].hypothesis.score == pytest.approx(float(row['score']), abs=1e-4)
