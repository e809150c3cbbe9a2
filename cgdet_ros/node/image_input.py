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

"""The newest images of the cameras, their statistics, and the thread that processes them."""

from dataclasses import dataclass
from threading import Condition, Thread
from time import perf_counter
from typing import Any

from cgdet_core.runtime.imaging.dead_pixels import fill_dead_pixels
from cgdet_core.runtime.imaging.frames import to_gray
from cgdet_core.runtime.imaging.geometry import Crop
from cgdet_core.runtime.imaging.message import encoding_of, is_false_color, stamp_of
from cgdet_ros.node.bridge import read_pixels
from cgdet_ros.node.diagnostics import Statistics
from cgdet_ros.node.logs import CameraLog, reason
from cgdet_ros.node.topics import input_qos
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import qos_check_compatible, QoSCompatibility
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

# Maximum wait of the executor while the worker prepares an image. Without this wait the overhead
# per image is 4.0 ms instead of 3.1 ms (docs/decisions/0009).
PREPARATION_S = 0.005
FRAME_ID = 256  # characters; every detection repeats it


class Handover(Condition):
    """Guard the slots of all inputs, which the executor fills and the worker empties."""

    idle = False  # the worker waits for an image


@dataclass(frozen=True)
class Received:
    """An image message and its time of reception, in seconds of perf_counter."""

    message: Image | CompressedImage
    time: float


class ImageInput:
    """
    Store the newest image of a camera until the worker takes it.

    camera: its name, empty for the topic `image_raw`; transport: raw or compressed; wake: guards
    the slot and is notified of every image.
    """

    def __init__(self, node: Node, camera: str, transport: str, wake: Handover) -> None:
        self.camera = camera
        self.statistics = Statistics()
        self.log = CameraLog(node, camera)
        self._node = node
        self._wake = wake
        self._source: tuple[type, str] = Image, f'{camera}/image_raw' if camera else 'image_raw'
        if transport == 'compressed':
            # As in image_transport: "/compressed" is appended to the remapped raw topic.
            raw = node.resolve_topic_name(self._source[1]).removesuffix('/compressed')
            self._source = CompressedImage, f'{raw}/compressed'
        self.topic = node.resolve_topic_name(self._source[1])
        self._slot: Received | None = None
        self._number: int | None = None  # that the publisher gave the latest image
        self._numbering: set[bytes] = set()  # the publishers that gave the numbers, if known
        self._warned = False  # of false color
        self._subscription: Subscription | None = None

    def subscribe(self) -> None:
        """Subscribe with new statistics; raise rclpy's error for a bad qos_overrides entry."""
        self.statistics = Statistics()
        self._number, self._numbering, self._warned = None, set(), False
        self._subscription = self._node.create_subscription(
            *self._source, self._take, input_qos(),
            qos_overriding_options=QoSOverridingOptions.with_default_policies())

    def unsubscribe(self) -> None:
        """Unsubscribe and discard the waiting image."""
        with self._wake:
            subscription, self._subscription = self._subscription, None
            self._slot = None
        if subscription is not None:
            self._node.destroy_subscription(subscription)

    def _take(self, message: Image | CompressedImage, info: Any) -> None:
        """
        Receive an image, and count those before it that did not arrive.

        The publisher numbers its messages: with depth 1 the middleware overwrites an image that
        waits for the executor, and reports it nowhere. Not all middleware passes the number on,
        and none says whose it is: those of several publishers do not follow each other.
        """
        number = dict(info).get('publication_sequence_number')
        if number is not None:
            before, self._number = self._number or number - 1, number
            if number <= before:
                self._numbering = set()  # it is another publisher's
            gap = max(0, number - before - 1)
            self.statistics.frames_lost(gap if gap and self._is_alone() else 0)
        self._receive(message)

    def _is_alone(self) -> bool:
        """Return whether one publisher gave the numbers since this was asked last."""
        before = self._numbering
        self._numbering = {bytes(p.endpoint_gid) for p in
                           self._node.get_publishers_info_by_topic(self.topic)}
        return len(before) == 1 and self._numbering == before

    def _receive(self, message: Image | CompressedImage) -> None:
        received = Received(message, perf_counter())
        with self._wake:
            if self._subscription is None:
                return  # received while the subscription was destroyed
            self.statistics.frame_received(
                message.header.frame_id, replaces=self._slot is not None,
                stamp=stamp_of(message.header))
            self._slot = received
            self._wake.notify_all()
            if self._wake.idle:
                # The executor and the worker would compete for the interpreter lock.
                self._wake.wait(PREPARATION_S)

    def waits(self) -> bool:
        """Return whether an image is waiting."""
        return self._slot is not None

    def take(self) -> Received | None:
        """Return the newest image and clear the slot."""
        with self._wake:
            received, self._slot = self._slot, None
            return received

    def age(self, message: Image | CompressedImage) -> float:
        """Return the seconds since the stamp of the image, on the node's clock."""
        now = self._node.get_clock().now().nanoseconds
        return float(now - stamp_of(message.header)) * 1e-9

    def to_frame(
        self, message: Image | CompressedImage, crop: Crop, max_dead_share: float,
    ) -> NDArray[Any]:
        """
        Return the cropped gray frame (H, W); ValueError if the image is invalid.

        max_dead_share: of NaN and infinite pixels, which are filled.
        """
        if (length := len(message.header.frame_id)) > FRAME_ID:
            raise ValueError(f'the frame_id has {length} characters, at most {FRAME_ID} are '
                             'accepted')
        pixels = crop.apply(read_pixels(message))
        statistics = self.statistics
        statistics.false_color = pixels.ndim == 3 and is_false_color(pixels)
        if statistics.false_color and not self._warned:
            self._warned = True
            self._node.get_logger().warning(
                f'the image{self.log.of_camera} is in color ({encoding_of(message)}); its '
                'luminance is used, in which a palette does not preserve the order of '
                'temperatures; set the camera to white hot, or preferably to 16 bit')
        frame, statistics.dead_pixels = fill_dead_pixels(to_gray(pixels), max_dead_share)
        return frame

    def skip(self, message: Image | CompressedImage, error: Exception) -> None:
        """Count an image as failed and log the reason."""
        if self._node.context.ok():  # else Ctrl-C has destroyed the publishers
            self.statistics.frame_failed(encoding_of(message), reason(error))
            self.log.error('image{} skipped', error)

    def status(
        self, prefix: str, no_input_warn_s: float, remark: str = '',
    ) -> DiagnosticStatus:
        """
        Return the status for /diagnostics, and log a new problem; its name has the prefix.

        remark: a warning if nothing else is wrong.
        """
        source = None if self._subscription is None else self._publishers()
        status = self.statistics.status(f'{prefix}: camera {self.camera}'.rstrip(),
                                        self.camera or 'none', source, no_input_warn_s, remark)
        if source is not None:
            if status.message != self.statistics.last_error:  # which was logged with its image
                self.log.follow(status)
            if behind := self.statistics.falls_behind():
                self.log.warning(behind)
        return status

    def _publishers(self) -> str:
        """Return the topic and its publishers, and why images may not be received."""
        assert self._subscription is not None
        found = self._node.get_publishers_info_by_topic(self.topic)
        gids = {bytes(p.endpoint_gid) for p in found}
        if gids != self._numbering:
            self._number, self._numbering = None, gids
        return publishers_of(self._subscription, found, bool(self.statistics.received))


