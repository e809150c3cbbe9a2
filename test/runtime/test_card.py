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

"""The model card: round trip, and every mismatch."""

from collections.abc import Iterator
from dataclasses import replace
import json
from pathlib import Path
import shutil

from cgdet_core.errors import UserError
from cgdet_core.runtime import DetectionCard, Detector, load_card, ModelCard, Normalization
from cgdet_core.runtime.detection.card import detection_card
from cgdet_core.runtime.imaging.normalization import normalize
from cgdet_core.runtime.inference.card import (
    card_path,
    file_sha256,
    read_card,
    save_card,
    TensorSpec,
)
import numpy as np
import pytest
from toy_model import write_toy


@pytest.fixture
def pair(tmp_path: Path, onnx_model: Path) -> Path:
    """Return a copy of the tiny model and its card."""
    shutil.copy(card_path(onnx_model), tmp_path / 'm.json')
    return Path(shutil.copy(onnx_model, tmp_path / 'm.onnx'))


def change(model: Path, **values: object) -> None:
    card = json.loads(card_path(model).read_text())
    card_path(model).write_text(json.dumps({**card, **values}))


def test_round_trip(pair: Path) -> None:
    card = load_card(pair, DetectionCard)
    assert DetectionCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card
    assert card.classes == ('person', 'bicycle', 'car')
    assert card.normalization == Normalization()
    assert (card.input_size, card.channels, card.top_k) == ((160, 128), 1, 300)
    assert card.inputs['images'].shape == (1, 1, 128, 160)
    save_card(card, pair)
    assert load_card(pair, DetectionCard) == card


def spec(*shape: object, dtype: str = 'float32', layout: str | None = None) -> dict:
    known = {4: 'N, 1, H, W: thermal values in [0, 1] as normalization makes them',
             3: 'N, K, (x1, y1, x2, y2) in input pixels'}
    return {'shape': shape, 'dtype': dtype, 'layout': layout or known[len(shape)]}


