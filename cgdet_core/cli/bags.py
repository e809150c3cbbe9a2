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

"""`cgdet bag`."""

from dataclasses import replace
import importlib.util
import os
from pathlib import Path
import sys
from typing import Annotated

from cgdet_core.cli.common import (
    console,
    Data,
    Images,
    Json,
    Match,
    needs,
    open_detector,
    show_report,
    Topic,
    TRAINING_MODULES,
)
from cgdet_core.errors import UserError
import typer

bag_app = typer.Typer(no_args_is_help=True, help='Make, play and evaluate ROS 2 bags.')


@bag_app.command('from-coco')
def bag_from_coco(
    data: Annotated[Path, typer.Argument(metavar='COCO.json')],
    path: Annotated[Path, typer.Argument(metavar='BAG')],
    images: Images = None,
    rate: Annotated[float, typer.Option(help='Frames per second.')] = 10.0,
    encoding: Annotated[str | None, typer.Option(
        help="mono8 or mono16; the pictures' own depth by default.")] = None,
    storage: Annotated[str, typer.Option(help='mcap or sqlite3.')] = 'mcap',
    match: Match = '*',
) -> None:
    """Turn the frames of a COCO set into a bag."""
    from cgdet_core.data.bags import coco_frames, write_bag
    from cgdet_core.data.coco import load_coco

    count = write_bag(path, coco_frames(load_coco(data, images), match), rate, encoding, storage)
    console.print(f'{path}: {count} frames, {count / rate:.1f} s', highlight=False, soft_wrap=True)


@bag_app.command('play', context_settings={
    'allow_extra_args': True, 'ignore_unknown_options': True})
def bag_play(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar='BAG')],
    rate: Annotated[float, typer.Option(help='Speed relative to the recording.')] = 1.0,
    loop: Annotated[bool, typer.Option('--loop', help='Start again at the end.')] = False,
    clock: Annotated[bool, typer.Option('--clock', help='Publish its time on /clock.')] = False,
) -> None:
    """Publish a bag's messages over ROS 2 (for machines without rosbag2); takes --ros-args."""
    if importlib.util.find_spec('rclpy') is None:
        raise UserError(
            'Playing a bag needs ROS 2: source a distribution or .venv/bin/ros_env.sh.')
    # A process of its own: cgdet_core never imports ROS.
    command = [sys.executable, '-m', 'cgdet_ros.play', str(path), '--rate', str(rate)]
    flags = [flag for flag, on in (('--loop', loop), ('--clock', clock)) if on]
    os.execv(sys.executable, command + flags + context.args)


@bag_app.command('evaluate')
@needs(*TRAINING_MODULES)
def bag_evaluate(
    model: Annotated[Path, typer.Argument(help='Checkpoint or ONNX file.')],
    path: Annotated[Path, typer.Argument(metavar='BAG')],
    data: Data, images: Images = None, json_path: Json = None, topic: Topic = None,
) -> None:
    """Measure average precision on a bag's frames, directly and repeatably, without DDS."""
    from cgdet_core.data.bags import read_frames, truth_by_stamp
    from cgdet_core.data.coco import load_coco
    from cgdet_core.evaluation.coco import evaluate as score
    from cgdet_core.evaluation.detect import detect_named
    from cgdet_core.runtime.detector import EVALUATION_THRESHOLD

    detector = open_detector(model)
    coco = load_coco(data, images, detector.card.classes)
    truth = truth_by_stamp(path, coco)
    found, records, unknown = [], [], 0
    for frame in read_frames(path, topic):
        record = truth.get(frame.stamp_ns)
        if record is None:
            unknown += 1
            continue
        found.append(detect_named(
            detector, frame.frame, f'{path} at {frame.stamp_ns} ns', EVALUATION_THRESHOLD))
        records.append(record)
    if not found:
        raise UserError(f'No frame of {path} has annotations in {data}.')
    report = {'model': model.name, 'bag': path.name, 'data': data.name,
              'frames_without_annotation': unknown,
              **score(found, replace(coco, images=records))}
    show_report(report, json_path)