def publishers_of(
    subscription: Subscription, found: list[TopicEndpointInfo], received: bool = False,
) -> str:
    """Return a topic, its publishers, and if nothing is received why, as the graph shows it."""
    text = (f'{subscription.topic_name}: {len(found)} '
            f'publisher{"" if len(found) == 1 else "s"}')
    return text if not found or received else f'{text}, {_why(subscription, found)}'


def _why(subscription: Subscription, publishers: list[TopicEndpointInfo]) -> str:
    kind = subscription.msg_type
    wanted = f'{kind.__module__.split(".")[0]}/msg/{kind.__name__}'
    kinds = {p.topic_type for p in publishers}
    if wanted not in kinds:
        return f'of {" and ".join(sorted(kinds))}, not {wanted}'
    own = subscription.qos_profile
    checks = [qos_check_compatible(p.qos_profile, own) for p in publishers
              if p.topic_type == wanted]
    if all(result == QoSCompatibility.ERROR for result, _ in checks):
        reasons = sorted({text.removeprefix('ERROR: ').rstrip(';') for _, text in checks})
        return f'whose QoS does not match: {"; ".join(reasons)}'
    return ('of the right type and QoS: check that the camera sends, and the transport, with '
            '"cgdet doctor"')


class Hangs(Exception):
    """A worker did not stop in time."""


class ImageWorker:
    """
    Process the newest images of the inputs in a separate thread, which starts at once.

    It never waits for a particular input: a batch consists of the images that are waiting, at most
    `at_once`, and inputs that were not served last time come first.
    """

    def __init__(self, inputs: list[ImageInput], at_once: int, wake: Handover) -> None:
        self._turns = list(inputs)  # in the order in which they are served
        self._at_once = at_once
        self._wake = wake
        self._running = True
        self._thread = Thread(target=self._run, name='worker', daemon=True)
        self._thread.start()

    def process(self, batch: list[tuple[ImageInput, Received]]) -> None:
        """Process images and publish the results while `running()`; must not raise."""
        raise NotImplementedError

    def running(self) -> bool:
        """Return False after `stop`: inputs and outputs may then belong to another worker."""
        return self._running

    def prepared(self) -> None:
        """Wake the executor, which waits in `ImageInput` until the images are prepared."""
        with self._wake:
            self._wake.notify_all()

    def stop(self, patience: float) -> None:
        """End the thread after its batch; Hangs after `patience` s, the worker keeps the model."""
        with self._wake:
            self._running = False
            self._wake.notify_all()
        self._thread.join(patience)
        if self._thread.is_alive():
            raise Hangs(f'inference hangs: it did not stop within {patience:g} s and keeps its '
                        'memory; restart the node')

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self.running():
                    return  # it hung: the inputs now belong to another worker
                self._wake.idle = True
                self._wake.wait_for(
                    lambda: not self.running() or any(i.waits() for i in self._turns))
                self._wake.idle = False
                if not self.running():
                    return
                batch = self._take()
            self.process(batch)

    def _take(self) -> list[tuple[ImageInput, Received]]:
        chosen = [source for source in self._turns if source.waits()][:self._at_once]
        self._turns.sort(key=chosen.__contains__)  # stable: served inputs move to the end
        return [(source, received) for source in chosen if (received := source.take())]
