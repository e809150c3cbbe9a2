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

"""The node's parameters: one table declares, describes and checks them."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from typing import Any

from cgdet_core.runtime import ModelCard
from cgdet_core.runtime.imaging.geometry import Crop
from cgdet_core.runtime.inference.choice import BACKENDS
from cgdet_ros.camera_names import NAME
import numpy as np
from numpy.typing import NDArray
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

SIDES = ('top', 'bottom', 'left', 'right')
CLASS_PREFIX = 'class_thresholds.'
QOS_PREFIX = 'qos_overrides.'
EFFECTS = {'dynamic': 'takes effect at once',
           'static': 'takes effect at the next configure, refused unless unconfigured',
           'read_only': 'only at start'}


@dataclass(frozen=True)
class Spec:
    """One parameter; `effect`, a key of EFFECTS, says when it may change."""

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    effect: str = 'dynamic'
    choices: tuple[str, ...] = ()

    def limits(self) -> str:
        """Return the range as text, empty where anything of the type will do."""
        if self.choices:
            return ', '.join(self.choices)
        return '' if self.low is None else f'{self.low:g} to {self.high:g}'


SPECS = (
    Spec('model_path', '', 'ONNX file with its model card beside it; empty: the shipped model',
         effect='static'),
    Spec('backend', 'auto', 'What runs the model; auto: the first of TensorRT, TensorRT-RTX and '
         'ONNX Runtime that can', effect='static', choices=BACKENDS),
    Spec('threads', 0, 'CPU threads of the inference; 0: all cores this process may use',
         0, 256, effect='static'),
    Spec('cameras', [''], 'Names of the cameras, each of which gets its topics under its name, '
         'such as front/image_raw and front/detections; an empty name: image_raw and detections '
         'themselves', effect='static'),
    Spec('input_transport', 'raw', 'raw: sensor_msgs/Image on image_raw; compressed: '
         'sensor_msgs/CompressedImage (PNG, JPEG, TIFF) on image_raw/compressed',
         effect='static', choices=('raw', 'compressed')),
    Spec('track', False, 'Fill the id of detections with track ids',
         effect='static'),
    Spec('track_max_age_s', 1.0, 'End a track not seen for so many seconds', 0.1, 60.0,
         effect='static'),
    Spec('autostart', True, 'Configure and activate at start, without a lifecycle manager',
         effect='read_only'),
    Spec('score_threshold', -1.0, 'Least score of a published detection, 0 to 1; -1: the model '
         "card's", -1.0, 1.0),
    Spec('max_image_age_s', 0.0, 'Skip images whose stamp is older, in seconds; 0: never skip',
         0.0, 3600.0),
    *(Spec(f'crop_{side}', 0, f'Pixels to leave out at the {side} of every received image, '
           'for example telemetry rows', 0, 65535)
      for side in SIDES),
    Spec('debug_image', True, 'Publish the topic debug_image, which is drawn only while somebody '
         'listens'),
    Spec('no_input_warn_s', 2.0, 'Report WARN in /diagnostics for a camera that has been silent '
         'for so many seconds', 0.1, 3600.0),
    Spec('max_failures', 10, 'Load the model anew after so many failing inferences in a row, '
         'with waits of 1, 2, 4 ... 60 s between attempts; 0: never', 0, 100000),
    Spec('latency_histogram', False, 'Publish the topic latency_histogram, 1 Hz: frames of the '
         'last second per millisecond from reception to publication'),
)
CLASS_SPEC = Spec(f'{CLASS_PREFIX}NAME', -1.0, 'Least score of a published detection of this '
                  'class, 0 to 1; -1: score_threshold', -1.0, 1.0)


@dataclass(frozen=True)
class ModelSettings:
    """What configuring reads, once."""

    model_path: str
    backend: str
    threads: int
    input_transport: str
    track: bool
    track_max_age_s: float
    cameras: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """What may change while running, read after every change instead of at every frame."""

    max_image_age_s: float
    no_input_warn_s: float
    max_failures: int
    latency_histogram: bool
    debug_image: bool
    crop: Crop
    thresholds: NDArray[np.float32]  # (num_classes,), empty without a model


def declare(node: Node) -> None:
    """Declare all parameters but those of the classes."""
    for spec in SPECS:
        node.declare_parameter(spec.name, spec.default, _descriptor(spec))


def declare_classes(node: Node, classes: Iterable[str]) -> None:
    """Declare a threshold per class and drop other models'; values given at start apply."""
    wanted = [CLASS_PREFIX + name for name in dict.fromkeys(classes)]
    for name in node.get_parameters_by_prefix(CLASS_PREFIX[:-1]):
        if CLASS_PREFIX + name not in wanted:
            node.undeclare_parameter(CLASS_PREFIX + name)
    for name in wanted:
        if not node.has_parameter(name):
            node.declare_parameter(name, CLASS_SPEC.default, _descriptor(CLASS_SPEC))


