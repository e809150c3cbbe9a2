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

"""Shared fixtures: synthetic scenes, a tiny trained model, an isolated ROS graph."""

from collections.abc import Callable, Iterator
import fcntl
import hashlib
import importlib.util
import os
from pathlib import Path
import shutil
import signal
import subprocess
from typing import Any

from cgdet_core.data.synthetic import write_coco
from cgdet_core.runtime import Detector, Normalization
import cv2
from forked import forks, PROGRAM
import pytest
import yaml

# As on a robot, where torch is not installed: leave out what needs it.
if importlib.util.find_spec('torch') is None:
    collect_ignore_glob = [f'{room}/*' for room in (
        'deployment', 'detection', 'distillation', 'experiments', 'nets', 'training')]

# Read by torch when it is imported, here and in the programs under test. The networks of tests are
# tiny: two threads that wait for each other take minutes where other processes use the cores.
os.environ['OMP_NUM_THREADS'] = '1'
# Which backend is faster depends on the load.
os.environ['CGDET_CPU_BACKEND'] = 'onnxruntime'

ROOT = Path(__file__).resolve().parent.parent
REAL_DATA = Path(os.environ.get(
    'CGDET_TEST_DATA', ROOT.parent / 'shared' / 'data' / 'rgbt_road')) / 'annotations'
# Folders of quick tests, the quickest last.
QUICK = ('runtime', 'nets', 'doctor', 'data')
TINY = {'channels': [8, 8, 16, 16], 'depths': [1, 1, 1, 1], 'neck_channels': 16,
        'head_channels': 16, 'bins': 8}


def pytest_configure() -> None:
    """Handle Ctrl-C, also in the programs under test."""
    # A shell that starts a program in the background has it, and its children, ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put quick tests last, so that no process is busy for minutes after the others."""
    def place(item: pytest.Item) -> int:
        room = item.path.relative_to(ROOT / 'test').parts[0]
        return QUICK.index(room) if room in QUICK else -1

    items.sort(key=place)


@pytest.fixture(scope='session', autouse=True)
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the engine cache of this session, also of the programs under test."""
    folder = tmp_path_factory.mktemp('engines')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('CGDET_ENGINE_CACHE', str(folder))
        yield folder


@pytest.fixture(scope='session')
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """
    Return a function that returns a folder, filled by the first process that needs it.

    The workers of pytest-xdist share it, so no test may change what is in it.
    """
    root = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        root = root.parent

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder = root / name
        with open(root / f'{name}.lock', 'a') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.fstat(lock.fileno()).st_size:
                shutil.rmtree(folder, ignore_errors=True)  # of one that failed
                folder.mkdir()
                fill(folder)
                lock.write('filled')
        return folder

    return make


@pytest.fixture(scope='session')
def scenes(made_once: Callable[..., Path]) -> Path:
    """Return the COCO file of twelve small 16-bit synthetic frames."""
    return made_once('scenes', lambda folder: write_coco(
        folder, 12, 7, 3, (160, 128))) / 'annotations.json'


@pytest.fixture(scope='session')
def pairs(made_once: Callable[..., Path]) -> Path:
    """Return the COCO file of twelve such frames, every second one with an RGB image."""
    return made_once('pairs', lambda folder: write_coco(
        folder, 12, 7, 3, (160, 128), rgb=2)) / 'annotations.json'


@pytest.fixture(scope='session')
def pooling_teacher() -> Callable[..., Path]:
    """
    Return a function that writes an ONNX "detector" whose pyramid is the mean color per cell.

    Its features show where a picture's colors are, so that geometry can be checked exactly.
    """
    def write(path: Path, batch: int | str = 'n', gain: float = 1.0) -> Path:
        from onnx import checker, helper, save, TensorProto

        def value(name: str, stride: int) -> Any:
            shape = [batch, 3, *(d if stride == 1 else f'{d}{stride}' for d in 'hw')]
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        nodes = [helper.make_node('Mul', ['picture', 'gain'], ['p1'])] + [
            helper.make_node('AveragePool', ['p1'], [f'p{s}'], kernel_shape=[s, s], strides=[s, s])
            for s in (8, 16, 32)]
        graph = helper.make_graph(
            nodes, 'pooling', [value('picture', 1)], [value(f'p{s}', s) for s in (8, 16, 32)],
            [helper.make_tensor('gain', TensorProto.FLOAT, [], [gain])])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
        checker.check_model(model)
        save(model, path)
        return path

    return write


@pytest.fixture(scope='session')
def rgb_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a tiny RGB detector with random weights."""
    torch = pytest.importorskip('torch', reason='training is not installed')
    from cgdet_core.detection.config import StudentConfig
    from cgdet_core.detection.student import Student
    from cgdet_core.runtime.detection.card import detection_card
    from cgdet_core.training.checkpoints import checkpoint_entry, KEY

    config = StudentConfig.model_validate({**TINY, 'in_channels': 3})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        student = Student(3, config)
    card = detection_card('teacher', ('person', 'bicycle', 'car'), (160, 128), Normalization(),
                          channels=3)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.ckpt'
    torch.save({KEY: checkpoint_entry(card, config), 'state_dict': {
        f'student.{name}': value for name, value in student.state_dict().items()}}, path)
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder for downloads, behind a proxy that refuses."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'):
        monkeypatch.setenv(name, 'http://127.0.0.1:9')
    for name in ('no_proxy', 'NO_PROXY'):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / 'hub' / 'checkpoints'
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def publish(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], Path]:
    """Return a function that writes the weights of a network as torchvision downloads them."""
    import torch
    from torchvision.models import get_model_weights

    def write(network: str, content: Any) -> Path:
        torch.save(content, path := hub / 'weights')
        name = f'weights-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth'
        weights = get_model_weights(network).DEFAULT
        monkeypatch.setattr(weights.value, 'url', f'http://127.0.0.1:9/{name}')
        return path.rename(hub / name)

    return write


