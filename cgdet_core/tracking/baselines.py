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

"""What a tracker must be better than: a box that stays, OpenCV's trackers, a detector."""

from pathlib import Path
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector, LOST_THRESHOLD
from cgdet_core.runtime.detection.postprocess import iou
from cgdet_core.runtime.imaging.drawing import Picture, to_picture
from cgdet_core.runtime.tracking.target import State, Target
from cgdet_core.tracking.following import corners, Follower, sides
from cgdet_core.tracking.pictures import stretch
import cv2
import numpy as np
from numpy.typing import NDArray

OPENCV = {'mil': 'TrackerMIL', 'kcf': 'TrackerKCF', 'csrt': 'TrackerCSRT', 'nano': 'TrackerNano',
          'vit': 'TrackerVit'}
# The networks of these, by the names of their parameters; OpenCV's zoo and NanoTrack v2 have them.
FILES = {'nano': {'backbone': 'nanotrack_backbone_sim.onnx',
                  'neckhead': 'nanotrack_head_sim.onnx'},
         'vit': {'net': 'object_tracking_vittrack_2023sep.onnx'}}
BASELINES = ('static', *OPENCV, 'detector')
SMALLEST_MIL = 8  # pixels of a side
MIN_IOU = 0.1  # of a detection and the last box, to be the target


def open_baseline(name: str, detector: Detector | None = None,
                  files: Path | None = None) -> Follower:
    """
    Return a baseline of `BASELINES` for one target; UserError if there is none of the name.

    detector: of the baseline "detector". files: folder of the networks of OpenCV's trackers.
    """
    if name == 'static':
        return StaticBox()
    if name == 'detector' and detector is not None:
        return NearestDetection(detector)
    if name not in OPENCV:
        raise UserError(f'There is no baseline {name!r}; choose from {", ".join(BASELINES)}.',
                        'baseline')
    return OpenCvTracker(name, files)


class StaticBox:
    """The first box, for ever."""

    def start(self, frame: NDArray[Any], box: NDArray[Any], stamp: float,
              label: int | None = None, rgb: NDArray[Any] | None = None) -> Target:
        """Keep the box."""
        self._target = Target(np.asarray(box, np.float32), 1.0, State.TRACKED)
        return self._target

    def follow(self, frame: NDArray[Any], stamp: float, rgb: NDArray[Any] | None = None,
               frozen: bool = False) -> Target:
        """Return the first box."""
        return self._target


class OpenCvTracker:
    """A tracker of OpenCV; KCF and CSRT are of opencv-contrib, Nano and Vit read files."""

    def __init__(self, name: str, files: Path | None = None) -> None:
        create = getattr(cv2, f'{OPENCV[name]}_create', None)
        if create is None:
            there = [key for key, kind in OPENCV.items() if hasattr(cv2, f'{kind}_create')]
            raise UserError(f'This OpenCV {cv2.__version__} has no tracker {name}, which is part '
                            'of opencv-contrib; choose from '
                            f'{", ".join(["static", *there, "detector"])}.', 'baseline')
        self._name, self._tracker = name, create(*_parameters(name, files))

    def start(self, frame: NDArray[Any], box: NDArray[Any], stamp: float,
              label: int | None = None, rgb: NDArray[Any] | None = None) -> Target:
        """Start with the box in whole pixels, as OpenCV requires."""
        self._box = np.asarray(box, np.float32)
        x, y, w, h = (int(v) for v in np.rint(sides(self._box)))
        if self._name == 'mil' and min(w, h) < SMALLEST_MIL:
            raise ValueError(f'The MIL of OpenCV does not return for targets as small as {w}x{h} '
                             f'pixels; they must have {SMALLEST_MIL}x{SMALLEST_MIL}')
        try:
            self._tracker.init(_eight_bit(frame), (x, y, max(w, 1), max(h, 1)))
        except cv2.error:
            raise ValueError(f'OpenCV cannot follow the box {x}, {y}, {w}, {h} (x, y, w, h) in a '
                             f'frame of {frame.shape[1]}x{frame.shape[0]} pixels') from None
        return Target(self._box, 1.0, State.TRACKED)

    def follow(self, frame: NDArray[Any], stamp: float, rgb: NDArray[Any] | None = None,
               frozen: bool = False) -> Target:
        """Return the tracker's box, or its last one if it has lost the target."""
        try:
            good, box = self._tracker.update(_eight_bit(frame))
        except cv2.error:  # the box has left the frame
            good, box = False, None
        if good:
            self._box = corners(np.array(box, np.float64))
        return Target(self._box, float(good), State.TRACKED if good else State.LOST)


def _parameters(name: str, files: Path | None) -> list[Any]:
    """Return the parameters of a tracker that reads files; UserError if one is missing."""
    if name not in FILES:
        return []
    parameters = getattr(cv2, f'{OPENCV[name]}_Params')()
    for entry, file in FILES[name].items():
        path = None if files is None else files / file
        if path is None or not path.is_file():
            raise UserError(f'The baseline {name} requires {" and ".join(FILES[name].values())}; '
                            'name the folder that has them.', 'files')
        setattr(parameters, entry, str(path))
    return [parameters]


def _eight_bit(frame: NDArray[Any]) -> Picture:
    return to_picture(frame, stretch(frame))


class NearestDetection:
    """
    The detection that overlaps the last box most, among those of the target's class.

    The class is that of the detection that overlaps the first box most; without one it is any.
    Without a detection near the last box, that box stays.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._label: int | None = None

    def start(self, frame: NDArray[Any], box: NDArray[Any], stamp: float,
              label: int | None = None, rgb: NDArray[Any] | None = None) -> Target:
        """Find out the class, unless it is known."""
        self._box, self._label = np.asarray(box, np.float32), label
        if label is None and (found := self._nearest(frame)) is not None:
            self._label = found[2]
        return Target(self._box, 1.0, State.TRACKED)

    def follow(self, frame: NDArray[Any], stamp: float, rgb: NDArray[Any] | None = None,
               frozen: bool = False) -> Target:
        """Detect, and return the nearest detection or the last box."""
        found = self._nearest(frame)
        if found is None:
            return Target(self._box, 0.0, State.LOST)
        self._box, score, _ = found
        return Target(self._box, score, State.TRACKED)

    def _nearest(self, frame: NDArray[Any]) -> tuple[NDArray[np.float32], float, int] | None:
        """Return box, score and label of the detection nearest to the last box, if any."""
        found = self._detector.detect(frame, LOST_THRESHOLD)
        near = iou(found.boxes, self._box[None])[:, 0]
        if self._label is not None:
            near[found.labels != self._label] = 0
        if not len(near) or near.max() < MIN_IOU:
            return None
        best = int(near.argmax())
        return found.boxes[best], float(found.scores[best]), int(found.labels[best])
