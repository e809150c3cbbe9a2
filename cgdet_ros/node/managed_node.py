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

"""A lifecycle node that runs a model and responds during transitions that take minutes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any, TypeVar

from cgdet_core.errors import UserError
from cgdet_core.runtime.tensorrt.cache import Progress
from cgdet_ros.node import parameters
from cgdet_ros.node.bond import Bond
from cgdet_ros.node.diagnostics import node_status, STUCK_S
from cgdet_ros.node.image_input import Hangs, ImageWorker
from cgdet_ros.node.loading import Loading, Recovery, return_memory, Stopped
from cgdet_ros.node.logs import reason, RosLog
from cgdet_ros.node.parameters import Spec
from cgdet_ros.node.services import logger_service, Services, SUCCESS
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

RECOVERY_PERIOD_S = 0.25  # between checks whether a reload is due
EXIT_S = 4.0  # for the batch in progress when the process ends; launch sends SIGTERM after 5 s
Model = TypeVar('Model')


class ManagedNode(LifecycleNode, ABC):
    """
    Run the transitions of a derived node, its diagnostics, recovery and parameter checks.

    There are three threads. The executor receives images, serves parameters and publishes
    diagnostics. Transitions run in a second one (callback group `transitions`), because loading a
    model may take minutes. An ImageWorker processes images and publishes results. `lock` guards
    the state that the first two share; it is not held during long operations or by the worker.

    specs must contain autostart and max_failures. role: the node's status name in /diagnostics.
    """

    def __init__(
        self, name: str, role: str, specs: Sequence[Spec], **node_options: object,
    ) -> None:
        super().__init__(name, **logger_service(), **node_options)
        self.lock = RLock()
        self.transitions = MutuallyExclusiveCallbackGroup()
        Services(self)
        self.recovery = Recovery()
        self.hangs = False  # a worker did not stop; it ends with the process
        self._log = RosLog(self)
        self._role = role
        self._specs = specs
        self._loading: Loading[Any] | None = None
        self.error = ''  # why the latest transition failed
        self.add_on_set_parameters_callback(
            lambda changes: parameters.check(changes, specs, self.state()))
        parameters.declare(self, specs)
        for sentence in parameters.unknown(self, specs):
            self.get_logger().warning(sentence)
        self.bond = Bond(self)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # Not the node's clock: with use_sim_time, a paused bag would stop the diagnostics.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._report, clock=clock)
        self.create_timer(RECOVERY_PERIOD_S, self._recover, self.transitions, clock)
        if self.get_parameter('autostart').value:
            self._start = self.create_timer(0.0, self._autostart, self.transitions, clock)
        else:
            self.get_logger().info(
                'unconfigured: waits for a lifecycle manager, or for '
                f'"ros2 lifecycle set {self.get_fully_qualified_name()} configure"')

    # Implemented by a derived node

    @abstractmethod
    def configure(self) -> None:
        """Load the model and create the topics; UserError if an operator can fix the failure."""

    @abstractmethod
    def activate(self) -> None:
        """Subscribe and start the worker."""

    @abstractmethod
    def stop(self) -> None:
        """Unsubscribe and stop the worker, if there is one; Hangs if it does not stop."""

    @abstractmethod
    def free(self) -> None:
        """Free model and topics, if there are any; called after `stop`."""

    @abstractmethod
    def statuses(self) -> list[DiagnosticStatus]:
        """Return the status of each camera; called once a second, under `lock`."""

    @abstractmethod
    def facts(self) -> dict[str, object]:
        """Return further values of the node's own status; called under `lock`."""

    def parameters_changed(self) -> None:
        """Use the new values for the next image; called under `lock`."""

    def missing(self, name: str) -> str:
        """Return why the node has no parameter of this name."""
        return f'there is no parameter {name}{parameters.meant(name, self._specs)}'

    def status_name(self) -> str:
        """Return the name before the colon in /diagnostics, as diagnostic_updater forms it."""
        return self.get_fully_qualified_name().lstrip('/')

    # Transitions

    def state(self) -> str:
        """Return the label of the lifecycle state, or of the transition, such as "configuring"."""
        return str(self._state_machine.current_state[1])

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model: SUCCESS, or FAILURE with the reason in the log and /diagnostics."""
        return self._try(self.configure, self._free)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the worker: SUCCESS."""
        result = self._try(self.activate, self.stop)
        if result == SUCCESS:
            for name in parameters.unknown_overrides(self):
                self.get_logger().warning(f'{name} is ignored: there is no such topic, or the '
                                          'policy cannot be overridden')
            self.bond.start()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and stop the worker: SUCCESS, or ERROR if inference hangs."""
        return self._try(self.stop, self.stop)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and the topics: SUCCESS."""
        return self._try(self._free, self.stop)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free from any state: SUCCESS."""
        return self._try(self._free, self.stop)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free, and return to unconfigured: SUCCESS."""
        self._free()
        return SUCCESS

    def destroy_node(self) -> None:
        """Stop the worker before the publishers are destroyed."""
        self.bond.stop()
        self._free()
        self._log.close()
        super().destroy_node()

    def load(self, load: Callable[[Progress], Model]) -> Model:
        """Load and return a model, with progress in /diagnostics; `stop_loading` interrupts it."""
        self._loading = loading = Loading(load)
        self._report()  # at once, so that a short load is reported as well
        try:
            return loading.run()
        finally:
            self._loading = None

    def stop_loading(self) -> None:
        """Stop loading a model, if one is being loaded, so that on_configure returns."""
        if self._loading is not None:
            self._loading.stop()

    def end(self, worker: ImageWorker) -> None:
        """Stop a worker; raise Hangs and set `hangs` if it does not stop in time."""
        try:
            worker.stop(STUCK_S if self.context.ok() else EXIT_S)
        except Hangs:
            self.hangs = True
            raise

    def _free(self) -> None:
        try:
            self.stop()
        except Hangs as error:
            self.get_logger().error(str(error))
        self.free()
        return_memory()

    def _try(self, work: Callable[[], None], undo: Callable[[], None]) -> TransitionCallbackReturn:
        """Run a transition; if it fails, report why in the log and /diagnostics, and undo it."""
        quiet = False
        try:
            work()
        except Stopped as error:  # by Ctrl-C, of which rclpy's context may not know yet
            result, quiet = TransitionCallbackReturn.FAILURE, True
            self.error = reason(error)
        except (UserError, ParameterException) as error:
            result = TransitionCallbackReturn.FAILURE
            self.error = reason(error) + parameters.hint(error)
        except Hangs as error:
            result = TransitionCallbackReturn.ERROR
            self.error = str(error)
        except Exception as error:  # rclpy would not report it
            result = TransitionCallbackReturn.ERROR
            self.error = f'{type(error).__name__}: {error}'
        else:
            self.error = ''
            return SUCCESS
        if self.context.ok() and not quiet:
            self.get_logger().error(self.error)
        undo()
        return result

    # Transitions that the node triggers itself

    def _autostart(self) -> None:
        self._start.cancel()
        # Unless a transition was requested before.
        if self.state() == 'unconfigured' and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def _recover(self) -> None:
        """Reload the model if inference keeps failing, from the current state."""
        if self.recovery.seconds_left() is None:
            return
        if not self.get_parameter('max_failures').value:
            self.recovery.give_up()
        if not self.recovery.begin():
            return
        self.get_logger().warning(
            f'inference keeps failing ({self.recovery.error}); the model is reloaded, '
            f'attempt {self.recovery.restarts}')
        for state, trigger in (
                ('active', self.trigger_deactivate), ('inactive', self.trigger_cleanup),
                ('unconfigured', self.trigger_configure), ('inactive', self.trigger_activate)):
            if self.state() == state and trigger() != SUCCESS:
                self.recovery.again(self.error)
                return
        self.recovery.reloaded()

    # Diagnostics and services

    def _report(self) -> None:
        """Publish the diagnostics."""
        name = self.status_name()
        with self.lock:
            facts = self.facts()
            if self.hangs:
                facts['left behind'] = 'an inference that hangs; restart the node'
            statuses = [node_status(f'{name}: {self._role}', self.state(), self.error,
                                    self.recovery, self._loading, facts), *self.statuses()]
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """
        Set parameters, and use the new values for the next image.

        The value that a parameter has is accepted in any state, so that a node can load its dump.
        Of a parameter that is named twice, the last value counts.
        """
        with self.lock:
            for parameter in parameter_list:
                if not self.has_parameter(parameter.name):
                    return SetParametersResult(
                        successful=False, reason=self.missing(parameter.name))
            changed = [p for p in {p.name: p for p in parameter_list}.values()
                       if not parameters.is_same(p, self.get_parameter(p.name))]
            if not changed:
                return SetParametersResult(successful=True)
            result = super().set_parameters_atomically(changed)
            try:
                self.parameters_changed()
            except Exception as error:  # they are set: the result must say so
                self.get_logger().error(f'parameters were set, but {reason(error)}')
            return result
