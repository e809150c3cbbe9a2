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

"""Following the target of a sequence: what is started, counted, drawn, and refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cgdet_core.data.sources import Frame, open_path
from cgdet_core.errors import UserError
from cgdet_core.experiments.starts import drawn as with_other_boxes
from cgdet_core.experiments.starts import parts
from cgdet_core.runtime import Detector
from cgdet_core.runtime.detection.detector import finder
from cgdet_core.runtime.imaging.frames import read_thermal
from cgdet_core.runtime.tracking.target import State, Target
from cgdet_core.tracking.attributes import find_attributes
from cgdet_core.tracking.baselines import BASELINES, NearestDetection, open_baseline
from cgdet_core.tracking.benchmarks import BENCHMARKS
from cgdet_core.tracking.evaluation import evaluate, measure, Result, summarize
from cgdet_core.tracking.following import Clock, follow_sequence
from cgdet_core.tracking.one_source import follow_source, outputs_of, parse_box
from cgdet_core.tracking.sequences import find_sequences, open_sequence, rgb_of
import cv2
from drawn import boxes, write_frames, write_sequence, write_table, write_video
import numpy as np
from numpy.typing import NDArray
import pytest

ROOT = Path(__file__).resolve().parents[2]


class Recorder:
    """Follow perfectly, and record what was asked."""

    def __init__(self, first: int = 0) -> None:
        self.calls: list[tuple[str, float]] = []
        self.number = first

    def start(self, frame: NDArray[Any], box: NDArray[Any], stamp: float,
              label: int | None = None) -> Target:
        self.calls.append(('start', stamp))
        return self._next()

    def follow(self, frame: NDArray[Any], stamp: float, rgb: NDArray[Any] | None = None,
               frozen: bool = False) -> Target:
        self.calls.append(('follow', stamp))
        return self._next()

    def _next(self) -> Target:
        x, y, w, h = boxes(100)[self.number]
        self.number += 1
        return Target(np.array((x, y, x + w, y + h), np.float32), 0.9, State.TRACKED)


def result(folder: Path, follower: Any, benchmark: str = 'plain') -> Result:
    kind = BENCHMARKS[benchmark]
    sequence = open_sequence(*find_sequences(folder, kind), kind)
    marked = find_attributes(sequence.entry, kind, len(sequence.names))
    return measure(sequence.entry, follow_sequence(follower, sequence), kind, marked)


def test_a_sparse_truth_is_followed_from_its_first_box_on(tmp_path: Path) -> None:
    names = write_frames(tmp_path / 'walk' / 'thermal', 10)
    write_table(tmp_path / 'walk' / 'gt_thermal.csv', names[3::3], boxes(10)[3::3])
    follower = Recorder(3)
    found = result(tmp_path / 'walk', follower)
    assert [name for name, _ in follower.calls] == ['start', *['follow'] * 6]
    assert [round(stamp * 25) for _, stamp in follower.calls] == list(range(3, 10))
    assert len(found.errors) == 3  # frames 3, 6 and 9
    assert found.curves.success.mean() == pytest.approx(20 / 21)
    assert found.fps is not None and found.fps > 0


def test_starts_are_in_other_frames_or_with_other_boxes(tmp_path: Path) -> None:
    [entry] = find_sequences(write_sequence(tmp_path / 'walk', 4))
    order = [[*range(n, 4)] for n in range(4)] + [[*range(3 - n, -1, -1)] for n in range(4)]
    for kept, part in zip(order, parts(open_sequence(entry)), strict=True):
        assert part.names == [f.name for f in part.source.frames] == [f'{n:06d}.png' for n in kept]
        np.testing.assert_array_equal(part.truths[0].boxes, boxes(4)[kept])
    found = list(with_other_boxes(open_sequence(entry)))
    assert [len(list(part.source.frames)) for part in found] == [4] * 12
    first, *others = np.stack([part.truths[0].boxes for part in found], 1)
    assert all((rows == box).all() for rows, box in zip(others, boxes(4)[1:]))
    moves = first[:, :2] + first[:, 2:] / 2 - (boxes(1)[0, :2] + boxes(1)[0, 2:] / 2)
    assert np.abs(moves).max(1) == pytest.approx([2.0] * 8 + [0.0] * 4)  # of 20 pixels
    for sides in first[:, 2:].T:
        assert sides == pytest.approx([20.0] * 8 + [16.0, 18.0, 22.0, 24.0])


def test_frames_in_which_the_target_is_not_visible_do_not_count(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / 'walk', 6)
    truth = boxes(6)
    truth[0] = truth[3] = np.nan
    truth[4, 2] = 0
    (folder / 'gt_thermal.csv').unlink()
    np.savetxt(folder / 'groundtruth.txt', truth, delimiter=',')
    found = result(folder, Recorder(1))
    assert len(found.errors) == 3
    assert len(result(folder, Recorder(1), 'lsotb-tir').errors) == 6


def test_vtuav_counts_every_tenth_frame(tmp_path: Path) -> None:
    folder = tmp_path / 'walk'
    write_frames(folder / 'ir', 21)
    for file in ('ir.txt', 'rgb.txt'):
        np.savetxt(folder / file, boxes(21)[::10])
    found = result(folder, Recorder(), 'vtuav')
    assert len(found.errors) == 3 and found.curves.precision[0] == 1


def test_a_static_box_is_measured_by_hand(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / 'walk', 8)
    report = summarize([result(folder, open_baseline('static'))])
    # Steps of 3 pixels: errors of 0, 3 .. 21, of which 7 of 8 are at most 20; of the width (20),
    # 0 and 0.15 are at most 0.2.
    assert report['precision_20px'] == 7 / 8 and report['normalized_precision'] == 2 / 8
    exceeded = [sum((20 - d) / (20 + d) > k * 0.05 for k in range(21)) if d < 20 else 0
                for d in range(0, 24, 3)]
    assert report['success_auc'] == pytest.approx(sum(exceeded) / 21 / 8)
    assert report['mean']['success_auc'] == report['success_auc']
    assert report['sequences']['walk']['frames'] == 8


def test_opencv_follows_a_square_and_takes_16_bit_frames(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / 'walk', 8, np.uint16)
    found = result(folder, open_baseline('mil'))
    static = result(folder, open_baseline('static'))
    # MIL draws its samples at random, so how well it follows is not asserted.
    assert found.curves.success.mean() > 0.2
    assert found.curves.success.tolist() != static.curves.success.tolist()


def test_a_box_that_opencv_does_not_take(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / 'walk')
    (folder / 'gt_thermal.csv').write_text('file,x,y,w,h\n' + '\n'.join(
        f'00000{n}.png,500,400,9,9' for n in range(2)))
    with pytest.raises(UserError, match=r'000000.png: OpenCV cannot follow the box 500, 400'):
        result(folder, open_baseline('mil'))


def test_baselines_that_are_not_there() -> None:
    with pytest.raises(UserError, match="no baseline 'best'; choose from static, mil, kcf"):
        open_baseline('best')
    for name in ('kcf', 'csrt'):
        if not hasattr(cv2, f'Tracker{name.upper()}_create'):
            with pytest.raises(UserError, match=f'no tracker {name}, which is part of opencv-con'):
                open_baseline(name)
    with pytest.raises(UserError, match='nano requires nanotrack_backbone_sim.onnx and nano'):
        open_baseline('nano', files=Path('none'))
    assert BASELINES[0] == 'static' and BASELINES[-1] == 'detector'


def test_the_nearest_detection_of_the_class(scenes: Path) -> None:
    """Two equal frames: the detection nearest to the first box is found again."""
    detector = Detector.load(ROOT / 'models' / 'thermal_int8.onnx')
    frame = read_thermal(sorted((scenes.parent / 'thermal').iterdir())[0])
    found = detector.detect(frame, 0.1)
    wanted = found.boxes[0]
    follower = open_baseline('detector', detector)
    follower.start(frame, wanted + np.float32(1), 0.0)
    target = follower.follow(frame, 0.1)
    assert target.state is State.TRACKED and target.box.tolist() == wanted.tolist()
    assert target.score == pytest.approx(float(found.scores[0]))
    alone = NearestDetection(detector)
    far = np.array((-90, -90, -80, -80), np.float32)
    alone.start(frame, far, 0.0)
    lost = alone.follow(frame, 0.1)
    assert lost.state is State.LOST and lost.box.tolist() == far.tolist()
    box, score, label = finder(detector)(frame)[0]
    assert box.tolist() == wanted.tolist() and label == found.labels[0]


def test_a_bad_sequence_costs_only_itself(tmp_path: Path) -> None:
    good, bad = write_sequence(tmp_path / 'a'), write_sequence(tmp_path / 'b')
    (bad / 'thermal' / '000003.png').write_bytes(b'damaged')
    opened = [open_sequence(*find_sequences(folder)) for folder in (bad, good)]
    (_, error), (_, found) = evaluate(lambda: open_baseline('static'), opened)
    assert isinstance(error, UserError) and '000003.png is not an image' in str(error)
    assert isinstance(found, Result) and found.name == 'a'


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / 'walk')
    cv2.imwrite(str(folder / 'thermal' / '000004.png'), np.zeros((50, 60), np.uint8))
    with pytest.raises(UserError, match='000004.png has 60x50 pixels, earlier frames have 128x96'):
        result(folder, open_baseline('static'))


def test_what_a_follower_refuses_names_the_frame(tmp_path: Path) -> None:
    class Refusing(Recorder):
        def start(self, *_: Any) -> Target:
            raise ValueError('the box is outside the frame')

    folder = write_sequence(tmp_path / 'walk')
    with pytest.raises(UserError, match='000000.png: the box is outside the frame'):
        result(folder, Refusing())


def test_videos_with_target_and_truth(tmp_path: Path) -> None:
    write_video(tmp_path / 'walk' / 'thermal.mp4', 6)
    write_table(tmp_path / 'walk' / 'gt_thermal_square.csv', ['2', '5'], boxes(6)[[2, 5]])
    sequence = open_sequence(*find_sequences(tmp_path / 'walk'))
    [(_, found)] = evaluate(lambda: open_baseline('static'), [sequence], videos=tmp_path / 'out')
    assert isinstance(found, Result)
    capture = cv2.VideoCapture(str(tmp_path / 'out' / 'walk' / 'square.mp4'))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 4  # from frame 2 on
    picture = capture.read()[1]
    assert np.ptp(picture.astype(int), axis=2).max() > 50  # the box is in color


def test_attributes_have_numbers_and_a_plot(tmp_path: Path) -> None:
    pytest.importorskip('matplotlib', reason='training is not installed')
    from cgdet_core.tracking.plots import draw_report

    folder = write_sequence(tmp_path / 'walk', 8)
    (folder / 'occlusion.label').write_text('1\n1\n' + '0\n' * 6)
    (folder / 'motion_change.label').write_text('0\n' * 8)
    report = summarize([result(folder, open_baseline('static'))])
    assert list(report['attributes']) == ['occlusion']
    assert report['attributes']['occlusion']['precision_20px'] == 1
    assert report['attributes']['occlusion']['frames'] == 2
    figure = draw_report(report, 'static')
    assert [axes.get_title() for axes in figure.axes] == [
        'success', 'precision', 'normalized precision', 'attributes (sequences that have them)']
    line = figure.axes[1].lines[0]
    assert line.get_ydata()[20] == report['precision_20px'] == 7 / 8


def test_a_source_of_ones_own(tmp_path: Path) -> None:
    write_video(tmp_path / 'clip.mp4', 6)
    box = parse_box('16,30,20,20')
    assert box.tolist() == [16, 30, 36, 50]
    source = open_path(tmp_path / 'clip.mp4')
    found = list(follow_source(Recorder(2), source, box, tmp_path / 'out', Clock(), first=2))
    video, table = outputs_of(tmp_path / 'out', source)
    assert len(found) == 4 and cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 4
    lines = table.read_text().splitlines()
    assert lines[:2] == ['file,x,y,w,h,score,state',
                         'clip_000002.png,16.00,30.00,20.00,20.00,0.9000,tracked']
    # The table is a truth.
    (tmp_path / 'clip.mp4').rename(tmp_path / 'out' / 'thermal.mp4')
    table.rename(tmp_path / 'out' / 'gt_thermal.csv')
    lines = (tmp_path / 'out' / 'gt_thermal.csv').read_text().replace('clip_', 'thermal_')
    (tmp_path / 'out' / 'gt_thermal.csv').write_text(lines)
    assert len(result(tmp_path / 'out', Recorder(2)).errors) == 4


@pytest.mark.parametrize('text', ['', '1,2,3', 'a,b,c,d', '1,2,0,4', '1,2,3,-4', '1,2,nan,4'])
def test_boxes_that_are_none(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_box(text)
    assert caught.value.fields == ('box',)


def test_a_source_without_the_frame(tmp_path: Path) -> None:
    write_video(tmp_path / 'clip.mp4', 3)
    source = open_path(tmp_path / 'clip.mp4')
    with pytest.raises(UserError, match='clip.mp4 has no frame 7'):
        list(follow_source(Recorder(), source, parse_box('1,2,3,4'), tmp_path / 'out', Clock(),
                           first=7))
    assert not (tmp_path / 'out').exists()


class Both(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...] | None] = []

    def start(self, *values: Any, rgb: NDArray[Any] | None = None, **others: Any) -> Target:
        self.shapes.append(None if rgb is None else rgb.shape)
        return super().start(*values, **others)

    def follow(self, *values: Any, rgb: NDArray[Any] | None = None, **others: Any) -> Target:
        self.shapes.append(None if rgb is None else rgb.shape)
        return super().follow(*values, **others)


def test_rgb_images_are_passed_on_where_a_sequence_has_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    write_sequence(tmp_path / 'walk')
    rgb = tmp_path / 'walk' / 'rgb'
    names = write_frames(rgb, 8)
    sequence = open_sequence(*find_sequences(tmp_path / 'walk'))

    def shapes() -> list[tuple[int, ...] | None]:
        again = open_sequence(sequence.entry)
        both = Both()
        follow_sequence(both, replace(again, rgb=rgb_of(rgb, again.names)))
        return both.shapes

    assert [shape and shape[2] for shape in shapes()] == [3] * 8
    (rgb / names[2]).unlink()
    assert [shape and shape[2] for shape in shapes()] == [3, 3, None, 3, 3, 3, 3, 3]
    both = Both()
    list(follow_source(both, open_path(tmp_path / 'walk' / 'thermal'), parse_box('1,2,30,40'),
                       tmp_path / 'out', Clock(), first=1, rgb=rgb_of(rgb, sequence.names)))
    assert [shape and shape[2] for shape in both.shapes] == [3, None, 3, 3, 3, 3, 3]
    for name in names[3:5]:
        cv2.imwrite(str(rgb / name), np.zeros((50, 60, 3), np.uint8))
    assert [shape and shape[2] for shape in shapes()] == [3, 3, None, None, None, 3, 3, 3]
    [said] = [text for text in caplog.messages if 'pixels' in text]
    assert '000003.png has 60x50 pixels, its thermal frame has 128x' in said
    assert said.endswith('followed in thermal alone there.')
    again = open_sequence(sequence.entry)
    assert follow_sequence(Both(), replace(again, rgb=rgb_of(rgb, again.names))).with_rgb
    for name in names:
        cv2.imwrite(str(rgb / name), np.zeros((50, 60, 3), np.uint8))
    again = open_sequence(sequence.entry)
    assert not follow_sequence(Both(), replace(again, rgb=rgb_of(rgb, again.names))).with_rgb


def test_a_frame_that_cannot_be_read_costs_itself(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / 'walk')
    (folder / 'thermal' / '000003.png').write_bytes(b'no picture')
    said: list[UserError] = []
    sequence = open_sequence(*find_sequences(folder))
    run = follow_sequence(Recorder(), sequence, unreadable=said.append)
    assert len(said) == 1 and '000003.png' in str(said[0])
    assert run.boxes[3].tolist() == run.boxes[2].tolist() and np.isfinite(run.boxes).all()
    assert run.followed == 6
    left: list[UserError] = []
    found = list(follow_source(Recorder(), open_path(folder / 'thermal'), parse_box('1,2,30,40'),
                               tmp_path / 'out', Clock(), unreadable=left.append))
    assert len(found) == 7 and len(left) == 1
    assert len((tmp_path / 'out' / 'track.csv').read_text().splitlines()) == 8


def test_a_truth_of_corners_is_questioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    folder = write_sequence(tmp_path / 'walk')
    (folder / 'gt_thermal.csv').unlink()
    truth = np.tile([70.0, 50, 90, 80], (8, 1))  # 128x96 pixels
    np.savetxt(folder / 'groundtruth.txt', truth, delimiter=',')
    result(folder, Recorder())
    assert 'groundtruth.txt: all boxes reach beyond' in caplog.text
    caplog.clear()
    truth[:] = 10, 6, 120, 90  # a large target that leaves the frame
    np.savetxt(folder / 'groundtruth.txt', truth, delimiter=',')
    result(folder, Recorder())
    assert not caplog.text


def test_stamps_of_another_recording_end_the_target(tmp_path: Path) -> None:
    clock, frame = Clock(), Frame('a.png', lambda: np.zeros((2, 2)))
    assert [clock.at(frame, stamp) for stamp in (5.0, 5.1, 4.9, 5.2)] == [5.0, 5.1, 5.1, 5.2]
    assert clock.sentence.startswith('1 image without a stamp, or with one that is not later')
    with pytest.raises(UserError, match='a.png.* is 1.2 s older .* another recording'):
        clock.at(frame, 4.0)
    assert Clock().sentence == ''


@pytest.mark.parametrize(('stamps', 'repeated'), [
    ((0, 0, 0), 3), ((50, 50, 50), 2), ((50, 0, 52), 1), ((0, 50, 51), 1)])
def test_images_of_a_bag_without_a_stamp_have_the_time_of_their_recording(
    stamps: tuple[int, ...], repeated: int,
) -> None:
    clock, second = Clock(), 10**9
    frames = [Frame('', lambda: np.zeros((2, 2)), stamp_ns=stamp * second,
                    received_ns=(7 + number) * second) for number, stamp in enumerate(stamps)]
    found = [clock.at(frame, frame.stamp_ns / 1e9) for frame in frames]
    assert np.diff(found).tolist() == [1, 1] and clock.repeated == repeated


def test_outputs_are_a_video_or_a_folder(tmp_path: Path) -> None:
    source = open_path(write_sequence(tmp_path / 'walk') / 'thermal')
    assert outputs_of(tmp_path / 'run_v1.2', source)[0].parent.name == 'run_v1.2'
    for name in ('o.avi', 'o.csv'):
        with pytest.raises(UserError, match='is named like a file; name a video'):
            outputs_of(tmp_path / name, source)
    (tmp_path / 'night.2').mkdir()
    assert len(outputs_of(tmp_path / 'night.2', source)) == 2
    with pytest.raises(UserError, match='is not in pixels'):
        parse_box('1,2,1e39,4')


def test_mil_refuses_targets_for_which_it_does_not_return() -> None:
    frame = np.zeros((90, 90), np.uint8)
    with pytest.raises(ValueError, match='does not return for targets as small as 4x20'):
        open_baseline('mil').start(frame, np.array([10, 10, 14, 30]), 0.0)
