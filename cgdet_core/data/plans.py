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

"""Which frames of images, videos and bags become a data set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import os
from pathlib import Path

from cgdet_core.data.bags import pairing
from cgdet_core.data.bags.pairing import BagPlan, Choice, Plan
from cgdet_core.data.sources import Frame, open_path, Source
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import free_name
import numpy as np


@dataclass(kw_only=True)
class FramePlan(Plan):
    """The chosen frames of images or a video; a live source is chosen from while it is read."""

    source: Source
    live: bool = False

    @property
    def is_sequence(self) -> bool:
        return self.source.rate > 0


def make_plans(
    sources: Sequence[Path | Source], choice: Choice,
) -> list[BagPlan | FramePlan]:
    """
    Choose the frames of sources: paths of bags, and others.

    UserError if topics, stamps or the calibration of a bag are invalid, if two bags have one
    name, or a choice does not apply to a source.
    """
    plans: list[BagPlan | FramePlan] = [
        pairing.plan_bag(source, choice) if isinstance(source, Path)
        else _plan_frames(source, choice) for source in sources]
    bags = [plan for plan in plans if isinstance(plan, BagPlan)]
    others = [plan for plan in plans if isinstance(plan, FramePlan)]
    if others and choice.rgb_topic is not None:
        raise UserError(f'{others[0].source.where} is not a bag and has no RGB topic; make a set '
                        'of its own of it.', 'rgb_topic')
    if len(plans) > 1 and any(plan.live for plan in others):
        raise UserError('A camera or a stream must be the only source, as it has no end.')
    taken: set[str] = set()
    for bag in bags:
        if bag.name in taken:
            raise UserError(f'Two bags are named {bag.name}; rename one, as frames are identified '
                            'by the name of their bag.')
        taken.add(bag.name)
    for plan in others:
        plan.name = free_name(plan.name, taken)
    pairing.spread(plans, choice.max_frames)
    for bag in bags:
        pairing.pair(bag, choice)
    return plans


def _plan_frames(source: Source, choice: Choice) -> FramePlan:
    """Choose the frames of images, a video or a live source by their numbers."""
    if choice.rate is not None and not source.rate:
        raise UserError(f'{source.where}: images have no times for a rate; choose every n-th.',
                        'every')
    total = source.total
    if total is None and source.files:  # its header does not state it
        total = sum(1 for _ in open_path(source.files[0]).frames)
    if total is None and choice.max_frames is None:
        raise UserError(f'{source.where} has no end; limit the number of frames.', 'max_frames')
    step = 1e9 / source.rate if source.rate else 1.0
    times = np.rint(np.arange(total or 0) * step).astype(np.int64)
    numbers = np.searchsorted(times, pairing.choose(times, choice)).astype(np.int64)
    return FramePlan(_label(source), numbers, source=source, live=total is None,
                     report={'images': total, 'repeated_stamps': 0})


def _label(source: Source) -> str:
    """Return the name of a sequence, or of the folder that contains images."""
    if source.name:
        return source.name
    if not source.files:  # an image on the web
        return Path(source.names[0]).stem
    folder = Path(source.where)
    if not folder.is_dir():
        folder = Path(os.path.commonpath([os.path.abspath(p.parent) for p in source.files]))
    return folder.resolve().name or 'images'


def chosen_frames(plan: FramePlan, choice: Choice) -> Iterator[Frame]:
    """Yield the chosen frames of a plan, of a live source as they come."""
    if plan.live:
        yield from _live_frames(plan, choice)
        return
    numbers = set(plan.stamps.tolist())
    for number, frame in enumerate(plan.source.frames):
        if number in numbers:
            yield frame


def _live_frames(plan: FramePlan, choice: Choice) -> Iterator[Frame]:
    last = -np.inf
    taken: list[int] = []
    for number, frame in enumerate(plan.source.frames):
        plan.report['images'] = number + 1
        stamp = frame.stamp_ns or 0
        if number % choice.every == 0 and stamp - last >= choice.period_ns:
            last = stamp
            taken.append(number)
            plan.stamps = np.array(taken, np.int64)
            yield frame
            if len(taken) == choice.max_frames:
                return
