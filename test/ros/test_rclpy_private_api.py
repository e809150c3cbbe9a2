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
The private API of rclpy that this package uses.

A failure states what a release changed and which code relies on it.
"""

from threading import get_ident
from typing import Any

from cgdet_ros.node.executor import NodeExecutor
from cgdet_ros.node.parameters import given_at_start
from cgdet_ros.node.services import RCLError
from lifecycle_msgs.srv import ChangeState, GetState
import pytest
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from std_msgs.msg import Empty

pytestmark = pytest.mark.ros
MANAGED, EXECUTOR = 'cgdet_ros/node/managed_node.py', 'cgdet_ros/node/executor.py'
SERVICES = 'cgdet_ros/node/services.py'


def changed(what: str, where: str) -> str:
    return f'This release of rclpy changed {what}; {where} relies on it.'


@pytest.fixture
def node(create_node: Any) -> LifecycleNode:
    return create_node(
        'canary', kind=LifecycleNode, parameter_overrides=[Parameter('undeclared', value=1)])


def spin_until(executor: Executor, condition: Any) -> bool:
    """Spin until the condition holds; the number of looks bounds it on any machine."""
    for _ in range(600):
        if condition():
            return True
        executor.spin_once(0.05)
    return False


def test_the_lifecycle_state_is_where_we_look_for_it(node: LifecycleNode) -> None:
    machine = getattr(node, '_state_machine', None)
    what = changed('LifecycleNode._state_machine.current_state, (id, label)',
                   f'ManagedNode.state in {MANAGED}')
    assert machine is not None and machine.current_state[1] == 'unconfigured', what
    node.trigger_configure()
    assert machine.current_state[1] == 'inactive', what


def test_an_impossible_transition_raises_the_error_we_catch(node: LifecycleNode) -> None:
    try:
        node.trigger_activate()
    except Exception as error:
        assert isinstance(error, RCLError), changed(
            'what an impossible transition raises, '
            f'{type(error).__name__} instead of rclpy_implementation.RCLError',
            f'Services._change_state in {SERVICES}')
    else:
        pytest.fail(changed('impossible transitions, which raise no more',
                            f'Services._change_state in {SERVICES}'))


def test_parameters_given_at_start_are_known_before_they_are_declared(
    node: LifecycleNode,
) -> None:
    assert 'undeclared' in given_at_start(node), changed(
        'Node._parameter_overrides, names of parameters given at start',
        'given_at_start in cgdet_ros/node/parameters.py')


def test_services_are_listed_and_can_be_served_by_us(node: LifecycleNode) -> None:
    where = f'Services in {SERVICES}'
    services = {service.srv_type: service for service in node.services}
    assert {ChangeState, GetState, SetParameters} <= services.keys(), changed(
        'Node.services, which lacks those of lifecycle or parameters', where)
    service, group = services[GetState], MutuallyExclusiveCallbackGroup()
    answer, answered = service.callback, []

    def serve(request: Any, response: Any) -> Any:
        answered.append(get_ident())
        return answer(request, response)

    group.add_entity(service)
    service.callback_group, service.callback = group, serve
    client = node.create_client(GetState, 'canary/get_state')
    executor = NodeExecutor(group)
    executor.add_node(node)
    try:
        assert spin_until(executor, client.service_is_ready)
        future = client.call_async(GetState.Request())
        assert spin_until(executor, future.done), changed(
            'how a service with another callback or group is served', where)
    finally:
        executor.shutdown()
    assert answered, changed('Service.callback, which is no longer what is called', where)
    assert answered[0] != get_ident(), changed(
        'Service.callback_group, which no longer decides where it runs', f'{where}, {EXECUTOR}')
    assert future.result().current_state.label == 'unconfigured'


def test_set_parameters_goes_through_the_method_we_override(
    node: LifecycleNode, monkeypatch: pytest.MonkeyPatch,
) -> None:
    node.declare_parameter('declared', 1)
    asked: list[str] = []
    original = node.set_parameters_atomically

    def record(parameters: list[Parameter]) -> Any:
        asked.extend(parameter.name for parameter in parameters)
        return original(parameters)

    monkeypatch.setattr(node, 'set_parameters_atomically', record)
    service, = (s for s in node.services if s.srv_type is SetParameters)
    service.callback(SetParameters.Request(parameters=[
        Parameter('declared', value=2).to_parameter_msg()]), SetParameters.Response())
    assert asked == ['declared'] and node.get_parameter('declared').value == 2, changed(
        'the service set_parameters, which no longer calls Node.set_parameters_atomically',
        f'ManagedNode.set_parameters_atomically in {MANAGED}')


def test_spin_runs_the_method_we_override(domain: int) -> None:
    class Once(SingleThreadedExecutor):
        calls = 0

        def _spin_once_impl(self, *arguments: Any) -> None:
            self.calls += 1
            self.shutdown()

    rclpy.init()
    try:
        executor = Once()
        executor.wake()  # a spin that does not call it returns at once, and the test fails
        executor.create_task(executor.shutdown)
        executor.spin()
    finally:
        rclpy.try_shutdown()
    assert executor.calls == 1, changed(
        'Executor.spin, which no longer calls _spin_once_impl', f'NodeExecutor in {EXECUTOR}')


@pytest.mark.parametrize('name', ['_take_subscription', '_take_waitable'])
def test_entities_are_taken_by_the_methods_we_override(
    node: LifecycleNode, name: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    what = changed(f'Executor.{name}, through which it takes what is ready', EXECUTOR)
    assert hasattr(SingleThreadedExecutor, name), what
    if name == '_take_waitable':
        return  # what is waited for differs from release to release, as do events
    taken: list[Any] = []
    take = SingleThreadedExecutor._take_subscription
    monkeypatch.setattr(SingleThreadedExecutor, name,
                        lambda self, sub: (taken.append(sub), take(self, sub))[1])
    executor, heard = NodeExecutor(MutuallyExclusiveCallbackGroup()), []
    executor.add_node(node)
    subscription = node.create_subscription(Empty, 'canary', heard.append, 10)
    publisher = node.create_publisher(Empty, 'canary', 10)
    try:
        assert spin_until(executor, publisher.get_subscription_count)
        publisher.publish(Empty())
        assert spin_until(executor, lambda: heard)
    finally:
        executor.shutdown()
    assert subscription in taken, what


def test_ready_callbacks_come_with_their_entity(node: LifecycleNode) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    timer = node.create_timer(0.0, lambda: None)
    what = changed('Executor.wait_for_ready_callbacks, (handler, entity, node)',
                   f'NodeExecutor._spin_once_impl in {EXECUTOR}')
    try:
        for _ in range(100):
            handler, entity, _ = executor.wait_for_ready_callbacks(10)
            handler()
            assert handler.exception() is None, what
            if entity is timer:
                break
        assert entity is timer and entity.callback_group is not None, what
    finally:
        executor.shutdown()
