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

"""
Attack what reads and what writes, and print a table: `python dev/robustness.py`.

Fuzzed image messages go through the node's way from a message to the network's input, damaged
pictures through the reader of files; each is to be read or refused with a sentence. Every writer
is killed at random moments: what was there before is to be whole, the same call is to succeed
afterwards, and no hidden file is to stay. With --node, image bombs are sent to a running node,
which is to take less than 1 GB and to detect again within 2 s. Status 1 if one of these fails.
docs/robustness.md has the figures.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
import json
import multiprocessing
import os
from pathlib import Path
import resource
import shutil
import signal
import tempfile
import time
from types import SimpleNamespace
from typing import Any

from cgdet_core.data.bags.io import write_bag
from cgdet_core.data.bags.pairing import Choice
from cgdet_core.data.bags.registration import read_homography
from cgdet_core.data.coco import load_coco
from cgdet_core.data.collect import collect
from cgdet_core.data.formats.convert import convert
from cgdet_core.data.plans import make_plans
from cgdet_core.data.sources import coco_frames, Source
from cgdet_core.data.synthetic import write_coco
from cgdet_core.detection.outputs import Outputs
from cgdet_core.runtime import DetectionCard, Detector, load_card
from cgdet_core.runtime.detection.drawing import draw_detections
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.files import share_file, SHIPPED_MODEL
from cgdet_core.runtime.imaging.frames import files_below, read_rgb, read_thermal
from cgdet_core.runtime.imaging.message import ENCODINGS, view_message
from cgdet_core.runtime.tensorrt.cache import EngineCache
from cgdet_core.runtime.tensorrt.engine_file import EngineKey
import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

FORKED: Any = multiprocessing.get_context('fork')
READ, REFUSED, WRONG, CRASHED = 'read', 'refused', 'another error', 'process ended'
CODES = ('', READ, REFUSED, WRONG, CRASHED)
SIZES = (0, 1, 7, 64, 65_535, 2**31, 2**32 - 1)
FORMATS = ('png', 'jpeg', 'tiff', '16UC1; compressedDepth png', '16UC1; png compressed ', '',
           '32FC1; compressedDepth png', 'x' * 1000)
SUFFIXES = ('.png', '.jpg', '.tiff', '.bmp', '.pgm')


def picture(rng: np.random.Generator, suffix: str) -> bytes:
    """Return a small encoded picture, 8- or 16-bit, gray or color."""
    deep = suffix in ('.png', '.tiff') and rng.random() < 0.6
    shape = (*rng.integers(1, 80, 2), 3)[:2 + int(not deep and rng.random() < 0.3)]
    pixels = rng.integers(0, 2**16 if deep else 256, shape).astype(np.uint16 if deep else np.uint8)
    return cv2.imencode('.ppm' if suffix == '.pgm' and pixels.ndim == 3 else suffix,
                        pixels)[1].tobytes()


def damaged(rng: np.random.Generator, content: bytes) -> bytes:
    """Return content with changed bytes, cut, with huge numbers, or with more behind it."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, max(1, min(len(data), 200 if rng.random() < 0.7 else 10**6))))
        match rng.integers(0, 5):
            case 0:
                data[at:at + 1] = rng.bytes(1)
            case 1:
                data[at:at + 4] = int(rng.choice(SIZES[2:])).to_bytes(4, 'big')
            case 2:
                data[at:at + 4] = int(rng.choice(SIZES[2:])).to_bytes(4, 'little')
            case 3:
                del data[at:]
            case 4:
                data += rng.bytes(int(rng.integers(1, 100)))
    return bytes(data)


def message(rng: np.random.Generator) -> SimpleNamespace:
    """Return a raw or compressed image message with a few wrong fields."""
    if rng.random() < 0.5:
        content = picture(rng, str(rng.choice(SUFFIXES[:3])))
        prefix = rng.bytes(12) if rng.random() < 0.2 else b''
        return SimpleNamespace(format=str(rng.choice(FORMATS)),
                               data=prefix + damaged(rng, content))
    encoding = str(rng.choice([*ENCODINGS, 'yuv422', 'bayer_rggb8', '', 'MONO8', 'x' * 1000]))
    kind, channels = ENCODINGS.get(encoding, ('u1', 1))
    height, width = map(int, rng.integers(1, 80, 2))
    step = width * channels * np.dtype(kind).itemsize + int(rng.integers(0, 3)) * 8
    data = rng.bytes(step * height)
    fields = {'height': height, 'width': width, 'step': step, 'encoding': encoding, 'data': data,
              'is_bigendian': int(rng.choice([0, 1, 255]))}
    for name in rng.choice(['height', 'width', 'step', 'data', ''], rng.integers(1, 3)):
        if name == 'data':
            fields['data'] = data[:rng.integers(0, len(data))] if rng.random() < 0.7 else b''
        elif name:
            fields[name] = int(rng.choice(SIZES))
    return SimpleNamespace(**fields)


