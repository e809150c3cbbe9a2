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

"""Unit and polarity of a set: told once, in `info`, read by everything that sees its frames."""

import json
from pathlib import Path
from typing import Any

from cgdet_core.data.bags.pairing import Choice
from cgdet_core.data.coco import load_coco
from cgdet_core.data.collect import collect
from cgdet_core.data.formats.convert import convert
from cgdet_core.data.merge import merge
from cgdet_core.data.plans import make_plans
from cgdet_core.data.sources import coco_frames, open_path, read_frames, viewed
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.card import detection_card
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.imaging.frames import read_thermal
from cgdet_core.runtime.imaging.normalization import Normalization, normalize
from cgdet_core.runtime.imaging.signal import CARD, seen, to_kelvin
import cv2
from native_layouts import yolo
import numpy as np
import pytest
from two_cameras import PERIOD, START, THERMAL, write_two_cameras

RUN = [('celsius', lambda k: (k - 273.15).astype(np.float32)),
       ('kelvin', lambda k: k.astype(np.float32)),
       ('decikelvin', lambda k: np.rint(10 * k).astype(np.uint16)),
       ('u10.6', lambda k: np.rint(64 * (k - 273.15)).astype(np.uint16)),
       ('optris', lambda k: np.rint(10 * (k - 273.15) + 1000).astype(np.uint16)),
       ('centikelvin', lambda k: np.rint(100 * k).astype(np.uint16))]


def collect_bag(bag: Path, output: Path, choice: Choice) -> dict[str, Any]:
    return collect(make_plans([bag], choice), output, choice)


@pytest.fixture
def decikelvin(scenes: Path, tmp_path: Path) -> Path:
    """Return the same frames in tenths of a kelvin, in a set that says so."""
    content = json.loads(scenes.read_text())
    (tmp_path / 'thermal').mkdir()
    for image in content['images']:
        counts = read_thermal(scenes.parent / image['file_name'])
        cv2.imwrite(str(tmp_path / image['file_name']), np.rint(counts / 10).astype(np.uint16))
    path = tmp_path / 'set.json'
    path.write_text(json.dumps({**content, 'info': {'unit': 'decikelvin'}}))
    return path


def kelvin(number: int) -> np.ndarray:
    y, x = np.mgrid[:120, :160]
    return 276 + 25 * (((x + 9 * number) % 160) / 160) + y / 120


@pytest.mark.parametrize(('unit', 'encode'), RUN)
def test_temperatures_of_bags_become_hundredths_of_a_kelvin(
    unit: str, encode: Any, tmp_path: Path,
) -> None:
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    bag = write_two_cameras(tmp_path / 'bag', {
        START + i * PERIOD: encode(kelvin(i)) for i in range(3)}, {})
    choice = Choice(THERMAL, unit=unit)
    collect_bag(bag, tmp_path / 'set', choice)
    records = load_coco(tmp_path / 'set' / 'annotations.json').images
    assert len(records) == 3
    step = {'decikelvin': 10, 'optris': 10, 'u10.6': 100 / 64}.get(unit, 1)
    for number, record in enumerate(records):
        stored = read_thermal(record.path)
        assert stored.dtype == np.uint16
        np.testing.assert_allclose(stored, 100 * kelvin(number), atol=step / 2 + 0.6)


def test_a_set_states_its_unit(decikelvin: Path, scenes: Path) -> None:
    coco = load_coco(decikelvin)
    assert {record.unit for record in coco.images} == {'decikelvin'}
    assert {record.unit for record in load_coco(scenes).images} == {CARD}
    frames = list(coco_frames(coco))
    for frame, plain in zip(frames, read_frames(scenes), strict=True):
        assert frame.pixels.dtype == np.float32
        np.testing.assert_allclose(frame.pixels, to_kelvin(plain.pixels, 'centikelvin'), atol=0.06)


def test_training_sees_the_same_temperatures(decikelvin: Path, scenes: Path) -> None:
    pytest.importorskip('lightning', reason='training is not installed')
    from cgdet_core.detection.samples import CocoFrames
    from cgdet_core.runtime.imaging.normalization import Normalization

    spec = Normalization('window')
    pairs = [CocoFrames(load_coco(path), spec)[0]['image'] for path in (decikelvin, scenes)]
    np.testing.assert_allclose(pairs[0], pairs[1], atol=0.003)


