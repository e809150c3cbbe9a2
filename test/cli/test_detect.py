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

"""`cgdet detect` as a user runs it, with the shipped model."""

from functools import partial
import json
import os
from pathlib import Path
import resource
import shutil
import signal
from socket import create_server
import subprocess
import sys

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / 'models' / 'thermal_int8.onnx'


def start(folder: Path, *arguments: object, **options: object) -> subprocess.Popen:
    """Start `cgdet detect` in a folder."""
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    return subprocess.Popen(  # type: ignore[call-overload]
        [sys.executable, '-m', 'cgdet_core', 'detect', *map(str, arguments)], cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'PYTHONPATH': path}, **options)


@pytest.fixture()
def many(scenes: Path, tmp_path: Path) -> Path:
    """Return a folder of more images than anybody waits for."""
    folder = tmp_path / 'many'
    folder.mkdir()
    shutil.copy(next((scenes.parent / 'thermal').iterdir()), folder / '0000.png')
    for i in range(1, 2000):
        (folder / f'{i:04d}.png').hardlink_to(folder / '0000.png')
    return folder


def test_the_shipped_model_and_a_new_folder_by_default(scenes: Path, tmp_path: Path) -> None:
    """A bad image is named, the rest is done; a photo is recognized; nothing is overwritten."""
    (tmp_path / 'detections').mkdir()
    shutil.copy(next((scenes.parent / 'thermal').iterdir()), tmp_path / 'good.png')
    (tmp_path / 'bad.png').write_text('no pixels')
    photo = np.zeros((128, 160, 3), np.uint8)
    photo[40:80] = (0, 0, 255)
    cv2.imwrite(str(tmp_path / 'photo.png'), photo)
    run = start(tmp_path, 'good.png', 'bad.png', 'photo.png', '--format', 'coco', '--format',
                'jsonl')
    said, complaints = run.communicate()
    assert run.returncode == 1
    assert complaints.splitlines() == [
        'cgdet: bad.png is not an image in one of the formats PNG, JPEG, TIFF, BMP, PNM, it '
        'begins with 6e 6f 20 70.',
        'cgdet: 1 frame or source could not be read.']
    assert '1/3 good.png: ' in said and 'photo.png is in color' in said and '2 frames: ' in said
    assert not list((tmp_path / 'detections').iterdir())
    out = tmp_path / 'detections_2'
    assert {path.name for path in out.iterdir()} == {
        'detections.json', 'detections.jsonl', 'pictures'}
    images = json.loads((out / 'detections.json').read_text())['images']
    assert [image['file_name'] for image in images] == ['good.png', 'photo.png']


def test_without_objects_it_says_how_lower_scores_are_shown(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'wall.png'), np.full((128, 160), 90, np.uint8))
    run = start(tmp_path, 'wall.png', '--model', MODEL)
    said, complaints = run.communicate()
    assert (run.returncode, complaints) == (0, '')
    assert 'Boxes with lower scores are shown with --score-threshold 0.1.' in said
    run = start(tmp_path, 'wall.png', '--model', MODEL, '--score-threshold', '0.1')
    assert 'lower scores' not in run.communicate()[0]


@pytest.mark.parametrize(('number', 'status', 'word'), [
    (signal.SIGINT, 130, 'interrupted'), (signal.SIGTERM, 143, 'stopped')])
def test_after_a_signal_the_files_contain_what_was_done(
    many: Path, tmp_path: Path, number: signal.Signals, status: int, word: str,
) -> None:
    run = start(tmp_path, MODEL, many, '--output', 'out')
    assert run.stdout is not None
    while '3/2000 ' not in run.stdout.readline():
        assert run.poll() is None
    run.send_signal(number)
    _, complaints = run.communicate()
    done = len(json.loads((tmp_path / 'out' / 'detections.json').read_text())['images'])
    assert run.returncode == status and 3 <= done < 2000
    assert complaints == f'cgdet: {word}; {done} frames done.\n'
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {'detections.json', 'pictures'}


def test_an_interruption_before_the_first_frame_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('no_proxy', '*')
    with create_server(('127.0.0.1', 0)) as server:  # which never answers
        address = f'http://127.0.0.1:{server.getsockname()[1]}/a.png'
        run = start(tmp_path, address, '--output', 'out')
        connection, _ = server.accept()
        run.send_signal(signal.SIGINT)
        said, complaints = run.communicate()
        connection.close()
    assert (run.returncode, said, complaints) == (130, '', 'cgdet: interrupted.\n')
    assert not list(tmp_path.iterdir())


def test_after_a_full_disk_the_frames_before_it_remain(many: Path, tmp_path: Path) -> None:
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    run = start(tmp_path, MODEL, many, '--output', 'out', '--score-threshold', 0,
                preexec_fn=limit)
    _, complaints = run.communicate()
    lines = (tmp_path / 'out' / 'detections.jsonl').read_text().splitlines(keepends=True)
    done = sum(line.endswith('\n') for line in lines)
    assert done > 1 and all(json.loads(line)['objects'] for line in lines[:done])
    assert run.returncode == 1 and len(complaints.splitlines()) == 1
    assert complaints.startswith('cgdet: File too large: out/detections.json')
    assert complaints.endswith(f'; {done} frames done.\n')


def test_a_list_on_standard_input(scenes: Path, tmp_path: Path) -> None:
    paths = sorted((scenes.parent / 'thermal').iterdir())[:2]
    run = start(tmp_path, '-', '--model', MODEL, '--classes', 'car', '--format', 'csv',
                stdin=subprocess.PIPE)
    said, complaints = run.communicate(''.join(f'{path}\n' for path in paths))
    assert run.returncode == 0 and not complaints, complaints
    assert '2/2 ' in said and 'person' not in said
    names = {path.name for path in (tmp_path / 'detections').iterdir()}
    assert names == {'detections.csv', 'pictures'}


@pytest.mark.parametrize(('arguments', 'words'), [
    ((MODEL,), 'Name what to detect in after the model'),
    (('http://host/m.onnx', 'a.png'), 'http://host/m.onnx is an address; download the file'),
    (('a.png', '--model', 'http://host/m.onnx'), 'http://host/m.onnx is an address'),
    (('a.png', MODEL), 'a model comes before the sources'),
    (('a.png', '--model', MODEL.with_suffix('.json')), 'a JSON file, not a model'),
    (('/dev/video99', '--model', 'none.onnx'), 'none.onnx does not exist'),
    (('a.png', '--format', 'voc'), "no format 'voc'; choose from coco, jsonl, yolo, csv"),
    (('a.png', '--show'), '--show requires a display')])
def test_a_mistake_is_one_sentence_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], words: str,
) -> None:
    monkeypatch.delenv('DISPLAY', raising=False)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((60, 80), np.uint8))
    run = start(tmp_path, *arguments)
    said, complaints = run.communicate()
    assert run.returncode == 1 and not said
    assert words in complaints and len(complaints.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']
