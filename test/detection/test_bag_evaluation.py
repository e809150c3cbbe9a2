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

"""Evaluation over many bags: which bags, which truth, one pooled number, the worst frames."""

from collections.abc import Callable
from dataclasses import replace
import importlib.util
import json
import os
from pathlib import Path
import signal
import subprocess
import tempfile

from cgdet_core.data.bags.io import IMAGE_TYPE, open_bag, TOPIC, write_bag
from cgdet_core.data.bags.truth import fingerprint, truth_by_stamp
from cgdet_core.data.coco import CocoSet, ImageRecord, load_coco
from cgdet_core.data.inputs import find_bags
from cgdet_core.data.sources import coco_frames
from cgdet_core.data.synthetic import write_coco
from cgdet_core.detection.bag_detection import (
    BagDetections,
    detect_bag,
    detect_in_parallel,
    import_ray,
    Job,
)
from cgdet_core.detection.bag_evaluation import (
    Bag,
    detect_bags,
    hardest,
    judge,
    open_bags,
    score_bags,
    without_frame,
    write_curves,
    write_worst,
)
from cgdet_core.detection.metrics import evaluate
from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector, Normalization
from cgdet_core.runtime.detection.card import detection_card
from cgdet_core.runtime.detection.detector import EVALUATION_THRESHOLD
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.imaging.frames import read_thermal
import cv2
import numpy as np
import pytest
from two_cameras import PERIOD, scene, START, write_two_cameras

rosbag2 = pytest.importorskip('rosbags.rosbag2', reason='rosbags is not installed')
Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def drives(scenes: Path, tmp_path: Path) -> Path:
    """Return a folder of two bags, 10 and 2 of the twelve frames, and one that is damaged."""
    folder = tmp_path / 'drives'
    for name, match in (('day', 'scene_0000*'), ('night', 'scene_0001*'), ('torn', '*0.png')):
        write_bag(folder / name, coco_frames(load_coco(scenes), match), 10.0)
    torn = next((folder / 'torn').glob('*.mcap'))
    torn.write_bytes(torn.read_bytes()[:5000])
    return folder


def test_bags_are_found_by_path_folder_and_pattern(tmp_path: Path) -> None:
    for name in ('b/rec_1', 'b/rec_0', 'a'):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / 'metadata.yaml').touch()
        (tmp_path / name / 'part_0.mcap').touch()
    (tmp_path / 'loose').mkdir()
    (tmp_path / 'loose' / 'one.mcap').touch()
    found = find_bags([str(tmp_path / 'b'), str(tmp_path / '*'), str(tmp_path / 'a')])
    assert [p.relative_to(tmp_path).as_posix() for p in found] == [
        'b/rec_0', 'b/rec_1', 'a', 'loose/one.mcap']
    assert find_bags([str(tmp_path / 'none*')]) == [tmp_path / 'none*']


def test_links_that_form_a_loop_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / 'a' / 'bag').mkdir(parents=True)
    (tmp_path / 'a' / 'bag' / 'metadata.yaml').touch()
    for name in ('back', 'once_more'):  # 2^40 paths
        (tmp_path / 'a' / name).symlink_to(tmp_path / 'a')
    (tmp_path / 'a' / 'self').symlink_to('self')
    assert find_bags([str(tmp_path / 'a')]) == [tmp_path / 'a' / 'bag']
    assert find_bags([str(tmp_path / 'a' / 'self')]) == [tmp_path / 'a' / 'self']