def test_an_unknown_unit_of_a_set_is_named(decikelvin: Path) -> None:
    content = json.loads(decikelvin.read_text())
    decikelvin.write_text(json.dumps({**content, 'info': {'unit': 'degrees'}}))
    with pytest.raises(UserError, match=r"set.json: the unit must be one of .*, not 'degrees'"):
        load_coco(decikelvin)


def test_convert_writes_unit_and_polarity(tmp_path: Path) -> None:
    out, _ = convert('yolo', yolo(tmp_path), unit='centikelvin', polarity='black_hot')
    files = sorted(out.glob('*_thermal.json'))
    records = [record for path in files for record in load_coco(path).images]
    assert {(r.unit, r.polarity) for r in records} == {('centikelvin', 'black_hot')}


def test_a_bag_of_a_set_has_the_stored_values(
    run_cgdet: Any, decikelvin: Path, tmp_path: Path,
) -> None:
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    result = run_cgdet('bag', 'from-coco', decikelvin, tmp_path / 'bag')
    assert result.returncode == 0, result.stderr
    for frame, record in zip(read_frames(tmp_path / 'bag'), load_coco(decikelvin).images,
                             strict=True):
        np.testing.assert_array_equal(frame.pixels, read_thermal(record.path))


def test_frames_of_a_camera_are_seen_in_kelvin_and_white_hot(scenes: Path) -> None:
    folder = scenes.parent / 'thermal'
    plain = [frame.pixels for frame in open_path(folder).frames]
    warm = [frame.pixels for frame in viewed(
        open_path(folder), 'centikelvin', '', 'white_hot').frames]
    dark = [frame.pixels for frame in viewed(
        open_path(folder), CARD, 'black_hot', 'white_hot').frames]
    for a, b, c in zip(plain, warm, dark, strict=True):
        np.testing.assert_allclose(b, a / 100.0, atol=1e-4)
        np.testing.assert_array_equal(c, 65535 - a)


@pytest.fixture
def black_hot(scenes: Path, tmp_path: Path) -> Path:
    """Return the same frames of a camera that shows warm objects dark, in a set that says so."""
    content = json.loads(scenes.read_text())
    (tmp_path / 'thermal').mkdir()
    for image in content['images']:
        counts = read_thermal(scenes.parent / image['file_name'])
        cv2.imwrite(str(tmp_path / image['file_name']), 65535 - counts)
    path = tmp_path / 'black.json'
    path.write_text(json.dumps({**content, 'info': {'polarity': 'black_hot'}}))
    return path


def test_a_black_hot_set_is_seen_as_white_hot(black_hot: Path, scenes: Path) -> None:
    for frame, plain in zip(read_frames(black_hot), read_frames(scenes), strict=True):
        np.testing.assert_array_equal(frame.pixels, plain.pixels)
    for frame, record in zip(read_frames(black_hot, polarity='black_hot'),
                             load_coco(black_hot).images, strict=True):
        np.testing.assert_array_equal(frame.pixels, read_thermal(record.path))


def test_training_and_validation_see_a_black_hot_set_as_white_hot(
    black_hot: Path, scenes: Path,
) -> None:
    pytest.importorskip('lightning', reason='training is not installed')
    from cgdet_core.detection.loading import PreparedFrames
    from cgdet_core.detection.samples import CocoFrames
    from cgdet_core.runtime.detection.card import detection_card
    from cgdet_core.runtime.imaging.normalization import Normalization

    spec = Normalization()
    card = detection_card('toy', ('person',), (160, 128), spec)
    pairs = [(CocoFrames(coco, spec)[0]['image'], PreparedFrames(coco, card)[0][1])
             for coco in map(load_coco, (black_hot, scenes))]
    for dark, plain in zip(*pairs, strict=True):
        np.testing.assert_array_equal(dark, plain)


@pytest.mark.parametrize(('info', 'words'), [
    ({'polarity': 'black_hot'}, 'polarity of .*scene_00000.png is black_hot, but toy is normal'),
    ({'unit': 'counts'}, 'unit of .*scene_00000.png is counts, but toy is normalized by temp')])
def test_a_model_of_temperatures_refuses_a_set_without_them(
    info: dict[str, str], words: str, scenes: Path, tmp_path: Path,
) -> None:
    path = tmp_path / 'set.json'
    path.write_text(json.dumps({**json.loads(scenes.read_text()), 'info': info}))
    coco = load_coco(path, scenes.parent)
    with pytest.raises(UserError, match=words):
        coco.check_signal('window', 'toy')
    coco.check_signal('plateau', 'toy')


