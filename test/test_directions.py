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

"""The house's rules: which module may import which."""

import subprocess
import sys

import pytest

ROS = ('rclpy', 'sensor_msgs', 'vision_msgs', 'std_msgs', 'cgdet_ros')
CORE = ('cgdet_core.models', 'cgdet_core.losses', 'cgdet_core.data.bags', 'cgdet_core.cli',
        'cgdet_core.training.train', 'cgdet_core.training.ablation', 'cgdet_core.evaluation.coco',
        'cgdet_core.export.onnx', 'cgdet_core.evaluation.detect')
RUNTIME = ('cgdet_core.runtime', 'cgdet_core.runtime.detector', 'cgdet_core.runtime.frames',
           'cgdet_core.runtime.drawing', 'cgdet_core.runtime.image_message',
           'cgdet_core.runtime.building')
HEAVY = ('onnxruntime', 'tensorrt', 'tensorrt_rtx', 'cuda')
LIGHT = ('cgdet_core.data.formats.convert', 'cgdet_core.data.show', 'cgdet_core.data.relabel',
         'cgdet_core.evaluation.verify', 'cgdet_core.evaluation.benchmark',
         'cgdet_core.evaluation.benchmark_report', 'cgdet_core.cli.measure',
         'cgdet_core.doctor.machine', 'cgdet_core.doctor.model', 'cgdet_core.doctor.transport',
         'cgdet_core.data.bag_dataset', 'cgdet_core.evaluation.parallel')


def imported(module: str) -> set[str]:
    """Give the modules a fresh interpreter has loaded after importing `module`."""
    code = f'import sys, {module}; print("\\n".join(sys.modules))'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize('module', CORE)
def test_core_never_imports_ros(module: str) -> None:
    if 'bags' not in module and 'detect' not in module:
        pytest.importorskip('lightning', reason='training is not installed')
    assert not imported(module) & set(ROS)


@pytest.mark.parametrize('module', LIGHT)
def test_a_robot_can_load_it_without_torch(module: str) -> None:
    assert not imported(module) & {*ROS, 'torch', 'torchvision', 'lightning', 'pydantic', 'ray'}


@pytest.mark.parametrize('module', RUNTIME)
def test_runtime_imports_neither_torch_nor_ros(module: str) -> None:
    assert not imported(module) & {*ROS, *HEAVY, 'torch', 'torchvision', 'lightning', 'pydantic'}


def test_node_imports_only_the_runtime_of_the_core() -> None:
    pytest.importorskip('rclpy', reason='no ROS 2 here')
    loaded = imported('cgdet_ros.detector_node')
    core = {m for m in loaded if m.startswith('cgdet_core')}
    assert {m for m in core if not m.startswith('cgdet_core.runtime')} <= {
        'cgdet_core', 'cgdet_core.errors'}
    assert 'torch' not in loaded
