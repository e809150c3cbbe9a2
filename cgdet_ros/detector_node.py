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

import signal
import sys
from threading import Condition, Thread
from time import perf_counter

from cgdet_core.runtime import Detector
from cgdet_core.runtime.image_message import view_image
from cgdet_ros import parameters
from cgdet_ros.conversions import to_detection_array, to_label_info, to_vision_info
from cgdet_ros.diagnostics import Statistics
from cgdet_ros.logs import RosLog
from cgdet_ros.resources import share_file
from diagnostic_msgs.msg import DiagnosticArray
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterTypeException, ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo

RCLError = rclpy_implementation.RCLError
INPUT_QOS = QoSProfile(  # REP-2003 sensor data, but only ever the newest image
    depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.VOLATILE)
LATCHED_QOS = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL)


class DetectorNode(LifecycleNode):
    """
    Detect objects in the newest thermal image, always.

    The executor puts each image into a slot that holds one; a worker thread takes it,
    detects and publishes. What arrives meanwhile replaces what waits.
    """

    def __init__(self, **node_options: object) -> None:
        super().__init__('thermal_detector', **node_options)
        self._log = RosLog(self.get_logger())
        self.add_on_set_parameters_callback(self._check_parameters)
        parameters.declare(self)
        self._detector: Detector | None = None
        self._error = ''
        self._told_threshold = -1.0  # in the latest LabelInfo
        self._versions = 0  # of the class map: rises with every model loaded
        self._statistics = Statistics()
        self._slot: tuple[Image, float] | None = None
        self._wake = Condition()
        self._running = False
        self._worker: Thread | None = None
        self._subscription: Subscription | None = None
        self._detections = self.create_publisher(Detection2DArray, 'detections', 10)
        self._label_info = self.create_publisher(LabelInfo, 'label_info', LATCHED_QOS)
        self._vision_info = self.create_publisher(VisionInfo, 'vision_info', LATCHED_QOS)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # Wall time also under use_sim_time: a paused bag must not silence the diagnostics.
        self.create_timer(1.0, self._publish_diagnostics,
                          clock=Clock(clock_type=ClockType.STEADY_TIME))

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model: SUCCESS, or FAILURE with the reason in the log and /diagnostics."""
        try:
            path = self.get_parameter('model_path').value or share_file('models/thermal.onnx')
            self._detector = Detector.load(path, self.get_parameter('threads').value,
                                           self.get_parameter('backend').value)
        except Exception as error:  # rclpy would swallow it without a word
            return self._refuse(error)
        self._error = ''
        self._versions += 1
        card = self._detector.card
        self.get_logger().info(
            f'{card.name}: {", ".join(card.classes)} at {card.input_size[0]}x'
            f'{card.input_size[1]} on {self._detector.backend.describe()}')
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Publish the class map, start the worker, subscribe: SUCCESS."""
        assert self._detector is not None
        self._statistics = Statistics()
        try:
            self._publish_infos()
            self._subscription = self.create_subscription(
                Image, 'image_raw', self._receive, INPUT_QOS,
                qos_overriding_options=QoSOverridingOptions.with_default_policies())
        except Exception as error:  # a bad qos_overrides entry, for example
            return self._refuse(error)
        self._error = ''
        self._running = True
        self._worker = Thread(target=self._work, name='detector', daemon=True)
        self._worker.start()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and stop the worker: SUCCESS."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model: SUCCESS."""
        self._detector = None
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free whatever is there, from any state: SUCCESS."""
        self._stop()
        self._detector = None
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free, back to unconfigured: SUCCESS."""
        return self.on_shutdown(state)

    def destroy_node(self) -> None:
        """Stop the worker before the publishers go."""
        self._stop()
        self._detector = None
        self._log.close()
        super().destroy_node()

    def _refuse(self, error: Exception) -> TransitionCallbackReturn:
        """Say in the log and in /diagnostics why a transition failed."""
        self._error = str(error) or type(error).__name__
        self.get_logger().error(self._error)
        return TransitionCallbackReturn.FAILURE

    def _stop(self) -> None:
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
        with self._wake:
            self._running = False
            self._slot = None
            self._wake.notify()
        if self._worker is not None:
            self._worker.join()
            self._worker = None

    # Frames

    def _receive(self, message: Image) -> None:
        now = perf_counter()
        self._statistics.frame_received()
        with self._wake:
            if self._slot is not None:
                self._statistics.frame_dropped()
            self._slot = (message, now)
            self._wake.notify()

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._slot is not None or not self._running)
                if not self._running:
                    return
                assert self._slot is not None
                message, received = self._slot
                self._slot = None
            try:
                self._process(message, received)
            except Exception as error:  # one bad frame must never end the node
                if not self.context.ok():
                    return  # Ctrl-C took the publishers away
                text = str(error) or type(error).__name__
                self._statistics.frame_failed(message.encoding, text)
                self.get_logger().error(f'image skipped: {text}', throttle_duration_sec=5.0)

    def _process(self, message: Image, received: float) -> None:
        assert self._detector is not None
        age = (self.get_clock().now() - Time.from_msg(
            message.header.stamp, clock_type=self.get_clock().clock_type)).nanoseconds * 1e-9
        limit = self.get_parameter('max_image_age_s').value
        if limit and age > limit:
            self._statistics.frame_too_old(age)
            return
        found = self._detector.detect(view_image(message), self._threshold())
        self._detections.publish(to_detection_array(found, message.header))
        self._statistics.frame_done(message.encoding, perf_counter() - received,
                                    self._detector.last_timings, age)

    def _threshold(self) -> float:
        assert self._detector is not None
        value = float(self.get_parameter('score_threshold').value)
        return value if value >= 0 else self._detector.card.score_threshold

    # Reports

    def _state(self) -> str:
        return str(self._state_machine.current_state[1])

    def _check_parameters(self, changes: list[Parameter]) -> object:
        return parameters.check(changes, self._state() == 'unconfigured')

    def _publish_infos(self) -> None:
        """Publish the latched class map with the threshold in force, and where it is found."""
        assert self._detector is not None
        header = Header(stamp=self.get_clock().now().to_msg())
        location = f'{self.get_fully_qualified_name()}/label_info'
        self._told_threshold = self._threshold()
        self._label_info.publish(
            to_label_info(self._detector.card, self._told_threshold, header))
        self._vision_info.publish(
            to_vision_info(self._detector.card, location, self._versions, header))

    def _publish_diagnostics(self) -> None:
        details = {}
        if self._running and self._threshold() != self._told_threshold:
            self._publish_infos()
        if self._detector is not None:
            details = {'model': self._detector.card.name,
                       'backend': self._detector.backend.describe()}
        status = self._statistics.status(
            f'{self.get_fully_qualified_name()}: detector', self._state(), self._error,
            self.get_parameter('no_input_warn_s').value, details)
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(args: list[str] | None = None) -> None:
    """Run the node until it is shut down."""
    # The worker takes over from the executor at once, not after the usual 5 ms.
    sys.setswitchinterval(1e-4)
    rclpy.init(args=args)
    try:
        node = DetectorNode()
    except ParameterException as error:
        rclpy.try_shutdown()
        hint = ' (write 1.0, not 1)' if isinstance(error, InvalidParameterTypeException) else ''
        sys.exit(f'thermal_detector: {error}{hint}')
    try:
        if node.get_parameter('autostart').value:
            if node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                node.trigger_activate()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RCLError:  # a timer published while the context went down
        if rclpy.ok():
            raise
    finally:
        # A second Ctrl-C must not interrupt the way out.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        node.destroy_node()
        rclpy.try_shutdown()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # rclpy put its predecessor back


if __name__ == '__main__':
    main()
