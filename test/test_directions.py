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

"""The allowed imports between packages."""

import ast
from collections.abc import Iterator
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROS = ('rclpy', 'sensor_msgs', 'vision_msgs', 'std_msgs', 'cgdet_ros')
TRAINING = ('torch', 'torchvision', 'lightning', 'pydantic', 'ray')
HEAVY = ('onnxruntime', 'openvino', 'tensorrt', 'tensorrt_rtx', 'cuda')
EVERYWHERE = ('cgdet_core.errors', 'cgdet_core.words')  # what any room may import
# The modules that a room may import in addition to itself and these; nested rooms first.
ALLOWED: dict[str, tuple[str, ...]] = {
    'cgdet_core.runtime.imaging': ('runtime.files',),
    'cgdet_core.runtime.inference': (
        'runtime.files', 'runtime.imaging', 'runtime.processor', 'runtime.tensorrt'),
    'cgdet_core.runtime.tensorrt': ('runtime.files', 'runtime.imaging', 'runtime.inference'),
    'cgdet_core.runtime.detection': (
        'runtime.files', 'runtime.imaging', 'runtime.inference', 'runtime.tensorrt'),
    'cgdet_core.runtime.tracking': (
        'runtime.files', 'runtime.imaging', 'runtime.inference', 'runtime.tensorrt'),
    'cgdet_core.runtime': (),
    'cgdet_core.machine': ('runtime.processor',),
    'cgdet_core.processes': (),
    'cgdet_core.nets': (),
    'cgdet_core.data': ('runtime',),
    'cgdet_core.training': ('machine', 'runtime'),
    'cgdet_core.distillation': ('data', 'nets', 'runtime', 'training'),
    'cgdet_core.detection': ('data', 'distillation', 'machine', 'nets', 'runtime', 'training'),
    'cgdet_core.tracking': ('data', 'distillation', 'machine', 'nets', 'runtime', 'training'),
    'cgdet_core.tasks': ('detection', 'tracking', 'training'),
    'cgdet_core.deployment': (
        'data', 'detection', 'machine', 'nets', 'processes', 'runtime', 'tracking', 'training'),
    'cgdet_core.experiments': ('data', 'detection', 'distillation', 'machine', 'nets', 'processes',
                               'runtime', 'tasks', 'tracking', 'training'),
    'cgdet_core.doctor': ('processes', 'runtime'),
    'cgdet_core.cli': (
        '__version__', 'data', 'deployment', 'detection', 'distillation', 'doctor', 'experiments',
        'machine', 'runtime', 'tasks', 'tracking', 'training'),
    'cgdet_core.__main__': ('cli', 'doctor'),
    'cgdet_ros.node': ('runtime',),
    'cgdet_ros.detection': ('runtime',),
    'cgdet_ros.tracking': ('runtime',),
    'cgdet_ros.detector_node': (),
    'cgdet_ros.tools': ('cli', 'data', 'detection', 'machine', 'processes', 'runtime'),
    'cgdet_ros.doctor': ('doctor', 'processes', 'runtime'),
    'cgdet_ros.resources': ('runtime.files',),
    'cgdet_ros.launching': ('runtime.files',),
}
# Within cgdet_ros: the rooms that a room may import.
ROS_ALLOWED = {
    'node': ('resources',),
    'detection': ('node', 'resources'),
    'tracking': ('node', 'resources'),
    'detector_node': ('detection',),
    'tools': ('detection', 'node', 'resources'),
    'doctor': ('resources',),
    'resources': ('doctor',),
    'launching': ('resources',),
}
LIGHT = ('cgdet_core.data.formats.convert', 'cgdet_core.data.show', 'cgdet_core.data.coco',
         'cgdet_core.data.check', 'cgdet_core.data.split', 'cgdet_core.data.inputs',
         'cgdet_core.data.sources', 'cgdet_core.data.bags.io', 'cgdet_core.data.collect',
         'cgdet_core.cli', 'cgdet_core.deployment.verify', 'cgdet_core.deployment.benchmark',
         'cgdet_core.deployment.engines', 'cgdet_core.detection.metrics',
         'cgdet_core.detection.predict',
         'cgdet_core.detection.bag_detection', 'cgdet_core.doctor.machine',
         'cgdet_core.doctor.model', 'cgdet_core.tracking.evaluation',
         'cgdet_core.tracking.baselines', 'cgdet_core.tracking.one_source')


