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

"""Calibration frames from sets and bags, and the ranges of their tensors."""

import json
from pathlib import Path

from cgdet_core.data.bags.io import write_bag
from cgdet_core.data.coco import load_coco
from cgdet_core.data.sources import coco_frames
from cgdet_core.data.synthetic import write_coco
from cgdet_core.deployment.calibration import (
    best_limit,
    CalibrationFrames,
    load_frames,
    network_inputs,
    ranges,
)
from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector
import numpy as np
import onnx
import pytest


def test_frames_are_spaced_evenly_over_a_set_and_its_bag(tmp_path: Path, scenes: Path) -> None:
    coco = load_coco(scenes)
    write_bag(tmp_path / 'bag', coco_frames(coco), 10)
    from_set, from_bag = load_frames(scenes, 4), load_frames(tmp_path / 'bag', 4)
    every = [frame.pixels for frame in coco_frames(coco)]
    assert from_set.source == scenes.name and from_bag.source == 'bag'
    assert len(from_set.frames) == len(from_bag.frames) == 4
    for i, one, other in zip((0, 3, 7, 11), from_set.frames, from_bag.frames):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, every[i])
    assert len(load_frames(scenes, 99).frames) == len(every)


def test_a_frame_that_cannot_be_read_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    path = write_coco(tmp_path, 4, 1, 4, (160, 128))
    (tmp_path / 'thermal' / 'scene_00002.png').write_bytes(b'damaged')
    assert len(load_frames(path, 4).frames) == 3
    assert 'scene_00002.png is not an image' in caplog.text


def test_sets_without_frames_are_explained(tmp_path: Path, detector: Detector) -> None:
    empty = tmp_path / 'empty.json'
    empty.write_text(json.dumps({'images': [], 'annotations': [], 'categories': []}))
    with pytest.raises(UserError):
        load_frames(empty, 9)
    with pytest.raises(UserError, match='does not exist'):
        load_frames(tmp_path / 'no_bag', 9)
    frames = CalibrationFrames('bag', [np.full((128, 160), np.nan, np.float32)])
    with pytest.raises(UserError, match='cannot be used'):
        list(network_inputs(detector, frames))


def test_ranges_are_those_of_the_network(
    onnx_model: Path, detector: Detector, scenes: Path,
) -> None:
    frames = load_frames(scenes, 3)
    names = ['images', 'relu']
    found = ranges(onnx.load(onnx_model), names, network_inputs(detector, frames))
    largest = max(float(i.max()) for i in network_inputs(detector, frames))
    assert found['minmax']['images'] == pytest.approx(largest)
    for name in names:
        assert 0 < found['percentile'][name] <= found['minmax'][name]
        assert 0 < found['mse'][name] <= found['minmax'][name]


def test_best_limit_cuts_an_outlier_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    even = rng.uniform(0, 1, 45_000).astype(np.float32)
    assert best_limit(even, 1.0) > 0.95
    assert best_limit(np.append(even, np.float32(1.3)), 1.3) < 1.1
    assert best_limit(np.zeros(9, np.float32), 0.0) == 0
