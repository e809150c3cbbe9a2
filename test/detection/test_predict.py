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

"""The one loop that reads, detects and yields."""

from pathlib import Path

from cgdet_core.data.coco import load_coco
from cgdet_core.data.sources import coco_frames, Frame
from cgdet_core.detection.predict import detect, detect_sources
from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector
from cgdet_core.runtime.imaging.frames import read_thermal
import numpy as np
import pytest


def test_the_loop_finds_what_the_detector_finds(detector: Detector, scenes: Path) -> None:
    coco = load_coco(scenes)
    found = list(detect(detector, coco_frames(coco), 0.001))
    assert [frame.truth for frame, _ in found] == coco.images
    for frame, detections in found:
        expected = detector.detect(read_thermal(frame.where), 0.001)
        np.testing.assert_array_equal(detections.boxes, expected.boxes)
        np.testing.assert_array_equal(detections.scores, expected.scores)


def test_a_frame_that_cannot_be_normalized_is_named(detector: Detector) -> None:
    frames = [Frame('good.png', lambda: np.zeros((128, 160), np.uint16)),
              Frame('bad.png', lambda: np.full((128, 160), np.nan, np.float32), 'folder/bad.png')]
    results = detect(detector, frames)
    assert next(results)[0].name == 'good.png'
    with pytest.raises(UserError, match=r'^folder/bad\.png: '):
        next(results)


def test_progress_counts_frames(detector: Detector, scenes: Path, tmp_path: Path) -> None:
    done: list[int] = []
    counts = detect_sources(
        detector, [str(scenes.parent / 'thermal')], tmp_path, 0.001, done.append)
    assert sum(done) == counts[0] == 12
    with pytest.raises(UserError, match='would be written into') as caught:
        detect_sources(detector, [str(tmp_path)], tmp_path)
    assert caught.value.fields == ('output',)