def test_truth_in_several_files(scenes: Path, drives: Path, tmp_path: Path) -> None:
    """Image ids of both files are the same; the bag stores its own."""
    one = load_coco(scenes)
    other = load_coco(write_coco(tmp_path / 'other', 11, 8, 3, (160, 128)))
    write_bag(tmp_path / 'named', coco_frames(other), 10.0, source=fingerprint(other))
    truth = truth_by_stamp(tmp_path / 'named', one, other)
    assert [r.image_id for r in truth.values()] == list(range(1, 12))
    assert all(any(r is mine for mine in other.images) for r in truth.values())
    with pytest.raises(UserError, match='Two images match'):
        truth_by_stamp(drives / 'day', one, other)
    empty = load_coco(write_coco(tmp_path / 'few', 1, 3, 3, (160, 128)))
    empty.images[0].image_id = 99
    assert len(truth_by_stamp(drives / 'day', empty, one)) == 10
    with pytest.raises(UserError, match='can be matched to'):
        truth_by_stamp(drives / 'day', empty, empty)


def test_every_stamp_counts_once(detector: Detector, scenes: Path, drives: Path,
                                 tmp_path: Path) -> None:
    """Each message comes twice; one frame lies in no file, one has no annotation."""
    path = tmp_path / 'twice'
    with open_bag(drives / 'day') as reader, rosbag2.Writer(
            path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as bag:
        connection = bag.add_connection(TOPIC, IMAGE_TYPE, typestore=reader.typestore)
        for _, received, raw in reader.messages():
            for later in (0, 1):
                bag.write(connection, received + later, raw)
    truth = truth_by_stamp(drives / 'day', load_coco(scenes))
    record = truth.pop(min(truth))
    truth[1] = record
    result = detect_bag(detector, Job(path, frozenset(truth)))
    assert [stamp for stamp, _ in result.found] == sorted(truth)[1:]
    other = Bag(path, 'other', {5: record}, BagDetections([(5, result.found[0][1])]))
    both = [Bag(path, 'twice', truth, result), other]
    assert (without_frame(both[:1]), without_frame(both)) == (1, 0), 'it is in the other bag'
    assert Bag(path, 'twice', truth, result).counts == {
        'frames_without_annotation': 2, 'annotations_without_frame': 1,
        'frames_with_repeated_stamp': 9, 'unreadable_frames': 0}


def test_a_bad_frame_costs_itself(
    detector: Detector, tmp_path: Path,
) -> None:
    frames = {START + i * PERIOD: scene(i) for i in range(4)}
    good = frozenset(frames)
    frames[START + 4 * PERIOD] = np.zeros((0, 160), np.uint16)
    bag = write_two_cameras(tmp_path / 'bag', frames, {})
    result = detect_bag(detector, Job(bag, good))
    assert (result.error, len(result.found), result.unknown) == (None, 4, 1)
    result = detect_bag(detector, Job(bag, frozenset(frames)))
    assert (result.error, len(result.found)) == (None, 4)
    assert len(result.unreadable) == 1 and 'image 4: the image is empty' in result.unreadable[0]
    bag = write_two_cameras(tmp_path / 'none', {START: np.zeros((0, 160), np.uint16)}, {})
    result = detect_bag(detector, Job(bag, good))
    assert result.error is not None and 'image 0: the image is empty' in result.error


def test_a_frame_that_cannot_be_read_is_said_and_costs_only_itself(
    run_cgdet: Run, onnx_model: Path, scenes: Path, tmp_path: Path,
) -> None:
    frames = {START + i * PERIOD: scene(i) for i in range(4)}
    frames[START + 4 * PERIOD] = np.zeros((0, 160), np.uint16)
    bag = write_two_cameras(tmp_path / 'bag', frames, {})
    content = json.loads(scenes.read_text())
    content['images'] = [{**image, 'stamp_ns': stamp}
                         for image, stamp in zip(content['images'], frames)]
    ids = {image['id'] for image in content['images']}
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] in ids]
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    result = run_cgdet('bag', 'evaluate', onnx_model, bag, '--data', tmp_path / 'truth.json',
                       '--images', scenes.parent, '--output', tmp_path / 'out')
    assert result.returncode == 0 and '1 annotated frame could not be read' in result.stderr
    assert json.loads((tmp_path / 'out' / 'report.json').read_text())['images'] == 4


