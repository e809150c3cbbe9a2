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

"""Predictions of teachers: decoding, and that they are computed once per picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import load_coco
from cgdet_core.distillation.config import TeacherConfig
from cgdet_core.distillation.predictions import (
    COCO,
    decode_nanodet,
    decode_yolox,
    TeacherPredictions,
)
from cgdet_core.distillation.store import PictureStore
from cgdet_core.distillation.views import View
from cgdet_core.errors import UserError
import numpy as np
import pytest
import torch

CPU = torch.device('cpu')
SIZE = (64, 32)  # width, height of the input
CELLS = {8: 32, 16: 8, 32: 2, 64: 1}


def yolox_output() -> torch.Tensor:
    """Return an output with a car of 16x8 pixels in the middle of the second cell of stride 16."""
    output = torch.zeros(CELLS[8] + CELLS[16] + CELLS[32], 85)
    row = output[CELLS[8] + 1]
    row[:5] = torch.tensor([0.5, 0.5, 0.0, np.log(0.5), 0.9])
    row[5 + COCO.index('car')] = 0.5
    return output


def test_yolox_is_decoded() -> None:
    boxes, scores = decode_yolox(yolox_output(), SIZE)
    index = int(scores.amax(1).argmax())
    assert index == CELLS[8] + 1 and COCO[int(scores[index].argmax())] == 'car'
    assert float(scores.max()) == pytest.approx(0.45)
    assert boxes[index].tolist() == pytest.approx([16, 4, 32, 12])


def test_nanodet_is_decoded() -> None:
    output = torch.zeros(sum(CELLS.values()), 80 + 32)
    row = output[CELLS[8] + CELLS[16] + 1]  # stride 32, at (32, 0)
    row[0] = 0.7
    for side, distance in enumerate((1, 0, 1, 1)):
        row[80 + 8 * side + distance] = 50.0
    boxes, scores = decode_nanodet(output, SIZE)
    index = int(scores[:, 0].argmax())
    assert float(scores[index, 0]) == pytest.approx(0.7)
    assert boxes[index].tolist() == pytest.approx([0, 0, 64, 32], abs=1e-3)


@pytest.mark.parametrize('decode', [decode_yolox, decode_nanodet])
def test_an_output_of_another_network_is_refused(decode: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match='rows instead of'):
        decode(torch.zeros(5, 85), SIZE)


@pytest.fixture
def teacher(tmp_path: Path) -> Callable[..., TeacherConfig]:
    """Return a function that writes an ONNX "detector" which always finds the same car."""
    def write(output: torch.Tensor, **values: Any) -> TeacherConfig:
        from onnx import helper, numpy_helper, save, TensorProto

        path = tmp_path / 'teacher.onnx'
        nodes = [helper.make_node('ReduceSum', ['picture'], ['sum'], keepdims=0),
                 helper.make_node('Mul', ['sum', 'zero'], ['nothing']),
                 helper.make_node('Add', ['found', 'nothing'], ['output'])]
        graph = helper.make_graph(
            nodes, 'constant',
            [helper.make_tensor_value_info('picture', TensorProto.FLOAT, [1, 3, *SIZE[::-1]])],
            [helper.make_tensor_value_info('output', TensorProto.FLOAT, [1, *output.shape])],
            [numpy_helper.from_array(np.float32(0), 'zero'),
             numpy_helper.from_array(output[None].numpy(), 'found')])
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9),
             path)
        return TeacherConfig(kind='onnx', path=path, decoder='yolox', cache=tmp_path / 'cache',
                             **values)

    return write


def test_predictions_are_in_pixels_of_the_frame_and_stored(
    teacher: Callable[..., TeacherConfig], pairs: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = load_coco(pairs).images[:4]
    views = [view for r in records if (view := View.of(r, 'skip')) is not None]
    predictions = TeacherPredictions(teacher(yolox_output()))
    first = predictions.of(views, CPU, progress=False)
    assert len(first) == len(views) == 2
    # A frame of 160x128 is 40x32 of the input, so a pixel of the input has four of the frame.
    np.testing.assert_allclose(first[0].boxes, [[64, 16, 128, 48]], rtol=1e-5)
    np.testing.assert_allclose(first[0].scores, [0.45], rtol=1e-5)
    assert [COCO[label] for label in first[0].labels] == ['car']

    calls = []
    monkeypatch.setattr(type(predictions.predictor), 'predict',
                        lambda *_: calls.append(1) or (torch.zeros(0, 4), torch.zeros(0, 80)))
    again = predictions.of(views, CPU, progress=False)
    np.testing.assert_array_equal(again[0].boxes, first[0].boxes)
    assert not calls

    cached = sorted((tmp_path / 'cache').glob('*/*'))[0]
    cached.write_bytes(b'x' + cached.read_bytes())
    predictions.of(views, CPU, progress=False)
    assert len(calls) == 1, 'a changed file is computed again, and only that'


def test_a_cache_that_cannot_be_written_is_a_sentence(
    teacher: Callable[..., TeacherConfig], pairs: Path, tmp_path: Path,
) -> None:
    view = View.of(load_coco(pairs).images[0], 'thermal')
    (tmp_path / 'file').touch()
    config = teacher(yolox_output()).model_copy(update={'cache': tmp_path / 'file'})
    with pytest.raises(UserError, match=r'file/\w+ cannot be written .*set teacher.cache'):
        TeacherPredictions(config).of([view], CPU, False)


@pytest.mark.parametrize('content', [
    b'', np.full((1, 6), np.nan, np.float32).tobytes(), bytes(25), bytes(24 * 101)],
    ids=['none', 'NaN', 'half a row', 'too many'])
def test_stored_rows_that_no_teacher_wrote_are_computed_again(
    content: bytes, teacher: Callable[..., TeacherConfig], pairs: Path, tmp_path: Path,
) -> None:
    view = View.of(load_coco(pairs).images[0], 'thermal')
    predictions = TeacherPredictions(teacher(yolox_output()))
    first = predictions.of([view], CPU, False)[0]
    cached, = (tmp_path / 'cache').glob('*/*')
    PictureStore(cached.parent, cached.suffix).write(cached, content)
    again = predictions.of([view], CPU, False)[0]
    assert again.boxes.tolist() == (first.boxes.tolist() if content else [])


@pytest.mark.parametrize('place', [4, 2], ids=['score', 'box'])
def test_a_teacher_that_finds_no_numbers_is_refused(
    place: int, teacher: Callable[..., TeacherConfig], pairs: Path,
) -> None:
    output = yolox_output()
    output[CELLS[8] + 1, place] = np.nan
    view = View.of(load_coco(pairs).images[0], 'thermal')
    with pytest.raises(UserError, match=r'The teacher finds objects in .* no numbers \(NaN\)'):
        TeacherPredictions(teacher(output)).of([view], CPU, False)


def test_an_output_that_the_decoder_does_not_read_is_a_sentence(
    teacher: Callable[..., TeacherConfig], pairs: Path,
) -> None:
    view = View.of(load_coco(pairs).images[0], 'thermal')
    for output, words in ((torch.zeros(7, 85), '7 rows instead of 42'),
                          (torch.zeros(42, 84), '79 classes instead of 80')):
        with pytest.raises(UserError, match=f'none that its teacher.decoder reads: {words}'):
            TeacherPredictions(teacher(output)).of([view], CPU, False)