def try_each(count: int, attempt: Callable[[np.random.Generator], object]) -> dict[str, Any]:
    """Run attempts 0 to count, each with its own seed; a process that ends costs one of them."""
    codes, current = FORKED.Array('b', count), FORKED.Value('i', 0)
    slowest, peak = FORKED.Value('d', 0.0), FORKED.Value('d', 0.0)
    example = FORKED.Array('c', 300)

    def serve(start: int) -> None:
        for number in range(start, count):
            current.value, began = number, time.process_time()
            try:
                attempt(np.random.default_rng(number))
                codes[number] = CODES.index(READ)
            except ValueError:  # a UserError is one
                codes[number] = CODES.index(REFUSED)
            except Exception as error:
                codes[number] = CODES.index(WRONG)
                example.value = f'{number}: {type(error).__name__}: {error}'.encode()[:299]
            slowest.value = max(slowest.value, time.process_time() - began)
        peak.value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    start = 0
    while start < count:
        child = FORKED.Process(target=serve, args=(start,))
        child.start()
        child.join()
        start = count
        if child.exitcode:
            codes[current.value] = CODES.index(CRASHED)
            start = current.value + 1
    found = Counter(CODES[code] for code in codes)
    return {**{name: found[name] for name in CODES[1:]},
            'slowest (CPU s)': round(slowest.value, 2), 'memory (MB)': round(peak.value),
            'example': example.value.decode(errors='replace')}


@dataclass
class Writer:
    """
    Something that writes into a folder.

    reset prepares a kill; whole raises if what is in the folder is not whole, which an output
    that is missing is if it was there before.
    """

    folder: Path
    write: Callable[[], object]
    whole: Callable[[], object]
    reset: Callable[[], object] = lambda: None

    def start(self) -> int:
        """Write in a new process, and return its id."""
        if child := os.fork():
            return child
        status = 1
        with open(os.devnull, 'w') as null, redirect_stdout(null), redirect_stderr(null):
            try:
                self.write()
                status = 0
            finally:
                os._exit(status)


def kill(writer: Writer, times: int) -> dict[str, Any]:
    """Kill a writer at random moments and return how often something was wrong afterwards."""
    rng, found = np.random.default_rng(0), Counter[str]()
    writer.reset()
    began = time.monotonic()
    assert not os.waitpid(writer.start(), 0)[1], 'it does not write at all'
    seconds = time.monotonic() - began
    for _ in range(times):
        writer.reset()
        child = writer.start()
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        found['killed'] += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        for name in ('lost', 'damaged afterwards'):
            try:
                writer.whole()
            except Exception:
                found[name] += 1
            if name == 'lost':
                found['not repeatable'] += bool(os.waitpid(writer.start(), 0)[1])
        found['leftovers'] += any(writer.folder.rglob('.*'))
    return {name: found[name] for name in (
        'killed', 'lost', 'not repeatable', 'damaged afterwards', 'leftovers')}


def writers(folder: Path, names: list[str]) -> Iterator[tuple[str, Writer]]:
    """Yield the writers of these names, each with a folder of its own."""
    scenes = write_coco(folder / 'scenes', 12, 3, 4, (160, 128))
    model = share_file(SHIPPED_MODEL)
    for name in names:
        place = folder / name.replace(' ', '_')
        place.mkdir()
        yield name, WRITERS[name](place, scenes, model)


def exporting(folder: Path, scenes: Path, model: Path) -> Writer:
    from cgdet_core.deployment.export import export

    output = folder / 'model.onnx'
    return Writer(folder, lambda: export(model, output, 'fp16'),
                  lambda: load_card(output, DetectionCard))


