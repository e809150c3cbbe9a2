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

"""Models that `cgdet benchmark` measures, each in a process of its own: none affects another."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any

from cgdet_core.data.synthetic import Scene, to_counts
from cgdet_core.errors import UserError
from cgdet_core.machine import forget_peak, memory
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.inference.card import DTYPES, load_card
from cgdet_core.runtime.inference.onnxruntime import describe_session, dtype_of, open_onnx
from cgdet_core.runtime.inference.session import OPEN_BATCH
import cv2
import numpy as np
from numpy.typing import NDArray

SCENES = 8  # frames used in turn
WARM = 3  # calls before each turn, as the turns of the others have evicted the caches
# The yardstick, a stack of plain 3x3 convolutions: the ms per GFLOP that this CPU can reach.
LAYERS, CHANNELS, SIZE = 4, 64, (128, 160)
GFLOPS = 2e-9 * LAYERS * CHANNELS ** 2 * 9 * SIZE[0] * SIZE[1]
Seconds = dict[str, NDArray[np.float64]]  # per call


@dataclass(frozen=True)
class Contestant:
    """
    What one process measures.

    peer: any ONNX file, inference only. size: (width, height) of the source frame, by default
    the model's input; of a peer the input size if its file leaves it open. gflops: of a peer,
    if known; those of a model are in its card.
    """

    path: Path
    backend: str
    threads: int
    peer: bool = False
    size: tuple[int, int] | None = None
    gflops: float | None = None


class _Runner:
    facts: dict[str, Any]
    _turn: Callable[[int], object]  # processes the frame of a number

    def __init__(self) -> None:
        forget_peak()
        self._before = memory()['resident']  # before a model is opened

    def describe(self) -> dict[str, Any]:
        return self.facts

    def memory(self) -> dict[str, float | None]:
        return {'before': self._before, **memory()}

    def paced(self, count: int, hertz: float) -> Seconds:
        """
        Time frames that arrive at a rate: `total`, from arrival to result, and `cpu`.

        As in the node, a frame that arrives during another is replaced by a newer one.
        """
        rows: list[tuple[float, float]] = []
        number = -WARM
        begin = perf_counter() - number / hertz
        while number < count:
            sleep(max(0.0, begin + number / hertz - perf_counter()))
            cpu = process_time()
            self._turn(number)
            now = perf_counter()
            row = now - begin - number / hertz, process_time() - cpu
            rows = [*rows, row] if number > 0 else [row]  # without those that warm up
            number = max(number + 1, int((now - begin) * hertz))
        return dict(zip(('total', 'cpu'), np.array(rows).T))


class ModelRunner(_Runner):
    """Measure one of our models, with preprocessing and postprocessing."""

    def __init__(self, contestant: Contestant) -> None:
        size = contestant.size or load_card(contestant.path, DetectionCard).input_size
        self._raw = [to_counts(Scene.random(i, *size).render()[0]) for i in range(SCENES)]
        super().__init__()
        self._detector = Detector.load(contestant.path, contestant.threads, contestant.backend)
        card, session = self._detector.card, self._detector.session
        self._turn = lambda number: self._detector.detect(self._raw[number % SCENES])
        self.facts = {
            'name': card.name, 'precision': card.precision, 'source': list(size),
            'backend': session.describe(), 'input': list(card.input_size),
            'gflops': card.gflops, 'parameters': card.parameters, 'max_batch': session.max_batch}

    def frames(self, count: int) -> Seconds:
        """Time frames: `pre`, `infer`, `post`, `total` and `cpu`, the CPU time of all threads."""
        detector, rows = self._detector, []
        for i in range(-WARM, count):
            cpu, start = process_time(), perf_counter()
            detector.detect(self._raw[i % SCENES])
            total, used = perf_counter() - start, process_time() - cpu
            times = detector.last_timings
            rows.append((times.pre, times.infer, times.post, total, used))
        return dict(zip(('pre', 'infer', 'post', 'total', 'cpu'), np.array(rows[WARM:]).T))

    def batches(self, size: int, count: int) -> Seconds:
        """Time inference only, `size` images per call: `infer` and `cpu`."""
        d = self._detector
        images, boxes, scores = (np.repeat(a, size, 0) for a in (d.input, d.boxes, d.scores))
        return _time(lambda: d.session.run(
            {'images': images}, {'boxes': boxes, 'scores': scores}), count)


class PeerRunner(_Runner):
    """Measure inference of any ONNX file on random input of its shapes and types."""

    def __init__(self, contestant: Contestant) -> None:
        super().__init__()
        path = contestant.path
        if not path.is_file():
            raise UserError(f'The peer {path} does not exist.')
        self._session = open_onnx(str(path), f'The peer {path}', contestant.threads)
        self._size = contestant.size or (640, 512)
        inputs = self._session.get_inputs()
        for images in (i.shape[0] for i in inputs if len(i.shape) == 4):
            if isinstance(images, int) and images > 1:
                raise UserError(f'The peer {path} takes {images} images per call; export it '
                                'for one, or with a dynamic batch.')
        feed = self._feed(1)
        self._turn = lambda number: self._session.run(None, feed)
        closed = any(not i.shape or isinstance(i.shape[0], int) for i in inputs)
        self.facts = {
            'name': path.stem, 'precision': None, 'max_batch': 1 if closed else OPEN_BATCH,
            'gflops': contestant.gflops, 'backend': describe_session(self._session),
            'input': {name: list(array.shape) for name, array in self._feed(1).items()}}

    def frames(self, count: int) -> Seconds:
        return self.batches(1, count)

    def batches(self, size: int, count: int) -> Seconds:
        feed = self._feed(size)
        return _time(lambda: self._session.run(None, feed), count)

    def _feed(self, batch: int) -> dict[str, NDArray[Any]]:
        rng = np.random.default_rng(0)
        feed = {}
        for item in self._session.get_inputs():
            name = dtype_of(item)
            if name not in DTYPES:
                raise UserError(f'The input {item.name} of the peer is a {item.type}, which '
                                'cannot be filled with random values; choose another peer.')
            dtype = np.dtype(name)
            shape = [n if isinstance(n, int) else self._open(i, len(item.shape), batch, item.name)
                     for i, n in enumerate(item.shape)]
            values = rng.random(shape) if dtype.kind == 'f' else rng.integers(0, 2, shape)
            feed[item.name] = np.asarray(values, dtype)
        return feed

    def _open(self, axis: int, axes: int, batch: int, name: str) -> int:
        """Return the size of a dynamic axis: the batch, or the first model's height or width."""
        if axis == 0:
            return batch
        if axes == 4 and axis >= 2:
            return self._size[3 - axis]
        raise UserError(f'Axis {axis} of the input {name} of the peer is dynamic; export it '
                        'with a fixed shape.')


