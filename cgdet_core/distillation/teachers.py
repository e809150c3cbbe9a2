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

"""Teachers: frozen networks that return the feature pyramid of an RGB image."""

from collections.abc import Callable, Sequence
import hashlib
from pathlib import Path
from typing import Any, Protocol

from cgdet_core.distillation.config import TeacherConfig
from cgdet_core.errors import UserError
from cgdet_core.nets.config import PyramidConfig
from cgdet_core.nets.published import published
from cgdet_core.nets.pyramid import FeaturePyramid, STRIDES
from cgdet_core.runtime.inference.graph import check_terminates
from cgdet_core.training import checkpoints
from cgdet_core.training.checkpoints import (
    input_size_of,
    KEY,
    load_weights,
    read_checkpoint,
    student_weights,
)
import numpy as np
import torch
from torch import nn, Tensor
import torchvision

LATER = ('mean', 'std')
KEY_VERSION = 1  # changes when pictures are processed differently before they are cached


class Teacher(Protocol):
    """A frozen RGB detector; features have strides 8, 16 and 32 of its input."""

    input_size: tuple[int, int]  # width, height
    channels: tuple[int, ...]  # of P3, P4, P5
    pad: int  # gray level of the letterbox's padding
    offset: float  # position within its cell, 0 to 1, that a feature represents

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Return P3, P4, P5 (V, C_l, H/stride, W/stride), float32, for RGB uint8 (V, 3, H, W)."""

    def to(self, device: torch.device, /) -> Any:
        """Move to a device."""


class CgdetTeacher(nn.Module):
    """Trunk and neck of a network of this package, of any task, trained on RGB."""

    pad = 0
    offset = 0.5

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        assert config.path is not None
        data = read_checkpoint(config.path)
        with checkpoints.fits(config.path):
            sizes = PyramidConfig(**{
                k: v for k, v in data[KEY]['model'].items() if k in PyramidConfig.model_fields})
            self.network = FeaturePyramid(sizes)
            load_weights(self.network, {
                k: v for k, v in student_weights(data).items()
                if k.startswith(('backbone.', 'neck.'))})
            self.input_size = config.input_size or input_size_of(data[KEY]['card'])
        if sizes.in_channels != 3:
            raise UserError(f'{config.path} was trained on thermal frames; a teacher needs a '
                            'checkpoint trained with model.in_channels=3.')
        self.eval().requires_grad_(False)
        self.channels = (sizes.neck_channels,) * 3

    @torch.no_grad()
    def features(self, pixels: Tensor) -> list[Tensor]:
        return [x.float() for x in self.network.pyramid(pixels.float() / 255)]


class TorchvisionTeacher(nn.Module):
    """A torchvision COCO detector with a feature pyramid."""

    pad = 0
    offset = 0.0  # torchvision's anchors are centered on the corners of cells
    mean: Tensor
    std: Tensor

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        detector = torchvision_detector(config)
        self.backbone = detector.backbone.eval().requires_grad_(False)
        self.input_size = config.input_size or (640, 512)
        self.register_buffer('mean', torch.tensor(detector.transform.image_mean)[:, None, None])
        self.register_buffer('std', torch.tensor(detector.transform.image_std)[:, None, None])
        self._names: list[str] = []
        try:
            with torch.no_grad():
                found = self.backbone(torch.zeros(1, 3, 64, 64))
        except RuntimeError:  # too small for a backbone without a pyramid
            raise UserError(f'{config.model} has no feature pyramid.') from None
        for stride in STRIDES:
            name = next((k for k, v in found.items() if v.shape[-1] == 64 // stride), None)
            if name is None:
                raise UserError(f'{config.model} has no features of stride {stride}.')
            self._names.append(name)
        self.channels = tuple(found[name].shape[1] for name in self._names)

    @torch.no_grad()
    def features(self, pixels: Tensor) -> list[Tensor]:
        found = self.backbone((pixels.float() / 255 - self.mean) / self.std)
        return [found[name].float() for name in self._names]


def torchvision_detector(config: TeacherConfig) -> Any:
    """Return a torchvision detector with its weights; UserError if there is none of the name."""
    from torchvision.models import detection, get_model, get_model_weights, list_models

    detectors = list_models(module=detection)
    if config.model not in detectors:
        raise UserError(f'torchvision has no detector {config.model!r}; it has '
                        f'{", ".join(detectors)}.')
    known = get_model_weights(config.model)
    names = [None, *known.__members__]
    if config.weights not in names:
        raise UserError(f'{config.model} has no weights {config.weights!r}; it has '
                        f'{", ".join(names[1:])}.')
    if config.weights is None:
        return get_model(config.model, weights=None, weights_backbone=None)
    with published(known[config.weights],
                   f'The weights {config.weights} of {config.model}') as weights:
        return get_model(config.model, weights=weights, weights_backbone=None)


class OnnxNetwork:
    """Any ONNX network of RGB pictures, cut after some of its tensors; runs in ONNX Runtime."""

    def __init__(self, config: TeacherConfig, tensors: Sequence[str] = ()) -> None:
        """tensors: by default the outputs of the file."""
        import onnx
        from onnx.utils import Extractor
        import onnxruntime

        assert config.path is not None
        if not config.path.is_file():
            raise UserError(f'The teacher {config.path} does not exist.')
        try:
            model = onnx.shape_inference.infer_shapes(onnx.load(config.path))
            self._input = model.graph.input[0].name
            self.tensors = list(tensors) or [output.name for output in model.graph.output]
            cut = Extractor(model).extract_model([self._input], self.tensors)
        except (ValueError, KeyError) as error:
            raise UserError(f'The teacher {config.path} has no tensor {error}.') from None
        except Exception as error:  # protobuf's and onnx's own error classes
            raise UserError(f'{config.path} is not a readable ONNX file: '
                            f'{type(error).__name__}.') from None
        sizes = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
        if len(sizes) != 4 or sizes[1] not in (0, 3):
            raise UserError(
                f'The input of the teacher {config.path} must be (n, 3, height, width), it is '
                f'({", ".join(str(s or "any") for s in sizes)}).')
        self._fixed_batch = sizes[0] > 0
        if all(sizes[2:]) and config.input_size not in (None, (sizes[3], sizes[2])):
            _open_size(cut.graph)
        if config.input_size is None and not all(sizes[2:]):
            raise UserError(f'The teacher {config.path} accepts any input size; choose one with '
                            'teacher.input_size.')
        self.input_size = config.input_size or (sizes[3], sizes[2])
        self._bgr, self._range = config.bgr, 255.0 if config.full_range else 1.0
        self._mean, self._std = (torch.tensor(v)[:, None, None] for v in (config.mean, config.std))
        options = onnxruntime.SessionOptions()
        # Idle threads that spin would slow down training on the same cores.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        width, height = self.input_size
        content = cut.SerializeToString()
        check_terminates(content, f'The network of the teacher {config.path}')
        try:
            self._session = onnxruntime.InferenceSession(content, options)
            self.run(torch.zeros(1, 3, height, width, dtype=torch.uint8))
        except Exception as error:  # ONNX Runtime's own error classes
            raise UserError(f'The teacher {config.path} cannot run at {width}x{height}: '
                            f'{str(error).splitlines()[0]}') from None

    def run(self, pixels: Tensor) -> list[Tensor]:
        """Return the tensors, float32 (V, ...), for RGB uint8 (V, 3, H, W)."""
        images = pixels.flip(1) if self._bgr else pixels
        images = (images.cpu().float() * (self._range / 255) - self._mean) / self._std
        parts = images.split(1) if self._fixed_batch else [images]
        found = [self._session.run(self.tensors, {self._input: part.numpy()}) for part in parts]
        return [torch.from_numpy(np.concatenate(x)).to(pixels.device) for x in zip(*found)]


class OnnxTeacher:
    """Any ONNX detector, cut after the tensors of its pyramid."""

    offset = 0.5

    def __init__(self, config: TeacherConfig) -> None:
        assert config.tensors is not None
        self._network = OnnxNetwork(config, config.tensors)
        self.input_size, self.pad = self._network.input_size, config.pad
        width, height = self.input_size
        found = self.features(torch.zeros(1, 3, height, width, dtype=torch.uint8))
        for stride, level in zip(STRIDES, found):
            if level.shape[2:] != (height // stride, width // stride):
                raise UserError(
                    f'The tensors {", ".join(config.tensors)} of {config.path} are not a pyramid '
                    f'of strides 8, 16 and 32: one has the shape {tuple(level.shape)}.')
        self.channels = tuple(level.shape[1] for level in found)

    def to(self, device: torch.device) -> 'OnnxTeacher':
        return self  # on the CPU; only features are moved

    def features(self, pixels: Tensor) -> list[Tensor]:
        return self._network.run(pixels)


def _open_size(graph: Any) -> None:
    """Open the input size of a graph; only a run shows whether its layers support another."""
    for value in (*graph.input, *graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis > 1:
                dim.dim_param = f'{value.name}_{axis}'
    del graph.value_info[:]


KINDS: dict[str, Callable[[TeacherConfig], Any]] = {
    'cgdet': CgdetTeacher, 'torchvision': TorchvisionTeacher, 'onnx': OnnxTeacher}


def open_teacher(config: TeacherConfig) -> Teacher:
    """Load a teacher, frozen; UserError states what is wrong with it."""
    teacher: Teacher = KINDS[config.kind](config)
    return teacher


def cache_folder(config: TeacherConfig) -> Path | None:
    """Return where what a teacher computes is kept; None for random weights, which all differ."""
    random = config.kind == 'torchvision' and config.weights is None
    return None if config.cache is None or random else config.cache / teacher_key(config)


def teacher_key(config: TeacherConfig) -> str:
    """Return a hash of all that decides about a teacher's features: settings, file, library."""
    # Keys that earlier releases lacked count only if they are set, so that their caches remain.
    later = {k for k in LATER if getattr(config, k) == TeacherConfig.model_fields[k].default}
    values = config.model_dump_json(exclude={'cache', 'path', 'decoder', *later})
    content = config.path.read_bytes() if config.path else b''
    library = torchvision.__version__ if config.kind == 'torchvision' else ''
    return hashlib.sha256(f'{KEY_VERSION} {library} {values} '.encode() + content).hexdigest()[:16]
