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

"""What README and the first tutorials have a person type, typed in a new folder on small data."""

from collections.abc import Callable, Iterator
import json
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys

from cgdet_core.data.coco import load_coco
from cgdet_core.data.synthetic import write_coco
from cgdet_core.data.video import open_video
import cv2
import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL = ['input_size=[64,64]', 'optim.epochs=1', 'optim.batch_size=4', 'run.workers=0']
Type = Callable[..., str]


def lines_of(document: str) -> list[str]:
    """Return the lines of a document's commands, comments left out."""
    text = (ROOT / document).read_text()
    blocks = ''.join(body for kind, body in re.findall(r'^```(\w*)\n(.*?)^```', text, re.M | re.S)
                     if not kind)
    lines = [shlex.join(shlex.split(line, comments=True))
             for line in re.sub(r' \\\n +', ' ', blocks).splitlines() if 'cgdet ' in line]
    return [line for whole in lines for line in whole.split(" '&&' ")]


@pytest.fixture
def typed(tmp_path: Path) -> Iterator[Type]:
    """Return a function that types a command in a new folder and returns what it printed."""
    (tmp_path / 'config').symlink_to(ROOT / 'config')
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(
        [str(ROOT), os.environ.get('PYTHONPATH', '')])}

    def type_(line: str, *more: str, status: int = 0) -> str:
        words = shlex.split(line)
        assert words[0] == 'cgdet'
        result = subprocess.run(
            [sys.executable, '-m', 'cgdet_core', *words[1:], *more], capture_output=True,
            text=True, cwd=tmp_path, env=environment, timeout=600)
        assert result.returncode == status, result.stderr
        return result.stdout + result.stderr

    yield type_


def test_the_first_page_detects_trains_and_leads_on(typed: Type, tmp_path: Path) -> None:
    pytest.importorskip('lightning', reason='training is not installed')
    annotations = write_coco(tmp_path, 24, 3, 3, (160, 128))
    annotations.rename(tmp_path / 'all.json')
    shutil.copy(load_coco(tmp_path / 'all.json').images[0].path, tmp_path / 'image.png')
    page = [line for line in lines_of('README.md') if line.startswith('cgdet ')]
    detect, split, check, train = page
    assert '1/1 image.png: ' in typed(detect)
    assert 'all_train.json: ' in typed(split) and 'The sheets are in' in typed(check)
    said = typed(train, *SMALL)
    assert (tmp_path / 'runs/fine_tune/confusion.png').is_file()
    steps = said[said.index('Next: ') + 6:].splitlines()
    report, export, fit, evaluate = (line.strip() for line in steps[:4])
    assert 'open it in a browser' in typed(report)
    assert 'fine_tune.onnx: fp32' in typed(export)
    assert 'too few objects to fit scores' in typed(fit, status=1)  # of so few frames
    assert 'AP50' in typed(evaluate)


def test_the_first_tutorial_detects_in_a_folder_a_bag_and_a_video(
    typed: Type, tmp_path: Path,
) -> None:
    annotations = write_coco(tmp_path / 'set', 3, 3, 3, (160, 128))
    paths = [record.path for record in load_coco(annotations).images]
    typed('cgdet bag from-coco set/' + annotations.name + ' my_bag')
    (tmp_path / 'my_folder').mkdir()
    for path in paths:
        shutil.copy(path, tmp_path / 'my_folder')
    with open_video(tmp_path / 'clip.mp4', 10) as write:
        for path in paths:
            write(cv2.cvtColor((cv2.imread(str(path), -1) >> 6).astype('uint8'),
                               cv2.COLOR_GRAY2BGR))
    line, = [line for line in lines_of('docs/tutorials/first_run.md') if ' detect ' in line]
    said = typed(line)
    assert '9 frames: ' in said
    made = {path.name for path in (tmp_path / 'detections').iterdir()}
    assert made == {'detections.json', 'pictures', 'clip.mp4', 'my_bag.mp4'}


def test_sets_are_collected_labeled_merged_and_shown(typed: Type, tmp_path: Path) -> None:
    annotations = write_coco(tmp_path / 'drives' / 'frames', 4, 3, 3, (160, 128))
    typed('cgdet data collect drives/frames/thermal --output sets/train --model shipped')
    found = json.loads((tmp_path / 'sets/train/annotations.json').read_text())
    assert len(found['images']) == 4
    labels = json.loads(annotations.read_text())  # as an annotation tool exports them
    for image in labels['images']:
        image['file_name'] = Path(image['file_name']).name
    (tmp_path / 'instances_default.json').write_text(json.dumps(labels))
    tutorial = lines_of('docs/tutorials/train_on_your_drives.md')
    relabel = next(line for line in tutorial if 'data relabel' in line)
    assert 'labelled.json: 4 frames' in typed(relabel)
    shutil.copytree(tmp_path / 'sets/train', tmp_path / 'sets/val')
    typed('cgdet data check sets/train/labelled.json')
    assert 'merged.json: 8 frames' in typed(
        'cgdet data merge sets/train/labelled.json sets/val/labelled.json')
    assert 'look.png: 8 frames' in typed('cgdet data show merged.json --output look.png')
    assert 'images/train: 8 frames' in typed('cgdet data to-yolo merged.json --output my_yolo')
