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

"""The inference thread, which processes the newest images in batches."""

from threading import Thread

from cgdet_ros.node.image_input import Handover, ImageInput, Received


class Hangs(Exception):
    """A worker did not stop in time."""


class ImageWorker:
    """
    Process the newest images of the inputs in a separate thread, which starts at once.

    It never waits for a particular input: a batch consists of the images that are waiting, at most
    `at_once`, and inputs that were not served last time come first.
    """

    def __init__(self, inputs: list[ImageInput], at_once: int, wake: Handover) -> None:
        self._turns = list(inputs)  # in the order in which they are served
        self._at_once = at_once
        self._wake = wake
        self._running = True
        self._thread = Thread(target=self._run, name='worker', daemon=True)
        self._thread.start()

    def process(self, batch: list[tuple[ImageInput, Received]]) -> None:
        """Process images and publish the results while `running()`; must not raise."""
        raise NotImplementedError

    def running(self) -> bool:
        """Return False after `stop`: inputs and outputs may then belong to another worker."""
        return self._running

    def prepared(self) -> None:
        """Wake the executor, which waits in `ImageInput` until the images are prepared."""
        with self._wake:
            self._wake.notify_all()

    def stop(self, patience: float) -> None:
        """
        Stop publishing, and end the thread after the current batch.

        Hangs if that takes longer than `patience` seconds; the worker then keeps the model.
        """
        with self._wake:
            self._running = False
            self._wake.notify_all()
        self._thread.join(patience)
        if self._thread.is_alive():
            raise Hangs(f'inference hangs: it did not stop within {patience:g} s and keeps its '
                        'memory; restart the node')

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self.running():
                    return  # it hung: the inputs now belong to another worker
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
        self._turns.sort(key=chosen.__contains__)  # stable: served inputs move to the end
        return [(source, received) for source in chosen if (received := source.take())]
