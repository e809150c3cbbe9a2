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

"""The lifecycle node: thermal images in, vision_msgs detections out."""

from collections.abc import Callable
import os
import signal
import sys

from cgdet_core.errors import UserError
from cgdet_core.runtime import Detector
from cgdet_ros.detection import parameters
from cgdet_ros.detection.camera import Camera, Handover
from cgdet_ros.detection.worker import Hangs, Worker
from cgdet_ros.node.diagnostics import node_status, STUCK_S
from cgdet_ros.node.executor import NodeExecutor
from cgdet_ros.node.loading import Loading, return_memory, Stopped
from cgdet_ros.node.logs import RosLog
from cgdet_ros.node.managed_node import ManagedNode, RCLError
from cgdet_ros.node.recovery import Recovery
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterTypeException, ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import uninstall_signal_handlers

SUCCESS = TransitionCallbackReturn.SUCCESS
RECOVERY_PERIOD_S = 0.25  # between looks at whether a reload is due
EXIT_S = 1.0  # for the batch in progress when the process ends


class DetectorNode(ManagedNode):
    """
    Detect objects in the newest thermal image of every camera, always.

    Three threads: the executor's receives images, serves parameters and reports; transitions
    have one of their own, as loading a model may take minutes; the worker detects and publishes.
    `lock` guards what the first two share: cameras, model, parameters. Neither what takes long
    nor the worker holds it.
    """

    def __init__(self, **node_options: object) -> None:
        super().__init__('thermal_detector', **node_options)
        self._log = RosLog(self.get_logger())
        self._loading: Loading | None = None
        self._detector: Detector | None = None
        self._backend = ''
        self._cameras: list[Camera] = []
        self._wake = Handover()
        self._worker: Worker | None = None
        self.hangs = False  # a worker that was left behind; only the process's end ends it
        self._recovery = Recovery()
        self._error = ''  # why the latest transition failed
        self._classes: tuple[str, ...] = ()  # of the latest model, also after a cleanup
        self._version = 0  # of the class map: rises when the classes change
        self.add_on_set_parameters_callback(
            lambda changes: parameters.check(changes, self.state()))
        parameters.declare(self)
        self._settings = parameters.read_settings(self, None)
        for sentence in parameters.unknown(self):
            self.get_logger().warning(sentence)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # Wall time also under use_sim_time: a paused bag must not silence the diagnostics.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._report, clock=clock)
        self.create_timer(RECOVERY_PERIOD_S, self._recover, self.transitions, clock)
        if self.get_parameter('autostart').value:
            self._start = self.create_timer(0.0, self._autostart, self.transitions, clock)

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model: SUCCESS, or FAILURE with the reason in the log and /diagnostics."""
        return self._try(self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publish the class map, start the worker, subscribe: SUCCESS."""
        return self._try(self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and stop the worker: SUCCESS, or ERROR if inference hangs."""
        return self._try(self._stop)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and the topics: SUCCESS."""
        return self._try(self._free)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free whatever is there, from any state: SUCCESS."""
        return self._try(self._free)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free, back to unconfigured: SUCCESS."""
        self._free()
        return SUCCESS

    def destroy_node(self) -> None:
        """Stop the worker before the publishers go."""
        self._free()
        self._log.close()
        super().destroy_node()

    def stop_loading(self) -> None:
        """Let a model that is being loaded go: on_configure returns soon."""
        if self._loading is not None:
            self._loading.stop()

    def _configure(self) -> None:
        with self.lock:
            settings = parameters.read_model_settings(self)
            self._loading = loading = Loading(settings)
            self._report()  # at once: a short load is seen, too
        try:
            detector = loading.run()
            with self.lock:
                self._detector = detector
                self._backend = detector.session.describe()
                for name in settings.cameras:
                    self._cameras.append(
                        Camera(self, name, self._wake, detector.card, settings))
                parameters.declare_classes(self, detector.card.classes)
                self._settings = parameters.read_settings(self, detector.card)
                self._version += detector.card.classes != self._classes
                self._classes = detector.card.classes
        finally:
            self._loading = None
        card = detector.card
        for name in parameters.unknown_classes(self, card.classes):
            self.get_logger().warning(
                f'{name} is ignored, the model knows {", ".join(card.classes)}')
        self.get_logger().info(f'{card.name}: {", ".join(card.classes)} at '
                               f'{card.input_size[0]}x{card.input_size[1]} on {self._backend}')

    def _activate(self) -> None:
        with self.lock:
            assert self._detector is not None
            self._publish_infos()
            for camera in self._cameras:
                camera.subscribe()
            self._worker = Worker(self._detector, self._cameras, self._wake,
                                  lambda: self._settings, self._recovery)
        self.get_logger().info('active: ' + ', '.join(
            f'{camera.image_topic} -> {camera.detections_topic}' for camera in self._cameras))
        for name in parameters.unknown_overrides(self):
            self.get_logger().warning(
                f'{name} is ignored: the node has no such topic, or does not offer that policy')

    def _try(self, work: Callable[[], None]) -> TransitionCallbackReturn:
        """Do what a transition asks for; say in log and /diagnostics why it failed."""
        unconfigured = self._detector is None
        try:
            work()
        except (UserError, ParameterException, Stopped) as error:
            result = TransitionCallbackReturn.FAILURE
            self._error = str(error) or type(error).__name__
        except Hangs as error:
            result = TransitionCallbackReturn.ERROR
            self._error = str(error)
        except Exception as error:  # rclpy would swallow it without a word
            result = TransitionCallbackReturn.ERROR
            self._error = f'{type(error).__name__}: {error}'
        else:
            self._error = ''
            return SUCCESS
        self.get_logger().error(self._error)
        if unconfigured:
            self._free()
        else:
            self._stop()
        return result

    def _stop(self) -> None:
        with self.lock:
            for camera in self._cameras:
                camera.unsubscribe()
            worker, self._worker = self._worker, None
        patience = STUCK_S if self.context.ok() else EXIT_S
        try:
            if worker is not None:
                worker.stop(patience)
        except Hangs:
            self.hangs = True
            with self.lock:
                self._detector = None  # it is in use, and remains that worker's
            raise

    def _free(self) -> None:
        try:
            self._stop()
        except Hangs as error:
            self.get_logger().error(str(error))
        with self.lock:
            for camera in self._cameras:
                camera.destroy()
            self._cameras = []
            detector, self._detector = self._detector, None
        if detector is not None:
            detector.session.close()
        return_memory()

    # Transitions that nobody asks for

    def transition_asked_for(self) -> None:
        """Leave the node to whoever asked for a transition."""
        self._recovery.give_up()

    def _autostart(self) -> None:
        self._start.cancel()
        # Unless somebody was quicker.
        if self.state() == 'unconfigured' and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def _recover(self) -> None:
        """Load the model anew if inference keeps failing, from whichever state that left."""
        if not self._settings.max_failures and self._recovery.seconds_left() is not None:
            self._recovery.give_up()
        if not self._recovery.begin():
            return
        self.get_logger().warning(
            f'inference keeps failing ({self._recovery.error}); the model is loaded anew, '
            f'attempt {self._recovery.restarts}')
        for state, trigger in (
                ('active', self.trigger_deactivate), ('inactive', self.trigger_cleanup),
                ('unconfigured', self.trigger_configure), ('inactive', self.trigger_activate)):
            if self.state() == state and trigger() != SUCCESS:
                self._recovery.again(self._error)
                return
        self._recovery.reloaded()

    # Parameters and reports

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set parameters, and use the new values from the next image on."""
        with self.lock:
            if reason := parameters.undeclared(self, [p.name for p in parameter_list]):
                return SetParametersResult(successful=False, reason=reason)
            result = super().set_parameters_atomically(parameter_list)
            before = self._settings
            card = None if self._detector is None else self._detector.card
            self._settings = parameters.read_settings(self, card)
            if self._worker is not None and (
                    self._settings.thresholds.min() != before.thresholds.min()):
                self._publish_infos()
            return result

    def _publish_infos(self) -> None:
        for camera in self._cameras:
            camera.publish_infos(float(self._settings.thresholds.min()), self._version)

    def _report(self) -> None:
        """Publish the diagnostics, and the histograms where they are wanted."""
        name = self.get_fully_qualified_name()
        with self.lock:
            active = self._worker is not None
            facts: dict[str, object] = {'cameras': len(self._cameras)}
            if self._detector is not None:
                facts |= {'model': self._detector.card.name, 'backend': self._backend}
            if self.hangs:
                facts['left behind'] = 'an inference that hangs; restart the node'
            statuses = [node_status(f'{name}: detector', self.state(), self._error,
                                    self._recovery, self._loading, facts)]
            for camera in self._cameras:
                statuses.append(camera.status(name, self._settings.no_input_warn_s))
                if active and self._settings.latency_histogram:
                    camera.publish_histogram()
                else:
                    camera.statistics.take_histogram()  # a new one begins when it is wanted
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(args: list[str] | None = None) -> None:
    """Run the node until it is shut down."""
    # The worker takes over from the executor at once, not after the usual 5 ms.
    sys.setswitchinterval(1e-4)
    try:
        rclpy.init(args=args)
    except RCLError as error:
        hint = '; name a folder in ROS_LOG_DIR' if 'log directory' in str(error) else ''
        sys.exit(f'thermal_detector: {error}{hint}')
    try:
        node = DetectorNode()
    except ParameterException as error:
        rclpy.try_shutdown()
        hint = (' (write 1.0, not 1)' if isinstance(error, InvalidParameterTypeException)
                and "expecting type 'DOUBLE'" in str(error) else '')
        sys.exit(f'thermal_detector: {error}{hint}')
    executor = NodeExecutor(node.transitions)
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RCLError:  # a timer published while the context went down
        if rclpy.ok():
            raise
    finally:
        # A second Ctrl-C must not interrupt the way out.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # This ends rclpy's thread that answers a signal by waking the executors: one destroyed
        # under it crashes the process.
        uninstall_signal_handlers()
        node.stop_loading()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # rclpy put its predecessor back
    if node.hangs:
        # The usual way out destroys libraries under the thread that is still in them.
        os._exit(1)


if __name__ == '__main__':
    main()
