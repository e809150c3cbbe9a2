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

"""Frames that training samples are cut from, and which objects in which frames make a sample."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cgdet_core.data.coco import CocoSet, ImageRecord, load_coco, UNKNOWN, without_rgb
from cgdet_core.data.show import evenly
from cgdet_core.data.synthetic import record, Scene
from cgdet_core.distillation.predictions import TeacherPredictions
from cgdet_core.distillation.regions import center_region, fuse, random_regions
from cgdet_core.distillation.views import View
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_once
from cgdet_core.runtime.imaging.frames import natural, read_rgb
from cgdet_core.runtime.imaging.normalization import Normalization, normalize
from cgdet_core.tracking.config import SwapConfig
from cgdet_core.tracking.recipe import SequenceConfig, TargetRecipe, TrackingRecipe
import cv2
import numpy as np
from numpy.typing import NDArray
import torch

LIMIT = 12_000  # pairs of objects in neighboring frames that are kept, evenly spaced


@dataclass(eq=False)
class Frame:
    """
    A frame and its objects, whose labels are comparable within a set only.

    Its pixels are of `record`'s thermal or RGB image, or `image`.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    record: ImageRecord | None = None
    rgb: bool = False
    image: NDArray[np.uint8] | None = None

    def read(self, spec: Normalization) -> NDArray[np.uint8]:
        """
        Return the normalized frame in 256 levels, whose steps are below the noise that is added.

        An RGB image is seen in gray, in the size of the thermal one.
        """
        if self.image is not None:
            return self.image
        assert self.record is not None
        if not self.rgb:
            return _levels(normalize(self.record.read(), spec))
        picture = self.picture()
        assert picture is not None
        return _levels(normalize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), spec))

    @property
    def paired(self) -> bool:
        """Return whether the thermal frame has an RGB image."""
        return not self.rgb and self.record is not None and self.record.rgb_path is not None

    def read_both(self, spec: Normalization) -> NDArray[np.uint8]:
        """Return the normalized thermal frame and its RGB image, (H, W, 4); without RGB, 0."""
        thermal = self.read(spec)[..., None]
        picture = self.picture()
        if picture is None:
            picture = np.zeros((*thermal.shape[:2], 3), np.uint8)
        return np.concatenate([thermal, picture], 2)

    def picture(self) -> NDArray[np.uint8] | None:
        """Return the RGB image (H, W, 3) in the size of the thermal one, None without one."""
        if self.record is None or self.record.rgb_path is None:
            return None
        return np.asarray(cv2.resize(
            read_rgb(self.record.rgb_path), (self.record.width, self.record.height),
            interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(eq=False)
class FrameCache:
    """Normalized frames, kept in memory while `cache_bytes` last; both: thermal and RGB."""

    frames: Sequence[Frame]
    spec: Normalization
    cache_bytes: float
    both: bool = False
    _kept: dict[int, NDArray[np.uint8]] = field(init=False, default_factory=dict)

    def get(self, index: int) -> NDArray[np.uint8]:
        """Return a normalized frame (H, W), or (H, W, 4) of both, in 256 levels."""
        found = self._kept.get(index)
        if found is None:
            frame = self.frames[index]
            found = frame.read_both(self.spec) if self.both else frame.read(self.spec)
            if found.nbytes <= self.cache_bytes:
                self._kept[index] = found
                self.cache_bytes -= found.nbytes
        return found


@dataclass
class Objects:
    """
    Frames, and rows (frame, object, frame, object) of what a sample shows twice.

    stills: in one frame; moved: in two frames of a sequence; swapped: in thermal and RGB.
    """

    frames: list[Frame]
    stills: NDArray[np.int64]
    moved: NDArray[np.int64]
    swapped: NDArray[np.int64]
    license: str = UNKNOWN


def read_sets(paths: Sequence[Path], normalization: Normalization, model: str,
              rgb: bool = False) -> list[CocoSet]:
    """
    Read COCO files of thermal frames, and log those whose boxes nobody has checked.

    UserError if a file is named twice, the model's normalization does not fit the frames, or with
    `rgb` if RGB images are missing.
    """
    check_once(paths)
    sets = [load_coco(path) for path in paths]
    for coco in sets:
        coco.warn_of_prelabels()
        coco.check_signal(normalization.kind, model)
        if rgb:
            coco.check_rgb()
    return sets


def collect(recipe: TrackingRecipe, progress: bool = False) -> Objects:
    """Return what a recipe trains on; UserError if there is no box to learn from."""
    swap = recipe.swap
    found = gather(recipe, rgb=swap is not None and swap.labeled)
    if swap is None:
        return found
    pairs: list[ImageRecord] = []
    if swap.pairs is not None:
        listed = load_coco(swap.pairs)
        listed.check_rgb()
        pairs = listed.images
        found.license += f'; pairs: {listed.license}'
    found.swapped = swapped(found.frames, pairs, swap, recipe.seed, progress)
    return found


def gather(recipe: TargetRecipe, rgb: bool = False) -> Objects:
    """Return objects in thermal frames and sequences; UserError if there is none."""
    sets = read_sets(recipe.data.train, recipe.normalization, recipe.name, rgb)
    frames, moved = in_sequences(sets, recipe.data.smallest, recipe.data.sequences)
    drawn = scenes(recipe.data.sequences, recipe.seed)
    moved = np.concatenate([moved, tracks(drawn, len(frames))])
    frames += drawn
    still = still_rows(frames)
    if not len(still):
        raise UserError(f'{", ".join(map(str, recipe.data.train))} has no box of at least '
                        f'{recipe.data.smallest:g} pixels (data.smallest).')
    license = '; '.join(dict.fromkeys(coco.license for coco in sets))
    return Objects(frames, still, moved, np.zeros((0, 4), np.int64), license)


def in_sequences(sets: Iterable[CocoSet], smallest: float, config: SequenceConfig,
                 paired: bool = False) -> tuple[list[Frame], NDArray[np.int64]]:
    """
    Return the frames of sets, and rows of the same object in frames of one sequence.

    smallest: side of boxes in pixels, see `labeled`. paired: only frames with RGB.
    """
    frames: list[Frame] = []
    rows = [np.zeros((0, 4), np.int64)]
    for coco in sets:
        own = [f for f in labeled(coco, smallest) if f.paired or not paired]
        rows.append(neighbors(own, config, len(frames)))
        frames += own
    return frames, np.concatenate(rows)


def labeled(coco: CocoSet, smallest: float) -> list[Frame]:
    """Return the frames of a set, with boxes whose root of the area is at least `smallest`."""
    found = []
    for entry in coco.images:
        size = entry.boxes[:, 2:] - entry.boxes[:, :2]
        good = (entry.crowd == 0) & (size.prod(1) >= smallest ** 2) & (size.min(1) >= 4)
        found.append(Frame(entry.boxes[good], entry.labels[good], entry))
    return found


def neighbors(frames: list[Frame], config: SequenceConfig, first: int) -> NDArray[np.int64]:
    """
    Return rows of the same object in frames that are close in the order of their names.

    Boxes of the same class are the same object if each is nearest to the other, by the move of
    the center and the change of size. first: number of the first frame.
    """
    order = sorted(range(len(frames)),
                   key=lambda n: (_drive(frames[n]), natural(_name(frames[n]))))
    rows = []
    for place, one in enumerate(order):
        for other in order[place + 1:place + 1 + config.neighbors]:
            if _drive(frames[one]) != _drive(frames[other]):
                break
            rows += [(first + one, a, first + other, b) for a, b in
                     mutual(frames[one], frames[other], config.distance)]
    return np.array(evenly(rows, LIMIT), np.int64).reshape(-1, 4)


def mutual(one: Frame, other: Frame, limit: float) -> list[tuple[int, int]]:
    """Return pairs of objects of two frames that are mutually nearest, closer than `limit`."""
    if not len(one.boxes) or not len(other.boxes):
        return []
    (c1, s1), (c2, s2) = (((b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2])
                          for b in (one.boxes, other.boxes))
    root = np.sqrt(s1.prod(1))[:, None]
    cost = np.linalg.norm(c1[:, None] - c2, axis=2) / root
    cost = cost + np.abs(np.log(s1[:, None] / s2)).sum(2)
    cost[one.labels[:, None] != other.labels] = np.inf
    return [(a, int(b)) for a, b in enumerate(cost.argmin(1))
            if cost[a, b] < limit and cost[:, b].argmin() == a]


def scenes(config: SequenceConfig, seed: int) -> list[Frame]:
    """Draw frames of synthetic sequences; labels are track ids, unique over all sequences."""
    found: list[Frame] = []
    for number in range(config.scenes):
        key = int(np.random.SeedSequence((seed, 77, number)).generate_state(1)[0])
        scene = Scene.traffic(key)
        start = float(np.random.default_rng(key).uniform(0, 14))
        times = [start + config.seconds * n for n in range(config.scene_frames)]
        for frame, counts, _ in record((scene.frame(t) for t in times), key):
            good = ((frame.boxes[:, 2:] - frame.boxes[:, :2]).prod(1) >= 144) & (
                frame.visible >= 0.4)
            image = _levels(normalize(counts, Normalization()))
            found.append(Frame(frame.boxes[good], number * 10_000 + frame.track_ids[good],
                               image=image))
    return found


def tracks(frames: list[Frame], first: int) -> NDArray[np.int64]:
    """Return rows of objects with the same label in frames of one synthetic sequence."""
    places: dict[int, list[tuple[int, int]]] = {}
    for number, frame in enumerate(frames):
        for place, label in enumerate(frame.labels.tolist()):
            places.setdefault(label, []).append((first + number, place))
    rows = [(*a, *b) for seen in places.values() for n, a in enumerate(seen) for b in seen[n + 1:]]
    return np.array(rows, np.int64).reshape(-1, 4)


def swapped(frames: list[Frame], pairs: Iterable[ImageRecord], config: SwapConfig, seed: int,
            progress: bool) -> NDArray[np.int64]:
    """Add what is cut out of pairs to `frames`, and return rows of what both images show."""
    rows = []
    for number in range(len(frames)):
        frame = frames[number]
        if config.labeled and frame.paired:
            rows += [(number, o, len(frames), o) for o in range(len(frame.boxes))]
            frames.append(replace(frame, rgb=True))
    with_rgb = [record for record in pairs if record.rgb_path is not None]
    for regions in unlabeled(with_rgb, config, seed, progress) if with_rgb else ():
        first = len(frames)
        frames += [regions, replace(regions, rgb=True)]
        rows += [(first, o, first + 1, o) for o in range(len(regions.boxes))]
    if not rows:
        raise UserError('swap has no pairs with something to cut; set swap.pairs, or add RGB '
                        'images (rgb_file_name) to data.train.')
    return np.array(rows, np.int64)


def unlabeled(pairs: list[ImageRecord], config: SwapConfig, seed: int,
              progress: bool) -> list[Frame]:
    """Return what is cut out of pairs without boxes: a frame for each kind of region and pair."""
    found = []
    detections = None
    if 'detected' in config.sources and config.teacher is not None:
        teacher = TeacherPredictions(config.teacher)
        views = [[View.of(r, 'skip') for r in pairs],
                 [View.of(r, 'thermal') for r in without_rgb(pairs)]]
        detections = [teacher.of([v for v in row if v is not None], torch.device('cpu'), progress)
                      for row in views]
    for number, entry in enumerate(pairs):
        size = entry.width, entry.height
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        for kind in config.sources:
            labels = np.zeros(0, np.int64)
            if kind == 'center':
                boxes = center_region(size).numpy()
            elif kind == 'random' or detections is None:
                boxes = random_regions(size, config.random_regions, config.random_side,
                                       generator).numpy()
            else:
                parts = [[torch.from_numpy(v) for v in row[number]] for row in detections]
                joined = [torch.cat(column) for column in zip(*parts)]
                kept = joined[1] >= config.score
                fused = fuse(joined[0][kept], joined[1][kept], joined[2][kept], config.fuse_iou)
                boxes, labels = fused[0].numpy(), fused[2].numpy()
                large = (boxes[:, 2:] - boxes[:, :2]).prod(1) >= 144
                boxes, labels = boxes[large], labels[large]
            if not len(labels):
                labels = np.full(len(boxes), -1, np.int64)
            found.append(Frame(boxes.astype(np.float32), labels, entry))
    return found


def still_rows(frames: list[Frame]) -> NDArray[np.int64]:
    """Return a row (frame, object, frame, object) for each object, cut from one frame."""
    return np.array([(f, o, f, o) for f, frame in enumerate(frames)
                     for o in range(len(frame.boxes))], np.int64).reshape(-1, 4)


def _levels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(255 * image).astype(np.uint8)


def _name(frame: Frame) -> str:
    assert frame.record is not None
    return frame.record.file_name


def _drive(frame: Frame) -> str:
    """Return what the path of a frame shares with the others of its drive: all but its number."""
    path = Path(_name(frame))
    head = path.stem.rstrip('0123456789DN')  # MSRS adds the time of day
    return str(path.parent / (head or path.stem))
