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

"""Choice of the thermal frames of a bag, and of the RGB images of the same time."""

from bisect import bisect
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
import re
from typing import Any

from cgdet_core.data.bags import registration
from cgdet_core.data.bags.io import (
    bag_name,
    image_connections,
    image_messages,
    open_bag,
    topic_messages,
)
from cgdet_core.data.bags.registration import CalibratedCamera, Pose, Registration
from cgdet_core.data.show import evenly
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.signal import CARD, check_unit
import numpy as np
from numpy.typing import NDArray

LONGEST_MS = 1e12  # between the clocks of cameras, 32 years
INFO_TYPE = 'sensor_msgs/msg/CameraInfo'
Stamps = NDArray[np.int64]  # nanoseconds


@dataclass(frozen=True)
class Choice:
    """
    The frames to take from sources, and how to register the RGB images of bags.

    max_gap_ms: maximum gap between the stamps of a pair; rgb_offset_ms is added to the RGB stamps
    first. every: one of so many frames. rate: maximum number of frames per second. max_frames: of
    all sources, evenly spaced. These prefer frames with an RGB image. min_change: fraction of the
    contrast by which a frame must differ from the previous one; by default 0.01 in videos and
    bags, and 0 for images. rectify: register by CameraInfo and /tf_static, with the scene at
    infinity or at plane_m meters. unit: of the thermal frames, see `signal.UNITS`; those with a
    temperature are stored as hundredths of a kelvin. polarity: of the thermal frames, '' if it is
    not known; the set states it.
    """

    thermal_topic: str | None = None
    rgb_topic: str | None = None
    max_gap_ms: float = 20.0
    rgb_offset_ms: float = 0.0
    every: int = 1
    rate: float | None = None
    max_frames: int | None = None
    min_change: float | None = None
    homography: Path | None = None
    rectify: bool = False
    plane_m: float | None = None
    jpeg: bool = False
    unit: str = CARD
    polarity: str = ''

    @property
    def rgb_offset_ns(self) -> int:
        return round(self.rgb_offset_ms * 1e6)

    @property
    def period_ns(self) -> float:
        """The minimum time between frames; with some slack, as the stamps of a camera jitter."""
        return 1e9 / self.rate - 1e5 if self.rate else 0.0

    def __post_init__(self) -> None:
        check_unit(self.unit, 'unit')
        for name in ('max_gap_ms', 'rgb_offset_ms'):
            if not abs(value := getattr(self, name)) < LONGEST_MS:
                raise UserError(f'{value:g} is no time in milliseconds.', name)
        if self.rate is not None and not self.rate > 0:
            raise UserError(f'The rate must be positive, not {self.rate}.', 'rate')
        if self.rate is not None and self.every > 1:
            raise UserError('Choose frames either by their number or by a rate, not both.',
                            'every', 'rate')
        if self.homography is not None and self.rectify:
            raise UserError('Register RGB either by a homography or by calibration, not both.',
                            'homography', 'rectify')
        if self.plane_m is not None and not (self.rectify and self.plane_m > 0):
            raise UserError('The distance of the scene must be positive, in meters, and is only '
                            'for registration by calibration.', 'plane_m', 'rectify')
        if self.rgb_topic is None and (self.homography is not None or self.rectify):
            raise UserError('There is nothing to register without an RGB topic.', 'rgb_topic')
        if self.homography is not None:
            registration.read_homography(self.homography)  # raises UserError before any work


@dataclass
class Plan:
    """The chosen frames of a source, sorted: their stamps in a bag, their numbers elsewhere."""

    name: str
    stamps: Stamps
    partners: dict[int, int] = field(default_factory=dict)  # thermal stamp -> RGB stamp
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class BagPlan(Plan):
    """The chosen thermal stamps of a bag, and its RGB stamps."""

    path: Path
    thermal_topic: str
    rgb_topic: str | None
    rgb_stamps: Stamps = field(default_factory=lambda: np.zeros(0, np.int64))
    # of thermal and RGB, and the pose of thermal in RGB
    calibration: tuple[CalibratedCamera, CalibratedCamera, Pose] | None = None
    is_sequence = True


