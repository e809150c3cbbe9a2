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

"""The Python door: `cgdet_core.load`, the detector called with files and arrays, its result."""

import csv
from io import BytesIO, StringIO
from pathlib import Path
import subprocess
import sys

import cgdet_core as cg
from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector, Result
from cgdet_core.runtime.detection.result import Detection
import cv2
import numpy as np
import pytest
from toy_model import write_toy

ROOT = Path(__file__).resolve().parents[2]
RAMP = np.tile(np.arange(0, 256, 4, np.uint8), (64, 1))  # the toy detects all its classes in it


@pytest.fixture(scope='module')
def toy(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return cg.load(write_toy(tmp_path_factory.mktemp('toy') / 'toy.onnx'), score_threshold=0.1)


def same(a: Result, b: Result) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ('boxes', 'scores', 'labels'))


def test_importing_the_package_is_light() -> None:
    code = ('import sys, cgdet_core; print(cgdet_core.__version__); '
            'assert not {"numpy", "cv2", "torch"} & set(sys.modules)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f'<version>{done.stdout.strip()}</version>' in (ROOT / 'package.xml').read_text()
    assert f"version='{cg.__version__}'" in (ROOT / 'setup.py').read_text()
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        cg.lod  # type: ignore[attr-defined]  # noqa: B018


def test_the_shipped_model_is_the_default_and_detects_without_torch() -> None:
    code = ('import sys, numpy, cgdet_core as cg; d = cg.load(backend="onnxruntime", threads=1); '
            'assert d.card.classes == ("person", "bicycle", "car"); '
            'print(d(numpy.zeros((60, 80), numpy.uint16))); assert "torch" not in sys.modules')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, 'no objects\n'), done.stderr


def test_files_and_arrays_of_any_shape_give_the_same_detections(
    toy: Detector, tmp_path: Path,
) -> None:
    found = toy(RAMP)
    assert len(found) and same(found, Result(*vars(toy.detect(RAMP)).values(), RAMP, toy.card))
    assert found.frame is RAMP  # not copied
    path = tmp_path / 'x.png'
    cv2.imwrite(str(path), RAMP)
    three = np.dstack([RAMP] * 3)
    for image in (path, str(path), RAMP[..., None], three, cv2.imread(str(path)),
                  np.dstack([three, np.full(RAMP.shape, 255, np.uint8)])):
        assert same(toy(image), found)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_equal_channels_keep_their_values_in_every_depth(toy: Detector, dtype: type) -> None:
    frame = (RAMP.astype(dtype) * dtype(1.1)).astype(dtype)
    np.testing.assert_array_equal(toy(np.dstack([frame] * 3)).frame, frame)
    reversed_view = np.dstack([frame] * 3)[::-1, :, ::-1]
    np.testing.assert_array_equal(toy(reversed_view).frame, frame[::-1])


def test_color_becomes_gray_as_in_the_node(toy: Detector) -> None:
    color = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    gray = cv2.cvtColor(color, cv2.COLOR_BGR2GRAY)
    np.testing.assert_array_equal(toy(color).frame, gray)
    assert same(toy(color), toy(gray))


@pytest.mark.parametrize(('image', 'error', 'words'), [
    ('no.png', UserError, 'no.png does not exist'),
    ('http://host/x.png', UserError, 'http://host/x.png does not exist'),
    (ROOT, UserError, 'is not an image file'),
    (ROOT / 'README.md', UserError, 'is not an image in one of the formats PNG, JPEG'),
    ([RAMP], TypeError, 'a file or a numpy array, not list'),
    (None, TypeError, 'not NoneType'),
    (np.zeros((3, 60, 80), np.uint8), ValueError, r'has shape \(3, 60, 80\)'),
    (np.zeros((0, 80), np.uint8), ValueError, 'not empty'),
    (np.zeros((60, 80)), ValueError, 'this one is float64'),
    (np.full((60, 80), np.nan, np.float32), ValueError, 'NaN'),
])
def test_anything_else_is_refused_in_a_sentence(
    toy: Detector, image: object, error: type[Exception], words: str,
) -> None:
    with pytest.raises(error, match=words):
        toy(image)  # type: ignore[arg-type]


