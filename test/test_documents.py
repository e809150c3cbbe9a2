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

"""Links and names of code in the documents exist."""

import ast
import json
from pathlib import Path
import re

import yaml

ROOT = Path(__file__).resolve().parents[1]


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md'), ROOT / 'docker/README.md']
    broken = []
    for document in documents:
        for target in re.findall(r'\]\(([^)\s]+)\)', document.read_text()):
            path, _, anchor = target.partition('#')
            place = (document.parent / path).resolve() if path else document
            if '://' not in target and (
                    not place.exists() or (anchor and anchor not in anchors(place))):
                broken.append(f'{document.relative_to(ROOT)}: {target}')
    assert len(documents) > 5
    assert not broken


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
            for heading in re.findall(r'^#+ (.+)$', path.read_text(), re.MULTILINE)}


def test_the_code_that_the_papers_table_names_exists() -> None:
    named = re.findall(r'`([\w/]+\.py):(\w+)`', (ROOT / 'docs/papers.md').read_text())
    assert len(named) > 15
    missing = [f'{path}:{name}' for path, name in named
               if name not in defined(ROOT / 'cgdet_core' / path)]
    assert not missing


def defined(path: Path) -> set[str]:
    """Return the functions and classes that a file defines; none if it does not exist."""
    if not path.is_file():
        return set()
    return {node.name for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def test_views_show_topics_of_the_node_by_their_types() -> None:
    reference = (ROOT / 'docs/reference/ros.md').read_text()
    topics = dict(re.findall(r'\| `/?([\w/]+)` \| (?:in|out) \| `([\w/]+)`', reference))
    rviz = yaml.safe_load((ROOT / 'config/thermal.rviz').read_text())
    shown = rviz['Visualization Manager']['Displays'][0]
    assert shown['Class'] == 'rviz_default_plugins/Image'
    assert topics[shown['Topic']['Value'][1:]] == 'sensor_msgs/Image'

    layout = json.loads((ROOT / 'config/foxglove.json').read_text())
    panels = layout['configById']
    image = panels['Image!detections']['imageMode']
    assert topics[image['imageTopic'][1:]] == 'sensor_msgs/Image'
    drawn = [topics[name[1:]] for name in image['annotations']]
    assert drawn == ['foxglove_msgs/ImageAnnotations']
    state = panels['DiagnosticSummary!state']
    assert topics[state['topicToRender'][1:]] == 'diagnostic_msgs/DiagnosticArray'
    topic, _, field = panels['Plot!count']['paths'][0]['value'][1:].partition('.')
    assert (topics[topic], field) == ('vision_msgs/Detection2DArray', 'detections.length')
    right = layout['layout']['second']
    assert {layout['layout']['first'], right['first'], right['second']} == set(panels)
