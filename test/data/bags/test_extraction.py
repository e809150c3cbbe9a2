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

"""Sets of the frames of bags: selection, pairing, registration and output, and what is refused."""

from collections.abc import Callable
import json
from pathlib import Path
import signal
from typing import Any

from cgdet_core.cli.collect import data_collect
from cgdet_core.data import collect
from cgdet_core.data.bags.io import CAMERA_ENCODINGS, color_picture, IMAGE_TYPE, open_bag
from cgdet_core.data.bags.pairing import Choice, info_topic, is_rectified, plan_bag, synchronize
from cgdet_core.data.bags.truth import truth_by_stamp
from cgdet_core.data.coco import load_coco
from cgdet_core.data.collect import change
from cgdet_core.data.plans import make_plans
from cgdet_core.data.show import show
from cgdet_core.errors import UserError
import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from two_cameras import center, PERIOD, RGB, scene, START, THERMAL, write_two_cameras

MS = 1_000_000
YUV = ('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv')
STAMPS = [START + i * PERIOD for i in range(8)]
Make = Callable[..., Path]


def picture(i: int, size: tuple[int, int] = (320, 240)) -> np.ndarray:
    """Return the scene as a gray street with a red square, at twice the thermal scale."""
    frame = np.full((size[1], size[0], 3), 90, np.uint8)
    x = 2 * (10 + 9 * i % 110)
    frame[80:140, x:x + 60] = (40, 40, 230)
    return frame


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(name: str = 'drive', shift_ns: int = 3 * MS, **options: Any) -> Path:
        return write_two_cameras(
            tmp_path / 'bags' / name, {s: scene(i) for i, s in enumerate(STAMPS)},
            {s + shift_ns: picture(i) for i, s in enumerate(STAMPS)}, **options)
    (tmp_path / 'bags').mkdir()
    return write


def make_set(
    bags: list[Path], output: Path, choice: Choice, classes: tuple[str, ...] = (),
) -> dict[str, Any]:
    return collect.collect(make_plans(bags, choice), output, choice, classes=classes)


def both(**options: Any) -> Choice:
    return Choice(THERMAL, RGB, **options)


def test_frames_are_stored_bit_for_bit_and_match_their_bag(make: Make, tmp_path: Path) -> None:
    bag, out = make(), tmp_path / 'set'
    report = make_set([bag], out, both())
    coco = load_coco(out / 'annotations.json')
    assert coco.classes == ('person', 'bicycle', 'car') and len(coco.images) == 8
    for i, record in enumerate(coco.images):
        stored = cv2.imread(str(record.path), cv2.IMREAD_UNCHANGED)
        assert stored.dtype == np.uint16 and np.array_equal(stored, scene(i))
        assert record.rgb_path is not None
        assert np.array_equal(cv2.imread(str(record.rgb_path)), picture(i))
        assert record.stamp_ns == STAMPS[i] and record.bag == 'drive'
    truth = truth_by_stamp(bag, coco)
    assert {s: r.image_id for s, r in truth.items()} == {s: i + 1 for i, s in enumerate(STAMPS)}
    part = report['sources'][0]
    assert (part['frames'], part['with_rgb'], part['near_duplicates']) == (8, 8, 0)
    assert part['gap_ms'] == {'median': 3.0, 'max': 3.0} and part['unreadable'] == []
    assert report['bit_depth'] == {'uint16': 8} and report['sizes'] == {'160x128': 8}
    assert json.loads((out / 'report.json').read_text()) == report
    assert cv2.imread(str(out / 'contact_sheet.png')) is not None
    assert show(coco, tmp_path / 'look.png', 4, '*', False) == 4


def test_classes_are_the_users_choice(make: Make, tmp_path: Path) -> None:
    make_set([make()], tmp_path / 'set', both(), classes=('dog', 'person', 'dog'))
    assert load_coco(tmp_path / 'set' / 'annotations.json').classes == ('dog', 'person')


