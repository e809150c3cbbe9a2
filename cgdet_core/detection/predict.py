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

"""Open a model and detect in frames and sources."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
import re

from cgdet_core.data.sources import Frame, Source
from cgdet_core.detection.outputs import Outputs
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.detection.drawing import draw_detections
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.files import file_kind, no_model
from cgdet_core.runtime.imaging.frames import BAG_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES
import numpy as np
from numpy.typing import NDArray

# What is given as a model by mistake, by its suffix.
NOT_MODELS = {**dict.fromkeys(IMAGE_SUFFIXES, 'an image'),
              **dict.fromkeys(VIDEO_SUFFIXES, 'a video'),
              **dict.fromkeys(BAG_SUFFIXES, 'a bag'),
              **dict.fromkeys(('.yaml', '.yml'), 'a YAML file'),
              '.json': 'a JSON file', '.engine': 'an engine, which is found by its ONNX file'}


def open_detector(model: str | Path, backend: str = 'auto', threads: int = 0) -> Detector:
    """
    Open an ONNX file or a checkpoint, thermal or RGB.

    backend: of an ONNX file; a checkpoint runs in PyTorch. threads: of the CPU, 0 for all cores.
    """
    check_model(model, backend)
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


def open_thermal(model: str | Path, backend: str = 'auto') -> Detector:
    """Open a model for thermal frames, see `open_detector`; UserError for an RGB one."""
    detector = open_detector(model, backend)
    if detector.card.channels != 1:
        raise UserError(f'{model} is an RGB model; choose a thermal model.')
    return detector


def check_model(model: str | Path, backend: str = 'auto') -> None:
    """Raise UserError for a model that is something else, or that the backend does not run."""
    path = Path(model)
    if re.match(r'[a-z]+://', str(model)):
        raise UserError(f'{model} is a URL; download the model and name its ONNX file.')
    kind = 'a folder' if path.is_dir() else NOT_MODELS.get(path.suffix.lower())
    if path.suffix.lower() == '.onnx' and not path.exists():
        raise UserError(f'The model file {path} does not exist.')
    if kind is None and path.suffix.lower() != '.onnx':  # known before PyTorch is loaded
        if backend not in ('auto', 'onnxruntime'):
            raise UserError('A backend is for ONNX files; a checkpoint runs in PyTorch.',
                            'backend')
        if not path.is_file():
            raise no_model(path)
        found = file_kind(path)
        if found != 'a ZIP archive':  # which torch.save writes
            raise UserError(f'{path} is neither an ONNX file nor a checkpoint of "cgdet train"; '
                            + (f'it seems to be {found}.' if found else 'it is something else.'))
    if kind is None:
        return
    near = [path.with_suffix('.onnx')] if path.is_file() else sorted(path.glob('*.onnx'))
    example = next((f', such as {p}' for p in near if p.is_file()), '')
    raise UserError(f'{model} is {kind}, not a model; name an ONNX file that has its card next to '
                    f'it, or a checkpoint{example}.')


def attempt(
    detector: Detector, frames: Iterable[Frame],
    score_threshold: float | NDArray[np.float32] | None = None,
) -> Iterator[tuple[Frame, Detections | UserError]]:
    """
    Read frames, detect in them, and yield each with its detections.

    In place of the detections of a frame that cannot be read or normalized, the UserError that
    names it. The detector's buffers are those of the yielded frame until the next one is
    requested.
    """
    found: Detections | UserError
    for frame in frames:
        try:
            found = detector.detect(frame.pixels, score_threshold)
        except ValueError as error:
            found = frame.error(error)
        yield frame, found


def detect(
    detector: Detector, frames: Iterable[Frame],
    score_threshold: float | NDArray[np.float32] | None = None,
) -> Iterator[tuple[Frame, Detections]]:
    """Yield frames with their detections, see `attempt`; raise the UserError of the first bad."""
    for frame, found in attempt(detector, frames, score_threshold):
        if isinstance(found, UserError):
            raise found
        yield frame, found


@dataclass(frozen=True)
class Outcome:
    """
    What became of a frame.

    found: its detections, or why there are none; objects: their number of each class; picture:
    its image with boxes, (H, W, 3) BGR.
    """

    source: Source
    name: str
    found: Detections | UserError
    ms: float = 0.0
    objects: Counter[str] = field(default_factory=Counter)
    picture: NDArray[np.uint8] | None = None


def detect_sources(
    detector: Detector, sources: Iterable[Source], outputs: Outputs,
    score_threshold: float | NDArray[np.float32] | None = None,
) -> Iterator[Outcome]:
    """
    Detect in all frames of sources, and yield each after it was written.

    A frame that cannot be read or has the name of an earlier one, or the rest of a source that
    cannot be read, is yielded with its error.
    """
    for source in sources:
        results = attempt(detector, source.frames, score_threshold)
        while True:
            try:
                frame, found = next(results)
            except StopIteration:
                break
            except UserError as error:  # a damaged bag, after which there are no more frames
                yield Outcome(source, source.where, error)
                break
            if not isinstance(found, UserError) and frame.name in outputs.names:
                found = UserError(f'Two frames have the name {frame.name}; detect in their '
                                  'sources separately, with an output folder for each.')
            if isinstance(found, UserError):
                yield Outcome(source, frame.name, found)
                continue
            timings = detector.last_timings
            ms = 1000 * (timings.pre + timings.infer + timings.post)
            picture = draw_detections(frame.pixels, found, detector.card)
            outputs.write(source, frame, found, detector.card, picture, ms)
            objects = Counter(detector.card.classes[label] for label in sorted(found.labels))
            yield Outcome(source, frame.name, found, ms, objects, picture)


def restrict(
    classes: tuple[str, ...], wanted: Iterable[str],
    thresholds: float | NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return thresholds (num_classes,) that only wanted classes reach; UserError for others."""
    unknown = [name for name in wanted if name not in classes]
    if unknown:
        raise UserError(f'The model has no class {unknown[0]!r}; its classes are '
                        f'{", ".join(classes)}.', 'classes')
    keep = np.array([name in wanted for name in classes])
    return np.where(keep, thresholds, np.inf).astype(np.float32)
