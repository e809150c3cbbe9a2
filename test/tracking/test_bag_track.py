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

"""`cgdet bag track`: a bag in, the places of a target out."""

from collections.abc import Callable, Iterator
import csv
import json
from pathlib import Path
import subprocess
from typing import Any

from cgdet_core.data.bags.io import open_bag, START_NS, write_bag
from cgdet_core.data.sources import Frame
from cgdet_core.errors import UserError
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.tracker import Tracker
from cgdet_core.tracking.bag_tracking import (
    ColorTopic,
    follow_frames,
    from_stamp,
    parse_stamp,
    stamp_text,
)
from cgdet_core.tracking.following import Clock
import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores
from toy_tracker import draw, write_toy_tracker
from two_cameras import RGB, START, write_two_cameras

Run = Callable[..., subprocess.CompletedProcess]
RATE = 10.0
CENTERS = [(60.0 + 5 * i, 120.0) for i in range(12)]
BOX = '40,100,40,40'  # of the first


def pictures() -> Iterator[np.ndarray]:
    """Yield frames of a target that moves, each with noise of its own."""
    for number, center in enumerate(CENTERS):
        noise = np.random.default_rng(number).integers(0, 3, (240, 320)).astype(np.uint8)
        yield draw(center) + noise


def frames_of(found: list[np.ndarray]) -> list[Frame]:
    return [Frame(f'{n}.png', lambda pixels=pixels: pixels) for n, pixels in enumerate(found)]


@pytest.fixture()
def drive(tmp_path: Path) -> Path:
    """Return a bag with a moving target."""
    write_bag(tmp_path / 'drive', frames_of(list(pictures())), RATE)
    return tmp_path / 'drive'


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_tracker(tmp_path_factory.mktemp('toy') / 'toy.onnx')


def stamp(number: int) -> str:
    return stamp_text(START_NS + round(number * 1e9 / RATE))


def centers(rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(float(r['x']) + float(r['w']) / 2, float(r['y']) + float(r['h']) / 2) for r in rows]


def test_a_target_is_followed_through_a_bag(
    run_cgdet: Run, program: Run, tmp_path: Path, drive: Path, model: Path,
) -> None:
    table, video = tmp_path / 'target.csv', tmp_path / 'target.mp4'
    done = run_cgdet('bag', 'track', drive, '--model', model, '--box', BOX, '--output', table,
                     '--video', video)
    assert done.returncode == 0, done.stderr
    assert '12 images: 12 tracked, 0 uncertain, 0 lost' in done.stdout
    rows = list(csv.DictReader(table.open()))
    assert [r['stamp'] for r in rows] == [stamp(n) for n in range(12)]
    np.testing.assert_allclose(centers(rows), CENTERS, atol=6)
    assert {r['state'] for r in rows} == {'tracked'} and {r['shutter'] for r in rows} == {''}
    assert all(0.5 < float(r['score']) <= 1 for r in rows)
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 12
    again = tmp_path / 'again.json'
    assert program('bag', 'track', drive, '--model', model, '--box', BOX, '--output',
                   again).returncode == 0
    report = json.loads(again.read_text())
    assert report['frames'] == [
        {k: float(v) if k in 'xywh' or k == 'score' else v for k, v in r.items()} for r in rows]
    assert report['summary'] == {'frames': 12, 'tracked': 12, 'uncertain': 0, 'lost': 0,
                                 'losses': 0, 'shutter_closed': 0}
    assert report['box'] == [40, 100, 80, 140] and report['model'] == 'toy.onnx'


def test_the_box_is_in_the_image_with_the_stamp(
    run_cgdet: Run, tmp_path: Path, drive: Path, model: Path,
) -> None:
    table = tmp_path / 'target.csv'
    done = run_cgdet('bag', 'track', drive, '--model', model, '--box', '60,100,40,40', '--start',
                     stamp(4), '--output', table)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(table.open()))
    assert rows[0]['stamp'] == stamp(4) and len(rows) == 8
    np.testing.assert_allclose(centers(rows), CENTERS[4:], atol=6)