def test_compressed_topics_and_jpeg(make: Make, tmp_path: Path) -> None:
    bag = make(compressed=('.png', '.jpg'))
    make_set([bag], tmp_path / 'set', Choice(
        THERMAL + '/compressed', RGB + '/compressed', jpeg=True))
    assert plan_bag(bag, Choice(rgb_topic=RGB)).rgb_topic == RGB + '/compressed'
    record = load_coco(tmp_path / 'set' / 'annotations.json').images[3]
    assert np.array_equal(cv2.imread(str(record.path), cv2.IMREAD_UNCHANGED), scene(3))
    assert record.rgb_path is not None and record.rgb_path.suffix == '.jpg'
    error = cv2.imread(str(record.rgb_path)).astype(int) - picture(3)
    assert np.abs(error).mean() < 4


def test_a_homography_registers_every_picture(make: Make, tmp_path: Path) -> None:
    path = tmp_path / 'h.json'
    path.write_text('[[0.5, 0, 4], [0, 0.5, -6], [0, 0, 1]]')
    make_set([make()], tmp_path / 'set', both(homography=path))
    for record in load_coco(tmp_path / 'set' / 'annotations.json').images:
        hot = center(cv2.imread(str(record.path), cv2.IMREAD_UNCHANGED) > 8450)
        seen = cv2.imread(str(record.rgb_path))
        assert seen.shape == (128, 160, 3)
        assert np.abs(center(seen[..., 2] > 160) - (hot + (4, -6))).max() < 1


def test_a_homography_of_other_sizes_is_refused(make: Make, tmp_path: Path) -> None:
    path = tmp_path / 'h.yaml'
    path.write_text('homography: [[0.5, 0, 4], [0, 0.5, -6], [0, 0, 1]]\n'
                    'thermal_size: [160, 128]\nrgb_size: [640, 480]\n')
    with pytest.raises(UserError, match=r'another rgb_size \(\[640, 480\]\) than 320x240'):
        make_set([make()], tmp_path / 'set', both(homography=path))
    assert not (tmp_path / 'set').exists()


def test_calibration_and_tf_register(make: Make, tmp_path: Path) -> None:
    """RGB is 0.2 m to the right, and the scene is a plane at 5 m: 5.2 thermal pixels."""
    cameras = {
        THERMAL: {'size': (160, 128), 'k': np.array([(130, 0, 80), (0, 130, 64), (0, 0, 1)]),
                  'd': [0.0] * 5},
        RGB: {'size': (320, 240), 'k': np.array([(260, 0, 160), (0, 260, 128), (0, 0, 1)]),
              'd': [0.0] * 5}}
    bag = make(cameras=cameras, pose=((0, 0, 0, 1), (0.2, 0, 0)))
    shifts = []
    for name, plane in (('far', None), ('near', 5.0)):
        make_set([bag], tmp_path / name, both(rectify=True, plane_m=plane))
        record = load_coco(tmp_path / name / 'annotations.json').images[2]
        hot = center(cv2.imread(str(record.path), cv2.IMREAD_UNCHANGED) > 8450)
        shifts.append(center(cv2.imread(str(record.rgb_path))[..., 2] > 160) - hot)
    assert np.abs(shifts[0]).max() < 0.6
    assert np.abs(shifts[1] - (5.2, 0)).max() < 0.6


@pytest.mark.parametrize(('gap', 'pairs'), [
    (50, {0: 1, 100: 98, 300: 310}), (5, {0: 1, 100: 98}), (0.5, {})])