def modules() -> list[str]:
    """Return all modules of the package."""
    paths = [*ROOT.glob('cgdet_core/**/*.py'), *ROOT.glob('cgdet_ros/**/*.py')]
    names = ['.'.join(p.relative_to(ROOT).with_suffix('').parts) for p in sorted(paths)]
    return [name.removesuffix('.__init__') for name in names]


def imports(source: str) -> Iterator[str]:
    """Return what a source imports, also inside functions, as dotted names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def is_in(name: str, room: str) -> bool:
    return name == room or name.startswith(f'{room}.')


def offences(module: str, source: str) -> list[str]:
    """Return the imports of a module's source that its room does not allow."""
    room = next((r for r in ALLOWED if is_in(module, r)), None)
    if room is None:
        assert module in ('cgdet_core', *EVERYWHERE, 'cgdet_ros'), f'{module} has no room'
        return []
    if module == 'cgdet_core.runtime':  # the public interface, which exports from its rooms
        return []
    core = [*EVERYWHERE, *(f'cgdet_core.{name}' for name in ALLOWED[room])]
    if room.startswith('cgdet_core'):
        core.append(room)
    own = [f'cgdet_ros.{name}' for name in (
        room.partition('.')[2], *ROS_ALLOWED.get(room.partition('.')[2], ()))]
    found = []
    for name in imports(source):
        if is_in(name, 'cgdet_core'):
            good = any(is_in(name, allowed) for allowed in core)
        elif is_in(name, 'cgdet_ros'):
            good = room.startswith('cgdet_ros') and any(is_in(name, allowed) for allowed in own)
        else:
            top = name.partition('.')[0]
            good = not (room.startswith('cgdet_core') and top in ROS) and not (
                room.startswith('cgdet_core.runtime') and top in TRAINING)
        if not good:
            found.append(f'{module} imports {name}')
    return found


@pytest.mark.parametrize('module', modules())
def test_rooms_import_what_lies_below_them(module: str) -> None:
    path = ROOT / module.replace('.', '/')
    path = path / '__init__.py' if path.is_dir() else path.with_suffix('.py')
    assert not offences(module, path.read_text())


@pytest.mark.parametrize(('module', 'source'), [
    ('cgdet_core.tracking.network', 'from cgdet_core.detection.head import DecoupledHead'),
    ('cgdet_core.detection.head', 'import cgdet_core.tracking.network'),
    ('cgdet_core.runtime.tracking.tracker', 'from cgdet_core.runtime import detection'),
    ('cgdet_core.distillation.teachers', 'from cgdet_core.detection.student import Student'),
    ('cgdet_core.distillation.guide', 'from cgdet_core.tracking import network'),
    ('cgdet_core.training.run', 'def f():\n    from cgdet_core.detection import training'),
    ('cgdet_core.runtime.inference.card', 'from cgdet_core.runtime.detection import card'),
    ('cgdet_core.runtime.files', 'import torch'),
    ('cgdet_core.data.coco', 'from rclpy.node import Node'),
    ('cgdet_ros.tracking.node', 'from cgdet_ros.detection.node import DetectorNode'),
    ('cgdet_ros.node.executor', 'from cgdet_core.data.coco import load_coco'),
])
def test_an_import_in_the_wrong_direction_is_an_offence(module: str, source: str) -> None:
    assert offences(module, source)


def imported(module: str) -> set[str]:
    """Return the modules that a new interpreter has loaded after importing one."""
    code = f'import sys, {module}; print("\\n".join(sys.modules))'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize('module', LIGHT)
def test_a_robot_can_load_it_without_torch(module: str) -> None:
    assert not imported(module) & {*ROS, *TRAINING, 'torchvision', 'lightning'}


def test_runtime_loads_neither_torch_nor_ros_nor_an_engine() -> None:
    runtime = [m for m in modules() if is_in(m, 'cgdet_core.runtime')]
    assert len(runtime) > 15
    assert not imported(', '.join(runtime)) & {*ROS, *HEAVY, *TRAINING}


def test_node_loads_only_the_runtime_of_the_core() -> None:
    pytest.importorskip('rclpy', reason='no ROS 2 here')
    loaded = imported('cgdet_ros.detector_node')
    core = {m for m in loaded if m.startswith('cgdet_core')}
    assert {m for m in core if not m.startswith('cgdet_core.runtime')} <= {
        'cgdet_core', 'cgdet_core.errors'}
    assert 'torch' not in loaded
