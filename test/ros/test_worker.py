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

"""The executor waits while the worker prepares an image."""

from threading import Event
from time import monotonic, sleep
from typing import Any

from cgdet_core.runtime import Detector
from cgdet_core.runtime.imaging.geometry import Crop
from cgdet_core.runtime.imaging.signal import CARD
from cgdet_ros.detection.parameters import ModelSettings, Settings
from cgdet_ros.detection.stream import Stream
from cgdet_ros.detection.worker import DetectionWorker
from cgdet_ros.node import image_input
from cgdet_ros.node.image_input import Handover
from cgdet_ros.node.loading import Recovery
import numpy as np
import pytest
from sensor_msgs.msg import Image
from toy_models import gray

SETTINGS = Settings(
    0.0, 2.0, 10, False, False, 0.01, 'publish', Crop(), np.full(3, 0.3, np.float32))
LONG_S = 20.0  # in place of PREPARATION_S, so that an unnecessary wait fails the test


def test_the_executor_waits_for_the_preparation_and_for_nothing_else(
    create_node: Any, toy: object, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_input, 'PREPARATION_S', LONG_S)
    detector = Detector.load(str(toy), 1, 'onnxruntime')
    prepared, inferring, go_on = [], Event(), Event()
    prepare, infer = detector.preprocess, detector.infer

    def slow_prepare(frame: np.ndarray, row: int = 0, finite: bool = False) -> object:
        sleep(0.2)  # longer than the executor would need to return
        assert finite, 'dead pixels were searched for, and are not again'
        box = prepare(frame, row, finite)
        prepared.append(row)
        return box

    def blocked_infer(count: int = 1) -> None:
        inferring.set()
        assert go_on.wait(LONG_S)
        infer(count)

    monkeypatch.setattr(detector, 'preprocess', slow_prepare)
    monkeypatch.setattr(detector, 'infer', blocked_infer)
    frame = gray(0.4)
    message = Image(height=frame.shape[0], width=frame.shape[1], encoding='mono8',
                    step=frame.shape[1], data=frame.tobytes())
    node, wake = create_node('worker'), Handover()
    stream = Stream(node, '', wake, detector.card, ModelSettings(
        str(toy), 'onnxruntime', 1, 'raw', False, 1.0, False, ('',), CARD, 'white_hot', ''))
    worker = DetectionWorker(detector, [stream], wake, lambda: SETTINGS, Recovery())
    stream.subscribe()
    start = monotonic()
    while not wake.idle and monotonic() < start + LONG_S:
        sleep(0.01)
    start = monotonic()
    stream.input._receive(message)
    assert prepared == [0], 'it returned before the image was prepared'
    assert inferring.wait(LONG_S)
    stream.input._receive(message)  # the worker is busy, and needs no interpreter
    assert monotonic() < start + LONG_S / 2 and prepared == [0]
    go_on.set()
    worker.stop(LONG_S)
    stream.input._receive(message)  # no worker is left
    assert monotonic() < start + LONG_S / 2
    stream.destroy()
