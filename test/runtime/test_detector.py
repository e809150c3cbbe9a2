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

"""The detector as a whole: odd sizes and depths, the source's pixels, repeatability."""

from dataclasses import replace
from pathlib import Path
import shutil

from cgdet_core.data.synthetic import Scene, to_counts
from cgdet_core.runtime import Detector, load_card, Normalization
from cgdet_core.runtime.card import save_card
from cgdet_core.runtime.normalization import KINDS
import numpy as np
import pytest

SIZES = [(160, 128), (640, 512), (80, 64), (33, 200), (1, 1), (1281, 722)]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_every_size_and_depth(detector: Detector, size: tuple[int, int], dtype) -> None:
    width, height = size
    frame = np.random.default_rng(0).integers(0, 255, (height, width)).astype(dtype)
    found = detector.detect(frame, 0.0)
    assert len(found) > 0
    assert (found.boxes[:, [0, 2]] <= width).all() and (found.boxes[:, [1, 3]] <= height).all()
    assert (found.boxes >= 0).all()
    assert (np.diff(found.scores) <= 0).all()


def test_a_frame_is_detected_the_same_after_any_other(detector: Detector) -> None:
    frame = to_counts(Scene.random(5, 160, 128).render()[0])
    first = detector.detect(frame, 0.01)
    detector.detect(np.full((90, 300), 255, np.uint8), 0.01)
    with pytest.raises(ValueError, match='NaN'):
        detector.detect(np.full((128, 160), np.nan, np.float32))
    again = detector.detect(frame, 0.01)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    np.testing.assert_array_equal(first.scores, again.scores)


def test_timings_are_of_the_latest_frame(detector: Detector) -> None:
    detector.detect(np.zeros((128, 160), np.uint8))
    times = detector.last_timings
    assert min(times.pre, times.infer, times.post) > 0


@pytest.mark.parametrize('kind', KINDS)
def test_a_model_of_every_normalisation_loads(
    onnx_model: Path, tmp_path: Path, kind: str,
) -> None:
    model = Path(shutil.copy(onnx_model, tmp_path / 'm.onnx'))
    save_card(replace(load_card(onnx_model), normalization=Normalization(kind)), model)
    assert Detector.load(model).card.normalization.kind == kind
