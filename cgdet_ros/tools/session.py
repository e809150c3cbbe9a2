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

"""Start the detector node, play a bag into it, and collect what it publishes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
import subprocess
from threading import Thread
from time import monotonic, sleep
from typing import Any

from cgdet_core.data.bags.io import is_compressed
from cgdet_core.errors import UserError
from cgdet_core.processes import program
from cgdet_ros.node.starting import create, init
from cgdet_ros.tools.collector import Collected, Collector
from cgdet_ros.tools.play import play
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

START_TIMEOUT_S = 60.0  # without a sign of progress
STATUS_TIMEOUT_S = 3.0  # for the diagnostics after the last image, which are published at 1 Hz
RELIABLE = 'qos_overrides./image_raw{}.subscription.reliability'  # a parameter of the node


@contextmanager
def node_process(
    model: str | Path | None, *ros_args: str, node: str = 'detector', **parameters: object,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node, detector or tracker, in a separate process; UserError if it ends by itself."""
    if model is not None:
        parameters['model_path'] = Path(model).resolve()
    arguments = [word for name, value in parameters.items() for word in ('-p', f'{name}:={value}')]
    with program(f'cgdet_ros.{node}_node', '--ros-args', *ros_args, *arguments,
                 patience_s=20.0) as process:
        yield process
        check_running(process)


def check_running(process: 'subprocess.Popen[Any] | None') -> None:
    """Raise UserError if a process of the node has ended; None: another program started it."""
    if process is not None and process.poll() is not None:
        raise UserError(f'The node ended by itself, exit status {process.poll()}.')


def run_bag(
    bag: str | Path, model: str | Path | None, score_threshold: float, rate: float = 1.0,
    running: bool = False, ros_args: list[str] | None = None,
    progress: Callable[[], None] = lambda: None, topic: str | None = None,
) -> Collected:
    """
    Play a bag into a node, each image when the one before it was answered; collect the answers.

    rate: maximum speed, relative to the recording. running: use a node that is already running, in
    the namespace of ros_args, with the time of the bag; otherwise one is started, with model and
    score_threshold. progress: called with each image. topic: of the images. UserError if the node
    ends or stops.
    """
    transport, suffix = (
        ('compressed', '/compressed') if is_compressed(bag, topic) else ('raw', ''))
    init(ros_args or [])
    collector, executor = create(Collector), SingleThreadedExecutor()
    executor.add_node(collector)
    spinning = Thread(target=_spin, args=(executor, collector), daemon=True)
    spinning.start()
    try:
        with nullcontext() if running else node_process(
                model, score_threshold=score_threshold, input_transport=transport,
                **{RELIABLE.format(suffix): 'reliable'}) as process:
            wait_until_active(collector, process)

            def answered() -> None:
                collector.wait_for_answer(lambda: check_running(process))
                progress()

            play(collector, bag, rate, collector.sent, only_images=True, clock=running,
                 answered=answered, topic=topic)
            collector.wait_for_status(STATUS_TIMEOUT_S)
    finally:
        executor.shutdown()
        spinning.join(5)
        collector.destroy_node()
        rclpy.try_shutdown()
    return collector.run


def _spin(executor: SingleThreadedExecutor, collector: Collector) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    except Exception as error:
        if collector.context.ok():  # else of a shutdown
            collector.fail(error)


def wait_until_active(
    collector: Collector, process: 'subprocess.Popen[bytes] | None' = None,
) -> None:
    """Wait for the class map; UserError if the node ends, or stops reporting progress before."""
    elapsed: str | None = None
    end = monotonic() + START_TIMEOUT_S
    while collector.classes is None:
        check_running(process)
        collector.check()
        status = collector.run.status
        if status.get('elapsed s') != elapsed:  # an engine takes minutes to build
            elapsed, end = status.get('elapsed s'), monotonic() + START_TIMEOUT_S
        if monotonic() > end:
            why = status.get('message', 'the node did not become active')
            raise UserError(f'The detector did not start within {START_TIMEOUT_S:.0f} s: {why}.')
        sleep(0.05)
