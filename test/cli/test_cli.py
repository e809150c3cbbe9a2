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

"""The command line as a user runs it."""

from collections.abc import Callable
import json
from pathlib import Path
import resource
import shutil
import subprocess

from cgdet_core.data.bags.io import START_NS
from cgdet_core.data.sources import bag_frames
from cgdet_core.data.synthetic import write_coco
from cgdet_core.runtime import Detector
from cgdet_core.runtime.imaging.frames import read_thermal
import cv2
import numpy as np
import pytest

Run = Callable[..., subprocess.CompletedProcess]


def test_evaluate_checkpoint_and_onnx_give_the_same_numbers(
    run_cgdet: Run, trained: Path, onnx_model: Path, scenes: Path, tmp_path: Path,
) -> None:
    reports = []
    for i, model in enumerate((trained / 'last.ckpt', onnx_model)):
        result = run_cgdet('evaluate', model, '--data', scenes, '--json', tmp_path / f'{i}.json')
        assert result.returncode == 0, result.stderr
        reports.append(json.loads((tmp_path / f'{i}.json').read_text()))
    for key in ('AP', 'AP50', 'AP75'):
        assert 0 <= reports[0][key] <= 1
        assert reports[0][key] == pytest.approx(reports[1][key], abs=1e-3)
    assert set(reports[0]['per_class']) == {'person', 'bicycle', 'car'}
    assert set(reports[0]['per_class']['car']) == {'AP', 'AP50'}
    assert reports[0]['images'] == 12


def test_a_damaged_image_costs_itself_and_the_exit_status(
    run_cgdet: Run, onnx_model: Path, tmp_path: Path,
) -> None:
    data = write_coco(tmp_path, 3, 1, 3, (160, 128))
    (tmp_path / 'thermal' / 'scene_00001.png').write_bytes(b'damaged')
    report = tmp_path / 'report.json'
    result = run_cgdet('evaluate', onnx_model, '--data', data, '--json', report)
    assert result.returncode == 1 and 'scene_00001.png is not an image' in result.stderr
    assert '1 of 3 frames could not be read' in result.stderr
    assert json.loads(report.read_text())['images'] == 2
    model = Path(shutil.copy(onnx_model, tmp_path / 'm.onnx'))
    card = Path(shutil.copy(onnx_model.with_suffix('.json'), tmp_path / 'm.json'))
    before = card.read_bytes()
    result = run_cgdet('fit-scores', model, '--data', data)
    assert result.returncode == 1 and card.read_bytes() == before
    assert 'The cards are unchanged, as 1 of 3 frames could not be read' in result.stderr
    result = run_cgdet('verify', model, '--against', model, '--data', data,
                       '--score-threshold', 0.001)
    assert result.returncode == 1 and '1 frame could not be read' in result.stderr


def test_a_damaged_image_of_a_set_leaves_its_time_in_the_bag_empty(
    run_cgdet: Run, tmp_path: Path,
) -> None:
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    data, bag = write_coco(tmp_path, 3, 1, 3, (160, 128)), tmp_path / 'bag'
    (tmp_path / 'thermal' / 'scene_00001.png').write_bytes(b'damaged')
    result = run_cgdet('bag', 'from-coco', data, bag)
    assert result.returncode == 1 and 'scene_00001.png is not an image' in result.stderr
    assert '1 of 3 frames could not be read' in result.stderr and 'bag: 2 frames' in result.stdout
    kept = [tmp_path / 'thermal' / f'scene_0000{i}.png' for i in (0, 2)]
    for frame, path, number in zip(bag_frames(bag), kept, (0, 2), strict=True):
        np.testing.assert_array_equal(frame.pixels, read_thermal(path))
        assert frame.stamp_ns == START_NS + number * 10**8
    truth = json.loads((tmp_path / 'bag_truth.json').read_text())
    assert [image['stamp_ns'] - START_NS for image in truth['images']] == [0, 2 * 10**8]
    for path in kept:
        path.write_bytes(b'damaged')
    result = run_cgdet('bag', 'from-coco', data, tmp_path / 'none')
    assert result.returncode == 1 and 'could be read; no bag was written' in result.stderr
    assert not (tmp_path / 'none').exists()


def test_update_card(run_cgdet: Run, onnx_model: Path, scenes: Path, tmp_path: Path) -> None:
    for path in (onnx_model, onnx_model.with_suffix('.json')):
        shutil.copy(path, tmp_path)
    model = tmp_path / onnx_model.name
    assert run_cgdet('evaluate', model, '--data', scenes, '--update-card').returncode == 0
    accuracy = json.loads(model.with_suffix('.json').read_text())['accuracy']
    assert accuracy['annotations.json']['images'] == 12
    assert run_cgdet('evaluate', model, '--data', scenes).returncode == 0
    for command in (('evaluate', '--update-card', 'thermal_small'),
                    ('fit-scores', 'thermal_small'), ('track', 'fit-scores', 'thermal_tracker')):
        refused = run_cgdet(*command, '--data', scenes)
        assert refused.returncode == 1
        assert 'is a model of the package, whose card' in refused.stderr, command


