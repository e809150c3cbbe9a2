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

"""The detector node's parameters: one table declares, describes and checks them."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

from cgdet_core.runtime import DetectionCard
from cgdet_core.runtime.imaging.geometry import Crop
from cgdet_ros.node.camera_parameters import (
    CAMERA_SPECS,
    read_crop,
    read_path,
    read_transport,
    SESSION_SPECS,
    TRANSPORT_SPECS,
)
from cgdet_ros.node.parameters import given_at_start, Spec
from cgdet_ros.node.topics import CAMERA_NAME
import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node

CLASS_PREFIX = 'class_thresholds.'


def _refuse_cameras(names: list[str] | None) -> str:
    if not names:
        return "must not be empty; use [''] for one camera on image_raw"
    for name in names:
        if name and not CAMERA_NAME.fullmatch(name):
            return (f'contains {name!r}, which is not a topic name: use letters, digits and _ '
                    'between slashes, with a letter first')
    return '' if len(set(names)) == len(names) else 'must not list a camera twice'


def _refuse_threshold(value: float) -> str:
    return 'must be in [0, 1], or -1' if -1.0 < value < 0.0 else ''


SPECS = (
    Spec('model_path', '', 'ONNX file with its model card next to it; empty: the shipped model, '
         'thermal_small.onnx on a GPU and thermal_int8.onnx on a CPU', effect='static'),
    *SESSION_SPECS,
    Spec('cameras', [''], 'Names of the cameras, which prefix their topics, such as '
         'front/image_raw and front/detections; an empty name: image_raw and detections',
         effect='static', refusal=_refuse_cameras),
    *TRANSPORT_SPECS,
    Spec('track', False, 'Set the id of detections to track ids', effect='static'),
    Spec('track_max_age_s', 1.0, 'End a track that was not detected for this many seconds',
         0.1, 60.0, effect='static'),
    Spec('class_names', False, 'Set the class_id of detections to the name of the class, for '
         'viewers that do not read label_info; false: to its number', effect='static'),
    Spec('score_threshold', -1.0, 'Minimum score of a published detection, 0 to 1; -1: the model '
         "card's", -1.0, 1.0, refusal=_refuse_threshold),
    *CAMERA_SPECS,
    Spec('latency_histogram', False, 'Publish latency_histogram at 1 Hz: the frames of the last '
         'second per millisecond from reception to publication'),
    Spec('while_shutter_closed', 'publish', 'Publish the detections of images of a closed '
         'shutter, without track ids, or skip these images', choices=('publish', 'skip')),
)
CLASS_SPEC = Spec(f'{CLASS_PREFIX}NAME', -1.0, 'Minimum score of a published detection of this '
                  'class, 0 to 1; -1: score_threshold', -1.0, 1.0, refusal=_refuse_threshold)


@dataclass(frozen=True)
class ModelSettings:
    """The parameters that are read once, in configure."""

    model_path: str
    backend: str
    threads: int
    input_transport: str
    track: bool
    track_max_age_s: float
    class_names: bool
    cameras: tuple[str, ...]
    unit: str
    polarity: str
    ffc_topic: str


@dataclass(frozen=True)
class Settings:
    """The parameters that may change while running, read after a change and not per frame."""

    max_image_age_s: float
    no_input_warn_s: float
    max_failures: int
    latency_histogram: bool
    debug_image: bool
    max_dead_share: float
    while_shutter_closed: str
    crop: Crop
    thresholds: NDArray[np.float32]  # (num_classes,), empty without a model


def declare_classes(node: Node, classes: Iterable[str]) -> None:
    """Declare a threshold per class, with its value at start, and undeclare those of no class."""
    wanted = [CLASS_PREFIX + name for name in dict.fromkeys(classes)]
    for name in node.get_parameters_by_prefix(CLASS_PREFIX[:-1]):
        if CLASS_PREFIX + name not in wanted:
            node.undeclare_parameter(CLASS_PREFIX + name)
    for name in wanted:
        if not node.has_parameter(name):
            node.declare_parameter(name, CLASS_SPEC.default, CLASS_SPEC.descriptor())


def missing_class(node: Node, name: str) -> str:
    """Return why there is no threshold of this name, empty if it is not a class threshold."""
    if not name.startswith(CLASS_PREFIX):
        return ''
    classes = node.get_parameters_by_prefix(CLASS_PREFIX[:-1])
    if not classes:
        return f'there is no {name} yet: class thresholds exist once a model is loaded'
    return f'there is no {name}: the classes of the model are {", ".join(classes)}'


def unknown_classes(node: Node, classes: Iterable[str]) -> list[str]:
    """Return the thresholds set at start whose class the model does not have."""
    known = {CLASS_PREFIX + name for name in classes}
    return sorted(name for name in given_at_start(node)
                  if name.startswith(CLASS_PREFIX) and name not in known)


def read_model_settings(node: Node) -> ModelSettings:
    """Return the parameters that configure reads."""
    values = {f.name: node.get_parameter(f.name).value for f in fields(ModelSettings)}
    return ModelSettings(**values | {
        'model_path': read_path(node, 'model_path'), 'cameras': tuple(values['cameras']),
        'input_transport': read_transport(node)})


def read_settings(node: Node, card: DetectionCard | None) -> Settings:
    """Return the parameters that may change; -1 is replaced by the threshold it stands for."""
    names = (f.name for f in fields(Settings) if f.name not in ('crop', 'thresholds'))
    values = {name: node.get_parameter(name).value for name in names}
    thresholds: list[float] = []
    if card is not None:
        score = float(node.get_parameter('score_threshold').value)
        for name, default in zip(card.classes, card.thresholds.tolist()):
            own = float(node.get_parameter(CLASS_PREFIX + name).value)
            thresholds.append(own if own >= 0 else score if score >= 0 else default)
    return Settings(**values, crop=read_crop(node), thresholds=np.array(thresholds, np.float32))
