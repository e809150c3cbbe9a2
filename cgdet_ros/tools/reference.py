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

"""
Generate the reference pages from the code.

`python -m cgdet_ros.tools.reference` writes the tables of docs/reference between their markers.
Tests compare them with the code, and TOPICS with a running node. Tables whose modules are not
installed here (launch, or those of training) stay as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
import re
import runpy
import sys
from typing import Any

from cgdet_core.cli.reference import commands, grids, plain, recipes, table
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import share_file
from cgdet_ros.detection.parameters import CLASS_SPEC, SPECS

PAGES = Path(__file__).resolve().parents[2] / 'docs' / 'reference'
BLOCK = re.compile(r'(<!-- generated: (\w+) -->\n).*?(<!-- end -->)', re.DOTALL)
EFFECTS = {'dynamic': '', 'static': '; takes effect on configure', 'read_only': '; only at start'}


@dataclass(frozen=True)
class Topic:
    """A topic of the node, relative to its namespace and to the camera's name, if there is one."""

    name: str
    type: str
    direction: str  # in, out
    description: str
    optional: bool = False  # depends on a parameter or an installed package


TOPICS = (
    Topic('image_raw', 'sensor_msgs/msg/Image', 'in', '`mono8`, `8UC1`, `mono16`, `16UC1`, '
          '`32FC1`; all other encodings through cv_bridge, color as gray; best effort, depth 1'),
    Topic('ffc_status', 'std_msgs/msg/Bool', 'in', 'if `ffc_topic` is this name: true while the '
          'shutter of the camera is closed; best effort, depth 1', optional=True),
    Topic('image_raw/compressed', 'sensor_msgs/msg/CompressedImage', 'in', 'instead, with '
          '`input_transport: compressed`: PNG (8 or 16 bit), JPEG, TIFF', optional=True),
    Topic('detections', 'vision_msgs/msg/Detection2DArray', 'out', 'one per processed image, also '
          "when empty; the image's header; boxes in its pixels"),
    Topic('label_info', 'vision_msgs/msg/LabelInfo', 'out', 'latched: class ids, names, '
          'threshold'),
    Topic('vision_info', 'vision_msgs/msg/VisionInfo', 'out', 'latched: model, and topic of the '
          'class map'),
    Topic('debug_image', 'sensor_msgs/msg/Image', 'out', 'the image with its detections, drawn '
          'only if there is a subscriber'),
    Topic('annotations', 'foxglove_msgs/msg/ImageAnnotations', 'out', 'the same as an overlay for '
          'Foxglove, if foxglove_msgs is installed', optional=True),
    Topic('latency_histogram', 'std_msgs/msg/UInt32MultiArray', 'out', '1 Hz, if the parameter of '
          'that name is true'),
    Topic('/diagnostics', 'diagnostic_msgs/msg/DiagnosticArray', 'out', '1 Hz: state, rates, '
          'dropped frames, latency percentiles, last error'),
)


def topic_table() -> str:
    """Return the topics as a Markdown table."""
    return table(('topic', '', 'type', ''), [
        (f'`{t.name}`', t.direction, f'`{t.type.replace("/msg/", "/")}`', t.description)
        for t in TOPICS])


def parameter_table() -> str:
    """Return the parameters as a Markdown table."""
    return table(('parameter', 'default', 'range', ''), [
        (f'`{s.name}`', f'`{plain(s.default)}`',
         ', '.join(f'`{c}`' for c in s.choices) or s.limits(), s.description + EFFECTS[s.effect])
        for s in (*SPECS, CLASS_SPEC)])


def launch_table() -> str:
    """Return the launch files' arguments as a Markdown table; requires the package `launch`."""
    files: dict[tuple[str, str, str], list[str]] = {}  # by argument
    paths = sorted(share_file('launch').glob('*.launch.py'), reverse=True)
    for path in paths:
        description = runpy.run_path(str(path))['generate_launch_description']()
        for argument in description.get_launch_arguments():
            row = argument.name, _launch_default(argument.default_value), argument.description
            files.setdefault(row, []).append(path.name.removesuffix('.launch.py'))
    return table(('argument', 'default', 'launch file', ''), [
        (f'`{name}`', default, 'all' if len(names) == len(paths) else ', '.join(names), text)
        for (name, default, text), names in files.items()])


TABLES: dict[str, Callable[[], str]] = {
    'topics': topic_table, 'parameters': parameter_table, 'launch': launch_table,
    'recipes': recipes, 'grids': grids, 'commands': commands}


def rewrite(text: str) -> str:
    """Return a Markdown text with updated generated blocks."""
    def block(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise UserError(f'There is no table {match[2]}, only {", ".join(TABLES)}.')
        try:
            return match[1] + TABLES[match[2]]() + match[3]
        except ImportError as error:
            if (error.name or 'cgdet_').startswith('cgdet_'):
                raise
            return match[0]

    return BLOCK.sub(block, text)


def _launch_default(substitutions: Any) -> str:
    if substitutions is None:
        return 'required'
    text = ''.join(s.text for s in substitutions)
    path = Path(text)
    return f'`{path.parent.name}/{path.name}`' if path.is_absolute() else f'`{plain(text)}`'


def main(paths: list[str]) -> None:
    """Update the generated blocks of Markdown files, by default of the reference pages."""
    for path in [Path(path) for path in paths] or sorted(PAGES.glob('*.md')):
        path.write_text(rewrite(path.read_text()))


if __name__ == '__main__':
    try:
        main(sys.argv[1:])
    except (UserError, OSError) as problem:
        sys.exit(f'cgdet: {problem}')
