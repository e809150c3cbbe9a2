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

"""The report page: its data against the evaluation, its file, and its figures in Chromium."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
import json
from pathlib import Path
import shutil
import subprocess
import sys
from typing import Any

from browser import Browser, browser, CHROMIUM, url_of
from cgdet_core.cli.report import _validation_frames, report
from cgdet_core.data.coco import CocoSet, ImageRecord, load_coco
from cgdet_core.errors import UserError
from cgdet_core.runtime import Normalization
from cgdet_core.runtime.detection.card import detection_card
from cgdet_core.runtime.detection.postprocess import Detections
import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip('cgdet_core.detection.metrics')
from cgdet_core.detection.analysis import confusion
from cgdet_core.detection.evaluation import measure
from cgdet_core.detection.report import encode, MAX_DETECTIONS, page_data, write_page
from cgdet_core.detection.results import describe, Evaluation, hashes, load, save
from cgdet_core.detection.scores import judge_all, Judged, summarize

Run = Callable[..., subprocess.CompletedProcess]
CLASSES = ('person', '</script><b id="broken">"car" & \'bus\'', 'yes')
MODEL = 'a "model" <img src=x onerror=alert(1)>.onnx'


class FakeSession:
    def describe(self) -> str:
        return 'a test'


class FakeDetector:
    session = FakeSession()


def evaluation(path: Path, coco: CocoSet, each: int = 12, seed: int = 0) -> Evaluation:
    """Return an evaluation of random detections, some of them near the objects."""
    rng = np.random.default_rng(seed)
    card = detection_card('m', coco.classes, (64, 64), Normalization(), class_thresholds={
        coco.classes[0]: 0.4137})
    found = []
    for record in coco.images:
        boxes = record.boxes[rng.integers(0, len(record.boxes), each)] if len(
            record.boxes) else np.zeros((each, 4), np.float32)
        boxes = (boxes + rng.normal(0, 2, (each, 4))).astype(np.float32)
        scores = np.sort(rng.uniform(0.01, 1, each).astype(np.float32))[::-1].copy()
        found.append(Detections(boxes, scores, rng.integers(0, len(coco.classes), each)))
    detector: Any = FakeDetector()
    detector.card = card
    model = path / MODEL
    model.touch()
    return Evaluation(
        describe(model, 'a test', 'cgdet evaluate'), card, hashes([coco]), None, coco.images,
        found, measure(model.name, detector, found, coco))


@pytest.fixture
def results(scenes: Path, tmp_path: Path) -> Evaluation:
    """Return an evaluation of the twelve scenes, with names that HTML and YAML could misread."""
    coco = load_coco(scenes)
    odd = tmp_path / 'it\'s "1" <i>.png'
    shutil.copy(coco.images[0].path, odd)
    records = [replace(coco.images[0], path=odd), *coco.images[1:]]
    return evaluation(tmp_path, CocoSet(scenes, records, CLASSES))


class Scripts(HTMLParser):
    """Collect the scripts, the title and all tags of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: dict[str, str] = {}
        self._inside = ''
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = dict(attrs).get('id') or tag if tag in ('script', 'title') else ''

    def handle_endtag(self, tag: str) -> None:
        self._inside = ''

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._inside] = self.texts.get(self._inside, '') + data


def data_of(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Scripts(path).texts['data'])
    return data


def figures(judged: Judged, label: int, threshold: float) -> dict[str, float]:
    """Return what the page shows of a class at a threshold."""
    right = judged.right[(judged.labels == label) & (judged.scores >= np.float32(threshold))]
    true, objects = int(right.sum()), int(judged.objects[label])
    return {'precision': true / len(right), 'recall': true / objects,
            'F1': 2 * true / (len(right) + objects),
            'false': (len(right) - true) / judged.frames}