@pytest.mark.parametrize(('values', 'words'), [
    ({'onnx_sha256': 'ab' * 32}, 'belongs to another file'),
    ({'inputs': {'images': spec(1, 1, 100, 160)}}, 'multiples of 32'),
    ({'inputs': {'images': spec(1, 2, 128, 160)}}, 'channels must be 1'),
    ({'inputs': {'images': spec(1, 1, -128, 160)}}, 'positive integers'),
    ({'inputs': {'images': spec(1, 'batch', 128, 160)}}, 'the first may be "batch"'),
    ({'inputs': {'images': spec(1, 1, 128.0, 160)}}, 'positive integers'),
    ({'inputs': {'images': spec(1, 1, 128, 160, dtype='double')}}, 'dtype must be one of'),
    ({'inputs': {'images': spec(1, 1, 128, 160, dtype='float16')}}, 'images must be .*float32'),
    ({'inputs': {'picture': spec(1, 1, 128, 160)}}, 'has the input images'),
    ({'inputs': {'images': {'shape': [1], 'dtype': 'float32'}}}, "'layout' is missing"),
    ({'inputs': {}}, 'must not be empty'),
    ({'outputs': {'boxes': spec(1, 300, 4)}}, 'has the input images and the outputs boxes'),
    ({'normalization': {'kind': 'magic'}}, 'magic'),
    ({'normalization': {'low_kelvin': float('nan')}}, 'low_kelvin must be a finite number'),
    ({'normalization': {'high_percentile': '99'}}, 'high_percentile must be a finite number'),
    ({'precision': 'fp4'}, 'precision'),
    ({'onnx_sha256': None}, 'onnx_sha256 must be text'),
    ({'name': 5}, 'name must be text'),
    ({'classes': []}, 'classes'),
    ({'classes': 'person'}, 'classes'),
    ({'classes': ['person']}, r'scores must be \(1, 300, 1\) float32'),
    ({'score_threshold': '0.3'}, r'score_threshold must be a number in \[0, 1\]'),
    ({'score_threshold': float('nan')}, r'score_threshold must be a number in \[0, 1\]'),
    ({'iou_threshold': 0}, r'iou_threshold must be a number in \(0, 1\]'),
    ({'max_detections': 1.5}, 'max_detections must be a positive whole number'),
    ({'max_detections': True}, 'max_detections must be a positive whole number'),
    ({'voting_iou': 0}, r'voting_iou must be null or a number in \(0, 1\]'),
    ({'score_scaling': [1, 0]}, 'score_scaling must be a JSON object'),
    ({'score_scaling': {'dog': {'slope': 1, 'offset': 0}}}, "entry for 'dog', which is not a"),
    ({'score_scaling': {'car': {'slope': 0, 'offset': 0}}}, 'score_scaling of car must be a slo'),
    ({'score_scaling': {'car': {'slope': 1}}}, 'score_scaling of car must be a slope above 0'),
    ({'score_scaling': {'car': {'slope': 1, 'offset': '0'}}}, 'score_scaling of car must be'),
    ({'class_thresholds': {'dog': 0.5}}, "entry for 'dog', which is not a class"),
    ({'class_thresholds': {'car': 1.5}}, r'class_thresholds of car must be a number in \[0, 1\]'),
    ({'parameters': -1}, 'parameters must be'),
    ({'gflops': float('inf')}, 'gflops must be'),
    ({'training': 'much'}, 'training must be a JSON object'),
    ({'training': {'a': [{'b': float('nan')}]}}, 'training must not contain NaN'),
    ({'accuracy': {'AP': float('inf')}}, 'accuracy must not contain NaN or infinity'),
    ({'name': [1]}, 'name must be text'),
    ({'max_detections': 2.5}, 'max_detections must be a positive whole number'),
    ({'classes': ['person', 'car', 'car']}, 'must be a list of different names'),
    ({'classes': ['person', ' ', 'car']}, 'must be a list of different names'),
    ({'inputs': [1]}, 'inputs must be a JSON object'),
    ({'inputs': {'images': 5}}, '5 must be a JSON object'),
    ({'inputs': {'images': {'shape': 5, 'dtype': 'float32', 'layout': 'x'}}}, 'must be a list'),
    ({'inputs': {'images': spec(1, 1, 2**20 * 32, 160)}}, 'is too large'),
    ({'normalization': None}, 'normalization must be a JSON object'),
    ({'normalization': {'low_kelvin': 10**400}}, 'low_kelvin must be a finite number'),
    ({'gflops': 10**400}, 'gflops must be'),
    ({'parameters': False}, 'parameters must be'),
    ({'version': 2.5}, 'version must be 2'),
    ({'score_scaling': {'car': {'slope': 1e300, 'offset': 0}}}, 'at most 1e'),
    ({'letterbox': 'center'}, 'letterbox'),
    ({'version': 99},
     'has version 99, but this package reads versions up to 2; update the package'),
    ({'version': 0}, 'version must be 2'),
    ({'task': 'tracking'}, 'm.onnx is a tracking model, not a detection model'),
    ({'task': None}, 'is a None model, not a detection model'),
])
def test_a_wrong_entry_is_named(pair: Path, values: dict, words: str) -> None:
    change(pair, **values)
    with pytest.raises(UserError, match=words):
        load_card(pair, DetectionCard)


WRONG = (None, True, -1, 0, 2.5, float('nan'), float('inf'), 10**400, '', 'x', [], [1], {},
         {'a': 1}, [[]], 'x' * 10)