@cache
def _runner(contestant: Contestant) -> ModelRunner | PeerRunner:
    cv2.setNumThreads(contestant.threads)
    return (PeerRunner if contestant.peer else ModelRunner)(contestant)


def ask(contestant: Contestant, method: str, *arguments: float) -> Any:
    """Call a method of a contestant's runner, opened by the first call; UserError if it fails."""
    try:
        return getattr(_runner(contestant), method)(*arguments)
    except UserError:
        raise
    except Exception as error:  # backends and unusual peers raise anything
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f'{contestant.path.name} cannot be measured: {text}') from None


def _time(call: Callable[[], object], count: int) -> Seconds:
    rows = []
    for _ in range(WARM + count):
        cpu, start = process_time(), perf_counter()
        call()
        rows.append((perf_counter() - start, process_time() - cpu))
    return dict(zip(('infer', 'cpu'), np.array(rows[WARM:]).T))


def write_yardstick(path: Path) -> Path:
    """Write the yardstick: an ONNX file of 3x3 convolutions with ReLU, GFLOPS in total."""
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ModuleNotFoundError:
        raise UserError('The yardstick requires the module onnx; install it with '
                        '"pip install onnx".') from None
    rng = np.random.default_rng(0)
    shape = [1, CHANNELS, *SIZE]
    nodes, weights, name = [], [], 'x0'
    for i in range(LAYERS):
        kernel = rng.normal(0, 0.04, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f'w{i}'))
        nodes.append(helper.make_node('Conv', [name, f'w{i}'], [f'c{i}'], pads=[1, 1, 1, 1]))
        name = f'x{i + 1}'
        nodes.append(helper.make_node('Relu', [f'c{i}'], [name]))
    graph = helper.make_graph(
        nodes, 'plain', [helper.make_tensor_value_info('x0', onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)],
                                ir_version=9), path)
    return path