def test_images_without_stamps_cannot_be_evaluated(
    detector: Detector, scenes: Path, drives: Path, tmp_path: Path,
) -> None:
    path = tmp_path / 'zero'
    with open_bag(drives / 'day') as reader, rosbag2.Writer(
            path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as bag:
        connection = bag.add_connection(TOPIC, IMAGE_TYPE, typestore=reader.typestore)
        for _, received, raw in reader.messages():
            bag.write(connection, received, raw[:4] + bytes(8) + raw[12:])
    result = detect_bag(detector, Job(path, frozenset({0})))
    assert result.error == (f'All 10 images of {path} have the same stamp; the camera driver must '
                            'set header.stamp.')
    records = [replace(r, stamp_ns=0) for r in load_coco(scenes).images]
    with pytest.raises(UserError, match='Two images match .* a camera driver that sets header'):
        truth_by_stamp(path, CocoSet(scenes, records, ('person',)))


def test_any_exception_of_a_session_is_the_error_of_that_bag(drives: Path, scenes: Path) -> None:
    class Broken:
        card = detection_card('broken', ('person',), (64, 64), Normalization())

        def detect(self, *_: object) -> Detections:
            raise RuntimeError('CUDA failure 700:\n  an illegal memory access.')

    stamps = frozenset(truth_by_stamp(drives / 'day', load_coco(scenes)))
    for _ in range(2):
        result = detect_bag(Broken(), Job(drives / 'day', stamps))  # type: ignore[arg-type]
        assert result.error == (f'{drives / "day"}: RuntimeError: CUDA failure 700: '
                                'an illegal memory access.')


def test_bags_without_objects_have_no_curve() -> None:
    parts = [{'bag': name, 'AP50': ap} for name, ap in (
        ('empty', None), ('good', 0.9), ('bad', 0.0), ('fair', 0.5))]
    assert hardest(parts, 2) == ['bad', 'fair'] and hardest(parts[:1], 2) == []


def test_the_total_is_that_of_all_frames(
    detector: Detector, scenes: Path, drives: Path, onnx_model: Path, tmp_path: Path,
) -> None:
    coco = load_coco(scenes, None, detector.card.classes)
    bags = open_bags(find_bags([str(drives)]), [coco])
    told: list[str] = []
    done: list[int] = []
    detect_bags(bags, detector, onnx_model, None, 1, None, done.append, told.append)
    assert [b.name for b in bags] == ['day', 'night', 'torn']
    assert len(told) == 1 and 'torn' in told[0] and bags[2].error == told[0]
    assert sum(done) == 12
    report = score_bags(bags, detector.card.classes, coco.path)
    found = [detector.detect(read_thermal(r.path), EVALUATION_THRESHOLD) for r in coco.images]
    direct = evaluate(found, coco)
    assert {k: report[k] for k in direct} == direct
    part = evaluate(found[:10], CocoSet(coco.path, coco.images[:10], coco.classes))
    assert {k: report['bags'][0][k] for k in part} == part
    assert [b['images'] for b in report['bags']] == [10, 2]
    assert report['failed'] == [{'bag': 'torn', 'error': told[0]}]
    curve = write_curves(bags, report, coco.classes, tmp_path / 'pr.png')
    assert cv2.imread(str(curve)) is not None
    listed = write_worst(bags[:2], detector.card, None, tmp_path / 'worst', 3)
    costs = [item['cost'] for item in listed]
    assert costs == sorted(costs, reverse=True) and costs[-1] > 0
    for item in listed:
        assert cv2.imread(str(tmp_path / 'worst' / item['picture'])).shape == (128 + 24, 160, 3)
    first, second = (i['stamp_ns'] for i in listed if i['bag'] == 'day')
    assert abs(first - second) >= 500_000_000  # 5 frames at 10 Hz
    with pytest.raises(UserError, match='None of the 1 bags'):
        score_bags(bags[2:], detector.card.classes, coco.path)


def test_what_a_frame_costs() -> None:
    boxes = np.array([(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 90, 30)],
                     np.float32)
    truth = ImageRecord(1, Path(), 100, 100, boxes=boxes, labels=np.array([0, 1, 2, 0]),
                        areas=np.full(4, 100, np.float32), crowd=np.array([0, 0, 0, 1]))
    found = Detections(
        np.array([(0, 0, 10, 10), (1, 0, 10, 10), (20, 0, 30, 10), (60, 0, 90, 29),
                  (80, 80, 90, 90)], np.float32),
        np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32), np.array([0, 0, 2, 0, 1]))
    outcome = judge(found, truth)
    # A duplicate, a wrong class and a box on nothing; the ignore region costs nothing.
    assert sorted(outcome.false.tolist()) == [1, 2, 4]
    assert outcome.missed.tolist() == [1, 2]
    assert outcome.cost == pytest.approx(2 + 0.8 + 0.7 + 0.5)
    nothing = Detections(found.boxes[:0], found.scores[:0], found.labels[:0])
    assert judge(nothing, truth).cost == 3