def test_detect_in_images_folders_videos_and_bags(
    run_cgdet: Run, onnx_model: Path, scenes: Path, tmp_path: Path,
) -> None:
    folder = scenes.parent / 'thermal'
    picture = shutil.copy(sorted(folder.iterdir())[0], tmp_path / 'alone.png')
    video = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*'MJPG'), 10, (160, 128))
    for _ in range(3):
        writer.write(np.random.default_rng(0).integers(0, 255, (128, 160, 3), np.uint8))
    writer.release()
    assert run_cgdet('bag', 'from-coco', scenes, tmp_path / 'bag').returncode == 0
    out = tmp_path / 'out'
    result = run_cgdet('detect', onnx_model, picture, folder, video, tmp_path / 'bag',
                       '--output', out, '--score-threshold', 0.0)
    assert result.returncode == 0, result.stderr
    data = json.loads((out / 'detections.json').read_text())
    assert len(data['images']) == 1 + 12 + 3 + 12
    assert [c['name'] for c in data['categories']] == ['person', 'bicycle', 'car']
    ids = {i['id'] for i in data['images']}
    for box in data['annotations']:
        assert box['image_id'] in ids and 0 <= box['score'] <= 1
        assert box['category_id'] in (1, 2, 3)
        x, y, w, h = box['bbox']
        assert x >= 0 and y >= 0 and x + w <= 160.01 and y + h <= 128.01
    pictures = list((out / 'pictures').rglob('*.png'))
    assert len(pictures) == 1 + 12
    assert cv2.imread(str(pictures[0])).shape == (128, 160, 3)
    for name, frames in (('clip.mp4', 3), ('bag.mp4', 12)):
        capture = cv2.VideoCapture(str(out / name))
        for _ in range(frames):
            assert capture.read()[1].shape == (128, 160, 3)
        assert not capture.read()[0]
    before = {p: p.read_bytes() for p in out.rglob('*') if p.is_file()}
    again = run_cgdet('detect', onnx_model, picture, picture, '--output', tmp_path / 'twice')
    assert again.returncode == 1 and 'alone.png is named twice' in again.stderr
    for source, option, words in ((folder, (), '--overwrite'),
                                  (out / 'pictures', (), 'but pictures that cgdet drew'),
                                  (pictures[0], ('--overwrite',), 'would be written into')):
        result = run_cgdet('detect', onnx_model, source, '--output', out, *option)
        assert result.returncode == 1 and words in result.stderr
    assert before == {p: p.read_bytes() for p in out.rglob('*') if p.is_file()}


@pytest.mark.parametrize('encoding', ['mono8', 'mono16'])
@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_bag_evaluate_equals_evaluate(
    run_cgdet: Run, onnx_model: Path, scenes: Path, tmp_path: Path, encoding: str, storage: str,
) -> None:
    bag = tmp_path / 'bag'
    result = run_cgdet('bag', 'from-coco', scenes, bag, '--rate', 5, '--encoding', encoding,
                       '--storage', storage)
    assert result.returncode == 0 and '12 frames' in result.stdout, result.stderr
    for arguments in (('bag', 'evaluate', onnx_model, bag), ('evaluate', onnx_model)):
        result = run_cgdet(*arguments, '--data', scenes, '--json',
                           tmp_path / f'{arguments[0]}.json')
        assert result.returncode == 0, result.stderr
    a, b = (json.loads((tmp_path / f'{n}.json').read_text()) for n in ('bag', 'evaluate'))
    assert a['images'] == b['images'] == 12
    # 16 bits are exact; 8 bits round each frame to 256 levels.
    assert a['AP'] == pytest.approx(b['AP'], abs=1e-6 if encoding == 'mono16' else 0.1)


def test_the_report_is_written_before_the_images(
    run_cgdet: Run, program: Run, onnx_model: Path, scenes: Path, tmp_path: Path,
) -> None:
    bag, out = tmp_path / 'bag', tmp_path / 'out'
    assert run_cgdet('bag', 'from-coco', scenes, bag).returncode == 0
    command = ('bag', 'evaluate', onnx_model, bag, '--data', scenes, '--output', out)
    out.mkdir()
    (out / 'worst').touch()
    result = run_cgdet(*command, '--overwrite')
    assert result.returncode == 1 and 'worst is not a folder' in result.stderr
    (out / 'worst').unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # a report, but no image
    try:
        result = program(*command, '--json', tmp_path / 'ap.json')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert 'File too large: ' in result.stderr and '.png' in result.stderr
    for path in (out / 'report.json', tmp_path / 'ap.json'):
        report = json.loads(path.read_text())
        assert report['images'] == 12 and report['annotations_without_frame'] == 0


