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

"""Parameters are described, refused with a reason, and used for the next image."""

from collections.abc import Callable
import json
from pathlib import Path
import shutil
import subprocess
import sys

from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector
from cgdet_core.runtime.inference.openvino import load_openvino, openvino_version
from cgdet_core.runtime.tensorrt.session import check_device
from cgdet_ros.detection import parameters
from cgdet_ros.node.parameters import EFFECTS
from cgdet_ros.tools.collector import from_message
import numpy as np
import pytest
from toy_models import gray

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.ros
Start = Callable[..., object]


def test_parameters_change_while_running(
    start: Start, toy: Path,
) -> None:
    with start(model_path=toy, score_threshold=0.0) as client:
        client.wait_active()
        many = len(client.send(client.image(gray(0.5), 'mono8')).detections)
        assert client.set_parameter('score_threshold', 1.0).successful
        client.wait(lambda: client.labels[-1].threshold == 1.0)  # the latched one follows
        assert len(client.send(client.image(gray(0.5), 'mono8')).detections) == 0
        assert client.set_parameter('score_threshold', 0.0).successful
        assert len(client.send(client.image(gray(0.5), 'mono8')).detections) == many
        for name, value in (('score_threshold', 1.5), ('score_threshold', -0.5),
                            ('score_threshold', 'high'), ('no_input_warn_s', -1.0),
                            ('autostart', False), ('backend', 'tflite')):
            result = client.set_parameter(name, value)
            assert not result.successful and result.reason
        assert client.set_parameter('max_image_age_s', 1.0).successful
        client.images.publish(client.image(gray(0.5), 'mono8'))  # days old
        client.wait(lambda: any(
            s.get('dropped') == '1' and s['level'] == b'\x01' and 'too old' in s['message']
            for s in client.statuses))


def test_the_backend_can_be_chosen_and_reports_what_is_missing(
    start: Start, toy: Path,
) -> None:
    try:
        check_device('tensorrt')
        pytest.skip('TensorRT runs here')
    except UserError as error:
        words = str(error)
    with start(model_path=toy, backend='tensorrt') as client:
        status = client.error()
        assert status['message'].endswith(words)
        client.wait_for_state('unconfigured')
        assert client.set_parameter('backend', 'auto').successful
        assert client.change_state('configure')
        assert 'Inference by' in client.log.read_text()
        refused = client.set_parameter('backend', 'onnxruntime')
        assert not refused.successful and 'clean the node up' in refused.reason


@pytest.mark.skipif(not openvino_version(), reason='OpenVINO is not installed')
def test_openvino_detects_the_same(start: Start, toy: Path) -> None:
    wanted = Detector.load(toy, 1, 'onnxruntime').detect(gray(0.5), 0.0)
    with start(model_path=toy, backend='openvino_gpu', score_threshold=0.0) as client:
        if 'GPU' not in load_openvino().Core().available_devices:
            status = client.error()
            assert 'OpenVINO finds no GPU' in status['message']
            client.wait_for_state('unconfigured')
            assert client.set_parameter('backend', 'openvino').successful
            assert client.change_state('configure') and client.change_state('activate')
        client.wait_active()
        found = from_message(client.send(client.image(gray(0.5), 'mono8')))
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.01)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)
        client.wait(lambda: any(
            s.get('backend', '').startswith('OpenVINO') for s in client.statuses))


@pytest.mark.parametrize(('name', 'value'), [
    ('score_threshold', '1'), ('score_threshold', '-0.5'), ('score_threshold', '2.0'),
    ('score_threshold', 'high'), ('backend', 'tflite'), ('cameras', '[front, front]'),
    ('cameras', '["9"]')])
