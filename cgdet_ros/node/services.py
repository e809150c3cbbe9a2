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

"""The services of a node: none of them ends it, and a transition does not block the others."""

from collections.abc import Callable
from functools import partial
import importlib
import inspect
from typing import Any, TYPE_CHECKING

from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node

if TYPE_CHECKING:
    from cgdet_ros.node.managed_node import ManagedNode

RCLError = rclpy_implementation.RCLError
SUCCESS = TransitionCallbackReturn.SUCCESS


def logger_service() -> dict[str, bool]:
    """Return the option of a node to serve its logger levels; Humble has no such services."""
    known = 'enable_logger_service' in inspect.signature(Node.__init__).parameters
    return {'enable_logger_service': True} if known else {}


class Services:
    """
    Serve change_state and enable in the group `transitions`, the other services under `lock`.

    It takes over the services that the node has when it is constructed.
    """

    def __init__(self, node: 'ManagedNode') -> None:
        self._node = node
        # LifecycleNode has no callback group argument for its services (Humble, Jazzy).
        for service in node.services:
            if service.srv_type is ChangeState:
                node.transitions.add_entity(service)
                service.callback_group = node.transitions
                service.callback = partial(self._change_state, service.callback)
            elif service.srv_type is SetParameters:
                service.callback = partial(self._set_each, service.callback)
            else:
                service.callback = partial(self._answer, service.callback)
        try:
            kind = importlib.import_module('std_srvs.srv').SetBool
        except ImportError:
            return  # change_state remains
        node.create_service(kind, '~/enable', self._enable, callback_group=node.transitions)

    def _change_state(
        self, answer: Callable[..., Any], request: ChangeState.Request,
        response: ChangeState.Response,
    ) -> ChangeState.Response:
        """Serve a transition; refuse an invalid one, for which rclpy raises RCLError."""
        node = self._node
        before = node.state()
        try:
            response = answer(request, response)
        except RCLError:
            if not node.context.ok():
                raise
            response.success = False
        self._follow()
        if response.success or node.state() != before:
            node.recovery.give_up()  # the requester is now responsible for the state
        else:
            wanted = request.transition.label or request.transition.id
            node.get_logger().warning(f'the transition {wanted} failed: the node is {before}')
        return response

    def _follow(self) -> None:
        """Break the bond after a requested transition; a reload of the model keeps it."""
        if self._node.state() != 'active':
            self._node.bond.stop()

    def _enable(self, request: Any, response: Any) -> Any:
        """Serve enable: true leads to active from any state, false from active to inactive."""
        node = self._node
        node.recovery.give_up()
        steps = ([('unconfigured', node.trigger_configure), ('inactive', node.trigger_activate)]
                 if request.data else [('active', node.trigger_deactivate)])
        for state, trigger in steps:
            if node.state() == state and trigger() != SUCCESS:
                break
        self._follow()
        after = node.state()
        response.success = (after == 'active') == request.data
        why = f': {node.error}' if node.error and not response.success else ''
        response.message = f'the node is {after}{why}'
        return response

    def _set_each(
        self, answer: Callable[..., Any], request: SetParameters.Request,
        response: SetParameters.Response,
    ) -> SetParameters.Response:
        """Set each parameter by itself: an invalid one does not change what the others return."""
        for parameter in request.parameters:
            single = self._answer(answer, SetParameters.Request(parameters=[parameter]),
                                  SetParameters.Response())
            response.results.append(single.results[0])
        return response

    def _answer(self, answer: Callable[..., Any], request: Any, response: Any) -> Any:
        try:
            with self._node.lock:
                return answer(request, response)
        except Exception as error:  # an invalid request must not end the node
            if not self._node.context.ok():
                raise
            text = f'{type(error).__name__}: {error}'
            self._node.get_logger().error(f'a service request failed: {text}')
            refusal = SetParametersResult(successful=False, reason=text)
            if isinstance(request, SetParameters.Request):
                response.results = [refusal]
            elif isinstance(request, SetParametersAtomically.Request):
                response.result = refusal
            return response