def entries(values: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the place of each entry of a card, except those of the free records."""
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, dict) and key not in ('training', 'accuracy'):
            yield from entries(value, (*path, key))


@pytest.mark.parametrize('version', [1, 2])
def test_a_card_with_any_wrong_entry_is_refused_or_usable(pair: Path, version: int) -> None:
    values = json.loads(card_path(pair).read_text()) | {
        'score_scaling': {'car': {'slope': 2.0, 'offset': 0.5}}, 'class_thresholds': {'car': 0.5}}
    if version == 1:
        values = json.loads((Path(__file__).parent / 'card_version_1.json').read_text())
    for place in entries(values):
        for wrong in WRONG:
            changed = json.loads(json.dumps(values))
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = wrong
            try:
                card = read_card(changed, DetectionCard, 'm.onnx')
            except UserError as error:
                assert '\n' not in str(error) and 'object has no' not in str(error)
                continue
            # What is accepted can be used.
            assert isinstance(card.name, str) and type(card.max_detections) is int
            assert np.isfinite(card.thresholds).all()
            assert card.scaling is None or np.isfinite(card.scaling).all()
            json.dumps(card.to_dict(), allow_nan=False)
            normalize(np.arange(64, dtype=np.float32).reshape(8, 8) + 290, card.normalization)


@pytest.mark.parametrize('values', [None, [], 'card', 3, {}, {'version': [2]}])
def test_what_is_not_a_card_is_named(values: object) -> None:
    with pytest.raises(UserError, match='The card of m.onnx cannot be used: '):
        read_card(values, DetectionCard, 'm.onnx')


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_a_card_of_a_windows_editor_is_read(pair: Path, encoding: str) -> None:
    card = load_card(pair, DetectionCard)
    card_path(pair).write_bytes(card_path(pair).read_text().encode(encoding))
    assert load_card(pair, DetectionCard) == card


def test_thresholds_and_scaling_by_class(pair: Path) -> None:
    plain = load_card(pair, DetectionCard)
    assert plain.scaling is None and plain.voting_iou is None
    assert plain.shown_threshold == pytest.approx(0.3)
    assert plain.thresholds.tolist() == pytest.approx([0.3] * 3)
    change(pair, score_scaling={'car': {'slope': 2.5, 'offset': -1}}, voting_iou=0.5,
           class_thresholds={'person': 0.6})
    card = load_card(pair, DetectionCard)
    assert card.scaling is not None and card.scaling.tolist() == [[1, 0], [1, 0], [2.5, -1]]
    assert card.thresholds.tolist() == pytest.approx([0.6, 0.3, 0.3])
    assert card.shown_threshold == {'person': 0.6, 'bicycle': 0.3, 'car': 0.3}
    save_card(card, pair)
    assert load_card(pair, DetectionCard) == card


def test_entries_of_fitted_scores_may_be_missing(pair: Path) -> None:
    values = json.loads(card_path(pair).read_text())
    for name in ('score_scaling', 'class_thresholds', 'voting_iou'):
        values.pop(name)
    card_path(pair).write_text(json.dumps(values))
    assert load_card(pair, DetectionCard).shown_threshold == pytest.approx(0.3)


def test_a_misspelt_entry_is_named(pair: Path) -> None:
    change(pair, normalisation={})
    with pytest.raises(UserError, match="did you mean 'normalization'"):
        load_card(pair, DetectionCard)


def test_boxes_of_another_layout_are_not_misread(pair: Path) -> None:
    outputs = json.loads(card_path(pair).read_text())['outputs']
    outputs['boxes']['layout'] = 'N, K, (center x, center y, width, height) in input pixels'
    change(pair, outputs=outputs)
    with pytest.raises(UserError, match=r"must be .*'N, K, \(x1, y1, x2, y2\) in input pixels'"):
        load_card(pair, DetectionCard)


def test_a_card_of_other_shapes_does_not_open(pair: Path) -> None:
    change(pair, inputs={'images': spec(1, 1, 256, 320)})
    with pytest.raises(UserError, match='does not fit its card.*256, 320.*128, 160'):
        Detector.load(pair)


def test_a_card_of_version_1_is_read(tmp_path: Path) -> None:
    model = write_toy(tmp_path / 'm.onnx')
    values = json.loads((Path(__file__).parent / 'card_version_1.json').read_text())
    card_path(model).write_text(json.dumps({**values, 'onnx_sha256': file_sha256(model)}))
    card = load_card(model, DetectionCard)
    normalization = Normalization('window', kelvin_per_count=0.04)
    assert (card.version, card.task, card.name, card.precision) == (2, 'detection', 'old', 'fp16')
    assert card.classes == ('person', 'car') and card.normalization == normalization
    assert card.inputs == {'images': TensorSpec(
        (1, 1, 512, 640), 'float32',
        'N, 1, H, W: thermal values in [0, 1] as normalization makes them')}
    assert card.outputs == {
        'boxes': TensorSpec((1, 300, 4), 'float32', 'N, K, (x1, y1, x2, y2) in input pixels'),
        'scores': TensorSpec((1, 300, 2), 'float32',
                             'N, K, the score in [0, 1] of each of the classes')}
    assert (card.input_size, card.channels, card.top_k) == ((640, 512), 1, 300)
    assert (card.score_threshold, card.iou_threshold, card.max_detections) == (0.25, 0.5, 50)
    assert (card.parameters, card.gflops, card.accuracy) == (2273923, 6.36, {'AP50': 0.66})
    recipe = {'name': 'old', 'data': {'train': 'a.json', 'license': 'ours'}}
    assert card.training == {'recipe': recipe, 'license': 'ours',
                             'init': {'recipe': recipe, 'license': 'ours'}}
    save_card(card, model)
    assert json.loads(card_path(model).read_text())['version'] == 2
    assert load_card(model, DetectionCard) == card


@pytest.mark.parametrize(('values', 'words'), [
    ({'input_sise': [64, 64]}, "did you mean 'input_size'"), ({'top_k': 'many'}, 'top_k must be'),
    ({'score_threshold': None}, 'score_threshold must be a number')])
def test_a_wrong_entry_of_version_1_is_named(tmp_path: Path, values: dict, words: str) -> None:
    model = write_toy(tmp_path / 'm.onnx')
    old = json.loads((Path(__file__).parent / 'card_version_1.json').read_text())
    card_path(model).write_text(json.dumps(old | values))
    with pytest.raises(UserError, match=words):
        load_card(model, DetectionCard)


def test_version_1_of_a_small_model_or_a_checkpoint() -> None:
    old = json.loads((Path(__file__).parent / 'card_version_1.json').read_text())
    card = DetectionCard.from_dict({**old, 'input_size': [96, 64], 'onnx_sha256': '',
                                    'channels': 3})
    assert card.inputs['images'].shape == ('batch', 3, 64, 96)
    assert card.top_k == 8 * 12 + 4 * 6 + 2 * 3, 'no more boxes than cells'
    assert card == detection_card(
        'old', ('person', 'car'), (96, 64), card.normalization, 3, 126, **{
            k: getattr(card, k) for k in (
                'precision', 'parameters', 'gflops', 'training', 'accuracy', 'score_threshold',
                'iou_threshold', 'max_detections')})
    with pytest.raises(UserError, match='is a detection model, not a flying model'):
        read_card(old, FlyingCard, 'm.onnx')


class FlyingCard(ModelCard):
    TASK = 'flying'


def test_a_fixed_batch(pair: Path) -> None:
    card = detection_card('m', ('person',), (64, 64), Normalization())
    assert card.inputs['images'].shape == ('batch', 1, 64, 64)
    fixed = card.with_batch(2)
    assert fixed.inputs['images'].shape == (2, 1, 64, 64)
    assert {s.shape[0] for s in fixed.outputs.values()} == {2} and fixed.with_batch(3) == fixed


def test_missing_and_damaged_files(pair: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='does not exist'):
        load_card(tmp_path / 'no.onnx', DetectionCard)
    with pytest.raises(UserError, match='is a folder; name the .onnx file in it'):
        load_card(tmp_path, DetectionCard)
    card_path(pair).write_text('{"name": ')
    with pytest.raises(UserError, match='not a readable JSON file'):
        load_card(pair, DetectionCard)
    card_path(pair).write_text('[' * 200_000)
    with pytest.raises(UserError, match='not a readable JSON file'):
        load_card(pair, DetectionCard)
    content = pair.read_bytes()
    pair.write_text('version https://git-lfs.github.com/spec/v1\n')
    with pytest.raises(UserError, match='m.onnx is not an ONNX file; it seems to be a pointer of'):
        load_card(pair, DetectionCard)
    pair.write_bytes(content)
    card_path(pair).unlink()
    with pytest.raises(UserError, match='no card m.json next to it; copy or rename'):
        load_card(pair, DetectionCard)


def test_a_file_that_is_not_onnx_does_not_open(pair: Path) -> None:
    card = load_card(pair, DetectionCard)
    pair.write_bytes(b'not a network')
    save_card(replace(card, onnx_sha256=file_sha256(pair)), pair)
    with pytest.raises(UserError, match='is not an ONNX file that a backend can load'):
        Detector.load(pair)


def test_a_model_that_may_never_end_is_refused(tmp_path: Path) -> None:
    """Before any backend compiles or runs it."""
    onnx = pytest.importorskip('onnx', reason='onnx is not installed')
    path = write_toy(tmp_path / 'toy.onnx')
    model = onnx.load(path)
    value = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        [onnx.helper.make_node('Identity', [a], [b]) for a, b in (('go', 'on'), ('x', 'y'))], 'b',
        [value('i', 7, []), value('go', 9, []), value('x', 1, None)],
        [value('on', 9, []), value('y', 1, None)])
    model.graph.initializer.append(onnx.helper.make_tensor('true', 9, [], [True]))
    model.graph.node.insert(0, onnx.helper.make_node(
        'Loop', ['', 'true', 'images'], ['again'], body=body))
    model.graph.node[1].input[0] = 'again'
    onnx.save(model, path)
    change(path, onnx_sha256=file_sha256(path))
    with pytest.raises(UserError, match='toy.onnx contains a Loop, which may never end'):
        Detector.load(path)