def test_the_data_of_the_page_are_those_of_the_evaluation(
    results: Evaluation, tmp_path: Path,
) -> None:
    write_page(results, tmp_path / 'page.html')
    data = data_of(tmp_path / 'page.html')
    assert data == json.loads(json.dumps(page_data(results)))
    judged = judge_all(results.found, results.records, results.card)
    summary = summarize(judged, CLASSES)
    assert (data['frames'], data['floor']) == (12, 0)
    assert data['overall']['AP'] == results.report['AP']
    for label, (name, found) in enumerate(zip(CLASSES, data['classes'])):
        expected = summary['per_class'][name]
        assert found['name'] == name and found['objects'] == judged.objects[label]
        assert found['threshold'] == (0.4137, 0.3, 0.3)[label]
        assert found['ECE'] == expected['ECE']
        assert found['AP50'] == results.report['per_class'][name]['AP50']
        mine = judged.labels == label
        scores = np.array(found['scores'], np.float32)
        assert scores.tolist() == sorted(judged.scores[mine].tolist(), reverse=True)
        shown = found['right'][:int((scores >= np.float32(found['threshold'])).sum())]
        assert shown.count('1') / len(shown) == expected['precision']
        assert shown.count('1') / found['objects'] == expected['recall']
        assert shown.count('0') / data['frames'] == expected['false_per_frame']
        best = figures(judged, label, found['best'])['F1']
        assert best >= max(figures(judged, label, s)['F1'] for s in scores) - 1e-9
    for key in ('threshold', 'best'):
        minimum = np.array([c[key] for c in data['classes']], np.float32)
        counts = sum(confusion(f.above(minimum), r, 3)
                     for f, r in zip(results.found, results.records))
        assert data['confusion'][key] == np.asarray(counts).tolist()


def test_odd_names_stay_text(results: Evaluation, tmp_path: Path) -> None:
    write_page(results, tmp_path / 'page.html')
    page = Scripts(tmp_path / 'page.html')
    assert page.tags.count('script') == 2 and not {'img', 'b', 'i'} & {*page.tags}
    assert page.texts['title'] == f'{MODEL} on annotations.json'
    assert [c['name'] for c in data_of(tmp_path / 'page.html')['classes']] == [*CLASSES]


def test_what_the_annotations_lack_is_noted(results: Evaluation) -> None:
    notes = ' '.join(page_data(results)['notes'])
    assert 'does not know' not in notes and 'have no object of' not in notes
    records = [replace(r, labels=np.minimum(r.labels, 1)) for r in results.records]
    report = {**results.report, 'other_classes': {'dog': 117}, 'prelabels': 1}
    notes = ' '.join(page_data(replace(results, records=records, report=report))['notes'])
    assert 'classes that the model does not know, which are not measured: dog 117.' in notes
    assert f'The frames have no object of {CLASSES[2]}: AP and recall are not defined' in notes
    assert '1 box of the annotations came from a model' in notes


def test_the_worst_frames_show_their_mistakes(results: Evaluation) -> None:
    data = page_data(results)
    assert sum(data['mistakes'].values()) > 0
    for kind, entries in data['worst'].items():
        where = 'truth' if kind == 'missed' else 'found'
        counts = [entry['count'] for entry in entries]
        assert kind != 'missed' or counts == sorted(counts, reverse=True)
        for entry in entries:
            boxes = data['pictures'][entry['picture']][where]
            assert sum(box['kind'] == kind for box in boxes) == entry['count'] > 0