def test_a_wrong_parameter_at_start_is_one_sentence(domain: int, name: str, value: str) -> None:
    result = subprocess.run(
        [sys.executable, '-m', 'cgdet_ros.detector_node', '--ros-args', '-p',
         f'{name}:={value}'], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 1 and name in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def classes(client: object) -> list[str]:
    found = client.send(client.image(gray(0.5), 'mono8'))
    return [d.results[0].hypothesis.class_id for d in found.detections]


def test_class_ids_may_be_names(start: Start, toy: Path) -> None:
    with start(model_path=toy, class_names='true', score_threshold=0.4) as client:
        client.wait_active()
        assert classes(client) == ['person', 'bicycle', 'car']
        assert not client.set_parameter('class_names', False).successful, 'only on configure'


def test_every_class_has_a_threshold(start: Start, toy: Path) -> None:
    values = {'score_threshold': 0.4, 'class_thresholds.person': 0.95,
              'class_thresholds.bike': 0.5}
    with start(model_path=toy, crop_topp=3, **values) as client:
        client.wait_active()
        assert 'class_thresholds.bike is ignored' in client.log.read_text()
        assert 'crop_topp is ignored, it does not exist; did you mean crop_top?' in (
            client.log.read_text())
        assert classes(client) == ['1', '2']
        assert client.labels[-1].threshold == pytest.approx(0.4)
        assert client.set_parameter('class_thresholds.person', -1.0).successful
        assert client.set_parameter('class_thresholds.car', 0.2).successful
        assert classes(client) == ['0', '1', '2', '2']
        client.wait(lambda: client.labels[-1].threshold == pytest.approx(0.2))
        for name, value in (('person', 1.5), ('person', -0.5), ('person', float('nan')),
                            ('person', 'high'), ('zebra', 0.5)):
            result = client.set_parameter(f'class_thresholds.{name}', value)
            assert not result.successful and result.reason
        assert classes(client) == ['0', '1', '2', '2']
        assert client.change_state('deactivate') and client.change_state('cleanup')
        assert client.set_parameter('class_thresholds.car', 0.45).successful
        assert client.change_state('configure') and client.change_state('activate')
        client.wait_active()
        assert classes(client) == ['0', '1', '2'], 'values that were set are kept after a reload'


def test_the_thresholds_of_the_card_are_by_class(start: Start, toy: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(toy, tmp_path / 'fitted.onnx'))
    card = json.loads(toy.with_suffix('.json').read_text())
    model.with_suffix('.json').write_text(json.dumps({
        **card, 'class_thresholds': {'person': 0.95, 'bicycle': 0.5, 'car': 0.2},
        'score_scaling': {'bicycle': {'slope': 1.0, 'offset': 2.0}}}))
    with start(model_path=model) as client:
        client.wait_active()
        assert classes(client) == ['1', '2', '2']
        assert client.labels[-1].threshold == pytest.approx(0.2)
        assert client.set_parameter('score_threshold', 0.92).successful
        assert classes(client) == ['1'], '0.7 is scaled to 0.945, and one number is for all'
        assert client.set_parameter('score_threshold', -1.0).successful
        assert classes(client) == ['1', '2', '2']


def test_an_unknown_name_is_refused_with_a_similar_one(start: Start, toy: Path) -> None:
    from rcl_interfaces.srv import SetParametersAtomically
    from rclpy.parameter import Parameter
    with start(model_path=toy, autostart=False) as client:
        def refusal(name: str, value: object = 0.5) -> str:
            result = client.set_parameter(name, value)
            assert not result.successful
            return str(result.reason)

        assert refusal('score_treshold') == (
            'there is no parameter score_treshold; did you mean score_threshold?')
        assert refusal('xyzzy') == 'there is no parameter xyzzy'
        assert 'exist once a model is loaded' in refusal('class_thresholds.car')
        assert client.change_state('configure')
        assert client.set_parameter('class_thresholds.car', 0.5).successful
        assert refusal('class_thresholds.zebra').endswith('of the model are person, bicycle, car')
        both = [Parameter('score_threshold', value=0.7), Parameter('nonsense', value=1)]
        result = client.call('set_parameters_atomically', SetParametersAtomically.Request(
                                 parameters=[p.to_parameter_msg() for p in both])).result
        assert not result.successful and 'no parameter nonsense' in result.reason
        assert client.change_state('activate')
        client.wait(lambda: client.labels)
        assert client.labels[-1].threshold != pytest.approx(0.7), 'all or none'


def test_an_invalid_request_has_a_response(start: Start, toy: Path) -> None:
    from rcl_interfaces.msg import Parameter, ParameterValue
    from rcl_interfaces.srv import SetParameters
    with start(model_path=toy) as client:
        client.wait_active()
        strange = Parameter(name='threads', value=ParameterValue(type=200))
        results = client.call(
            'set_parameters', SetParameters.Request(parameters=[strange])).results
        assert [r.successful for r in results] == [False] and results[0].reason
        client.send(client.image(gray(0.5), 'mono8'))


def test_a_class_threshold_of_the_wrong_type_is_reported(
    start: Start, toy: Path,
) -> None:
    with start(model_path=toy, **{'class_thresholds.person': 1}) as client:
        status = client.error()
        assert 'class_thresholds.person' in status['message']
        assert 'write 1.0, not 1' in status['message']
        client.wait_for_state('unconfigured')


def test_describe_reads_like_documentation(start: Start, toy: Path) -> None:
    with start(model_path=toy) as client:
        client.wait_active()
        names = [s.name for s in parameters.SPECS] + ['class_thresholds.person']
        for name, found in zip(names, client.describe(*names)):
            assert found.name == name and len(found.description) > 30
            assert any(words in found.description for words in EFFECTS.values())
        score, = client.describe('score_threshold')
        assert (score.floating_point_range[0].from_value, score.floating_point_range[0].to_value
                ) == (-1.0, 1.0) and "-1: the model card's" in score.description


def test_the_latency_histogram_counts_every_frame(start: Start, toy: Path) -> None:
    with start(model_path=toy) as client:
        client.wait_active()
        client.send(client.image(gray(0.5), 'mono8'))
        topics = client.cameras['']
        client.status('running', of='camera', processed='1')  # and removed from the histogram
        client.status()
        assert not topics.histograms
        assert client.set_parameter('latency_histogram', True).successful
        for _ in range(4):
            client.send(client.image(gray(0.5), 'mono8'))
        client.wait(lambda: sum(sum(m.data) for m in topics.histograms) == 4)
        layout = topics.histograms[0].layout.dim[0]
        assert (layout.label, layout.size) == ('latency_ms', len(topics.histograms[0].data))


def test_silence_is_a_warning_and_ends_with_the_next_image(start: Start, toy: Path) -> None:
    with start(model_path=toy, no_input_warn_s=0.5) as client:
        assert client.status('no image for')['level'] == b'\x01'
        client.wait_active()
        client.send(client.image(gray(0.5), 'mono8'))
        assert client.set_parameter('no_input_warn_s', 60.0).successful
        assert client.status('running', processed='1')['level'] == b'\x00'
        assert client.set_parameter('no_input_warn_s', 0.5).successful
        assert client.status('no image for', processed='1')['level'] == b'\x01'


def test_no_parameter_can_be_deleted(start: Start, toy: Path) -> None:
    with start(model_path=toy) as client:
        client.wait_active()
        for name in [s.name for s in parameters.SPECS] + ['class_thresholds.person']:
            result = client.set_parameter(name, None)
            assert not result.successful and result.reason
        client.send(client.image(gray(0.5), 'mono8'))
        assert client.change_state('deactivate') and client.change_state('cleanup')
        result = client.set_parameter('cameras', None)
        assert not result.successful and result.reason
        assert client.change_state('configure')