def converting(folder: Path, scenes: Path, model: Path) -> Writer:
    coco, output = load_coco(scenes), folder / 'annotations'
    for place in ('images', 'labels'):
        (folder / place).mkdir()
    (folder / 'classes.txt').write_text('\n'.join(coco.classes))
    for record in coco.images:
        shutil.copy(record.path, folder / 'images')
        (folder / 'labels' / f'{record.path.stem}.txt').write_text('0 0.5 0.5 0.2 0.2\n')
    names = ['all_thermal.json', 'contact_sheet.png', 'report.json']

    def done() -> bool:
        return output.is_dir() and sorted(p.name for p in output.iterdir()) == names

    def whole() -> None:
        assert not done() or load_coco(output / names[0]).images

    return Writer(folder, lambda: done() or convert('yolo', folder), whole,
                  lambda: shutil.rmtree(output, ignore_errors=True))


def training(folder: Path, scenes: Path, model: Path) -> Writer:
    return _trained(folder, _detection(scenes))


def distilling(folder: Path, scenes: Path, model: Path) -> Writer:
    return _trained(folder, _detection(scenes) | {'unlabeled': {
        'frames': str(scenes), 'sources': ['student'], 'burn_in_epochs': 0}})


def training_tracker(folder: Path, scenes: Path, model: Path) -> Writer:
    return _trained(folder, {
        'task': 'tracking', 'model': TINY | {
            'neck_channels': 32, 'feature_channels': 8, 'tower_channels': 8, 'tower_depth': 1},
        'input_size': 128, 'crops': {'size': 128},
        'data': {'train': [str(scenes)], 'val': [str(scenes)], 'objects': 8, 'val_objects': 2,
                 'sequences': {'scenes': 1, 'scene_frames': 2}}})


TINY = {'channels': [8, 8, 16, 16], 'depths': [1, 1, 1, 1]}


def _detection(scenes: Path) -> dict[str, Any]:
    """Return the recipe of a small detector, without what all recipes have."""
    return {'input_size': [160, 128], 'model': TINY | {
        'neck_channels': 16, 'head_channels': 16, 'bins': 8},
        'data': {'train': str(scenes), 'val': str(scenes)}}


def _trained(folder: Path, recipe: dict[str, Any]) -> Writer:
    from cgdet_core.tasks import parse_recipe, train
    from cgdet_core.training.checkpoints import read_checkpoint

    parsed = parse_recipe(recipe | {
        'name': 'run', 'optim': {'epochs': 3, 'batch_size': 4, 'warmup_epochs': 1},
        'run': {'output': str(folder), 'val_every': 1, 'workers': 0, 'accelerator': 'cpu',
                'precision': '32-true', 'report': False}}, 'dev/robustness.py')
    last = folder / 'run' / 'last.ckpt'
    return Writer(folder, lambda: train(parsed, last.is_file(), progress=False),
                  lambda: [read_checkpoint(path) for path in folder.rglob('*.ckpt')],
                  lambda: shutil.rmtree(folder / 'run', ignore_errors=True))


def caching(folder: Path, scenes: Path, model: Path) -> Writer:
    key = EngineKey('ab' * 32, 'tensorrt', '10.3.0', ('sm87',), 'Orin', 'fp16',
                    {'images': (1, 1, 512, 640)})
    cache, payload = EngineCache(folder), os.urandom(20_000_000)

    def write() -> None:
        with cache.lock(lambda what, seconds: None):
            assert cache.keep(key, model, payload)

    def whole() -> None:
        assert next(cache.matching(key, model)).payload == payload

    return Writer(folder, write, whole)


def collecting(folder: Path, scenes: Path, model: Path) -> Writer:
    bag, output, choice = folder / 'drive', folder / 'set', Choice(min_change=0.0)
    write_bag(bag, coco_frames(load_coco(scenes)), 10.0)

    def whole() -> None:
        assert not output.exists() or (
            len(load_coco(output / 'annotations.json').images) == 12
            and (output / 'report.json').is_file())

    def write() -> None:
        if not output.exists():
            collect(make_plans([bag], choice), output, choice)

    return Writer(folder, write, whole, lambda: shutil.rmtree(output, ignore_errors=True))


def registering(folder: Path, scenes: Path, model: Path) -> Writer:
    from cgdet_core.data.pairs.estimate import estimate
    from cgdet_core.data.pairs.output import save_fit, save_overlay
    from cgdet_core.data.pairs.reading import PairSource, read_pairs

    pairs = read_pairs(PairSource(write_coco(folder / 'pairs', 20, size=(320, 256), rgb=1,
                                             frames_per_scene=1)), 20)
    fit, output = estimate(pairs.thermal, pairs.rgb), folder / 'registration.yaml'
    overlay = output.with_suffix('.png')

    def write() -> None:
        save_fit(output, fit, 'dev/robustness.py')
        save_overlay(overlay, fit, pairs)

    def whole() -> None:
        read_homography(output)
        read_rgb(overlay)

    return Writer(folder, write, whole)