def test_the_target_coasts_while_the_shutter_is_closed(
    run_cgdet: Run, tmp_path: Path, model: Path,
) -> None:
    found = list(pictures())
    flat = [np.full_like(found[0], 90 + n) for n in range(3)]
    write_bag(tmp_path / 'ffc', frames_of([*found[:6], *flat, *found[9:]]), RATE)
    table = tmp_path / 'target.csv'
    done = run_cgdet('bag', 'track', tmp_path / 'ffc', '--model', model, '--box', BOX,
                     '--output', table)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(table.open()))
    assert [r['shutter'] for r in rows] == [''] * 6 + ['flat'] * 3 + [''] * 3
    assert [r['state'] for r in rows[6:9]] == ['uncertain'] * 3
    np.testing.assert_allclose(centers(rows), CENTERS, atol=8)


def unstamped(bag: Path, path: Path, which: Callable[[int], bool] = lambda number: True) -> Path:
    """Write a bag again without the stamps of these messages."""
    store, connections = get_typestore(Stores.ROS2_JAZZY), {}
    with open_bag(bag) as reader, Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as to:
        for number, (of, received, raw) in enumerate(reader.messages()):
            message = reader.deserialize(raw, of.msgtype)
            if which(number):
                message.header.stamp.sec = message.header.stamp.nanosec = 0
            if of.topic not in connections:
                connections[of.topic] = to.add_connection(of.topic, of.msgtype, typestore=store)
            to.write(connections[of.topic], received, store.serialize_cdr(message, of.msgtype))
    return path


@pytest.mark.parametrize('which', [lambda number: True, lambda number: number == 5],
                         ids=['all', 'one'])
def test_images_without_a_stamp_have_that_of_the_recorder(
    run_cgdet: Run, tmp_path: Path, model: Path, which: Callable[[int], bool],
) -> None:
    noise = np.random.default_rng(0).integers(0, 60, (20, 240, 320)).astype(np.uint8)
    write_bag(tmp_path / 'drive', frames_of([*pictures(), *noise]), RATE)
    tables = []
    for bag in (tmp_path / 'drive', unstamped(tmp_path / 'drive', tmp_path / 'without', which)):
        table = tmp_path / f'{bag.name}.csv'
        done = run_cgdet('bag', 'track', bag, '--model', model, '--box', '45,100,40,40', '--start',
                         stamp(1), '--output', table)
        assert done.returncode == 0, done.stderr
        assert ('without a stamp' in done.stderr) == (bag.name == 'without')
        tables.append(table.read_text())
    assert tables[0] == tables[1] and tables[0].count('lost') > 10


def test_rgb_without_stamps_is_paired_by_the_recorder(tmp_path: Path) -> None:
    color = np.full((24, 32, 3), 90, np.uint8)
    stamps = [START + number * 10**8 for number in range(5)]
    write_two_cameras(tmp_path / 'b', {}, dict.fromkeys(stamps, color))
    for name, which in (('all', lambda number: True), ('one', lambda number: number == 1)):
        colors = ColorTopic(unstamped(tmp_path / 'b', tmp_path / name, which), RGB, 50.0)
        assert all(colors.at(each, (24, 32)) is not None for each in stamps), colors.missing


def test_a_damaged_image_is_left_out(
    run_cgdet: Run, tmp_path: Path, model: Path,
) -> None:
    found = list(pictures())
    found[5] = np.full((240, 320), np.nan, np.float32)
    write_bag(tmp_path / 'torn', frames_of(found), RATE)
    table = tmp_path / 'target.csv'
    done = run_cgdet('bag', 'track', tmp_path / 'torn', '--model', model, '--box', BOX,
                     '--output', table)
    assert done.returncode == 1 and 'torn, image 5: ' in done.stderr
    assert 'Traceback' not in done.stderr
    assert len(list(csv.DictReader(table.open()))) == 11


@pytest.mark.parametrize(('arguments', 'words'), [
    (('--box', '1,2,3'), 'A box is X,Y,W,H in pixels'),
    (('--box', '1,2,0,3'), 'has no area'),
    (('--box', '900,2,30,30'), 'is outside of the frame of 320x240 pixels'),
    (('--box', BOX, '--start', 'noon'), 'A stamp is in seconds, as header.stamp'),
    (('--box', BOX, '--start', '12.5'), 'There is no image within 0.1 s of the stamp 12.5'),
    (('--box', BOX, '--output', 'target.txt'), 'target.txt must end with .csv or .json'),
    (('--box', BOX, '--video', 'target.avi'), 'target.avi must end with .mp4'),
    (('--box', BOX, '--topic', '/rgb'), 'has no images on /rgb')])
