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

"""The node, with a model that is loaded when a file exists, so that a test sets the duration."""

import os
from pathlib import Path
from time import sleep
from typing import Any

from cgdet_core.runtime import Detector
from cgdet_ros.detection.node import main

GATE = Path(os.environ['MODEL_GATE'])


def load_behind_gate(*arguments: Any) -> Detector:
    while not GATE.exists():
        sleep(0.01)
    return load(*arguments)


load = Detector.load
Detector.load = load_behind_gate  # type: ignore[method-assign]
main()
