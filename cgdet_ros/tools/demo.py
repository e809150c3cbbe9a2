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
Play thermal frames over DDS into the node and show the results: `make demo`.

The frames are of a bag, of pictures, or of a street that is drawn. The node is a separate process.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
import json
import os
from pathlib import Path
import sys
from typing import Any

from cgdet_core.cli.common import counting, show_table
from cgdet_core.data.bags.io import image_connections, open_bag
from cgdet_core.data.coco import CocoSet, ImageRecord
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import evaluation_threshold
from cgdet_core.runtime.files import check_outputs, free_folder, temporary_for, write_json
from cgdet_core.runtime.inference.card import load_card
from cgdet_core.runtime.inference.choice import shipped_model
from cgdet_core.words import counted
from cgdet_ros.resources import use_transport_profile
from cgdet_ros.tools.collector import Collected
from cgdet_ros.tools.demo_input import DemoInput, open_input, SECONDS
from cgdet_ros.tools.demo_page import as_text, PAGE, write_page, write_pictures
from cgdet_ros.tools.session import run_bag
import numpy as np
from rich.table import Table

FOLDER = Path('demo')  # by default; then demo_2 and so on
SLOW = 0.95  # of the speed of the recording: less is reported


def main(args: list[str] | None = None) -> None:
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(prog='python -m cgdet_ros.tools.demo', description=__doc__)
    parser.add_argument('--bag', help='play this bag')
    parser.add_argument('--topic', help='image topic of the bag, if it has several')
    parser.add_argument('--images', help='play the pictures of this folder, file or video, 10 Hz')
    parser.add_argument('--data', help='COCO file with the ground truth of the bag')
    parser.add_argument('--model', help='ONNX file; by default the shipped one that is fastest')
    parser.add_argument('--rate', type=float, default=1.0,
                        help='maximum speed, relative to the recording')
    parser.add_argument('--seconds', type=float, default=SECONDS,
                        help='length of the drawn street')
    parser.add_argument('--output', type=Path,
                        help='folder for the results; by default a new one: demo, demo_2 ...')
    parser.add_argument('--running', action='store_true',
                        help='use a node that is already running; accepts --ros-args')
    options, ros_args = parser.parse_known_args(args)
    if ros_args and not (options.running and ros_args[0] == '--ros-args'):
        parser.error(f'unrecognized arguments: {" ".join(ros_args)}')
    if options.data and not options.bag:
        parser.error('--data is the ground truth of a bag; name the bag with --bag')
    if not options.running:
        # A separate graph, so that no camera on the network publishes to the demo.
        os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
        os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    try:
        use_transport_profile()
        sys.exit(demo(options, ros_args))
    except UserError as error:
        mine = ', '.join(f'--{field}' for field in error.fields if field in vars(options))
        sys.exit(f'cgdet: {error}' + f' ({mine})' * bool(mine))
    except OSError as error:  # a full disk, no permission
        sys.exit(f'cgdet: {error.filename or "writing"}: {error.strerror or error}')
    except KeyboardInterrupt:
        print('\ncgdet: interrupted; nothing was written.', file=sys.stderr)
        sys.exit(130)


def demo(options: argparse.Namespace, ros_args: list[str] | None = None) -> int:
    """Play the bag that is given or made, and write the results; return the exit status."""
    for name, value in (('rate', options.rate), ('seconds', options.seconds)):
        if not value > 0:
            raise UserError(f'--{name} must be positive, not {value}.')
    with results(options.output) as folder:
        model = Path(options.model) if options.model else shipped_model()
        card = load_card(model, DetectionCard)
        source = open_input(options.bag, options.images, options.data, options.seconds, folder,
                            card, options.topic)
        print(f'model: {model}' + (
            '' if options.model else ', as is best here; MODEL= selects another'), flush=True)
        with bar('playing', source) as progress:
            run = run_bag(
                source.bag, model,
                float(np.min(evaluation_threshold(card))) if source.truth else -1.0,
                options.rate, options.running, ros_args, progress, source.topic)
        if not run.received.keys() & run.sent.keys():
            why = run.status.get('last error') or (
                f'it received {run.status.get("received", 0)}; check input_transport and the log')
            raise UserError(f'The detector processed none of the {len(run.sent)} images: {why}')
        report = summarize(run, source.truth, card)
        sentences = remarks(run, source, options.rate)
        with bar('drawing', source) as progress:
            write_pictures(source.frames(), run, source.truth, card, recorded_rate(run), folder,
                           progress, source.target)
        write_json(folder / 'report.json', report)
        write_page(folder, source.name, model.name, sentences, report, bool(source.truth),
                   not (options.bag or options.images), source.target is not None)
        show(report, sentences)
    return 1 if source.unreadable else 0