def reporting(folder: Path, scenes: Path, model: Path) -> Writer:
    from cgdet_core.detection.evaluation import detect_all, evaluation_of
    from cgdet_core.detection.report import write_page

    detector, coco = Detector.load(model, 1, 'onnxruntime'), load_coco(scenes)
    page = folder / 'report.html'
    evaluation = evaluation_of(model, detector, detect_all(detector, coco), coco, None, '')
    return Writer(folder, lambda: write_page(evaluation, page), lambda: _ends(page, '</html>'))


def _ends(path: Path, text: str) -> None:
    assert path.read_text().rstrip().endswith(text)


def detecting(folder: Path, scenes: Path, model: Path) -> Writer:
    card, frames = load_card(model, DetectionCard), list(coco_frames(load_coco(scenes)))
    found = Detections(np.array([[9, 9, 60, 60]], np.float32), np.ones(1, np.float32),
                       np.zeros(1, np.int64))
    output = folder / 'out'

    def write() -> None:
        with Outputs(output, ('coco', 'yolo', 'csv')) as outputs:
            source = Source(iter(frames), 'scenes', name='scenes')
            outputs.check([source], overwrite=True)
            for frame in frames:
                drawn = draw_detections(frame.pixels, found, card)
                outputs.write(source, frame, found, card, drawn, 1.0)

    def whole() -> None:
        if (output / 'detections.json').is_file():
            json.loads((output / 'detections.json').read_text())
        for path in files_below(output / 'pictures', ('.png',)):  # without hidden ones
            read_thermal(path)

    return Writer(folder, write, whole)


WRITERS: dict[str, Callable[[Path, Path, Path], Writer]] = {
    'export': exporting, 'data convert': converting, 'train': training, 'distill': distilling,
    'track train': training_tracker, 'engine cache': caching, 'data collect': collecting,
    'data register': registering, 'report': reporting, 'detect': detecting}


@contextmanager
def place(named: Path | None) -> Iterator[Path]:
    """Yield a folder for what is written."""
    with tempfile.TemporaryDirectory() if named is None else nullcontext(named) as folder:
        yield Path(folder)


def show(title: str, rows: dict[str, dict[str, Any]]) -> None:
    """Print rows of figures as a table."""
    columns = list(next(iter(rows.values())))
    table = Table('', *columns, title=title)
    for name, row in rows.items():
        table.add_row(name, *(str(row[column]) for column in columns))
    Console(width=None if os.isatty(1) else 150).print(table)


def main() -> int:
    """Run what the options ask for; 1 if something failed."""
    options = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    options.add_argument('--messages', type=int, default=10_000)
    options.add_argument('--pictures', type=int, default=4_000)
    options.add_argument('--kills', type=int, default=50, help='of each writer')
    options.add_argument('--writers', nargs='*', default=list(WRITERS), choices=list(WRITERS))
    options.add_argument('--node', action='store_true', help='send image bombs to a node (ROS 2)')
    given = options.parse_args()
    failed = 0
    if given.node:
        from node_under_attack import attack_node, is_bad

        rows = attack_node()
        show('a node under image bombs', rows)
        failed += sum(map(is_bad, rows.values()))
    with place(None) as folder:
        detector = Detector(load_card(share_file(SHIPPED_MODEL), DetectionCard), Any)

        def read_picture(rng: np.random.Generator) -> None:
            suffix = str(rng.choice(SUFFIXES))
            path = folder / f'picture{suffix}'
            path.write_bytes(damaged(rng, picture(rng, suffix)))
            detector.preprocess(read_thermal(path))

        rows = {}
        if given.messages:
            rows['messages'] = try_each(
                given.messages, lambda rng: detector.preprocess(view_message(message(rng))))
        if given.pictures:
            rows['pictures'] = try_each(given.pictures, read_picture)
        if rows:
            show('fuzzed input', rows)
            failed += sum(row[WRONG] + row[CRASHED] for row in rows.values())
        if given.kills and given.writers:
            rows = {name: kill(writer, given.kills)
                    for name, writer in writers(folder, given.writers)}
            show(f'writers, each killed {given.kills} times', rows)
            failed += sum(row[column] for row in rows.values() for column in row
                          if column != 'killed')
    return int(failed > 0)


if __name__ == '__main__':
    raise SystemExit(main())