def test_a_data_set_from_a_bag_matches_the_bag(
    run_cgdet: Run, program: Run, onnx_model: Path, detector: Detector, scenes: Path,
    tmp_path: Path,
) -> None:
    """Pre-labels are the model's detections, so its AP50 on the bag is nearly 1."""
    bag, out = tmp_path / 'bag', tmp_path / 'set'
    frame = read_thermal(scenes.parent / 'thermal' / 'scene_00000.png')
    # The scores of a tiny student are low.
    score = float(np.sort(detector.detect(frame, 0.0).scores)[-5])
    assert run_cgdet('bag', 'from-coco', scenes, bag).returncode == 0
    command = ('data', 'collect', bag, '--output', out, '--model', onnx_model,
               '--score-threshold', score, '--min-change', 0)
    result = run_cgdet(*command)
    assert result.returncode == 0 and 'pre-labels' in result.stdout, result.stderr
    data = json.loads((out / 'annotations.json').read_text())
    assert len(data['images']) == 12 and data['annotations'] and data['licenses'] == []
    assert {'iscrowd', 'area', 'segmentation', 'score'} < set(data['annotations'][0])
    result = run_cgdet('bag', 'evaluate', onnx_model, bag, '--data', out / 'annotations.json',
                       '--json', tmp_path / 'ap.json')
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / 'ap.json').read_text())
    assert report['images'] == 12 and report['AP50'] > 0.99
    again = run_cgdet(*command)
    assert again.returncode == 1 and 'already exists' in again.stderr
    # The command of bags only.
    result = program('bag', 'to-dataset', bag, '--output', tmp_path / 'other', '--prelabel',
                     onnx_model, '--score', score, '--min-change', 0, '--every-s', 0.15)
    assert result.returncode == 0, result.stderr
    other = json.loads((tmp_path / 'other' / 'annotations.json').read_text())
    assert [i['stamp_ns'] for i in other['images']] == [
        i['stamp_ns'] for i in data['images']][::2]
    assert other['categories'] == data['categories'] and other['annotations']


def test_bags_are_never_overwritten_and_written_completely(
    run_cgdet: Run, scenes: Path, tmp_path: Path,
) -> None:
    bag = tmp_path / 'bag'
    assert run_cgdet('bag', 'from-coco', scenes, bag).returncode == 0
    again = run_cgdet('bag', 'from-coco', scenes, bag)
    assert again.returncode == 1 and 'already exists' in again.stderr
    none = run_cgdet('bag', 'from-coco', scenes, tmp_path / 'b', '--match', 'nothing*')
    assert none.returncode == 1 and 'no frames for' in none.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ['bag', 'bag_truth.json']