def test_each_rgb_image_is_used_only_for_the_nearest_frame(
    gap: float, pairs: dict[int, int],
) -> None:
    thermal = np.array([0, 100, 110, 200, 300], np.int64) * MS
    rgb = np.array([310, 1, 98], np.int64) * MS
    found = synchronize(thermal, rgb, gap * MS)
    assert {t // MS: r // MS for t, r in found.items()} == pairs
    assert synchronize(thermal, rgb[:1], 20 * MS) == {300 * MS: 310 * MS}
    assert synchronize(thermal, rgb[:0], 1e12) == synchronize(thermal[:0], rgb, 1e12) == {}


def test_frame_selection(make: Make, tmp_path: Path) -> None:
    bags = [make('a'), make('b')]
    report = make_set(bags, tmp_path / 'slow', both(rate=5))
    assert [p['frames'] for p in report['sources']] == [4, 4]
    coco = load_coco(tmp_path / 'slow' / 'annotations.json')
    # Both drives have the same stamps, as in simulation.
    for bag in bags:
        truth = truth_by_stamp(bag, coco)
        assert list(truth) == STAMPS[::2] and {r.bag for r in truth.values()} == {bag.name}
    report = make_set(bags, tmp_path / 'few', Choice(THERMAL, max_frames=5))
    assert report['frames'] == 5 and report['with_rgb'] == 0
    stands = write_two_cameras(tmp_path / 'bags' / 'stands', {
        s: scene(3) + np.uint16(20 * i) for i, s in enumerate(STAMPS)}, {})
    report = make_set([stands], tmp_path / 'still', Choice())
    assert (report['frames'], report['sources'][0]['near_duplicates']) == (1, 7)
    report = make_set([stands], tmp_path / 'all', Choice(min_change=0))
    assert report['frames'] == 8
    assert change(np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)) == 0


@pytest.mark.parametrize(('choice', 'words'), [
    (Choice(), r'/rgb/image_raw \(8\), /thermal/image_raw \(8\); choose one'),
    (Choice('/nothing', RGB), r'no images on /nothing; .*/thermal/image_raw \(8\)'),
    (Choice(THERMAL, '/nothing'), r'no images on /nothing; .*; choose one'),
    (Choice(THERMAL, THERMAL), 'both the thermal and the RGB topic'),
    (both(max_gap_ms=2), r'within 2 ms .* is \+3.0 ms off \(median\)'),
    (both(rectify=True), 'no CameraInfo on /thermal/camera_info'),
])
def test_errors_leave_no_files(
    make: Make, tmp_path: Path, choice: Choice, words: str,
) -> None:
    with pytest.raises(UserError, match=words):
        make_set([make()], tmp_path / 'set', choice)
    assert [p.name for p in tmp_path.iterdir()] == ['bags']


def test_a_wrong_clock_is_measured_and_corrected(make: Make, tmp_path: Path) -> None:
    bag = make(shift_ns=7_000 * MS + 3 * MS, clock_ns=7_000 * MS)
    with pytest.raises(UserError, match=r'\+7000.0 ms off.*RGB offset of -7000.0 ms'):
        make_set([bag], tmp_path / 'set', both())
    report = make_set([bag], tmp_path / 'set', both(rgb_offset_ms=-7000))
    assert report['with_rgb'] == 8 and report['sources'][0]['gap_ms']['max'] == 3.0


def test_frames_with_rgb_come_first(make: Make, tmp_path: Path) -> None:
    """RGB has the odd frames; every second frame from the first would include none of them."""
    bag = write_two_cameras(
        tmp_path / 'bags' / 'slow_rgb', {s: scene(i) for i, s in enumerate(STAMPS)},
        {s + 3 * MS: picture(i) for i, s in enumerate(STAMPS) if i % 2})
    for name, options, frames in (('apart', {'rate': 5.0}, STAMPS[1::2]),
                                  ('few', {'max_frames': 3}, [STAMPS[i] for i in (1, 3, 7)]),
                                  ('more', {'max_frames': 5}, [*STAMPS[:2], *STAMPS[3::2]])):
        report = make_set([bag], tmp_path / name, both(**options))
        coco = load_coco(tmp_path / name / 'annotations.json')
        assert [r.stamp_ns for r in coco.images] == frames
        assert report['with_rgb'] == min(4, len(frames))