@pytest.mark.skipif(importlib.util.find_spec('ray') is None, reason='Ray is not installed')
def test_two_workers_write_the_report_of_one(
    run_cgdet: Run, drives: Path, scenes: Path, onnx_model: Path, tmp_path: Path,
) -> None:
    reports = []
    with tempfile.TemporaryDirectory(dir='/tmp') as folder:  # short, for Ray's sockets
        for workers in (1, 2):
            out = tmp_path / f'out_{workers}'
            result = run_cgdet(
                'bag', 'evaluate', onnx_model, drives, '--data', scenes, '--workers', workers,
                '--output', out, env={**os.environ, 'TMPDIR': folder})
            assert result.returncode == 1 and 'Traceback' not in result.stderr, result.stderr
            lines = result.stderr.strip().splitlines()
            assert len(lines) == 2 and 'torn' in lines[0]
            assert lines[1].startswith('cgdet: 1 of 3 bags could not be evaluated')
            reports.append((out / 'report.json').read_bytes())
            assert sorted(p.name for p in out.iterdir()) == [
                'evaluation.json', 'pr_curve.png', 'reliability.png', 'report.json', 'worst']
        assert not list(Path(folder).glob('ray_*')) and not _processes_of(folder)
    assert reports[0] == reports[1]
    report = json.loads(reports[0])
    assert [b['bag'] for b in report['bags']] == ['day', 'night'] and report['images'] == 12
    again = run_cgdet('bag', 'evaluate', onnx_model, drives / 'day', '--data', scenes,
                      '--output', tmp_path / 'out_1')
    assert again.returncode == 1 and 'have it replaced (--overwrite)' in again.stderr


@pytest.mark.skipif(importlib.util.find_spec('ray') is None, reason='Ray is not installed')
def test_ray_stays_on_this_machine_and_gives_sigterm_back(
    drives: Path, scenes: Path, onnx_model: Path,
) -> None:
    ray = import_ray()
    job = Job(drives / 'night', frozenset(truth_by_stamp(drives / 'night', load_coco(scenes))))
    before = signal.getsignal(signal.SIGTERM)
    results = detect_in_parallel(onnx_model, [(0, job)], 1, None, lambda frames: None)
    number, result = next(results)
    assert (number, result.error, len(result.found)) == (0, None, 2)
    node, = ray.nodes()
    assert node['NodeManagerAddress'].startswith('127.')
    assert signal.getsignal(signal.SIGTERM) is before
    assert list(results) == [] and not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is before


def _processes_of(folder: str) -> list[str]:
    """Return the command lines that name a folder."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            text = path.read_bytes().replace(b'\0', b' ').decode(errors='replace')
        except OSError:  # it ended just now
            continue
        if folder in text:
            found.append(text)
    return found
