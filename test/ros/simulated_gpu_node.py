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

"""The node on a simulated GPU: TensorRT-RTX builds the engine, ONNX Runtime runs the model."""

import os
from pathlib import Path
import sys
from time import sleep
from types import SimpleNamespace
from typing import Any

from cgdet_core.runtime.tensorrt import building
from cgdet_ros.detection.node import main
from simulated_gpu import Cudart, Engine
import tensorrt_rtx

MODEL, STEP_S = Path(os.environ['SIMULATED_MODEL']), float(os.environ['SIMULATED_STEP_S'])


class Runtime:
    """Return the model for any engine; the cache checks the engine file."""

    def __init__(self, logger: Any) -> None:
        pass

    def deserialize_cuda_engine(self, payload: bytes) -> Engine:
        return Engine(cudart, MODEL.read_bytes())


def slow_monitor(module: Any, cancelled: Any) -> Any:
    """Slow down each step of the builder, as on a robot."""
    def is_set() -> bool:
        sleep(STEP_S)
        return bool(cancelled.is_set())

    return monitor(module, SimpleNamespace(is_set=is_set))  # type: ignore[arg-type]


cudart = Cudart((8, 6))
monitor, building._monitor = building._monitor, slow_monitor
Engine.data_type, Engine.modes = tensorrt_rtx.DataType.FLOAT, tensorrt_rtx.TensorIOMode
tensorrt_rtx.Runtime = Runtime
sys.modules['cuda.bindings'] = SimpleNamespace(runtime=cudart)  # type: ignore[assignment]
main()