@contextmanager
def results(wanted: Path | None) -> Iterator[Path]:
    """Yield a temporary folder, which becomes the folder of the results if there is no error."""
    output = wanted or free_folder(FOLDER)
    check_outputs(folders=[output])
    if output.is_dir() and any(output.iterdir()):
        raise UserError(f'{output} is not empty; choose another folder for the results.')
    with temporary_for(output) as folder:
        folder.mkdir()
        yield folder
        if output.is_dir():
            output.rmdir()
        os.replace(folder, output)
    print(f'The results are in {output}; open {output / PAGE} in a browser.', flush=True)


@contextmanager
def bar(what: str, source: DemoInput) -> Iterator[Callable[[], None]]:
    """Print the number of frames, and yield a step, which shows progress."""
    with open_bag(source.bag) as reader:
        total = sum(c.msgcount for c in image_connections(
            reader, source.bag, source.topic))
    print(f'{what} {counted(total, "frame")} ...', flush=True)
    with counting(what, total) as advance:
        yield advance


def recorded_rate(run: Collected) -> float:
    """Return the frames per second of the recording, by the stamps of its images."""
    seconds = (max(run.sent) - min(run.sent)) * 1e-9
    return (len(run.sent) - 1) / seconds if seconds > 0 else 1.0


def played_rate(run: Collected) -> float:
    """Return the images that were played in a second."""
    seconds = max(run.sent.values()) - min(run.sent.values())
    return (len(run.sent) - 1) / seconds if seconds > 0 else 1.0


def remarks(run: Collected, source: DemoInput, rate: float) -> list[str]:
    """Return what a person should know about a run, in sentences."""
    sentences = []
    if len(run.sent) > 1:
        recorded, played = recorded_rate(run), played_rate(run)
        sentences.append(
            f'The node kept up with {recorded * rate:.1f} frames/s.'
            if played >= SLOW * recorded * rate else
            f'The node answers {played:.1f} frames/s here, so the recording was played at '
            f'{played / recorded:.2g} of its speed.')
    if lost := len(run.sent.keys() - run.received.keys()):
        why = run.status.get('last error') or (
            'the shutter of the camera was closed' if run.status.get('skipped', '0') != '0'
            else 'they did not reach the node')
        sentences.append(f'Of {counted(len(run.sent), "image")}, {lost} have no result: {why}.')
    if run.repeated:
        sentences.append(f'Without a result of their own: {counted(run.repeated, "image")} with '
                         'the stamp of an earlier one; the camera driver must set header.stamp.')
    if source.unreadable:
        sentences.append(f'Left out, because they cannot be read: {", ".join(source.unreadable)}.')
    return sentences


def summarize(
    run: Collected, truth: dict[int, ImageRecord], card: DetectionCard,
) -> dict[str, Any]:
    """Return the results: frames, latencies in milliseconds, AP as a fraction."""
    stamps = [s for s in run.sent if s in run.received]
    report: dict[str, Any] = {
        'frames sent': len(run.sent), 'frames processed': len(stamps),
        'frames dropped': len(run.sent) - len(stamps), 'headers equal': run.headers_equal}
    if len(run.sent) > 1:
        report['frames/s'] = played_rate(run)
    if run.latencies:
        p50, p95 = np.percentile(list(run.latencies.values()), (50, 95)) * 1e3
        report |= {'image to detections p50 ms': float(p50), 'image to detections p95 ms':
                   float(p95)}
    for key in ('infer p50 ms', 'infer p95 ms', 'overhead p50 ms', 'backend'):
        if key in run.status:
            report['node: ' + key] = _number(run.status[key])
    scored = [s for s in stamps if s in truth]
    if scored:
        try:
            from cgdet_core.detection.metrics import evaluate
        except ModuleNotFoundError as error:
            return {**report, 'AP': f'not computed, the module {error.name} is missing'}
        coco = CocoSet(Path(), [truth[s] for s in scored], card.classes)
        result = evaluate([run.received[s] for s in scored], coco)
        report |= {'AP': result['AP'], 'AP50': result['AP50']}
        report |= {f'AP50 {name}': v['AP50'] for name, v in result['per_class'].items()
                   if v['AP50'] is not None}
    return report


def _number(text: str) -> float | str:
    try:
        return float(json.loads(text))
    except (ValueError, TypeError):
        return text


def show(report: dict[str, Any], sentences: list[str]) -> None:
    """Print the results."""
    table = Table(show_header=False)
    for key, value in report.items():
        table.add_row(key, as_text(value))
    show_table(table)
    for sentence in sentences:
        print(sentence)


if __name__ == '__main__':
    main()