def test_a_page_is_below_ten_megabytes(tmp_path: Path) -> None:
    """Of 200 frames with 100 detections, on pictures that cannot be compressed."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 65535, (1024, 1280), np.uint16)
    cv2.imwrite(str(tmp_path / 'noise.png'), noise)
    boxes = np.array([[10, 10, 60, 90], [300, 200, 400, 260]], np.float32)
    (tmp_path / 'set.json').write_text('{}')
    records = [ImageRecord(i, tmp_path / 'noise.png', 1280, 1024, boxes=boxes,
                           labels=np.array([0, 1]), areas=np.full(2, 900, np.float32),
                           crowd=np.zeros(2, np.int64)) for i in range(200)]
    results = evaluation(
        tmp_path, CocoSet(tmp_path / 'set.json', records, ('person', 'car')), 100)
    write_page(results, tmp_path / 'page.html')
    assert len(data_of(tmp_path / 'page.html')['pictures']) > 5
    assert 500_000 < (tmp_path / 'page.html').stat().st_size < 10_000_000


def test_low_scores_are_left_out_of_a_page_that_would_be_too_large(
    results: Evaluation, monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MAX_DETECTIONS == 200_000
    monkeypatch.setattr('cgdet_core.detection.report.MAX_DETECTIONS', 50)
    data, judged = page_data(results), judge_all(results.found, results.records, results.card)
    assert sum(len(c['scores']) for c in data['classes']) == 50
    assert data['floor'] == np.sort(judged.scores)[-50]
    assert any('limited to 50 detections' in note for note in data['notes'])


def test_a_set_without_objects_has_a_page(tmp_path: Path, results: Evaluation) -> None:
    empty = [replace(r, boxes=r.boxes[:0], labels=r.labels[:0], areas=r.areas[:0],
                     crowd=r.crowd[:0]) for r in results.records]
    for each in (0, 3):
        coco = CocoSet(next(iter(results.sets)), empty, CLASSES)
        made = evaluation(tmp_path, coco, each)
        data = page_data(made)
        assert data['overall']['AP'] is None and not data['worst']['missed']
        assert [c['best'] for c in data['classes']] == [c['threshold'] for c in data['classes']]
        shown = sum(len(f.above(made.card.thresholds)) for f in made.found)
        assert data['mistakes'] == {'missed': 0, 'false': shown, 'confused': 0, 'bad box': 0}


def test_pictures_are_small_and_as_the_network_sees_them() -> None:
    card = detection_card('m', ('person',), (64, 64), Normalization())
    frame = np.tile(np.arange(20000, 22000, dtype=np.uint16), (1000, 1))
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(encode(frame, card)), np.uint8), 0)
    assert picture.shape == (400, 800) and picture[:, 0].max() < 20 < 230 < picture[:, -1].min()


def test_the_file_restores_the_evaluation(results: Evaluation, tmp_path: Path) -> None:
    plain = replace(results, records=load_coco(next(iter(results.sets))).images)
    card = replace(plain.card, classes=('person', 'bicycle', 'car'), class_thresholds={})
    report = {**plain.report, 'per_class': dict(zip(
        card.classes, plain.report['per_class'].values()))}
    plain = replace(plain, card=card, report=report)
    save(plain, tmp_path / 'evaluation.json')
    assert page_data(load(tmp_path / 'evaluation.json')) == page_data(plain)


def test_a_file_that_does_not_fit_is_an_error(
    results: Evaluation, scenes: Path, tmp_path: Path,
) -> None:
    moved = tmp_path / 'annotations.json'
    shutil.copy(scenes, moved)
    plain = replace(results, sets=hashes([load_coco(moved, scenes.parent)]), images=scenes.parent,
                    card=replace(results.card, classes=('person', 'bicycle', 'car'),
                                 class_thresholds={}))
    path = tmp_path / 'evaluation.json'
    save(plain, path)
    assert len(load(path).records) == 12
    moved.rename(tmp_path / 'other.json')
    with pytest.raises(UserError, match='^The annotation .* does not exist; name the file if'):
        load(path)
    assert len(load(path, tmp_path / 'other.json').records) == 12
    (tmp_path / 'other.json').write_text(scenes.read_text() + ' ')
    with pytest.raises(UserError, match='has changed since'):
        load(path, tmp_path / 'other.json')
    values = json.loads(path.read_text())
    for change, words in (({'format': 'x'}, 'is not the evaluation.json'),
                          ({'version': 2}, 'has version 2, but this package reads version 1'),
                          ({'card': 3}, 'cannot be used'), ({'frames': 3}, 'is damaged')):
        path.write_text(json.dumps({**values, **change}))
        with pytest.raises(UserError, match=words):
            load(path, scenes)


def test_the_page_is_installed(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', tmp_path],
                   cwd=root, check=True, capture_output=True)
    installed = {p.name for p in (tmp_path / 'cgdet_core/detection/page').iterdir()}
    assert installed == {p.name for p in (root / 'cgdet_core/detection/page').iterdir()}
    assert installed == {'report.html', 'style.css', 'page.js'}


@pytest.fixture(scope='module')
def chromium() -> Iterator[Browser]:
    """Return a headless browser, 1280 pixels wide."""
    if CHROMIUM is None:
        pytest.skip('no Chromium or Chrome on PATH')
    with browser(CHROMIUM) as page:
        yield page


def shown(page: Browser, label: int) -> dict[str, float]:
    """Return the exact figures of a class in the page; what it shows is rounded."""
    found: dict[str, float] = {}
    for key, digits in (('precision', 3), ('recall', 3), ('F1', 3), ('false', 2)):
        cell = f"document.querySelector('[data-class=\"{label}\"][data-figure=\"{key}\"]')"
        found[key] = float(page.run(f'{cell}.dataset.value'))
        assert page.run(f'{cell}.firstChild.textContent') == f'{found[key]:.{digits}f}'
    return found


def test_the_slider_moves_the_figures(
    chromium: Browser, results: Evaluation, tmp_path: Path,
) -> None:
    write_page(results, tmp_path / 'page.html')
    judged = judge_all(results.found, results.records, results.card)
    chromium.open(url_of(tmp_path / 'page.html'))
    for label, threshold in enumerate((0.4137, 0.3, 0.3)):
        assert shown(chromium, label) == pytest.approx(figures(judged, label, threshold))
    slider = json.loads(chromium.run(
        "JSON.stringify(document.getElementById('slider-0').getBoundingClientRect())"))
    x, y = slider['x'] + 8 + 0.4137 * (slider['width'] - 16), slider['y'] + slider['height'] / 2
    chromium.mouse('Pressed', x, y)
    for share in (0.5, 0.6, 0.7):
        chromium.mouse('Moved', slider['x'] + share * slider['width'], y)
    chromium.mouse('Released', slider['x'] + 0.7 * slider['width'], y)
    dragged = chromium.run('classes[0].value')
    assert 0.65 < dragged < 0.75
    assert shown(chromium, 0) == pytest.approx(figures(judged, 0, dragged))
    assert shown(chromium, 1) == pytest.approx(figures(judged, 1, 0.3))
    assert f'person: {dragged}' in chromium.run("document.getElementById('yaml').textContent")
    chromium.key('ArrowLeft')
    assert chromium.run('classes[0].value') == pytest.approx(dragged - 0.01)
    assert chromium.run('location.hash') == f'#person={round(dragged - 0.01, 3):g}'
    counts = [judged.right[(judged.labels == label) & (judged.scores >= np.float32(t))]
              for label, t in enumerate((dragged - 0.01, 0.3, 0.3))]
    total = chromium.run("document.querySelector('[data-figure=all-false]').dataset.value")
    assert float(total) == pytest.approx(sum((~c).sum() for c in counts) / 12)
    assert not [e for e in chromium.events if e.get('method') == 'Runtime.exceptionThrown']


def test_the_address_sets_the_thresholds(
    chromium: Browser, results: Evaluation, tmp_path: Path,
) -> None:
    write_page(results, tmp_path / 'it is "odd" #1.html')
    judged = judge_all(results.found, results.records, results.card)
    chromium.open(url_of(tmp_path / 'it is "odd" #1.html', 'person=0.6&yes=0.25&nothing=1&%=2'))
    for label, threshold in enumerate((0.6, 0.3, 0.25)):
        assert shown(chromium, label) == pytest.approx(figures(judged, label, threshold))


def test_odd_names_in_the_browser(
    chromium: Browser, results: Evaluation, tmp_path: Path,
) -> None:
    write_page(results, tmp_path / 'page.html')
    chromium.open(url_of(tmp_path / 'page.html'))
    assert chromium.run('document.title') == f'{MODEL} on annotations.json'
    assert chromium.run("[...document.querySelectorAll('.card h3')].map("
                        '(h) => h.firstChild.textContent)') == [*CLASSES]
    assert chromium.run("document.querySelector('#broken, img, i')") is None
    lines = chromium.run("document.getElementById('yaml').textContent")
    assert yaml.safe_load(lines)['/**']['ros__parameters']['class_thresholds'] == dict(
        zip(CLASSES, (0.4137, 0.3, 0.3)))
    wanted = {e['params']['request']['url'].split(':')[0] for e in chromium.events
              if e.get('method') == 'Network.requestWillBeSent'}
    assert wanted <= {'file', 'data'}
    assert not [e for e in chromium.events if e.get('method') == 'Runtime.exceptionThrown']


def test_a_frame_is_enlarged_by_keyboard(
    chromium: Browser, results: Evaluation, tmp_path: Path,
) -> None:
    write_page(results, tmp_path / 'page.html')
    chromium.open(url_of(tmp_path / 'page.html'))
    chromium.run("document.querySelector('.frames button').focus()")
    chromium.key('Enter')
    name = "document.getElementById('viewer-words').textContent"
    assert chromium.run("document.getElementById('viewer').open")
    assert 'Frame 1 of' in chromium.run(name)
    chromium.key('ArrowRight')
    assert 'Frame 2 of' in chromium.run(name)
    chromium.key('Escape')
    assert not chromium.run("document.getElementById('viewer').open")


def test_classes_that_the_model_does_not_know_are_named(
    chromium: Browser, results: Evaluation, tmp_path: Path,
) -> None:
    write_page(results, tmp_path / 'page.html')
    chromium.open(url_of(tmp_path / 'page.html'))
    words = "document.getElementById('others')"
    assert chromium.run(f'{words}.hidden')
    dogs = {'dog': 117, '<i>"cat"</i>': 1}
    write_page(replace(results, report={**results.report, 'other_classes': dogs}),
               tmp_path / 'page.html')
    chromium.open(url_of(tmp_path / 'page.html'))
    assert not chromium.run(f'{words}.hidden')
    assert chromium.run(f'{words}.textContent').endswith('classes: dog (117), <i>"cat"</i> (1)')
    rows = chromium.run("[...document.querySelectorAll('#groups table:first-child tbody tr')].map("
                        "(row) => row.textContent).join('|')")
    assert 'dog, not measured117––' in rows


MARKS = """(() => {
  const inside = [], boxes = [];
  for (const card of document.querySelectorAll('.card')) {
    const slider = card.querySelector('input[type=range]').getBoundingClientRect();
    const marks = [...card.querySelectorAll('.marks span')].map((m) => m.getBoundingClientRect());
    inside.push(...marks.map((m) => m.left >= slider.left && m.right <= slider.right));
    boxes.push(marks[0].bottom <= marks[1].top + 0.5);
  }
  return JSON.stringify([inside, boxes]);
})()"""


@pytest.mark.parametrize('thresholds', [(0.01, 0.99, 0.5), (0.99, 0.02, 0.4)])
@pytest.mark.parametrize('width', [320, 390, 1280])
def test_the_marks_of_the_slider_are_below_it_and_apart(
    chromium: Browser, results: Evaluation, tmp_path: Path, width: int,
    thresholds: tuple[float, ...],
) -> None:
    card = replace(results.card, class_thresholds=dict(zip(CLASSES, thresholds)))
    write_page(replace(results, card=card), tmp_path / 'page.html')
    chromium.call('Emulation.setDeviceMetricsOverride', width=width, height=800,
                  deviceScaleFactor=1, mobile=width < 600)
    chromium.open(url_of(tmp_path / 'page.html'))
    inside, apart = json.loads(chromium.run(MARKS))
    assert inside == [True] * 6 and apart == [True] * 3
    chromium.call('Emulation.setDeviceMetricsOverride', width=1280, height=900,
                  deviceScaleFactor=1, mobile=False)


@pytest.mark.parametrize('width', [390, 1280])
def test_the_page_fits_its_width(
    chromium: Browser, results: Evaluation, tmp_path: Path, width: int,
) -> None:
    dogs = {'dog': 117, 'a class with a long name ' * 3: 1}
    write_page(replace(results, report={**results.report, 'other_classes': dogs}),
               tmp_path / 'page.html')
    chromium.call('Emulation.setDeviceMetricsOverride', width=width, height=800,
                  deviceScaleFactor=1, mobile=width < 600)
    chromium.open(url_of(tmp_path / 'page.html'))
    assert chromium.run('document.documentElement.scrollWidth') == width
    chromium.call('Emulation.setDeviceMetricsOverride', width=1280, height=900,
                  deviceScaleFactor=1, mobile=False)


def test_evaluate_and_report_write_the_same_page(
    run_cgdet: Run, onnx_model: Path, scenes: Path, tmp_path: Path,
) -> None:
    result = run_cgdet('evaluate', onnx_model, '--data', scenes, '--output', tmp_path / 'out',
                       '--report', tmp_path / 'page.html', '--json', tmp_path / 'numbers.json')
    assert result.returncode == 0, result.stderr
    result = run_cgdet('report', tmp_path / 'out')
    assert result.returncode == 0, result.stderr
    page, again = (data_of(p) for p in (tmp_path / 'page.html', tmp_path / 'out/report.html'))
    assert page == again
    numbers = json.loads((tmp_path / 'numbers.json').read_text())
    assert page['overall'] == {k: numbers[k] for k in ('AP', 'AP50')}
    assert {c['name']: c['ECE'] for c in page['classes']} == {
        name: values['ECE'] for name, values in numbers['scores']['per_class'].items()}


@pytest.mark.parametrize(('source', 'output', 'sentence'), [
    ('', None, 'report.html already exists'),
    ('', 'page.txt', 'must be an .html file'),
    ('numbers.json', 'page.html', 'is not the evaluation.json'),
    ('nothing', 'page.html', 'nothing does not exist'),
    ('tiny.onnx', 'page.html', 'is a model; use "cgdet evaluate'),
    ('', 'page.html', 'neither the best.ckpt of a training run nor the evaluation.json')])
def test_what_has_no_report_is_an_error(
    tmp_path: Path, source: str, output: str | None, sentence: str,
) -> None:
    (tmp_path / 'report.html').touch()
    (tmp_path / 'numbers.json').write_text('{"AP": 0.3}')
    with pytest.raises(UserError, match=sentence):
        report(tmp_path / source, tmp_path / output if output else None)
    assert {p.name for p in tmp_path.iterdir()} == {'report.html', 'numbers.json'}


@pytest.mark.parametrize('training', [
    {}, {'recipe': None, 'data': None, 'scores': []}, {'recipe': {'data': 'x'}, 'data': 5}])
def test_a_card_whose_record_is_odd_is_no_crash(
    training: dict, results: Evaluation, tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match='does not say where its validation set is'):
        _validation_frames(tmp_path, None, training)
    card = replace(results.card, training=training)
    assert page_data(replace(results, card=card))['overall'] == page_data(results)['overall']


def test_report_of_a_bag(
    run_cgdet: Run, onnx_model: Path, scenes: Path, tmp_path: Path,
) -> None:
    bag, out = tmp_path / 'bag', tmp_path / 'out'
    pytest.importorskip('rosbags.rosbag2', reason='rosbags is not installed')
    assert run_cgdet('bag', 'from-coco', scenes, bag, '--encoding', 'mono16').returncode == 0
    result = run_cgdet('bag', 'evaluate', onnx_model, bag, '--data', scenes, '--output', out,
                       '--report', tmp_path / 'page.html')
    assert result.returncode == 0, result.stderr
    result = run_cgdet('report', out / 'evaluation.json')
    assert result.returncode == 0, result.stderr
    page = data_of(tmp_path / 'page.html')
    assert page == data_of(out / 'report.html')
    assert page['frames'] == 12 and page['pictures'][0]['name'].startswith('bag 1700')


def test_report_of_a_run(
    run_cgdet: Run, trained: Path, recipe_values: dict, scenes: Path, tmp_path: Path,
) -> None:
    page = tmp_path / 'page.html'
    result = run_cgdet('report', trained, '--data', scenes, '--output', page)
    assert result.returncode == 0, result.stderr
    assert data_of(page)['model'] == 'best.ckpt' and data_of(page)['frames'] == 12
    folder = tmp_path / 'run'
    folder.mkdir()
    shutil.copy(trained / 'best.ckpt', folder)
    result = run_cgdet('report', folder)
    assert result.returncode == 1 and 'where annotations.json is; name the file (--data)' in (
        result.stderr)
    (folder / 'recipe.yaml').write_text(yaml.safe_dump(recipe_values))
    result = run_cgdet('report', folder)
    assert result.returncode == 0, result.stderr
    assert data_of(folder / 'report.html')['classes'] == data_of(page)['classes']