def test_every_size_has_its_own_registration(make: Make, tmp_path: Path) -> None:
    path = tmp_path / 'h.json'
    path.write_text('[[0.5, 0, 4], [0, 0.5, -6], [0, 0, 1]]')
    bag = write_two_cameras(
        tmp_path / 'bags' / 'binned',
        {s: scene(i, (160, 128) if i < 4 else (120, 96)) for i, s in enumerate(STAMPS)},
        {s: picture(i) for i, s in enumerate(STAMPS)})
    make_set([bag], tmp_path / 'set', both(homography=path))
    sizes = []
    for record in load_coco(tmp_path / 'set' / 'annotations.json').images:
        sizes.append(cv2.imread(str(record.rgb_path)).shape[1::-1])
        assert sizes[-1] == (record.width, record.height)
    assert set(sizes) == {(160, 128), (120, 96)}


def test_a_missing_calibration_is_reported_before_images_are_read(make: Make) -> None:
    cameras = {topic: {'size': (160, 128), 'k': np.eye(3), 'd': [0.0] * 5}
               for topic in (THERMAL, RGB)}
    with pytest.raises(UserError, match='/tf_static does not connect'):
        plan_bag(make(cameras=cameras), both(rectify=True))
    with pytest.raises(UserError, match='no CameraInfo on /thermal/camera_info'):
        plan_bag(make('none'), both(rectify=True))


CAMERA = {'size': (160, 128), 'k': np.array([(130, 0, 80), (0, 130, 64), (0, 0, 1)]),
          'd': [0.0] * 5}


