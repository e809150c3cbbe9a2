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
import json
from pathlib import Path
import shutil

from cgdet_core.data.synthetic import Scene, to_counts
from cgdet_core.errors import UserError
from cgdet_core.runtime import DetectionCard, Detector, load_card, Normalization
from cgdet_core.runtime.detection.detector import prepare
from cgdet_core.runtime.detection.postprocess import decode
from cgdet_core.runtime.imaging.normalization import KINDS
from cgdet_core.runtime.inference.card import card_path, file_sha256, read_card, save_card
from cgdet_core.runtime.inference.session import NotFinite
import numpy as np
import pytest
from toy_model import write_toy

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
def test_a_model_of_every_normalization_loads(
    onnx_model: Path, tmp_path: Path, kind: str,
) -> None:
    model = Path(shutil.copy(onnx_model, tmp_path / 'm.onnx'))
    card = load_card(onnx_model, DetectionCard)
    save_card(replace(card, normalization=Normalization(kind)), model)
    assert Detector.load(model).card.normalization.kind == kind


def ramp(height: int) -> np.ndarray:
    """Return a frame that gets brighter to the right, where the toy's boxes have an area."""
    return np.tile(np.arange(0, 256, 4, np.uint8), (height, 1)) // (1 + height % 3)


@pytest.mark.parametrize('count', [1, 2, 3])
def test_a_batch_returns_the_detections_of_its_single_frames(tmp_path: Path, count: int) -> None:
    detector = Detector.load(write_toy(tmp_path / 'toy.onnx', 'n'))
    frames = [ramp(40 + 9 * i) for i in range(count)]
    alone = [detector.detect(frame, 0.1) for frame in frames]
    assert all(len(found) for found in alone)
    detector.reserve(3)
    boxes = [detector.preprocess(frame, row) for row, frame in enumerate(frames)]
    with pytest.raises(ValueError, match='two-dimensional'):
        detector.preprocess(np.zeros((0, 3), np.uint8), count - 1)  # leaves the row unchanged
    detector.infer(count)
    for row, (box, wanted) in enumerate(zip(boxes, alone)):
        found = detector.postprocess(box, 0.1, row)
        np.testing.assert_allclose(found.boxes, wanted.boxes, rtol=1e-5)
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5)
    np.testing.assert_array_equal(detector.detect(frames[0], 0.1).boxes, alone[0].boxes)


@pytest.mark.parametrize('size', SIZES)
def test_the_steps_are_functions_of_arrays(detector: Detector, size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 255, size[::-1]).astype(np.uint8)
    found = detector.detect(frame, 0.01)
    out = np.full(detector.input.shape[1:], 7, np.float32)
    box = prepare(frame, detector.card, out)
    np.testing.assert_array_equal(out, detector.input[0])
    again = decode(detector.boxes[0], detector.scores[0], box, detector.card, 0.01)
    np.testing.assert_array_equal(again.boxes, found.boxes)
    np.testing.assert_array_equal(again.scores, found.scores)


def test_dead_pixels_are_searched_for_once(
    detector: Detector, monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = to_counts(Scene.random(5, 160, 128).render()[0]).astype(np.float32) / 100
    searched, is_finite = [], np.isfinite

    def count(values: np.ndarray) -> np.ndarray:
        searched.append(values)
        return is_finite(values)

    monkeypatch.setattr(np, 'isfinite', count)
    detector.preprocess(frame)
    once = detector.input.copy()
    assert len(searched) == 1
    detector.preprocess(frame, finite=True)
    assert len(searched) == 1
    np.testing.assert_array_equal(detector.input, once)


def test_outputs_that_are_not_finite_are_an_error_of_their_frame(tmp_path: Path) -> None:
    detector = Detector.load(write_toy(tmp_path / 'toy.onnx', 'n'))
    detector.reserve(2)
    boxes = [detector.preprocess(ramp(64), row) for row in range(2)]
    for output in (detector.boxes, detector.scores):
        for value in (np.nan, np.inf, -np.inf):
            detector.infer(2)
            output[0, -1, 0] = value
            with pytest.raises(NotFinite, match='not numbers .*export the model again'):
                detector.postprocess(boxes[0], 0.1, 0)
            assert len(detector.postprocess(boxes[1], 0.1, 1))
    detector.input[0] = np.inf  # the mean of the toy, too
    with pytest.raises(NotFinite):
        detector.infer()
        detector.postprocess(boxes[0], 0.1)


@pytest.mark.parametrize('blind_for', ['dark', 'bright'])
def test_a_model_whose_outputs_are_not_finite_does_not_load(
    tmp_path: Path, blind_for: str,
) -> None:
    onnx = pytest.importorskip('onnx', reason='training is not installed')
    path = write_toy(tmp_path / 'toy.onnx')
    model = onnx.load(path)
    # 0 / 0 is NaN for a dark frame, exp(x / 0) infinite for a bright one.
    zero = onnx.helper.make_tensor('zero', 1, [], [0.0])
    model.graph.initializer.append(zero)
    source = {'dark': ['rows', 'rows'], 'bright': ['rows', 'zero']}[blind_for]
    model.graph.node.insert(2, onnx.helper.make_node('Div', source, ['ratio']))
    next(n for n in model.graph.node if n.op_type == 'Exp').input[0] = 'ratio'
    onnx.save(model, path)
    card = load_card_values(path)
    save_card(replace(card, onnx_sha256=file_sha256(path), normalization=Normalization('none')),
              path)
    with pytest.raises(UserError, match='toy.onnx cannot be used: the network returned values'):
        Detector.load(path)


def load_card_values(path: Path) -> DetectionCard:
    return read_card(json.loads(card_path(path).read_text()), DetectionCard, path)


def test_a_threshold_for_each_class(tmp_path: Path) -> None:
    detector = Detector.load(write_toy(tmp_path / 'toy.onnx'))
    frame = ramp(64)
    everything = detector.detect(frame, 0.0)
    assert set(everything.labels) == {0, 1, 2}
    found = detector.detect(frame, np.array([0.0, 1.1, 0.0], np.float32))
    assert set(found.labels) == {0, 2}
    assert len(found) == (everything.labels != 1).sum()