def test_a_threshold_is_of_the_detector_or_of_one_call(tmp_path: Path) -> None:
    path = write_toy(tmp_path / 'toy.onnx')
    everything = cg.load(path, score_threshold=0.0)(RAMP)
    best = float(everything.scores[0])
    few, above = cg.load(path)(RAMP, best), everything.above(best)
    assert len(everything) > len(few) == len(above) == (everything.scores >= best).sum()
    assert isinstance(above, Result) and same(above, few)
    with pytest.raises(ValueError, match='score_threshold must be a number'):
        cg.load(path, score_threshold=2)
    with pytest.raises(ValueError, match='a checkpoint runs in PyTorch'):
        cg.load('best.ckpt', backend='tensorrt')
    with pytest.raises(UserError, match='no.onnx does not exist'):
        cg.load(tmp_path / 'no.onnx')


def test_a_checkpoint_is_loaded_too(trained: Path) -> None:
    assert len(cg.load(trained / 'last.ckpt', score_threshold=0.0)(RAMP)) > 0


def test_the_result_prints_iterates_and_converts(toy: Detector) -> None:
    found = toy(RAMP)
    counts = {name: found.names.count(name) for name in toy.card.classes}
    assert str(found) == ', '.join(f'{n} {name}' for name, n in counts.items() if n)
    assert repr(found) == f'<Result: {found}>'
    each = list(found)
    assert len(each) == len(found) and each[-1] == found[-1] and isinstance(each[0], Detection)
    assert [d.name for d in each] == found.names
    assert [d.label for d in each] == found.labels.tolist()
    np.testing.assert_array_equal([d.box for d in each], found.boxes)
    rows, coco = found.to_rows(), found.to_coco(7)
    assert rows[0] == {'name': each[0].name, 'score': each[0].score,
                       **dict(zip(('x1', 'y1', 'x2', 'y2'), each[0].box))}
    csv.DictWriter(StringIO(), list(rows[0])).writerows(rows)
    x1, y1, x2, y2 = each[0].box
    assert coco[0] == {'image_id': 7, 'category_id': each[0].label + 1, 'score': each[0].score,
                       'bbox': [x1, y1, x2 - x1, y2 - y1]}
    assert len(rows) == len(coco) == len(found)


def test_an_empty_result(toy: Detector) -> None:
    found = toy(RAMP, 1.1)
    assert str(found) == 'no objects' and not found and list(found) == []
    assert found.to_rows() == found.to_coco(1) == found.names == []
    assert found.draw().shape == (*RAMP.shape, 3)


def test_the_result_draws_itself(toy: Detector, tmp_path: Path) -> None:
    found = toy(RAMP)
    picture = found.draw()
    assert picture.shape == (*RAMP.shape, 3) and picture.dtype == np.uint8
    assert (picture[..., 0] != picture[..., 2]).any()
    shown = cv2.imdecode(np.frombuffer(BytesIO(found._repr_png_()).read(), np.uint8), 1)
    np.testing.assert_array_equal(shown, picture)
    np.testing.assert_array_equal(cv2.imread(str(found.save(tmp_path / 'x.png'))), picture)


def test_supervision(toy: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'supervision', None)
        with pytest.raises(UserError, match='pip install supervision'):
            toy(RAMP).to_supervision()
    pytest.importorskip('supervision', reason='supervision is not installed')
    found, empty = toy(RAMP), toy(RAMP, 1.1)
    np.testing.assert_array_equal(found.to_supervision().xyxy, found.boxes)
    assert found.to_supervision()['class_name'].tolist() == found.names
    assert len(empty.to_supervision()) == 0