def test_a_merged_set_keeps_unit_and_polarity_of_each_frame(
    black_hot: Path, scenes: Path, tmp_path: Path,
) -> None:
    merged, _ = merge([black_hot, scenes], tmp_path / 'merged.json')
    assert [r.polarity for r in merged.images] == ['black_hot'] * 12 + [''] * 12
    for frame, plain in zip(coco_frames(merged), 2 * list(read_frames(scenes)), strict=True):
        np.testing.assert_array_equal(frame.pixels, plain.pixels)


def test_a_set_of_a_bag_states_the_polarity(tmp_path: Path) -> None:
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    stored = {START + i * PERIOD: np.rint(100 * kelvin(i)).astype(np.uint16) for i in range(3)}
    bag = write_two_cameras(tmp_path / 'bag', stored, {})
    collect_bag(bag, tmp_path / 'set', Choice(THERMAL, polarity='black_hot'))
    records = load_coco(tmp_path / 'set' / 'annotations.json').images
    for record, pixels in zip(records, stored.values(), strict=True):
        np.testing.assert_array_equal(read_thermal(record.path), pixels)
        np.testing.assert_array_equal(record.read(), 65535 - pixels)


def test_pixels_beyond_16_bits_of_a_temperature_are_counted(
    run_cgdet: Any, tmp_path: Path,
) -> None:
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    frames = {START + i * PERIOD: kelvin(i).astype(np.float32) for i in range(3)}
    for frame in list(frames.values())[1:]:
        frame[:2, :5] = 700.0  # a flame
    bag = write_two_cameras(tmp_path / 'bag', frames, {})
    result = run_cgdet('bag', 'to-dataset', bag, '--thermal-topic', THERMAL, '--output',
                       tmp_path / 'set')
    assert result.returncode == 0, result.stderr
    assert '20 pixels of 2 frames are clipped' in result.stdout
    part, = json.loads((tmp_path / 'set' / 'report.json').read_text())['sources']
    assert (part['clipped_images'], part['clipped_pixels']) == (2, 20)


def test_a_camera_with_dead_pixels_makes_a_set(tmp_path: Path) -> None:
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    frames = {START + i * PERIOD: kelvin(i).astype(np.float32) for i in range(3)}
    for frame in frames.values():
        frame[5, 5:8] = np.nan
    bag = write_two_cameras(tmp_path / 'bag', frames, {})
    part, = collect_bag(bag, tmp_path / 'set', Choice(THERMAL))['sources']
    assert (part['frames'], part['unreadable']) == (3, [])
    for number, record in enumerate(load_coco(tmp_path / 'set' / 'annotations.json').images):
        np.testing.assert_allclose(read_thermal(record.path)[5, 5:8],
                                   100 * kelvin(number)[5, 5:8], atol=50)


@pytest.mark.parametrize(('unit', 'factor'), [('fraction', 65535), ('counts', 1)])
def test_a_set_without_temperatures_says_so(
    unit: str, factor: int, tmp_path: Path,
) -> None:
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    frames = {START + i * PERIOD: ((kelvin(i) - 250) * (1000 / factor)).astype(np.float32)
              for i in range(3)}
    bag = write_two_cameras(tmp_path / 'bag', frames, {})
    collect_bag(bag, tmp_path / 'set', Choice(THERMAL, unit=unit))
    coco = load_coco(tmp_path / 'set' / 'annotations.json')
    for record, frame in zip(coco.images, frames.values(), strict=True):
        assert record.unit == unit
        # The node sees what training sees.
        np.testing.assert_array_equal(record.read(), np.rint(frame * np.float32(factor)))
        np.testing.assert_array_equal(record.read(), seen(frame, unit, '', 'white_hot'))
    with pytest.raises(UserError, match=f'unit of .* is {unit}, but m is normalized by temp'):
        coco.check_signal('window', 'm')


def test_a_faint_scene_of_fractions_is_stretched() -> None:
    frame = np.linspace(0.40, 0.44, 64 * 48, dtype=np.float32).reshape(48, 64)
    normalized = normalize(seen(frame, 'fraction', '', 'white_hot'), Normalization('percentile'))
    assert normalized.min() < 0.01 and normalized.max() > 0.99