def unknown(node: Node) -> list[str]:
    """Say which parameters given at start the node does not have."""
    names = [name for name in _given_at_start(node) if not node.has_parameter(name)
             and not name.startswith((CLASS_PREFIX, QOS_PREFIX))]
    return [f'the parameter {name} is ignored, there is none of that name{_meant(name, _BY_NAME)}'
            for name in sorted(names)]


def undeclared(node: Node, names: Iterable[str]) -> str:
    """Say what is wrong with the first name that the node does not have, nothing if it has all."""
    for name in names:
        if node.has_parameter(name):
            continue
        if not name.startswith(CLASS_PREFIX):
            return f'there is no parameter {name}{_meant(name, _BY_NAME)}'
        classes = node.get_parameters_by_prefix(CLASS_PREFIX[:-1])
        if not classes:
            return f'there is no {name} yet: class thresholds exist once a model is loaded'
        return f'there is no {name}, the model knows {", ".join(classes)}'
    return ''


def _meant(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, names, 1)
    return f'; is {near[0]} meant?' if near else ''


def unknown_classes(node: Node, classes: Iterable[str]) -> list[str]:
    """List thresholds given at start whose class the model does not have."""
    known = {CLASS_PREFIX + name for name in classes}
    return sorted(name for name in _given_at_start(node)
                  if name.startswith(CLASS_PREFIX) and name not in known)


def unknown_overrides(node: Node) -> list[str]:
    """List qos_overrides given at start that fit no topic of the active node."""
    return sorted(name for name in _given_at_start(node)
                  if name.startswith(QOS_PREFIX) and not node.has_parameter(name))


def _given_at_start(node: Node) -> Iterable[str]:
    return getattr(node, '_parameter_overrides', {})  # rclpy has no public name for it


def read_model_settings(node: Node) -> ModelSettings:
    """Read what configuring needs."""
    names = ('model_path', 'backend', 'threads', 'input_transport', 'track', 'track_max_age_s')
    values = {name: node.get_parameter(name).value for name in names}
    return ModelSettings(**values, cameras=tuple(node.get_parameter('cameras').value))


def read_settings(node: Node, card: ModelCard | None) -> Settings:
    """Read what may change while running; -1 becomes the threshold it stands for."""
    names = ('max_image_age_s', 'no_input_warn_s', 'max_failures', 'latency_histogram',
             'debug_image')
    values = {name: node.get_parameter(name).value for name in names}
    crop = Crop(**{side: node.get_parameter(f'crop_{side}').value for side in SIDES})
    thresholds: list[float] = []
    if card is not None:
        score = float(node.get_parameter('score_threshold').value)
        common = card.score_threshold if score < 0 else score
        for name in card.classes:
            own = float(node.get_parameter(CLASS_PREFIX + name).value)
            thresholds.append(common if own < 0 else own)
    return Settings(**values, crop=crop, thresholds=np.array(thresholds, np.float32))


def check(changes: Iterable[Parameter], state: str) -> SetParametersResult:
    """Accept or refuse changes with a reason; ranges and types are checked by ROS itself."""
    for change in changes:
        if reason := _refusal(change, state):
            return SetParametersResult(successful=False, reason=f'{change.name} {reason}')
    return SetParametersResult(successful=True)


def _refusal(change: Parameter, state: str) -> str:
    spec = CLASS_SPEC if change.name.startswith(CLASS_PREFIX) else _BY_NAME.get(change.name)
    if spec is not None and change.type_ == Parameter.Type.NOT_SET and change.name != 'cameras':
        return 'cannot be deleted'
    if spec is not None and spec.choices and change.value not in spec.choices:
        return f'must be one of {", ".join(spec.choices)}'
    if spec is not None and spec.effect == 'static' and state != 'unconfigured':
        return (f'takes effect on configure and the node is {state}: clean the node up first '
                '(ros2 lifecycle set NODE deactivate, then cleanup), then set it')
    if change.name == 'cameras':
        return _refuse_cameras(list(change.value or []))
    if isinstance(change.value, float) and not isfinite(change.value):
        return 'must be a number'
    if change.name == 'score_threshold' or change.name.startswith(CLASS_PREFIX):
        return 'must be in [0, 1], or -1' if -1.0 < change.value < 0.0 else ''
    return ''


def _refuse_cameras(names: list[str]) -> str:
    if not names:
        return "needs a name; [''] stands for one camera on image_raw"
    for name in names:
        if name and not NAME.fullmatch(name):
            return (f'has the name {name!r}, which is no topic name: letters, digits and _ '
                    'between slashes, a letter first')
    return '' if len(set(names)) == len(names) else 'must not name a camera twice'


def _describe(spec: Spec) -> str:
    return f'{spec.description} ({EFFECTS[spec.effect]})'


def _descriptor(spec: Spec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=_describe(spec), read_only=spec.effect == 'read_only',
        additional_constraints=f'one of {spec.limits()}' if spec.choices else '')
    if spec.low is not None and spec.high is not None:
        if isinstance(spec.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=spec.low, to_value=spec.high)]
        else:
            descriptor.integer_range = [
                IntegerRange(from_value=int(spec.low), to_value=int(spec.high), step=1)]
    return descriptor


_BY_NAME = {spec.name: spec for spec in SPECS}
