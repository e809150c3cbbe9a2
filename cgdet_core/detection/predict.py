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

"""Detect in pictures, folders, videos and bags; write COCO boxes and pictures."""

from collections.abc import Iterator
import json
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import annotations_of
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.detection.drawing import draw_detections
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.files import write_atomically
from cgdet_core.runtime.imaging.drawing import save_png
from cgdet_core.runtime.imaging.frames import (
    IMAGE_SUFFIXES,
    is_bag,
    lacks_metadata,
    read_thermal,
    to_gray,
    VIDEO_SUFFIXES,
)
import cv2
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track


def open_detector(model: Path, backend: str = 'auto', threads: int = 0) -> Detector:
    """Open an ONNX file or a checkpoint; threads: of the CPU, 0 for all cores."""
    if model.suffix.lower() == '.onnx':
        return Detector.load(model, threads, backend)
    try:
        from cgdet_core.detection.checkpoint import open_model
        import torch
    except ModuleNotFoundError as error:
        raise UserError(f'A checkpoint needs the module {error.name}; install '
                        '".[train]" or give an ONNX file.') from None
    if threads:
        torch.set_num_threads(threads)
    return open_model(model)


def source_frames(source: str | Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Return (name, raw frame) of a picture, a folder of pictures, a video or a bag."""
    path = Path(source)
    if not path.exists():
        raise UserError(f'The source {path} does not exist.')
    if path.suffix.lower() in VIDEO_SUFFIXES:
        yield from _video(path)
    elif is_bag(path) or lacks_metadata(path):
        from cgdet_core.data.bags.io import read_frames
        for frame in read_frames(path):
            yield f'{path.stem}_{frame.stamp_ns}.png', frame.frame
    elif path.is_dir():
        pictures = sorted(p for p in path.rglob('*') if p.suffix.lower() in IMAGE_SUFFIXES)
        if not pictures:
            raise UserError(f'The folder {path} holds no pictures '
                            f'({", ".join(IMAGE_SUFFIXES)}) and is no bag.')
        for picture in pictures:
            yield picture.relative_to(path).as_posix(), read_thermal(picture)
    else:
        yield path.name, read_thermal(path)


def _video(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    capture = cv2.VideoCapture(str(path))
    number = 0
    try:
        while True:
            good, picture = capture.read()
            if not good:
                break
            yield f'{path.stem}_{number:06d}.png', to_gray(picture)
            number += 1
    finally:
        capture.release()
    if number == 0:
        raise UserError(f'{path} is not a video that OpenCV can read.')


def detect_named(
    detector: Detector, frame: NDArray[Any], name: object, threshold: float | None,
) -> Detections:
    """Detect; a frame that cannot be normalized is a UserError that names it."""
    try:
        return detector.detect(frame, threshold)
    except ValueError as error:
        raise UserError(f'{name}: {error}.') from None


def detect_sources(
    detector: Detector, sources: list[str], output: Path, score_threshold: float | None,
    console: Console,
) -> tuple[int, int]:
    """
    Write <output>/detections.json and <output>/pictures/; return frames and objects.

    The file is COCO with a score per annotation: a pre-label import for annotation tools.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names: set[str] = set()
    _keep_apart(sources, output / 'pictures')
    frames = (item for source in sources for item in source_frames(source))
    for name, frame in track(frames, 'detecting', console=console, transient=True, total=None):
        found = detect_named(detector, frame, name, score_threshold)
        if name in names:
            raise UserError(f'Two frames are called {name}; detect in their sources one by one, '
                            'into an --output each.')
        names.add(name)
        image_id = len(images) + 1
        images.append({'id': image_id, 'file_name': name,
                       'width': frame.shape[1], 'height': frame.shape[0]})
        annotations += annotations_of(found, image_id, len(annotations) + 1)
        picture = draw_detections(frame, found, detector.card)
        save_png(output / 'pictures' / Path(name).with_suffix('.png'), picture)
    if not images:
        raise UserError(f'There are no frames in {", ".join(sources)}.')
    categories = [{'id': i + 1, 'name': c} for i, c in enumerate(detector.card.classes)]
    text = json.dumps({'images': images, 'annotations': annotations, 'categories': categories})
    write_atomically(output / 'detections.json', text.encode())
    return len(images), len(annotations)


def _keep_apart(sources: list[str], pictures: Path) -> None:
    """UserError for a source that pictures would be written into, or that lies among them."""
    place = pictures.resolve()
    for source in sources:
        path = Path(source).resolve()
        if path in (place, *place.parents) or place in path.parents:
            raise UserError(f'{source} would be drawn into; choose another --output.')
