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
Play thermal frames over DDS into the node and report the results: `make demo`.

The frames are of a bag, a folder of images, or synthetic scenes. The node is a separate process.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain
import os
from pathlib import Path
import shutil
import subprocess
import sys
from threading import Thread
from time import monotonic, sleep
from typing import Any

from cgdet_core.data.bags.io import fingerprint, is_compressed, truth_by_stamp, write_bag
from cgdet_core.data.coco import CocoSet, ImageRecord, load_coco
from cgdet_core.data.sources import bag_frames, coco_frames, Frame, read_frames
from cgdet_core.data.synthetic import write_coco
from cgdet_core.errors import UserError
from cgdet_core.processes import program
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import evaluation_threshold
from cgdet_core.runtime.detection.drawing import draw_detections
from cgdet_core.runtime.files import check_outputs, share_file, write_json
from cgdet_core.runtime.imaging.drawing import contact_sheet, save_picture
from cgdet_core.runtime.inference.card import load_card
from cgdet_ros.resources import use_transport_profile
from cgdet_ros.tools.collector import Collected, Collector
from cgdet_ros.tools.play import play
import cv2
import numpy as np
from numpy.typing import NDArray
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rich.console import Console
from rich.table import Table

SYNTHETIC_FRAMES = 60
SYNTHETIC_SEED = 424242  # not used in training
START_TIMEOUT_S = 60.0  # without a sign of progress
SETTLE_S = 2.0  # after the last frame, for the last detections


