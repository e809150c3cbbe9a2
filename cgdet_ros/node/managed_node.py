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

"""A lifecycle node whose transitions may take minutes while it answers all else."""

from collections.abc import Callable
from threading import RLock
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode

RCLError = rclpy_implementation.RCLError


class ManagedNode(LifecycleNode):
    """
    Serve change_state in the callback group `transitions`, which an executor may run beside.

    Other services hold `lock` while they answer: what transitions change under it, parameters
    above all, changes between two requests. A transition must not hold it for long.
    """

    def __init__(self, name: str, **node_options: object) -> None:
        super().__init__(name, **node_options)
        self.lock = RLock()
        # LifecycleNode does not pass a callback group on to its services (Humble, Jazzy).
        self.transitions = MutuallyExclusiveCallbackGroup()
        for service in self.services:
            if service.srv_type is ChangeState:
                self.transitions.add_entity(service)
                service.callback_group = self.transitions
                service.callback = _bound(self._change_state, service.callback)
            else:
                service.callback = _bound(self._answer, service.callback)

    def state(self) -> str:
        """Return the label of the lifecycle state, "configuring" and the like in a transition."""
        return str(self._state_machine.current_state[1])

    def transition_asked_for(self) -> None:
        """Hear that a transition somebody asked for was made."""

    def _change_state(
        self, answer: Callable[..., Any], request: ChangeState.Request,
        response: ChangeState.Response,
    ) -> ChangeState.Response:
        """Serve a transition; one that the state does not have is refused, not rclpy's end."""
        before = self.state()
        try:
            response = answer(request, response)
        except RCLError:
            if not self.context.ok():
                raise
            response.success = False
        if response.success or self.state() != before:
            self.transition_asked_for()
        else:
            wanted = request.transition.label or request.transition.id
            self.get_logger().warning(f'the transition {wanted} did not leave the state {before}')
        return response

    def _answer(self, answer: Callable[..., Any], request: Any, response: Any) -> Any:
        try:
            with self.lock:
                return answer(request, response)
        except Exception as error:  # nonsense from outside must not end the node
            if not self.context.ok():
                raise
            text = f'{type(error).__name__}: {error}'
            self.get_logger().error(f'a request could not be answered: {text}')
            if isinstance(request, SetParameters.Request):
                refusal = SetParametersResult(successful=False, reason=text)
                response.results = [refusal] * len(request.parameters)
            return response


def _bound(serve: Callable[..., Any], answer: Callable[..., Any]) -> Callable[..., Any]:
    return lambda request, response: serve(answer, request, response)
