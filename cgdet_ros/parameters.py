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
from typing import Any

from cgdet_core.runtime.backends.choice import BACKENDS
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter


@dataclass(frozen=True)
class Spec:
    """One parameter; a change of a `static` one needs the node to be unconfigured."""

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    static: bool = False
    read_only: bool = False
    choices: tuple[str, ...] = ()


SPECS = (
    Spec('model_path', '', 'ONNX file with its model card beside it; empty: the shipped model',
         static=True),
    Spec('backend', 'auto', 'What runs the model; auto: the first of TensorRT, TensorRT-RTX and '
         'ONNX Runtime that can', static=True, choices=BACKENDS),
    Spec('threads', 0, 'CPU threads of the inference; 0: all cores this process may use',
         0, 256, static=True),
    Spec('autostart', True, 'Configure and activate at start, without a lifecycle manager',
         read_only=True),
    Spec('score_threshold', -1.0, "Least score of a published detection; -1: the model card's",
         -1.0, 1.0),
    Spec('max_image_age_s', 0.0, 'Skip images whose stamp is older, seconds; 0: never skip',
         0.0, 3600.0),
    Spec('no_input_warn_s', 2.0, 'Report WARN in /diagnostics after this long without an image',
         0.1, 3600.0),
)


def declare(node: LifecycleNode) -> None:
    """Declare all parameters with type, description and range."""
    for spec in SPECS:
        descriptor = ParameterDescriptor(
            description=spec.description, read_only=spec.read_only,
            additional_constraints=f'one of {", ".join(spec.choices)}' if spec.choices else '')
        if spec.low is not None and spec.high is not None:
            if isinstance(spec.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=spec.low, to_value=spec.high)]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(spec.low), to_value=int(spec.high))]
        node.declare_parameter(spec.name, spec.default, descriptor)


def check(changes: Iterable[Parameter], unconfigured: bool) -> SetParametersResult:
    """Accept or refuse a change with a reason; ranges and types are checked by ROS itself."""
    static = {s.name for s in SPECS if s.static}
    choices = {s.name: s.choices for s in SPECS if s.choices}
    for change in changes:
        if change.name in choices and change.value not in choices[change.name]:
            return SetParametersResult(successful=False, reason=(
                f'{change.name} must be one of {", ".join(choices[change.name])}'))
        if change.name in static and not unconfigured:
            return SetParametersResult(successful=False, reason=(
                f'{change.name} takes effect on configure: clean the node up first '
                '(ros2 lifecycle set NODE deactivate, then cleanup), then set it'))
        if change.name == 'score_threshold' and -1.0 < change.value < 0.0:
            return SetParametersResult(
                successful=False, reason='score_threshold must be in [0, 1], or -1')
    return SetParametersResult(successful=True)
