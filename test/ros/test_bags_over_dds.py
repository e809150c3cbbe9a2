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

"""Bags played into the real node: no frame is lost, and the offline evaluation is matched."""

from collections.abc import Callable
from html.parser import HTMLParser
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from time import monotonic
from types import SimpleNamespace
from typing import Any

from cgdet_core.data.bags.truth import truth_by_stamp
from cgdet_core.data.coco import load_coco
from cgdet_core.data.sources import bag_frames
from cgdet_core.errors import UserError
from cgdet_core.runtime import DetectionCard, Detector, load_card
from cgdet_core.runtime.detection.detector import EVALUATION_THRESHOLD
from cgdet_ros.tools import collector, demo_input, session
from cgdet_ros.tools.collector import Collected
from cgdet_ros.tools.demo import main, remarks, results, summarize
from cgdet_ros.tools.play import play
from cgdet_ros.tools.session import node_process, run_bag
import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np
import pytest
import rclpy
from rclpy.qos import DurabilityPolicy, qos_profile_sensor_data, QoSProfile
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import String
from two_cameras import PERIOD, scene, START, THERMAL, write_two_cameras

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.ros
Run = Callable[..., subprocess.CompletedProcess]


def test_the_node_equals_the_offline_evaluation(
    domain: int, run_cgdet: Run, bag: Path, scenes: Path, onnx_model: Path, tmp_path: Path,
) -> None:
    run = run_bag(bag, onnx_model, EVALUATION_THRESHOLD, rate=100.0)  # it waits for each answer
    assert len(run.sent) == 12 and run.sent.keys() == run.received.keys()
    assert run.headers_equal and run.frame_ids == {'thermal_camera'}
    detector = Detector.load(onnx_model)
    for frame in bag_frames(bag):
        expected = detector.detect(frame.pixels, EVALUATION_THRESHOLD)
        found = run.received[frame.stamp_ns]
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    card = load_card(onnx_model, DetectionCard)
    report = summarize(run, truth_by_stamp(bag, load_coco(scenes, None, card.classes)), card)
    result = run_cgdet('bag', 'evaluate', onnx_model, bag, '--data', scenes,
                       '--json', tmp_path / 'o.json')
    assert result.returncode == 0, result.stderr
    offline = json.loads((tmp_path / 'o.json').read_text())
    for name in ('AP', 'AP50'):
        assert report[name] == pytest.approx(offline[name], abs=1e-3)


def test_a_compressed_bag_is_played_into_a_node_for_compressed_images(
    domain: int, write_compressed: Callable[..., Path], onnx_model: Path, tmp_path: Path,
) -> None:
    bag = write_compressed(tmp_path / 'compressed')
    run = run_bag(bag, onnx_model, EVALUATION_THRESHOLD)
    assert len(run.sent) == 12 and run.received.keys() == run.sent.keys()
    detector = Detector.load(onnx_model)
    frames = {f.stamp_ns: f.pixels for f in bag_frames(bag)}
    for stamp, found in run.received.items():
        expected = detector.detect(frames[stamp], EVALUATION_THRESHOLD)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def test_a_demo_without_a_processed_image_fails_with_the_reason(
    domain: int, write_compressed: Callable[..., Path], toy: Path, tmp_path: Path,
) -> None:
    bag = write_compressed(tmp_path / 'compressed', lambda frame: b'no picture')
    result = subprocess.run(
        [sys.executable, '-m', 'cgdet_ros.tools.demo', '--bag', bag, '--model', toy,
         '--output', tmp_path / 'out'], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert ('processed none of the 12 images: the compressed image is not PNG, JPEG'
            in result.stderr)
    assert list(tmp_path.glob('*out*')) == []  # no folder remains


@pytest.mark.parametrize('reports', [True, False])
def test_a_node_that_builds_an_engine_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, reports: bool,
) -> None:
    waiting: Any = SimpleNamespace(
        classes=None, run=Collected(), check=lambda: None)
    now = 0.0  # simulated: the build takes five minutes

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if reports:
            waiting.run.status = {'elapsed s': f'{now:.0f}'}
        if now > 300:
            waiting.classes = {0: 'person'}

    monkeypatch.setattr(session, 'monotonic', lambda: now)
    monkeypatch.setattr(session, 'sleep', sleep)
    if reports:
        session.wait_until_active(waiting)
    else:
        with pytest.raises(UserError, match='did not start within 60 s'):
            session.wait_until_active(waiting)
    assert (waiting.classes is not None) == reports


