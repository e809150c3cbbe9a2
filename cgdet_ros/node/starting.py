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

"""Start rclpy; what is wrong with the ROS arguments or the environment is one sentence."""

from collections.abc import Callable
import os
import re
from typing import TypeVar

from cgdet_core.errors import UserError
from cgdet_ros.node.services import RCLError
import rclpy
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.utilities import remove_ros_args

INVALID = RCLError, rclpy_implementation.UnknownROSArgsError
SOURCE = re.compile(r',? at [^ ,]+:\d+')  # where in rcl an error occurred
ARGUMENT = re.compile(r"Couldn't parse ([^:]+): '(.*)'\. Error: (.*)", re.DOTALL)
# By the name that rcl gives an argument, what to write.
WRITE = {'remap rule': 'write -r FROM:=TO, with names of letters, digits and _ between slashes, '
         'which do not begin with a digit',
         'parameter override rule': 'write -p NAME:=VALUE, the value as in YAML',
         'params file': 'name a YAML file with NODE: {ros__parameters: {NAME: VALUE}}',
         'log level': 'write debug, info, warn, error or fatal'}
NO_REASON = re.compile(r'lexeme|error not set')  # of rcl, which says nothing to a person
Made = TypeVar('Made')


def init(args: list[str] | None) -> None:
    """Initialize rclpy; UserError if it does not accept the arguments or the environment."""
    try:
        rclpy.init(args=args)
    except INVALID as error:
        todo = '; set ROS_LOG_DIR to a writable folder' if 'log directory' in str(error) else ''
        raise UserError(f'{sentence(error)}{todo}') from None


def create(make: Callable[[], Made]) -> Made:
    """Return the node that `make` creates; UserError if the environment prevents that."""
    try:
        return make()
    except RCLError as error:
        raise UserError(f'the node cannot be created: {sentence(error)}') from None


def own_arguments(args: list[str]) -> list[str]:
    """Return the arguments after the program's name that are not ROS's; UserError if those err."""
    try:
        return list(remove_ros_args(args)[1:])
    except INVALID as error:
        raise UserError(sentence(error)) from None


def sentence(error: RuntimeError) -> str:
    """Return an error of rcl as one line, and what to do if that is known."""
    text = ' '.join(SOURCE.sub('', str(error)).split())
    if isinstance(error, rclpy_implementation.UnknownROSArgsError):
        return f'unknown ROS arguments {text}; -p, -r, --params-file and --log-level are some'
    if found := ARGUMENT.search(text):
        kind, argument, why = found.groups()
        because = '' if NO_REASON.search(why) else f' ({why})'
        return f"'{argument}' is not valid{because}; {WRITE.get(kind, 'correct this ' + kind)}"
    if 'security libraries' in text:
        return ('ROS_SECURITY_ENABLE is true, but this build of the middleware has no security; '
                'use that of a ROS 2 distribution, or unset the variable (docs/sros2.md)')
    return text if os.environ.get('ROS_SECURITY_ENABLE') != 'true' else (
        f'{text}; ROS_SECURITY_ENABLE is true: check keystore, enclave and policy '
        '(docs/sros2.md)')
