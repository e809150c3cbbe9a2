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

"""Declare, describe and check parameters from one table."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from typing import Any

from cgdet_core.errors import UserError
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, ReliabilityPolicy

QOS_PREFIX = 'qos_overrides.'
QOS_NAMES = {'history': HistoryPolicy, 'reliability': ReliabilityPolicy}  # values of policies
MAX_DEPTH = 2**31 - 1
ANY = '.NAME'  # suffix of a family of parameters, such as class_thresholds.NAME
# By type, what is written for a value of another one.
WRITE = {'DOUBLE': '1.0, not 1', 'STRING_ARRAY': '[front], with the brackets',
         'STRING': 'it in quotes, such as "5"', 'BOOL': 'true or false',
         'INTEGER': 'a whole number, such as 1'}
EFFECTS = {'dynamic': 'takes effect at once',
           'static': 'takes effect on configure, can be set only while unconfigured',
           'read_only': 'only at start'}


@dataclass(frozen=True)
class Spec:
    """A parameter; `effect`, a key of EFFECTS, is when it may change."""

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    effect: str = 'dynamic'
    choices: tuple[str, ...] = ()
    refusal: Callable[[Any], str] = lambda value: ''  # '' if valid

    def limits(self) -> str:
        """Return the range as text, empty if any value of the type is valid."""
        if self.choices:
            return ', '.join(filter(None, self.choices))
        return '' if self.low is None else f'{self.low:g} to {self.high:g}'

    def descriptor(self) -> ParameterDescriptor:
        """Return the descriptor: description, range and constraints."""
        descriptor = ParameterDescriptor(
            description=f'{self.description} ({EFFECTS[self.effect]})',
            read_only=self.effect == 'read_only',
            additional_constraints=f'one of {self.limits()}' if self.choices else '')
        if self.low is not None and self.high is not None:
            if isinstance(self.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=self.low, to_value=self.high)]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)]
        return descriptor


def declare(node: Node, specs: Iterable[Spec]) -> None:
    """Declare all parameters except families, whose names are not known yet."""
    for spec in specs:
        if not spec.name.endswith(ANY):
            node.declare_parameter(spec.name, spec.default, spec.descriptor())


def check(changes: Iterable[Parameter], specs: Sequence[Spec], state: str) -> SetParametersResult:
    """Accept changes, or refuse them with a reason; rclpy checks ranges and types."""
    for change in changes:
        spec = find(specs, change.name)
        if spec is not None and (reason := _refusal(change, spec, state)):
            return SetParametersResult(successful=False, reason=f'{change.name} {reason}')
    return SetParametersResult(successful=True)


def find(specs: Iterable[Spec], name: str) -> Spec | None:
    """Return the Spec of a parameter or of its family."""
    return next((spec for spec in specs if name == spec.name or (
        spec.name.endswith(ANY) and name.startswith(spec.name.removesuffix('NAME')))), None)


def is_same(change: Parameter, present: Parameter) -> bool:
    """Return whether a parameter would stay as it is; a list may arrive as an array."""
    values = [list(p.value) if p.type_.name.endswith('ARRAY') else p.value
              for p in (change, present)]
    return change.type_ == present.type_ != Parameter.Type.NOT_SET and values[0] == values[1]


def hint(error: BaseException) -> str:
    """Return what to write for the type of a parameter, empty for another error."""
    wrong = isinstance(error, InvalidParameterTypeException)
    return next((f' (write {text})' for kind, text in WRITE.items()
                 if wrong and f"expecting type '{kind}'" in str(error)), '')


def _refusal(change: Parameter, spec: Spec, state: str) -> str:
    # An empty list arrives without a type.
    if change.type_ == Parameter.Type.NOT_SET and not isinstance(spec.default, list):
        return 'cannot be deleted'
    if spec.choices and change.value not in spec.choices:
        return f'must be one of {spec.limits()}'
    if spec.effect == 'static' and state != 'unconfigured':
        way = 'cleanup' if state == 'inactive' else 'deactivate, then cleanup'
        return f'takes effect on configure and the node is {state}: ' + (
            'start it again with this value' if state == 'finalized' else
            f'clean the node up first (ros2 lifecycle set NODE {way}), then set it')
    if isinstance(change.value, float) and not isfinite(change.value):
        return 'must be finite'
    return spec.refusal(change.value)


def unknown(node: Node, specs: Sequence[Spec]) -> list[str]:
    """Return a warning for each parameter set at start that the node does not have."""
    names = [name for name in given_at_start(node) if not node.has_parameter(name)
             and not name.startswith(QOS_PREFIX) and find(specs, name) is None]
    return [f'the parameter {name} is ignored, it does not exist{meant(name, specs)}'
            for name in sorted(names)]


def meant(name: str, specs: Iterable[Spec]) -> str:
    """Return a hint with the parameter of a similar name, empty if there is none."""
    near = get_close_matches(
        name, (spec.name for spec in specs if not spec.name.endswith(ANY)), 1)
    return f'; did you mean {near[0]}?' if near else ''


def unknown_overrides(node: Node) -> list[str]:
    """Return the qos_overrides set at start that match no topic of the active node."""
    return sorted(name for name in given_at_start(node)
                  if name.startswith(QOS_PREFIX) and not node.has_parameter(name))


def check_overrides(node: Node) -> None:
    """Raise UserError for the first of the qos_overrides set at start with a wrong value."""
    for name, given in sorted(given_at_start(node).items()):
        policy = name.rpartition('.')[2]
        if not name.startswith(QOS_PREFIX):
            continue
        if kind := QOS_NAMES.get(policy):
            names = [n.lower() for n in kind.__members__ if n != 'UNKNOWN']
            good = isinstance(given.value, str) and given.value.lower() in names
            wanted = f'one of {", ".join(names)}'
        else:
            good = policy != 'depth' or (given.type_ == Parameter.Type.INTEGER
                                         and 0 <= given.value <= MAX_DEPTH)
            wanted = f'a whole number from 0 to {MAX_DEPTH}'
        if not good:
            raise UserError(f'{name} must be {wanted}, not {given.value!r}')


def given_at_start(node: Node) -> dict[str, Parameter]:
    """Return the parameters set at start by name, declared or not."""
    return getattr(node, '_parameter_overrides', {})  # rclpy has no public API for it