def test_wrong_arguments_are_one_sentence(
    run_cgdet: Run, drive: Path, model: Path, arguments: tuple[str, ...], words: str,
) -> None:
    done = run_cgdet('bag', 'track', drive, '--model', model, *arguments)
    assert done.returncode == 1 and words in done.stderr and 'Traceback' not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_other_sources_are_no_bags(run_cgdet: Run, tmp_path: Path, model: Path) -> None:
    (tmp_path / 'thermal').mkdir()
    cv2.imwrite(str(tmp_path / 'thermal' / '1.png'), next(pictures()))
    for name, why in (('thermal', 'is not a bag; cgdet track run'), ('none', 'does not exist')):
        done = run_cgdet('bag', 'track', tmp_path / name, '--model', model, '--box', BOX)
        assert done.returncode == 1 and why in done.stderr and 'Traceback' not in done.stderr


def numbers(*seconds: float) -> list[Frame]:
    return [Frame(str(s), lambda: np.zeros((2, 2)), stamp_ns=round(s * 1e9)) for s in seconds]


def names(stamp_s: float | None, *seconds: float) -> list[str]:
    wanted = None if stamp_s is None else round(stamp_s * 1e9)
    return [frame.name for frame in from_stamp(numbers(*seconds), wanted)]


def test_frames_begin_with_the_nearest_of_a_stamp() -> None:
    assert names(None, 1.0, 1.1) == ['1.0', '1.1']
    assert names(1.1, 1.0, 1.1, 1.2) == ['1.1', '1.2']
    assert names(1.12, 1.0, 1.1, 1.2) == ['1.1', '1.2']
    assert names(1.18, 1.0, 1.1, 1.2) == ['1.2']
    assert names(1.25, 1.0, 1.1, 1.2) == ['1.2']
    assert names(0.95, 1.0, 1.1) == ['1.0', '1.1']
    for wrong in (0.5, 1.5, 3.0):
        with pytest.raises(UserError, match='within 0.1 s of the stamp'):
            names(wrong, 1.0, 2.0)
    with pytest.raises(UserError, match='the bag has no images'):
        names(1.0)


def test_frames_begin_with_the_very_stamp_also_out_of_order() -> None:
    swapped = 1.1, 1.0, 1.3, 1.2, 1.5, 1.4
    assert names(1.0, *swapped) == ['1.0', '1.3', '1.2', '1.5', '1.4']
    assert names(1.2, *swapped) == ['1.2', '1.5', '1.4']
    assert names(1.22, *swapped) == ['1.2', '1.5', '1.4']
    assert names(1.26, *swapped) == ['1.3', '1.2', '1.5', '1.4']
    assert names(1.4, *swapped) == ['1.4']


def test_frames_begin_after_a_clock_was_set() -> None:
    back = 101.0, 101.1, 1.0, 1.1, 1.2
    assert names(1.0, *back) == ['1.0', '1.1', '1.2']
    assert names(1.13, *back) == ['1.1', '1.2']
    assert names(101.1, *back) == ['101.1', '1.0', '1.1', '1.2']
    with pytest.raises(UserError, match='images begin at 101.0.*, and the nearest is of 1.20'):
        names(3.0, *back)
    stands = [1.05] * 300  # not all of these are kept
    frames = from_stamp(numbers(*stands), 10**9)
    next(frames)
    assert len(list(frames)) == 299


def test_stamps_that_go_back_end_the_target(model: Path) -> None:
    frames = [Frame(str(s), lambda: draw((60, 120)), stamp_ns=round(s * 1e9))
              for s in (50.0, 50.1, 50.05, 3.0)]
    tracker = Tracker(TrackingModel.load(model, threads=1, backend='onnxruntime'))
    found = follow_frames(tracker, frames, np.array([40, 100, 80, 140]), pytest.fail, Clock())
    assert [next(found).stamp_ns for _ in range(3)] == [f.stamp_ns for f in frames[:3]]
    with pytest.raises(UserError, match=r'its stamp is 47.1 s older .* follow it again'):
        next(found)


def test_stamps_keep_their_nanoseconds() -> None:
    assert parse_stamp('1700000000.123456789') == 1_700_000_000_123_456_789
    assert stamp_text(1_700_000_000_000_000_005) == '1700000000.000000005'
    for text in ('-4.900000000', '-0.000000001', '-5.000000000', '0.000000000'):
        assert stamp_text(parse_stamp(text)) == text
    for text in ('nan', 'inf', 'x', '', '1e999999', '1e5000', '-1e5000', '1e10'):
        with pytest.raises(UserError, match='in seconds'):
            parse_stamp(text)