def plan_bag(path: Path, choice: Choice) -> BagPlan:
    """Choose a bag's frames by their stamps; UserError if topics or clocks do not match."""
    with open_bag(path) as reader:
        topic = image_connections(
            reader, path, choice.thermal_topic, choice.rgb_topic, 'thermal_topic')[0].topic
        rgb_topic = choice.rgb_topic and image_connections(
            reader, path, choice.rgb_topic, field='rgb_topic')[0].topic
        if topic == rgb_topic:
            raise UserError(f'{topic} cannot be both the thermal and the RGB topic.')
        thermal, repeated = _stamps(reader, path, topic)
        rgb = _stamps(reader, path, rgb_topic)[0] if rgb_topic else None
        calibration = _calibration(reader, path, topic, rgb_topic) if (
            choice.rectify and rgb_topic) else None
    plan = BagPlan(bag_name(path), np.sort(thermal[0]), path=path, thermal_topic=topic,
                   rgb_topic=rgb_topic, calibration=calibration)
    plan.report = {'images': len(thermal[0]) + repeated, 'repeated_stamps': repeated,
                   'thermal_topic': topic, 'rgb_topic': rgb_topic}
    if rgb is not None:
        plan.rgb_stamps = rgb[0]
        plan.report['rgb_images'] = len(rgb[0])
        pair(plan, choice)
        if not plan.partners:
            raise _unsynchronized(plan, thermal, rgb, choice)
    plan.stamps = choose(plan.stamps, choice, plan.partners)
    return plan


def pair(plan: BagPlan, choice: Choice) -> None:
    """Pair the chosen thermal frames of a bag with their RGB images."""
    if plan.rgb_topic is None:
        return
    offset = choice.rgb_offset_ns
    pairs = synchronize(plan.stamps, plan.rgb_stamps + offset, choice.max_gap_ms * 1e6)
    gaps = np.abs([r - t for t, r in pairs.items()]) / 1e6
    plan.partners = {t: r - offset for t, r in pairs.items()}
    plan.report['gap_ms'] = {'median': round(float(np.median(gaps)), 3),
                             'max': round(float(gaps.max()), 3)} if pairs else None


def synchronize(thermal: Stamps, rgb: Stamps, max_gap_ns: float) -> dict[int, int]:
    """
    Pair stamps that are mutually nearest and at most max_gap_ns apart.

    Every RGB image is thus used at most once, for the thermal frame nearest to it; the earlier
    one wins a tie. With a slower RGB camera, frames remain without a partner, which training
    supports, instead of sharing an image of another time.
    """
    if not len(thermal) or not len(rgb):
        return {}
    a, b = np.sort(thermal), np.sort(rgb)
    there, back = _nearest(a, b), _nearest(b, a)
    return {int(a[i]): int(b[j]) for i, j in enumerate(there.tolist())
            if back[j] == i and abs(int(a[i] - b[j])) <= max_gap_ns}


def spread(plans: Sequence[Plan], maximum: int | None) -> None:
    """Keep at most `maximum` frames of all sources, evenly spaced, those with RGB first."""
    if maximum is None:
        return
    items = [(i, int(stamp)) for i, plan in enumerate(plans) for stamp in plan.stamps]
    kept = evenly([(i, s) for i, s in items if s in plans[i].partners], maximum)
    alone = [(i, s) for i, s in items if s not in plans[i].partners]
    kept += evenly(alone, maximum - len(kept))
    for i, plan in enumerate(plans):
        plan.stamps = np.array(sorted(s for owner, s in kept if owner == i), np.int64)


def open_registration(
    plan: BagPlan, choice: Choice, thermal_size: tuple[int, int], picture: NDArray[np.uint8],
) -> Registration | None:
    """Return the registration of a bag's RGB to its thermal frames, None if there is none."""
    if choice.homography is not None:
        rgb_size = picture.shape[1], picture.shape[0]
        matrix = registration.read_homography(choice.homography, thermal_size, rgb_size)
        return registration.by_homography(matrix, thermal_size)
    if plan.calibration is None:
        return None
    thermal, rgb, pose = plan.calibration
    for camera, topic, size in ((thermal, plan.thermal_topic, thermal_size),
                                (rgb, plan.rgb_topic, picture.shape[1::-1])):
        if camera.size != size:
            raise UserError(
                f'The CameraInfo of {topic} in {plan.path} is for {camera.size[0]}x'
                f'{camera.size[1]} pixels, but an image has {size[0]}x{size[1]}; register by a '
                'homography.', 'homography')
    return registration.by_calibration(thermal, rgb, pose, choice.plane_m)


def messages(path: Path, topic: str | None, stamps: set[int]) -> Iterator[tuple[int, Any]]:
    """Yield the first message of a topic with each of these stamps."""
    if not stamps:
        return
    with open_bag(path) as reader:
        for _, stamp, message in image_messages(reader, path, topic):
            if stamp in stamps:
                stamps.remove(stamp)
                yield stamp, message
            if not stamps:
                return


def info_topic(image_topic: str) -> str:
    """Return the CameraInfo topic of an image topic, which drivers publish next to it."""
    return f'{_raw_topic(image_topic).rpartition("/")[0]}/camera_info'