@contextmanager
def detector_process(
    model: str | Path | None, *ros_args: str, **parameters: object,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the node in a separate process; UserError if it ends by itself."""
    if model is not None:
        parameters['model_path'] = Path(model).resolve()
    arguments = [word for name, value in parameters.items() for word in ('-p', f'{name}:={value}')]
    with program('cgdet_ros.detector_node', '--ros-args', *ros_args, *arguments,
                 patience_s=20.0) as process:
        yield process
        if process.poll() is not None:
            raise UserError(f'The detector node ended by itself, exit status {process.poll()}.')


def run_bag(
    bag: str | Path, model: str | Path | None, score_threshold: float, rate: float = 1.0,
    running: bool = False, ros_args: list[str] | None = None,
) -> Collected:
    """
    Play a bag into a node and collect what it publishes.

    running: use a node that is already running, in the namespace of ros_args, with the time of
    the bag; otherwise one is started, with model and score_threshold.
    """
    rclpy.init(args=ros_args or [])
    collector, executor = Collector(), SingleThreadedExecutor()
    executor.add_node(collector)
    spinning = Thread(target=_spin, args=(executor,), daemon=True)
    spinning.start()
    try:
        with nullcontext() if running else detector_process(
                model, score_threshold=score_threshold,
                input_transport='compressed' if is_compressed(bag) else 'raw'):
            wait_until_active(collector)
            play(collector, bag, rate, collector.sent, only_images=True, clock=running)
            sleep(SETTLE_S)  # one second longer than the period of the diagnostics
    finally:
        executor.shutdown()
        spinning.join(5)
        collector.destroy_node()
        rclpy.try_shutdown()
    return collector.run


def _spin(executor: SingleThreadedExecutor) -> None:
    with suppress(ExternalShutdownException):
        executor.spin()


def wait_until_active(collector: Collector) -> None:
    """Wait for the class map; UserError if the node stops reporting progress before."""
    elapsed: str | None = None
    end = monotonic() + START_TIMEOUT_S
    while collector.classes is None:
        status = collector.run.status
        if status.get('elapsed s') != elapsed:  # an engine takes minutes to build
            elapsed, end = status.get('elapsed s'), monotonic() + START_TIMEOUT_S
        if monotonic() > end:
            why = status.get('message', 'the node did not become active')
            raise UserError(f'The detector did not start within {START_TIMEOUT_S:.0f} s: {why}.')
        sleep(0.05)


def main(args: list[str] | None = None) -> None:
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(prog='python -m cgdet_ros.tools.demo', description=__doc__)
    parser.add_argument('--bag', help='play this bag')
    parser.add_argument('--images', help='play the images of this folder at 10 Hz')
    parser.add_argument('--data', help='COCO file with the ground truth of the bag')
    parser.add_argument('--model', help='ONNX file; the shipped model by default')
    parser.add_argument('--rate', type=float, default=1.0, help='speed relative to the recording')
    parser.add_argument('--output', default='demo', help='folder for report, images and video')
    parser.add_argument('--running', action='store_true',
                        help='use a node that is already running; accepts --ros-args')
    options, ros_args = parser.parse_known_args(args)
    if ros_args and not (options.running and ros_args[0] == '--ros-args'):
        parser.error(f'unrecognized arguments: {" ".join(ros_args)}')
    if not options.running:
        # A separate graph, so that no camera on the network publishes to the demo.
        os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
        os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    try:
        use_transport_profile()
        demo(options, Path(options.output), ros_args)
    except UserError as error:
        sys.exit(f'cgdet: {error}')
    except KeyboardInterrupt:
        sys.exit(130)


def demo(options: argparse.Namespace, output: Path, ros_args: list[str] | None = None) -> None:
    """Create the bag if none is given, play it, and write report, images and video."""
    check_outputs(folders=[output])
    model = Path(options.model) if options.model else share_file('models/thermal.onnx')
    card = load_card(model, DetectionCard)
    bag, truth = _input(options, output, card)
    output.mkdir(parents=True, exist_ok=True)
    run = run_bag(bag, model, float(np.min(evaluation_threshold(card))) if truth else -1.0,
                  options.rate, options.running, ros_args)
    if not run.received:
        why = run.status.get('last error') or (
            f'{run.status.get("received", 0)} were received; check input_transport and the log')
        raise UserError(f'The detector processed none of the {len(run.sent)} images: {why}')
    report = summarize(run, truth, card)
    _write_pictures(bag_frames(bag), run, truth, card, output)
    write_json(output / 'report.json', report)
    table = Table('', '', title='thermal images over DDS into the detector node',
                  show_header=False)
    for key, value in report.items():
        table.add_row(key, f'{value:.3f}' if isinstance(value, float) else str(value))
    Console().print(table)
    print(f'images: {output / "contact_sheet.png"}, video: {output / "detections.mp4"}')


def _input(
    options: argparse.Namespace, output: Path, card: DetectionCard,
) -> tuple[Path, dict[int, ImageRecord]]:
    """Return the bag to play and its annotated records by stamp."""
    if options.bag:
        if options.data is None:
            return Path(options.bag), {}
        return Path(options.bag), truth_by_stamp(
            options.bag, load_coco(options.data, None, card.classes))
    bag = output / 'cgdet_demo_bag'  # used only by the demo, and replaced
    if options.images:
        source = read_frames(options.images)
        frames = chain([next(source)], source)  # fails before the old bag is removed
        shutil.rmtree(bag, ignore_errors=True)
        write_bag(bag, frames, 10.0)
        return bag, {}
    shutil.rmtree(bag, ignore_errors=True)
    print('drawing synthetic thermal scenes ...', flush=True)
    coco = load_coco(write_coco(output / 'scenes', SYNTHETIC_FRAMES, SYNTHETIC_SEED), None,
                     card.classes)
    write_bag(bag, coco_frames(coco), 10.0, source=fingerprint(coco))
    return bag, truth_by_stamp(bag, coco)


def summarize(
    run: Collected, truth: dict[int, ImageRecord], card: DetectionCard,
) -> dict[str, Any]:
    """Return the results: frames, latencies in milliseconds, AP as a fraction."""
    stamps = [s for s in run.sent if s in run.received]
    report: dict[str, Any] = {
        'frames sent': len(run.sent), 'frames processed': len(stamps),
        'frames dropped': len(run.sent) - len(stamps), 'headers equal': run.headers_equal}
    if run.latencies:
        p50, p95 = np.percentile(list(run.latencies.values()), (50, 95)) * 1e3
        report |= {'image to detections p50 ms': float(p50), 'image to detections p95 ms':
                   float(p95)}
    for key in ('infer p50 ms', 'infer p95 ms', 'overhead p50 ms', 'backend'):
        if key in run.status:
            report['node: ' + key] = run.status[key]
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


def _write_pictures(
    frames: Iterator[Frame], run: Collected, truth: dict[int, ImageRecord],
    card: DetectionCard, output: Path,
) -> None:
    """Write a video of all processed frames and a contact sheet of twelve."""
    chosen = set(sorted(run.received)[::max(1, len(run.received) // 12)][:12])
    sheet: list[NDArray[np.uint8]] = []
    video = cv2.VideoWriter()
    for frame in frames:
        stamp = frame.stamp_ns
        if stamp is None or stamp not in run.received:
            continue
        boxes = truth[stamp].boxes if stamp in truth else None
        picture = draw_detections(frame.pixels, run.received[stamp].above(card.thresholds),
                                  card, boxes)
        if not video.isOpened():
            video.open(str(output / 'detections.mp4'), cv2.VideoWriter.fourcc(*'mp4v'), 10.0,
                       picture.shape[1::-1])
        video.write(picture)
        if stamp in chosen:
            sheet.append(picture)
    video.release()
    if sheet:
        save_picture(output / 'contact_sheet.png', contact_sheet(sheet))


if __name__ == '__main__':
    main()
