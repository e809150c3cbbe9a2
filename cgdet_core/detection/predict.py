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

"""Open a model and detect in frames; write COCO boxes and images."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import annotations_of
from cgdet_core.data.sources import Frame, read_frames
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.detection.drawing import draw_detections
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.files import write_json
from cgdet_core.runtime.imaging.drawing import save_picture
import numpy as np
from numpy.typing import NDArray


def open_detector(model: str | Path, backend: str = 'auto', threads: int = 0) -> Detector:
    """
    Open an ONNX file or a checkpoint, thermal or RGB.

    backend: of an ONNX file; a checkpoint runs in PyTorch. threads: of the CPU, 0 for all cores.
    """
    model = Path(model)
    if model.suffix.lower() == '.onnx':
        return Detector.load(model, threads, backend)
    try:
        from cgdet_core.detection.student import detector_of, load_student
        import torch
    except ModuleNotFoundError as error:
        raise UserError(f'A checkpoint needs the module {error.name}; install '
                        '".[train]" or name an ONNX file.') from None
    if threads:
        torch.set_num_threads(threads)
    return detector_of(*load_student(model))


def detect(
    detector: Detector, frames: Iterable[Frame],
    score_threshold: float | NDArray[np.float32] | None = None,
) -> Iterator[tuple[Frame, Detections]]:
    """
    Read frames, detect in them, and yield each with its detections.

    The detector's buffers are those of the yielded frame until the next one is requested.
    UserError names a frame that cannot be read or normalized.
    """
    for frame in frames:
        pixels = frame.pixels
        try:
            found = detector.detect(pixels, score_threshold)
        except ValueError as error:
            raise frame.error(error) from None
        yield frame, found


def detect_sources(
    detector: Detector, sources: list[str], output: Path, score_threshold: float | None = None,
    progress: Callable[[int], None] = lambda frames: None,
) -> tuple[int, int]:
    """
    Write <output>/detections.json and <output>/pictures/; return frames and objects.

    The file is COCO with a score per annotation: a pre-label import for annotation tools.
    progress: called with the number of newly finished frames.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names: set[str] = set()
    _keep_apart(sources, output / 'pictures')
    frames = (frame for source in sources for frame in read_frames(source))
    for frame, found in detect(detector, frames, score_threshold):
        if frame.name in names:
            raise UserError(f'Two frames have the name {frame.name}; detect in their sources '
                            'separately, with an output folder for each.')
        names.add(frame.name)
        image_id = len(images) + 1
        images.append({'id': image_id, 'file_name': frame.name,
                       'width': frame.pixels.shape[1], 'height': frame.pixels.shape[0]})
        annotations += annotations_of(found, image_id, len(annotations) + 1)
        picture = draw_detections(frame.pixels, found, detector.card)
        save_picture(output / 'pictures' / Path(frame.name).with_suffix('.png'), picture)
        progress(1)
    if not images:
        raise UserError(f'There are no frames in {", ".join(sources)}.')
    categories = [{'id': i + 1, 'name': c} for i, c in enumerate(detector.card.classes)]
    write_json(output / 'detections.json', {
        'images': images, 'annotations': annotations, 'categories': categories}, indent=None)
    return len(images), len(annotations)


def _keep_apart(sources: list[str], pictures: Path) -> None:
    """Raise UserError if images would be written into a source, or a source is among them."""
    place = pictures.resolve()
    for source in sources:
        path = Path(source).resolve()
        if path in (place, *place.parents) or place in path.parents:
            raise UserError(f'Images would be written into {source}; choose another output '
                            'folder.', 'output')