def is_rectified(image_topic: str) -> bool:
    """Return whether images are rectified, by the topic names of image_proc and drivers."""
    return re.match(r'image_rect(_|$)', _raw_topic(image_topic).rpartition('/')[2]) is not None


def _raw_topic(image_topic: str) -> str:
    return re.sub(r'/(compressed|compressedDepth|ffmpeg|theora)$', '', image_topic)


def _calibration(
    reader: Any, path: Path, *topics: str,
) -> tuple[CalibratedCamera, CalibratedCamera, Pose]:
    thermal, rgb = (_camera(reader, path, topic) for topic in topics)
    transforms = [t for message in topic_messages(reader, '/tf_static', 'tf2_msgs/msg/TFMessage')
                  for t in message.transforms]
    pose = registration.pose_between(transforms, thermal.frame_id, rgb.frame_id)
    return thermal, rgb, pose


def _camera(reader: Any, path: Path, topic: str) -> CalibratedCamera:
    wanted = info_topic(topic)
    for message in topic_messages(reader, wanted, INFO_TYPE):
        return registration.camera_of(message, wanted, is_rectified(topic))
    infos = {c.topic for c in reader.connections if c.msgtype == INFO_TYPE}
    raise UserError(f'{path} has no CameraInfo on {wanted} to calibrate {topic}; found: '
                    f'{", ".join(sorted(infos)) or "none"}. Register by a homography.',
                    'homography')


def _stamps(reader: Any, path: Path, topic: str) -> tuple[tuple[Stamps, Stamps], int]:
    """
    Return a topic's unique stamps and the recorder's times, in the order of recording.

    Also returns the number of images with the stamp of an earlier one.
    """
    found: dict[int, int] = {}
    count = 0
    for received, stamp, _ in image_messages(reader, path, topic):
        found.setdefault(stamp, received)
        count += 1
    if not found:
        raise UserError(f'{path} has no images on {topic}.')
    if len(found) == 1 and count > 1:
        raise UserError(f'All {count} images of {topic} in {path} have the same stamp; the camera '
                        'driver must set header.stamp.')
    times = np.array(list(found), np.int64), np.array(list(found.values()), np.int64)
    return times, count - len(found)


def choose(stamps: Stamps, choice: Choice, first: Collection[int] = ()) -> Stamps:
    """Return the sorted stamps that a choice takes, preferring those in `first`."""
    ordered = np.sort(stamps).tolist()
    groups = (ordered[i:i + choice.every] for i in range(0, len(ordered), choice.every))
    taken = [next((s for s in group if s in first), group[0]) for group in groups]
    return _apart(np.array(taken, np.int64), choice.period_ns, set(taken) & set(first))


def _apart(stamps: Stamps, minimum: float, first: Iterable[int]) -> Stamps:
    """Return stamps that are at least `minimum` apart, preferring those in `first`."""
    kept: list[int] = []
    for stamp in [*sorted(first), *np.sort(stamps).tolist()]:
        place = bisect(kept, stamp)
        near = kept[max(0, place - 1):place + 1]
        if stamp not in near and all(abs(stamp - other) >= minimum for other in near):
            kept.insert(place, stamp)
    return np.array(kept, np.int64)


def _nearest(a: Stamps, b: Stamps) -> NDArray[np.intp]:
    """Return the index in sorted b of the stamp nearest to each of sorted a."""
    right = np.searchsorted(b, a).clip(1, max(1, len(b) - 1))
    left = right - 1
    right = right.clip(max=len(b) - 1)
    return np.where(np.abs(a - b[left]) <= np.abs(b[right] - a), left, right)


def _unsynchronized(
    plan: BagPlan, thermal: tuple[Stamps, Stamps], rgb: tuple[Stamps, Stamps], choice: Choice,
) -> UserError:
    """Return an error with the offset of the stamps, and of the clocks by the recorder's time."""
    stamps = np.sort(rgb[0]) + choice.rgb_offset_ns
    ordered = np.sort(thermal[0])
    gap = float(np.median(stamps[_nearest(ordered, stamps)] - ordered)) / 1e6
    clock = float(np.median(rgb[0] - rgb[1]) - np.median(thermal[0] - thermal[1])) / 1e6
    return UserError(
        f'{plan.path}: no RGB image of {plan.rgb_topic} is within {choice.max_gap_ms:g} ms of a '
        f'thermal one; the nearest RGB stamp is {gap:+.1f} ms off (median). By the clock of '
        f'the recorder, the RGB stamps are {clock:+.1f} ms off: if the RGB clock is wrong, set an '
        f'RGB offset of {-clock:.1f} ms, otherwise allow a larger gap.',
        'rgb_offset_ms', 'max_gap_ms')