def write_latched(path: Path) -> None:
    """Write /robot_description of two latched publishers, and a recorded /clock."""
    store = get_typestore(Stores.ROS2_JAZZY)
    never = QosTime(2**31 - 1, 0)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        for i in (1, 2):
            offered = Qos(QosHistory.KEEP_LAST, i, QosReliability.RELIABLE,
                          QosDurability.TRANSIENT_LOCAL, never, never, QosLiveliness.AUTOMATIC,
                          never, False)
            topic = bag.add_connection('/robot_description', 'std_msgs/msg/String',
                                       typestore=store, offered_qos_profiles=[offered])
            message = store.types['std_msgs/msg/String'](data=f'robot {i}')
            bag.write(topic, i * 10**9, store.serialize_cdr(message, 'std_msgs/msg/String'))
        topic = bag.add_connection('/clock', 'rosgraph_msgs/msg/Clock', typestore=store)
        time = store.types['builtin_interfaces/msg/Time'](sec=77, nanosec=0)
        message = store.types['rosgraph_msgs/msg/Clock'](clock=time)
        bag.write(topic, 10**9, store.serialize_cdr(message, 'rosgraph_msgs/msg/Clock'))


def test_topics_of_several_publishers_are_played_latched_and_with_one_clock(
    create_node: Any, tmp_path: Path,
) -> None:
    write_latched(tmp_path / 'bag')
    node = create_node('player')
    robots: list[String] = []
    clocks: list[Clock] = []
    node.create_subscription(String, '/robot_description', robots.append, QoSProfile(
        depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    node.create_subscription(Clock, '/clock', clocks.append, qos_profile_sensor_data)
    assert play(node, tmp_path / 'bag', rate=10, clock=True) == 2
    end = monotonic() + 120
    while node.count_publishers('/robot_description') or len(robots) + len(clocks) < 4:
        assert monotonic() < end
        rclpy.spin_once(node, timeout_sec=0.1)
    assert [m.data for m in robots] == ['robot 1', 'robot 2']
    assert [m.clock.sec for m in clocks] == [1, 2]


def test_play_publishes_every_frame_unchanged(create_node: Any, bag: Path) -> None:
    node = create_node('listener')
    received: list[Image] = []
    node.create_subscription(Image, 'image_raw', received.append, 50)
    player = subprocess.Popen(
        [sys.executable, '-m', 'cgdet_core', 'bag', 'play', str(bag), '--rate', '4'], cwd=ROOT)
    try:
        while player.poll() is None or rclpy.ok() and len(received) < 12:
            rclpy.spin_once(node, timeout_sec=0.1)
        assert player.returncode == 0
        expected = list(bag_frames(bag))
        assert [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in received] == [
            f.stamp_ns for f in expected]
        for message, frame in zip(received, expected):
            assert message.encoding == 'mono16' and message.header.frame_id == 'thermal_camera'
            assert bytes(message.data) == frame.pixels.tobytes()
    finally:
        player.kill()


def test_the_demo_writes_table_pictures_and_video(
    domain: int, bag: Path, scenes: Path, toy: Path, tmp_path: Path,
) -> None:
    out = tmp_path / 'out'
    result = subprocess.run(
        [sys.executable, '-m', 'cgdet_ros.tools.demo', '--bag', bag, '--data', scenes, '--model',
         toy, '--output', out], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    report = json.loads((out / 'report.json').read_text())
    assert report['frames sent'] == report['frames processed'] == 12
    assert report['frames dropped'] == 0
    assert 0 <= report['AP'] <= 1 and report['image to detections p50 ms'] > 0
    assert 'frames processed' in result.stdout
    assert cv2.imread(str(out / 'contact_sheet.png')).shape[1] == 4 * 480
    video = cv2.VideoCapture(str(out / 'detections.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == report['frames processed']
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(5, abs=0.1)
    page = Page()
    page.feed((out / 'index.html').read_text())
    assert {'detections.mp4', 'contact_sheet.png'} <= set(page.files)
    assert all((out / name).is_file() for name in page.files)  # nothing from a network
    assert all(str(key) in page.text for key in report)
    assert f'{report["AP"]:.3f}' in page.text and 'make demo IMAGES=' in page.text


def test_the_demo_follows_a_person_in_the_drawn_street(
    domain: int, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = next(iter(demo_input.street(0.6, ('person',))))[0]  # other lengths have other people
    row = int(np.flatnonzero((scene.labels == 0) & (scene.visible > 0.95))[0])
    monkeypatch.setattr(demo_input, 'FOLLOWED', int(scene.track_ids[row]))
    monkeypatch.setattr(demo_input, 'SECONDS', 0.6)
    out = tmp_path / 'out'
    with pytest.raises(SystemExit) as ended:
        main(['--seconds', '0.6', '--model', str(toy), '--output', str(out)])
    assert not ended.value.code
    assert "followed by the package's tracker" in (out / 'index.html').read_text()
    x, y = scene.boxes[row, 0], scene.boxes[row, 1::2].mean()
    frame = cv2.VideoCapture(str(out / 'detections.mp4')).read()[1]
    edge = frame[round(y) - 5:round(y) + 5, round(x) - 5:round(x) - 2].astype(int)
    assert (edge[..., 1] - edge[..., 2]).max() > 60, 'a green line to the left of the person'


def test_the_demo_of_a_street_without_that_person(
    domain: int, toy: Path, tmp_path: Path,
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(['--seconds', '0.2', '--model', str(toy), '--output', str(tmp_path / 'out')])
    assert not ended.value.code
    assert 'tracker' not in (tmp_path / 'out/index.html').read_text()


class Page(HTMLParser):
    """The files that a page refers to, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[str] = []
        self.text = ''

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.files += [v for k, v in attributes if k in ('src', 'href') and v is not None]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_demo_plays_the_topic_that_is_chosen(
    domain: int, toy: Path, tmp_path: Path,
) -> None:
    frames = {START + i * PERIOD: scene(i) for i in range(3)}
    bag = write_two_cameras(tmp_path / 'two', frames, {START: np.zeros((96, 128, 3), np.uint8)})
    command = [sys.executable, '-m', 'cgdet_ros.tools.demo', '--bag', bag, '--model', toy,
               '--output', tmp_path / 'out']
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and 'several image topics' in result.stderr
    assert result.stderr.strip().endswith('choose one. (--topic)')
    result = subprocess.run([*command, '--topic', THERMAL], cwd=ROOT, capture_output=True,
                            text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / 'out' / 'report.json').read_text())['frames processed'] == 3


def test_the_demo_draws_a_street_and_needs_no_torch(
    domain: int, toy: Path, tmp_path: Path,
) -> None:
    code = ('import sys; sys.modules.update(dict.fromkeys("torch torchmetrics pydantic".split()));'
            ' from cgdet_ros.tools.demo import main; main()')
    result = subprocess.run(
        [sys.executable, '-c', code, '--seconds', '0.3', '--model', toy], cwd=tmp_path,
        capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': os.pathsep.join(
            [str(ROOT), os.environ.get('PYTHONPATH', '')])})
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / 'demo' / 'report.json').read_text())
    assert report['frames processed'] == 6 and 0 <= report['AP'] <= 1
    assert 'frames/s' in result.stdout and 'open demo/index.html' in result.stdout


def test_every_picture_of_a_folder_is_processed_and_a_broken_one_is_named(
    domain: int, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / 'pictures').mkdir()
    for i in range(6):
        frame = np.random.default_rng(i).integers(0, 255, (64, 80), np.uint8)
        cv2.imwrite(str(tmp_path / 'pictures' / f'{i}.png'), frame)
    (tmp_path / 'pictures' / '3_broken.png').write_bytes(b'no picture')
    with pytest.raises(SystemExit) as ended:
        main(['--images', str(tmp_path / 'pictures'), '--model', str(toy), '--output',
              str(tmp_path / 'out')])
    assert ended.value.code == 1
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert report['frames sent'] == report['frames processed'] == 6
    output = capsys.readouterr()
    assert '3_broken.png' in output.err and 'cannot be read: 3_broken.png' in output.out


def test_an_image_that_the_node_never_received_is_not_waited_for(
    create_node: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = create_node(kind=collector.Collector)
    node.sent(bytes(4) + collector.STAMP.pack(7, 0))
    status = DiagnosticStatus(name='thermal_detector: camera', message='running', values=[
        KeyValue(key='received', value='0')])
    monkeypatch.setattr(collector, 'LOST_S', 0.0)
    node.wait_for_answer(lambda: node._diagnostics(DiagnosticArray(status=[status])))
    monkeypatch.setattr(collector, 'STALLED_S', 0.0)
    status.values[0].value = '1'  # it was received, and there is no answer
    node._diagnostics(DiagnosticArray(status=[status]))
    with pytest.raises(UserError, match='did not answer an image within 0 s: running'):
        node.wait_for_answer(lambda: None)


def test_a_running_node_that_names_classes_ends_the_run_with_a_sentence(
    domain: int, bag: Path, toy: Path,
) -> None:
    with node_process(toy, backend='onnxruntime', class_names='true'):
        with pytest.raises(UserError, match='set the parameter class_names of the node to false'):
            run_bag(bag, toy, -1.0, running=True)


def test_answers_that_cannot_be_read_end_the_waiting(create_node: Any) -> None:
    node = create_node(kind=collector.Collector)
    node.sent(bytes(4) + collector.STAMP.pack(7, 0))
    node.fail(IndexError('list index out of range'))
    with pytest.raises(UserError, match='cannot be read: list index out of range'):
        node.wait_for_answer(lambda: None)
    with pytest.raises(UserError, match='cannot be read'):
        session.wait_until_active(node)


def test_a_running_node_may_skip_images_of_a_closed_shutter(
    domain: int, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collector, 'STALLED_S', 30.0)
    shown = (0, 1, 1, 1, 2)  # the second and third of the same frame are those of a shutter
    bag = write_two_cameras(
        tmp_path / 'bag', {START + i * 4 * PERIOD: scene(n) for i, n in enumerate(shown)},
        {START: np.zeros((96, 128, 3), np.uint8)})
    with node_process(toy, backend='onnxruntime', while_shutter_closed='skip',
                      **{session.RELIABLE.format(''): 'reliable'}):
        run = run_bag(bag, toy, -1.0, running=True, topic=THERMAL)
    assert len(run.sent) == 5 and len(run.received) == 3 and run.status['skipped'] == '2'
    source: Any = SimpleNamespace(unreadable=[])
    assert '2 have no result: the shutter of the camera was closed.' in (
        ' '.join(remarks(run, source, 1.0)))


def test_results_of_two_runs_are_never_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ('demo', 'demo_2'):
        with results(None) as folder:
            (folder / 'report.json').write_text(name)
        assert (tmp_path / name / 'report.json').read_text() == name
    with pytest.raises(UserError, match='demo is not empty'), results(Path('demo')):
        pass
    with pytest.raises(KeyboardInterrupt), results(None):
        raise KeyboardInterrupt
    (tmp_path / 'empty').mkdir()
    with results(Path('empty')) as folder:
        (folder / 'report.json').touch()
    assert (tmp_path / 'empty' / 'report.json').is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ['demo', 'demo_2', 'empty']


def test_ctrl_c_ends_the_demo_and_leaves_nothing(
    domain: int, bag: Path, toy: Path, tmp_path: Path,
) -> None:
    process = subprocess.Popen(
        [sys.executable, '-m', 'cgdet_ros.tools.demo', '--bag', bag, '--model', toy,
         '--rate', '0.001', '--output', tmp_path / 'out'], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        while 'playing' not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 130 and 'Traceback' not in errors, errors
        assert 'nothing was written' in errors and list(tmp_path.glob('*out*')) == []
    finally:
        process.kill()


@pytest.mark.parametrize(('arguments', 'words'), [
    (('--bag', 'nobag'), 'nobag does not exist'),
    (('--images', 'cgdet_ros'), 'has no images'),
    (('--rate', '0'), 'rate must be positive'),
    (('--seconds', '-1'), 'seconds must be positive'),
    (('--model', 'no.onnx'), 'no.onnx does not exist')])
def test_bad_input_of_the_demo_is_reported_in_one_sentence(
    domain: int, toy: Path, tmp_path: Path, arguments: tuple[str, ...], words: str,
) -> None:
    if '--model' not in arguments:
        arguments = (*arguments, '--model', str(toy))
    result = subprocess.run(
        [sys.executable, '-m', 'cgdet_ros.tools.demo', *arguments, '--output', tmp_path / 'o'],
        cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and words in result.stderr
    assert 'Traceback' not in result.stderr


@pytest.mark.parametrize('arguments', [('-r', '10'), ('--topics', '/foo'), ('--bogus',)])
def test_the_player_refuses_options_that_it_does_not_have(
    domain: int, program: Run, bag: Path, arguments: tuple[str, ...],
) -> None:
    result = program('bag', 'play', bag, *arguments)
    assert result.returncode != 0 and 'Traceback' not in result.stderr
    assert f'unrecognized arguments: {" ".join(arguments)}' in result.stderr


def test_topics_that_ros_2_does_not_allow_are_skipped(create_node: Any, tmp_path: Path) -> None:
    """By their name, their type, or how they are serialized."""
    store = get_typestore(Stores.ROS2_JAZZY)
    kind = 'std_msgs/msg/String'
    with Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        for i, (name, other, how) in enumerate((
                ('/cam/0/text', kind, 'cdr'), ('/xml', kind, 'xml'), ('/srv', 'a/srv/B', 'cdr'),
                ('/odd', 'schemaless', 'cdr'), ('/text', kind, 'cdr'))):
            bag.write(bag.add_connection(
                name, other, msgdef='string data\n', rihs01='RIHS01_0', serialization_format=how),
                10**9 + i, store.serialize_cdr(store.types[kind](data=name), kind))
    node = create_node('player')
    texts: list[String] = []
    node.create_subscription(String, '/text', texts.append, 10)
    assert play(node, tmp_path / 'bag') == 1
    end = monotonic() + 120
    while not texts and monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
    assert [m.data for m in texts] == ['/text']


@pytest.mark.parametrize(('ended_by', 'rate'), [
    (signal.SIGINT, '1'), (signal.SIGTERM, '0.0001')])  # in a pause of half an hour
def test_the_player_ends_quietly_when_it_is_asked_to(
    create_node: Any, bag: Path, ended_by: signal.Signals, rate: str,
) -> None:
    player = subprocess.Popen(
        [sys.executable, '-m', 'cgdet_core', 'bag', 'play', str(bag), '--loop', '--rate', rate,
         '--ros-args', '-r', '/image_raw:=/elsewhere'], cwd=ROOT, stderr=subprocess.PIPE,
        text=True)
    node = create_node('listener')
    received: list[Image] = []
    node.create_subscription(Image, 'elsewhere', received.append, 10)
    try:
        while not received and player.poll() is None:
            rclpy.spin_once(node, timeout_sec=0.1)
        player.send_signal(ended_by)
        _, errors = player.communicate(timeout=120)
        assert player.returncode == 130 and 'Traceback' not in errors
        assert rate == '1' or 'the next message comes in ' in errors
    finally:
        player.kill()
