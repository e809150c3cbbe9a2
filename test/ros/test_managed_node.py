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

"""`ManagedNode`, tested with a minimal node that does not detect anything."""

from typing import Any

from cgdet_core.errors import UserError
from cgdet_ros.node.managed_node import ManagedNode
from cgdet_ros.node.parameters import Spec
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

pytestmark = pytest.mark.ros
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR
SPECS = (
    Spec('autostart', False, 'As in every node', effect='read_only'),
    Spec('max_failures', 3, 'As in every node', 0, 100),
    Spec('model', 'good', 'What to load', effect='static', choices=('good', 'bad', 'broken')),
    Spec('limits.NAME', 0.5, 'One for each part of the model', 0.0, 1.0,
         refusal=lambda value: 'is unlucky' if value == 0.13 else ''))


class Minimal(ManagedNode):
    """A node whose model is a string."""

    def __init__(self, **options: object) -> None:
        super().__init__('minimal', 'counter', SPECS, **options)
        self.calls: list[str] = []
        self.model = ''
        self.reports: list[DiagnosticArray] = []
        self._diagnostics.publish = self.reports.append

    def configure(self) -> None:
        name = str(self.get_parameter('model').value)
        self.model = self.load(lambda progress: name)
        if name == 'bad':
            raise UserError('The model is bad; choose another.')
        if name == 'broken':
            raise RuntimeError('broken')
        self.declare_parameter('limits.left', 0.5, SPECS[-1].descriptor())

    def activate(self) -> None:
        self.calls.append('activate')

    def stop(self) -> None:
        self.calls.append('stop')

    def free(self) -> None:
        self.calls.append('free')
        self.model = ''

    def statuses(self) -> list[DiagnosticStatus]:
        return []

    def facts(self) -> dict[str, object]:
        return {'model': self.model}

    def parameters_changed(self) -> None:
        self.calls.append('changed')

    def status(self) -> dict[str, Any]:
        self._report()
        status = self.reports[-1].status[0]
        return {'name': status.name, 'level': status.level, 'message': status.message,
                **{v.key: v.value for v in status.values}}


@pytest.fixture
def node(create_node: Any) -> Minimal:
    return create_node(kind=Minimal)


def test_transitions_call_the_methods_of_the_node(node: Minimal) -> None:
    assert node.trigger_configure() == SUCCESS and node.model == 'good'
    assert node.trigger_activate() == SUCCESS and node.status()['state'] == 'active'
    assert node.status()['name'] == 'minimal: counter' and node.status()['model'] == 'good'
    assert node.trigger_deactivate() == SUCCESS and node.trigger_cleanup() == SUCCESS
    assert node.calls == ['activate', 'stop', 'stop', 'free'] and node.state() == 'unconfigured'
    loading = [r.status[0] for r in node.reports if r.status[0].message.startswith('loading')]
    assert len(loading) == 1 and loading[0].level == DiagnosticStatus.OK


@pytest.mark.parametrize(('model', 'result', 'message'), [
    ('bad', FAILURE, 'The model is bad; choose another.'),
    ('broken', ERROR, 'RuntimeError: broken')])
def test_a_failed_configure_is_undone_and_reported(
    node: Minimal, model: str, result: TransitionCallbackReturn, message: str,
) -> None:
    assert node.set_parameters([Parameter('model', value=model)])[0].successful
    assert node.trigger_configure() == result and node.state() == 'unconfigured'
    assert 'free' in node.calls and node.model == ''
    assert node.status()['message'] == message
    assert node.status()['level'] == DiagnosticStatus.ERROR
    assert node.set_parameters([Parameter('model', value='good')])[0].successful
    assert node.trigger_configure() == SUCCESS
    assert node.status()['level'] == DiagnosticStatus.OK


def test_parameters_are_checked_against_the_nodes_own_table(node: Minimal) -> None:
    def refusal(name: str, value: object) -> str:
        return str(node.set_parameters_atomically([Parameter(name, value=value)]).reason)

    assert refusal('mode', 'bad') == 'there is no parameter mode; did you mean model?'
    assert refusal('model', 'worse') == 'model must be one of good, bad, broken'
    assert node.trigger_configure() == SUCCESS
    assert 'is inactive: clean the node up first (ros2 lifecycle set NODE cleanup)' in (
        refusal('model', 'bad'))
    assert refusal('limits.left', 0.13) == 'limits.left is unlucky'
    assert refusal('limits.left', float('nan'))
    assert refusal('limits.left', 0.25) == '' and 'changed' in node.calls
    assert node.trigger_activate() == SUCCESS
    assert 'NODE deactivate, then cleanup)' in refusal('model', 'bad')
    assert node.trigger_shutdown() == SUCCESS
    assert refusal('model', 'bad').endswith('is finalized: start it again with this value')


def test_the_last_value_of_a_parameter_that_is_named_twice_counts(node: Minimal) -> None:
    for values in ((5, 3), (5, 4)):  # the present value is 3
        result = node.set_parameters_atomically(
            [Parameter('max_failures', value=value) for value in values])
        assert result.successful and node.get_parameter('max_failures').value == values[-1]
