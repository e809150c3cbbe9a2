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

"""Check a model: file, card, engine and inference."""

from pathlib import Path
from statistics import median
from time import perf_counter

from cgdet_core.doctor import Check
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.inference.card import load_card, ModelCard
from cgdet_core.runtime.tensorrt.building import engine_key, FLAVORS, Unavailable
from cgdet_core.runtime.tensorrt.cache import EngineCache
from cgdet_core.runtime.tensorrt.session import check_device
import numpy as np

FRAMES = 5
FRAME = (512, 640)  # height and width of the usual thermal camera, 16 bits


def model_checks(model: Path) -> list[Check]:
    """Check a model up to its first detections; stop at the first failure."""
    try:
        card = load_card(model, DetectionCard)
    except (UserError, OSError) as error:
        return [Check('model', 'file and card', 'FAIL', str(error),
                      'export both again with "cgdet export", or choose another model')]
    width, height = card.input_size
    checks = [Check('model', 'file and card', 'OK',
                    f'{model}: {", ".join(card.classes)} at {width}x{height}, {card.precision}, '
                    f'hash {card.onnx_sha256[:12]} matches')]
    engine, ready = engine_check(model, card)
    checks.append(engine)
    try:
        # Building a missing engine takes minutes: the report only advises it.
        detector = Detector.load(model, backend='auto' if ready else 'onnxruntime')
        frame = np.random.default_rng(0).integers(7000, 8000, FRAME, dtype=np.uint16)
        seconds = []
        for _ in range(FRAMES):
            start = perf_counter()
            detector.detect(frame)
            seconds.append(perf_counter() - start)
    except Exception as error:  # the libraries raise anything
        return [*checks, Check('model', 'inference', 'FAIL', str(error) or type(error).__name__,
                               'try the backend onnxruntime or another model')]
    return [*checks, Check('model', 'inference', 'OK',
                           f'{median(seconds) * 1e3:.1f} ms for a 640x512 16-bit frame on '
                           f'{detector.session.describe()}')]


def engine_check(model: Path, card: ModelCard) -> tuple[Check, bool]:
    """Check for the engine that "auto" needs; also return whether a load takes no build."""
    cache = EngineCache()
    for flavor in FLAVORS:
        try:
            tensorrt, _, gpu = check_device(flavor)
        except Unavailable:
            continue
        key = engine_key(tensorrt, card, (gpu.target,), gpu.name)
        for found in cache.matching(key, model):
            return Check('model', 'engine', 'OK', f'{found.path} for {gpu.name}'), True
        return Check('model', 'engine', 'WARN',
                     f'none for {gpu.name} and {tensorrt.title} in {cache.folder}',
                     f'the first start will build it; build it now: cgdet build-engine {model}'
                     ), False
    return Check('model', 'engine', 'OK', f'none needed on a CPU; {len(cache.files())} '
                 f'files in {cache.folder}'), True