@pytest.fixture(scope='session')
def recipe_values(scenes: Path) -> dict:
    """Return a recipe that trains a tiny student in seconds."""
    return {
        'name': 'tiny', 'input_size': [160, 128], 'model': TINY,
        'data': {'train': str(scenes), 'val': str(scenes), 'synthetic': 4},
        'augment': {'close_mosaic_epochs': 1},
        'optim': {'epochs': 3, 'batch_size': 4, 'warmup_epochs': 1},
        'run': {'val_every': 1, 'workers': 0, 'accelerator': 'cpu', 'deterministic': True,
                'precision': '32-true', 'report': False}}


@pytest.fixture(scope='session')
def trained(made_once: Callable[..., Path], recipe_values: dict) -> Path:
    """Return the run folder of a tiny student trained by the command line."""
    pytest.importorskip('lightning', reason='training is not installed')

    def run(folder: Path) -> None:
        recipe = folder / 'tiny.yaml'
        recipe.write_text(yaml.safe_dump({**recipe_values, 'run': {
            **recipe_values['run'], 'report': True, 'output': str(folder / 'runs')}}))
        result = cgdet('train', recipe)
        assert result.returncode == 0, result.stderr

    return made_once('trained', run) / 'runs' / 'tiny'


@pytest.fixture(scope='session')
def onnx_model(made_once: Callable[..., Path], trained: Path) -> Path:
    """Return the tiny student as ONNX with its card."""
    def run(folder: Path) -> None:
        result = cgdet('export', trained / 'last.ckpt', '--output', folder / 'tiny.onnx')
        assert result.returncode == 0, result.stderr

    return made_once('onnx', run) / 'tiny.onnx'


@pytest.fixture
def detector(onnx_model: Path) -> Detector:
    """Return the tiny student, ready to detect."""
    return Detector.load(onnx_model)


@pytest.fixture(params=['none', 'percentile', 'plateau'])
def normalization(request: pytest.FixtureRequest) -> Normalization:
    """Return each normalization that works on every depth."""
    return Normalization(request.param)


def cgdet(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    """Run the command line as a user does."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=600, cwd=ROOT,
        **options)  # type: ignore[call-overload]


@pytest.fixture(scope='session')
def program() -> Callable[..., subprocess.CompletedProcess]:
    """Return the command line as a function that starts a new interpreter."""
    return cgdet


@pytest.fixture(scope='session')
def run_cgdet(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., subprocess.CompletedProcess]:
    """
    Return the command line as a function, without the seconds in which it imports its modules.

    It runs in a process of its own. Limits of a process and signals require `program`.
    """
    return forks(tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='session')
def killed() -> Callable[..., bool]:
    """
    Return a function that calls another in a process that is killed at its n-th rename.

    call: another function of os, such as unlink.
    """
    def run(function: Callable[[], object], number: int, call: str = 'replace') -> bool:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # a fork has none of OpenCV's threads, and would wait for them
        child = os.fork()
        if child:
            cv2.setNumThreads(threads)
            return os.WIFSIGNALED(os.waitpid(child, 0)[1])
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(120)  # a lock that another thread held is held for ever: killed, too
        real, left = getattr(os, call), iter([True] * number)
        setattr(os, call, lambda *paths: (
            real(*paths) if next(left, False) else os.kill(os.getpid(), signal.SIGKILL)))
        try:
            function()
        finally:
            os._exit(0)

    return run


@pytest.fixture(scope='session')
def real_data() -> Path:
    """Return the annotations of rgbt_road; skip where the data set is absent."""
    if not (REAL_DATA / 'val_thermal.json').is_file():
        pytest.skip('the data set rgbt_road is not on this machine')
    return REAL_DATA
