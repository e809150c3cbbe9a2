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

"""The inference thread: it processes the newest images, as many at once as the model takes."""

from threading import Thread

from cgdet_ros.node.image_input import Handover, ImageInput, Received


class Hangs(Exception):
    """A worker did not stop."""


class ImageWorker:
    """
    Process the newest images of the inputs in a thread of its own, which starts at once.

    It never waits for an input: a batch is the images that are there now, at most `at_once`, and
    inputs that were not served last time come first.
    """

    def __init__(self, inputs: list[ImageInput], at_once: int, wake: Handover) -> None:
        self._turns = list(inputs)  # who is served first
        self._at_once = at_once
        self._wake = wake
        self._running = True
        self._thread = Thread(target=self._run, name='worker', daemon=True)
        self._thread.start()

    def process(self, batch: list[tuple[ImageInput, Received]]) -> None:
        """Process images and publish the results while `running()`; must not raise."""
        raise NotImplementedError

    def running(self) -> bool:
        """Return False once `stop` was called: inputs and outputs are another worker's then."""
        return self._running

    def prepared(self) -> None:
        """Let the executor go on that waits in `ImageInput` for the preparation."""
        with self._wake:
            self._wake.notify_all()

    def stop(self, patience: float) -> None:
        """
        Publish no more, and end after the batch in progress.

        Hangs if that takes longer than `patience` seconds; the model remains the worker's.
        """
        with self._wake:
            self._running = False
            self._wake.notify_all()
        self._thread.join(patience)
        if self._thread.is_alive():
            raise Hangs(f'inference hangs: it was left behind after {patience:g} s, with its '
                        'memory; restart the node')

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self.running():
                    return  # it hung, and the inputs are another worker's now
                self._wake.idle = True
                self._wake.wait_for(
                    lambda: not self.running() or any(i.waits() for i in self._turns))
                self._wake.idle = False
                if not self.running():
                    return
                batch = self._take()
            self.process(batch)

    def _take(self) -> list[tuple[ImageInput, Received]]:
        chosen = [source for source in self._turns if source.waits()][:self._at_once]
        self._turns.sort(key=chosen.__contains__)  # stable: who was served goes to the end
        return [(source, received) for source in chosen if (received := source.take())]