@pytest.mark.parametrize(('arguments', 'words'), [
    (('evaluate', 'no.onnx', '--data', 'SCENES'), 'no.onnx does not exist'),
    (('evaluate', 'no.ckpt', '--data', 'SCENES'), 'no.ckpt does not exist'),
    (('evaluate', 'MODEL', '--data', 'no.json'), 'no.json does not exist'),
    (('evaluate', 'MODEL', '--data', 'SCENES', '--images', 'nowhere'), 'folder nowhere'),
    (('detect', 'MODEL', 'nothing.png', '--output', 'OUT'), 'nothing.png does not exist'),
    (('detect', 'MODEL', 'README.md', '--output', 'OUT'), 'is no source of frames'),
    (('detect', 'MODEL', 'cgdet_core', '--output', 'OUT'), 'has no images'),
    (('train', 'no.yaml'), 'recipe no.yaml does not exist'),
    (('export', 'no.ckpt', '--output', 'OUT/m.onnx'), 'no.ckpt does not exist'),
    (('bag', 'from-coco', 'SCENES', 'OUT/b', '--rate', '0'), 'must be positive'),
    (('bag', 'from-coco', 'SCENES', 'OUT/b', '--encoding', 'rgb8'), "'rgb8'"),
    (('bag', 'from-coco', 'SCENES', 'OUT/b', '--storage', 'tar'), "'tar'"),
    (('bag', 'evaluate', 'MODEL', 'nobag', '--data', 'SCENES'), 'nobag does not exist'),
    (('bag', 'evaluate', 'MODEL', 'config', '--data', 'SCENES'), 'has no metadata.yaml'),
    (('data', 'collect', 'nobag', '--output', 'OUT/set'), 'nobag does not exist'),
    (('data', 'collect', 'nobag', '--output', 'config'), 'config already exists'),
])
def test_invalid_input_is_one_sentence(
    run_cgdet: Run, onnx_model: Path, scenes: Path, tmp_path: Path,
    arguments: tuple[str, ...], words: str,
) -> None:
    names = {'MODEL': str(onnx_model), 'SCENES': str(scenes)}
    result = run_cgdet(*(names.get(a, a).replace('OUT', str(tmp_path)) for a in arguments))
    assert result.returncode == 1
    assert words in result.stderr and 'Traceback' not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_damaged_bags_are_explained(
    run_cgdet: Run, onnx_model: Path, scenes: Path, tmp_path: Path, storage: str,
) -> None:
    bag = tmp_path / 'bag'
    assert run_cgdet('bag', 'from-coco', scenes, bag, '--storage', storage).returncode == 0
    data = next(p for p in bag.iterdir() if p.suffix != '.yaml')
    content = bytearray(data.read_bytes())
    for damaged in (content[:len(content) // 2], content[:300] + b'\xff' * (len(content) - 300)):
        data.write_bytes(damaged)
        result = run_cgdet('bag', 'evaluate', onnx_model, bag, '--data', scenes)
        assert result.returncode == 1
        assert result.stderr.startswith('cgdet: ') and 'Traceback' not in result.stderr


def test_an_output_that_cannot_be_written_is_one_sentence(
    run_cgdet: Run, onnx_model: Path, scenes: Path, tmp_path: Path,
) -> None:
    (tmp_path / 'file').write_text('not a folder')
    result = run_cgdet('detect', onnx_model, scenes.parent / 'thermal', '--output',
                       tmp_path / 'file')
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_output_that_is_read_is_refused(
    run_cgdet: Run, onnx_model: Path, scenes: Path, tmp_path: Path,
) -> None:
    data = tmp_path / 'data.json'
    data.write_text(scenes.read_text())
    labels = tmp_path / 'labels.json'  # of another tool
    labels.write_text('{"shapes": []}')
    for suffix in ('.onnx', '.json'):
        shutil.copy(onnx_model.with_suffix(suffix), tmp_path / f'm{suffix}')
    frame = tmp_path / 'thermal' / next((scenes.parent / 'thermal').iterdir()).name
    shutil.copytree(scenes.parent / 'thermal', frame.parent)
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    model = tmp_path / 'm.onnx'
    for arguments in (
            ('export', model, '--output', tmp_path / 'data.onnx', '--precision', 'int8',
             '--calibration', data, '--overwrite'),
            ('data', 'relabel', data, data, '--output', data, '--overwrite'),
            ('data', 'show', data, '--output', frame, '--overwrite')):
        result = run_cgdet(*arguments)
        assert result.returncode == 1, arguments
        assert 'is an input and would be replaced' in result.stderr
    for arguments in (
            ('evaluate', model, '--data', data, '--output', frame.parent),
            ('data', 'check', data, '--output', frame.parent)):
        result = run_cgdet(*arguments)
        assert result.returncode == 1, arguments
        assert 'would be one of the frames in its folder' in result.stderr
    for arguments in (
            ('evaluate', model, '--data', data, '--json', data),
            ('evaluate', model, '--data', scenes, '--json', tmp_path / 'm.json'),
            ('verify', model, '--against', model, '--data', scenes, '--json', data),
            ('evaluate', model, '--data', scenes, '--json', labels),
            ('benchmark', model, '--json', frame)):
        result = run_cgdet(*arguments)
        assert result.returncode == 1, arguments
        assert 'exists and is not a report of cgdet; choose another name' in result.stderr
    assert {path: path.read_bytes() for path in before} == before
    result = run_cgdet('evaluate', model, '--data', data, '--output', tmp_path / 'out', '--json',
                       tmp_path / 'out' / 'evaluation.json')
    assert result.returncode == 1 and 'would be written twice' in result.stderr


def test_errors_name_the_options_that_the_command_has(
    run_cgdet: Run, onnx_model: Path, scenes: Path, tmp_path: Path,
) -> None:
    broken = tmp_path / 'broken.json'
    data = json.loads(scenes.read_text())
    broken.write_text(json.dumps({**data, 'images': data['images'][:1], 'annotations': []}))
    recipe = tmp_path / 'recipe.yaml'
    recipe.write_text(f'name: x\nclasses: [person]\ninput_size: [160, 128]\n'
                      f'data: {{train: {broken}, val: {broken}}}\n')
    result = run_cgdet('evaluate', onnx_model, '--data', broken)
    assert result.stderr.endswith('that the file names are relative to (--images).\n')
    result = run_cgdet('train', recipe)
    assert result.returncode == 1 and result.stderr.endswith('names are relative to.\n')
