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

"""Sphinx settings, which rosdoc2 extends: rosdoc2 build --package-path ."""

from pathlib import Path
import sys

# For reference/api.rst. Under rosdoc2, which copies this file, the sourced workspace has it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

project = 'cgdet_ros'
extensions = ['myst_parser', 'sphinx.ext.autodoc']
myst_heading_anchors = 3
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
# rosdoc2 would document every module; reference/api.rst lists the interface.
rosdoc2_settings = {'enable_autodoc': False}
exclude_patterns = ['modules.rst', 'cgdet_ros*.rst', '__readme_include.rst',
                    'standard_docs/original']
# Links out of this folder are valid only in the repository.
suppress_warnings = ['myst.xref_missing']