@pytest.mark.parametrize('topic', ['/thermal/camera_info', '/tf_static'])
def test_a_damaged_calibration_is_an_error(make: Make, tmp_path: Path, topic: str) -> None:
    bag, torn = make(cameras={THERMAL: CAMERA, RGB: CAMERA}, pose=((0, 0, 0, 1), (0, 0, 0))), (
        tmp_path / 'bags' / 'torn')
    with open_bag(bag) as reader, Writer(
            torn, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        made = {c.topic: writer.add_connection(c.topic, c.msgtype, typestore=reader.typestore)
                for c in reader.connections}
        for c, received, raw in reader.messages():
            writer.write(made[c.topic], received, raw[:30] if c.topic == topic else raw)
    with pytest.raises(UserError, match=f'torn: a message of {topic} is damaged'):
        plan_bag(torn, both(rectify=True))


@pytest.mark.parametrize('distortion', [[0.1] * 6, [np.nan] * 5])
def test_distortions_that_opencv_does_not_know(make: Make, distortion: list[float]) -> None:
    cameras = {THERMAL: CAMERA, RGB: {**CAMERA, 'd': distortion}}
    with pytest.raises(UserError, match='coefficients of /rgb/camera_info.* register by a homog'):
        plan_bag(make(cameras=cameras, pose=((0, 0, 0, 1), (0, 0, 0))), both(rectify=True))


def test_sigterm_leaves_no_files(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    bag = make()
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(collect, 'save_frame',
                        lambda *_: signal.raise_signal(signal.SIGTERM))
    signal.signal(signal.SIGTERM, lambda *_: None)  # if it is not caught, the test continues
    try:
        with pytest.raises(SystemExit, match='143'):
            data_collect([str(bag)], tmp_path / 'set', thermal_topic=THERMAL)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [p.name for p in tmp_path.iterdir()] == ['bags']


def test_contradicting_choices(tmp_path: Path) -> None:
    for options, words in (
            ({'rectify': True}, 'without an RGB topic'),
            ({'rgb_offset_ms': float('inf')}, 'inf is no time in milliseconds'),
            ({'max_gap_ms': float('nan')}, 'nan is no time in milliseconds'),
            ({'rgb_topic': RGB, 'plane_m': 5.0}, 'for registration by calibration'),
            ({'rgb_topic': RGB, 'homography': tmp_path / 'no.yaml'}, 'does not exist')):
        with pytest.raises(UserError, match=words):
            Choice(THERMAL, **options)  # type: ignore[arg-type]


def test_camera_info_is_next_to_the_images() -> None:
    assert info_topic('/a/image_raw') == info_topic('/a/image_raw/compressed') == '/a/camera_info'


def test_rectified_images_are_recognized_by_their_topic() -> None:
    assert all(map(is_rectified, (
        '/a/image_rect', '/a/image_rect_color/compressed', '/image_rect_raw')))
    assert not any(map(is_rectified, (
        '/a/nuc_corrected', '/direct/image_raw', '/image_rect/image_raw', '/a/image_rectangle')))


def test_kelvin_is_stored_in_hundredths_and_reported(make: Make, tmp_path: Path) -> None:
    bag = write_two_cameras(tmp_path / 'bags' / 'kelvin', {
        s: np.float32(280) + scene(i).astype(np.float32) / 1000 for i, s in enumerate(STAMPS)}, {})
    report = make_set([bag], tmp_path / 'set', Choice(THERMAL))
    assert report['sources'][0]['kelvin_as_hundredths'] == report['bit_depth']['uint16'] == 8
    record = load_coco(tmp_path / 'set' / 'annotations.json').images[0]
    stored = cv2.imread(str(record.path), cv2.IMREAD_UNCHANGED)
    assert np.abs(stored - (28000 + scene(0) / 10.0)).max() <= 0.51
    shut = {s: scene(i).astype(np.float32) / 1000 + np.float32(300 * (i != 2))
            for i, s in enumerate(STAMPS)}  # a camera that sends zeros once
    bag = write_two_cameras(tmp_path / 'bags' / 'shut', shut, {})
    part, = make_set([bag], tmp_path / 'shut', Choice(THERMAL))['sources']
    assert (part['frames'], part['not_kelvin'], len(part['unreadable'])) == (7, 1, 1)
    report = make_set([make()], tmp_path / 'counts', Choice(THERMAL))
    assert report['sources'][0]['kelvin_as_hundredths'] == 0


@pytest.mark.parametrize(('unit', 'offset', 'scale'), [
    ('celsius', -273.15, 1.0), ('fraction', -250.0, 0.01), ('counts', 0.0, 100.0)])
def test_float_images_that_are_not_kelvin(
    make: Make, tmp_path: Path, unit: str, offset: float, scale: float,
) -> None:
    """Of a cold night in degrees Celsius, most pixels would be 0 as kelvin."""
    kelvin = {s: np.float32(258) + scene(i).astype(np.float32) / 1000
              for i, s in enumerate(STAMPS)}
    bag = write_two_cameras(tmp_path / 'bags' / 'float', {
        s: ((frame + np.float32(offset)) * np.float32(scale)) for s, frame in kelvin.items()}, {})
    words = rf'None of the frames \(8\) .*cannot be kelvin; .*probably {unit}'
    with pytest.raises(UserError, match=words) as error:
        make_set([bag], tmp_path / 'set', Choice(THERMAL))
    assert error.value.fields == ('unit',) and not (tmp_path / 'set').exists()
    report = make_set([bag], tmp_path / 'set', Choice(THERMAL, unit=unit))
    assert report['frames'] == 8 and report['sources'][0]['not_kelvin'] == 0
    record = load_coco(tmp_path / 'set' / 'annotations.json').images[0]
    stored = cv2.imread(str(record.path), cv2.IMREAD_UNCHANGED)
    expected = (kelvin[STAMPS[0]] - 250) * 655.35 if unit == 'fraction' else (
        kelvin[STAMPS[0]] * 100)
    assert np.abs(stored - expected).max() <= 0.6
    with pytest.raises(UserError, match='the unit must be one of .*, not .furlong.'):
        Choice(unit='furlong')


def test_images_with_the_stamp_of_another_are_counted(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    bag, twice = make(), tmp_path / 'bags' / 'twice'
    with open_bag(bag) as reader, Writer(
            twice, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(THERMAL, IMAGE_TYPE, typestore=reader.typestore)
        for c, received, raw in reader.messages():
            for later in (0, 1) if c.topic == THERMAL else ():
                writer.write(connection, received + later, raw)
    data_collect([str(twice)], tmp_path / 'set')
    report = json.loads((tmp_path / 'set' / 'report.json').read_text())['sources'][0]
    assert (report['images'], report['repeated_stamps'], report['frames']) == (16, 8, 8)
    assert '8 images with the stamp of an earlier one; the camera driver' in (
        capsys.readouterr().out)


def test_images_that_opencv_refuses_are_left_out(make: Make, tmp_path: Path) -> None:
    pictures = {s: picture(i) for i, s in enumerate(STAMPS)}
    pictures[STAMPS[3]] = np.zeros((6, 7, 2), np.uint8)  # half a pair of YUV pixels
    bag = write_two_cameras(
        tmp_path / 'bags' / 'odd', {s: scene(i) for i, s in enumerate(STAMPS)}, pictures)
    report = make_set([bag], tmp_path / 'set', both())
    assert (report['frames'], report['with_rgb']) == (8, 7)
    assert f'{RGB} at {STAMPS[3]} ns' in report['sources'][0]['unreadable'][0]


def test_bad_images_are_left_out_and_named(make: Make, tmp_path: Path) -> None:
    frames = {s: scene(i) for i, s in enumerate(STAMPS)}
    frames[STAMPS[2]] = np.zeros((0, 160), np.uint16)
    bag = write_two_cameras(tmp_path / 'bags' / 'mixed', frames, {})
    report = make_set([bag], tmp_path / 'set', Choice())
    assert report['frames'] == 7
    assert f'{THERMAL} at {STAMPS[2]} ns' in report['sources'][0]['unreadable'][0]
    with pytest.raises(UserError, match='already exists'):
        make_set([bag], tmp_path / 'set', Choice())


@pytest.mark.parametrize('encoding', ['bgr8', 'rgb8', 'bgra8', 'mono8', *CAMERA_ENCODINGS])
def test_color_encodings(encoding: str) -> None:
    """A plane of one color has the same values in every encoding except gray ones."""
    class Message:
        height, width, is_bigendian = 6, 8, 0

    blue, green, red = 200, 120, 40
    raw = {'bgr8': (blue, green, red), 'rgb8': (red, green, blue),
           'bgra8': (blue, green, red, 255), 'mono8': (99,)}
    message: Any = Message()
    message.encoding = encoding
    if encoding in raw:
        pixels = np.full((6, 8, len(raw[encoding])), raw[encoding], np.uint8)
    elif encoding in YUV:
        full = np.full((6, 8, 3), (blue, green, red), np.uint8)
        y, v, u = cv2.cvtColor(full, cv2.COLOR_BGR2YCrCb)[0, 0].tolist()
        y, u, v = 16 + y * 219 // 255, *(128 + (c - 128) * 224 // 255 for c in (u, v))
        order = (u, y, v, y) if encoding in ('yuv422', 'uyvy') else (y, u, y, v)
        pixels = np.tile(np.array(order, np.uint8), (6, 4)).reshape(6, 8, 2)
    else:
        pattern = encoding.removeprefix('bayer_').removesuffix('8')
        tile = np.array([{'r': red, 'g': green, 'b': blue}[c] for c in pattern], np.uint8)
        pixels = np.tile(tile.reshape(2, 2), (3, 4))[..., None]
    message.step = pixels.shape[1] * pixels.shape[2] + 4  # padded rows
    padded = np.pad(pixels.reshape(6, -1), ((0, 0), (0, 4)))
    message.data = padded.ravel()
    found = color_picture(message)
    wanted = (99, 99, 99) if encoding == 'mono8' else (blue, green, red)
    assert np.abs(found[2:4, 2:6].astype(int) - wanted).max() <= (4 if encoding in YUV else 0)
    message.data = message.data[:20]
    with pytest.raises(ValueError, match='truncated'):
        color_picture(message)