def test_a_model_labels_temperatures_and_not_hundredths(tmp_path: Path) -> None:
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    shown: list[np.ndarray] = []

    class Recorder:
        card = detection_card('warm', ('person',), (64, 64), Normalization(
            'window', kelvin_per_count=0.04))  # of its own camera

        def detect(self, frame: np.ndarray, score: float) -> Detections:
            shown.append(frame)
            return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32),
                              np.zeros(0, np.int64))

    bag = write_two_cameras(tmp_path / 'bag', {
        START + i * PERIOD: (kelvin(i) - 273.15).astype(np.float32) for i in range(3)}, {})
    choice = Choice(THERMAL, unit='celsius')
    collect(make_plans([bag], choice), tmp_path / 'set', choice, Recorder())
    for number, frame in enumerate(shown):
        np.testing.assert_allclose(frame, kelvin(number), atol=0.006)
    assert len(shown) == 3


@pytest.mark.parametrize(('unit', 'encode', 'guess'), [
    ('kelvin', lambda k: (k - 273.15).astype(np.float32), 'celsius'),
    ('celsius', lambda k: (k * 100).astype(np.float32), 'counts'),
    ('fraction', lambda k: (k * 10).astype(np.float32), 'counts'),
    ('fraction', lambda k: (k - 400).astype(np.float32), 'celsius'),
    ('counts', lambda k: (k / 400).astype(np.float32), 'fraction'),
    ('centikelvin', lambda k: np.rint(10 * k).astype(np.uint16), 'counts')])
def test_values_that_cannot_be_of_the_stated_unit_are_refused(
    unit: str, encode: Any, guess: str, tmp_path: Path,
) -> None:
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    frames = {START + i * PERIOD: encode(kelvin(i)) for i in range(3)}
    bag = write_two_cameras(tmp_path / 'bag', frames, {})
    words = f'cannot be {unit}; state their unit, which is probably {guess}'
    with pytest.raises(UserError, match=words):
        collect_bag(bag, tmp_path / 'set', Choice(THERMAL, unit=unit))


@pytest.mark.parametrize('arguments', [
    ('detect', 'x.png', '--unit', 'rankine'),
    ('data', 'collect', 'x', '--output', 'y', '--unit', 'rankine'),
    ('data', 'convert', 'yolo', 'x', '--unit', 'rankine')])
def test_commands_name_the_units(run_cgdet: Any, arguments: tuple[str, ...]) -> None:
    result = run_cgdet(*arguments)
    assert result.returncode == 1
    assert '--unit: the unit must be one of counts, fraction, centi' in result.stderr


@pytest.mark.parametrize('arguments', [
    ('detect', 'x.png'), ('bag', 'to-dataset', 'x', '--output', 'y'),
    ('data', 'convert', 'yolo', 'x')])
def test_commands_name_the_polarities(run_cgdet: Any, arguments: tuple[str, ...]) -> None:
    result = run_cgdet(*arguments, '--polarity', 'auto')
    assert result.returncode == 1
    assert "--polarity: the polarity must be white_hot or black_hot, not 'auto'" in result.stderr


def test_what_a_set_states_is_not_applied_again(decikelvin: Path) -> None:
    """An option says it of frames that state nothing, or something else."""
    content = json.loads(decikelvin.read_text())

    def first(unit: str, polarity: str, info: dict[str, str] | None = None) -> np.ndarray:
        decikelvin.write_text(json.dumps(content | {'info': info or {}}))
        return next(viewed(open_path(decikelvin), unit, polarity, 'white_hot').frames).pixels

    warm = first('decikelvin', '')
    assert 200 < warm.mean() < 400
    for unit, polarity, info in (('decikelvin', '', {'unit': 'decikelvin'}),
                                 ('decikelvin', '', {'unit': 'centikelvin'}),
                                 (CARD, '', {'unit': 'decikelvin'}),
                                 ('decikelvin', 'white_hot', {'polarity': 'black_hot'})):
        np.testing.assert_array_equal(first(unit, polarity, info), warm)
    dark = first(CARD, 'black_hot')
    assert (dark == first(CARD, 'black_hot', {'polarity': 'black_hot'})).all()
    assert (dark == first(CARD, '', {'polarity': 'black_hot'})).all()
    assert (dark != first(CARD, '')).any()
