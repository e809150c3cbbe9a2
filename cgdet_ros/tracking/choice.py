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

"""Find the box that a request means, and the image it is on."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from cgdet_core.runtime.imaging.geometry import Crop
from cgdet_core.runtime.tracking.tracker import check_box
from cgdet_ros.tracking.history import History, Moment, Refused
from cgdet_ros.tracking.parameters import Settings
from cgdet_ros.tracking.requests import (
    Box,
    DetectionId,
    nearest,
    PATIENCE_S,
    Point,
    Request,
    Seen,
)
import numpy as np
from numpy.typing import NDArray

# Boxes (4,) in pixels of the frame, scores and labels of all objects in a frame.
Found = list[tuple[NDArray[np.float32], float, int]]
Find = Callable[[NDArray[Any]], Found]


class Choice:
    """
    Turn a request into a box on a moment; used by the worker only.

    detections: of the detector node. find: detects in a frame, None without a detector; classes:
    the names of its labels.
    """

    def __init__(self, history: History, detections: Seen,
                 find: Find | None, classes: Sequence[str]) -> None:
        self._history, self._detections = history, detections
        self._find, self._classes = find, tuple(classes)

    def start_of(self, request: Request, settings: Settings) -> tuple[Box, Moment] | None:
        """Return a box and its moment, None if that is still to come; Refused says why not."""
        newest = self._history.newest()
        if isinstance(request, DetectionId):
            request = self._detections.find(request)
        elif isinstance(request, Point) and newest is not None:
            box = self._detections.at(request, settings.point_radius_px,
                                      self._history.stamp_ns())
            if box is not None and self._is_kept(box):
                request = box
        moment = self._history.find(request.stamp_ns)
        if moment is None:
            if monotonic() - request.since > PATIENCE_S:
                raise Refused(late(request, None if newest is None else self._history.stamp_ns()))
            return None
        if isinstance(request, Point):
            request = self._around(request, moment, settings)
        assert isinstance(request, Box)
        return request, moment

    def label(self, class_id: str) -> int | None:
        """Return the detector's number of a class id, which may be a name; None if it has none."""
        if class_id in self._classes:
            return self._classes.index(class_id)
        known = class_id.isdecimal() and int(class_id) < len(self._classes)
        return int(class_id) if known else None

    def _is_kept(self, box: Box) -> bool:
        try:
            self._history.find(box.stamp_ns)
        except Refused:
            return False
        return True

    def _around(self, point: Point, moment: Moment, settings: Settings) -> Box:
        """Return the box of what the own detector finds at a point, or one of a fixed size."""
        crop = settings.crop
        height, width = moment.frame.shape
        if not (0 <= point.x - crop.left < width and 0 <= point.y - crop.top < height):
            raise Refused(f'the point ({point.x:g}, {point.y:g}) is outside the image of '
                          f'{width}x{height} pixels' + _cropped(crop))
        if self._find is not None:
            found = self._find(moment.frame)
            boxes = crop.to_received(np.array([f[0] for f in found], np.float32).reshape(-1, 4))
            if (chosen := nearest(boxes, point, settings.point_radius_px)) is not None:
                return Box(point.stamp_ns, boxes[chosen], '', str(found[chosen][2]),
                           since=point.since)
        half = settings.point_size_px / 2
        corners = (point.x - half, point.y - half, point.x + half, point.y + half)
        return Box(point.stamp_ns, np.array(corners, np.float32), since=point.since)


def in_frame(box: Box, moment: Moment, crop: Crop) -> NDArray[np.float64]:
    """Return a box (4,) in pixels of a moment's frame; Refused if no target can be in it."""
    try:
        return check_box(box.box - np.array((crop.left, crop.top) * 2), moment.frame)
    except ValueError as error:
        raise Refused(f'{error}{_cropped(crop)}') from None


def late(request: Request, newest_ns: int | None) -> str:
    """Return why no image has come for a request; newest_ns: the latest stamp, if one has come."""
    if newest_ns is None:
        return f'no image has arrived within {PATIENCE_S:g} s'
    ahead = (request.stamp_ns - newest_ns) * 1e-9
    return (f'its stamp is {ahead:.2f} s newer than the newest image, and none with it has come '
            f'within {PATIENCE_S:g} s; a stamp of 0 stands for the newest image')


def _cropped(crop: Crop) -> str:
    first = f'; the image is cropped, its first pixel is ({crop.left}, {crop.top})'
    return first if crop.left or crop.top else ''
