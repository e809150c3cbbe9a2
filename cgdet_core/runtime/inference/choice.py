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

"""Open a model in the requested session, or in the best one that runs here."""

import logging
import os
from pathlib import Path

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import share_file, SHIPPED_INT8, SHIPPED_MODEL
from cgdet_core.runtime.inference.card import ModelCard
from cgdet_core.runtime.inference.comparison import open_faster
from cgdet_core.runtime.inference.onnxruntime import load_onnxruntime, OnnxRuntimeSession
from cgdet_core.runtime.inference.openvino import OpenVinoSession, VARIANTS
from cgdet_core.runtime.inference.session import Session
from cgdet_core.runtime.tensorrt.building import FLAVORS, Unavailable
from cgdet_core.runtime.tensorrt.cache import EngineCache, Progress
from cgdet_core.runtime.tensorrt.session import check_device, TensorRTSession

BACKENDS = ('auto', 'onnxruntime', *VARIANTS, *FLAVORS)
VARIABLE = 'CGDET_CPU_BACKEND'  # names a backend that auto uses on the CPU, without measuring
_log = logging.getLogger(__name__)


def open_session(model: str | Path, card: ModelCard, name: str = 'auto', threads: int = 0,
                 cache: EngineCache | None = None, progress: Progress | None = None) -> Session:
    """
    Load a model; "auto" tries TensorRT, TensorRT-RTX, then the CPU, and logs why.

    On the CPU it uses what CGDET_CPU_BACKEND names; otherwise ONNX Runtime, or OpenVINO if that is
    installed and was measured as faster.

    name: the option `backend`. threads: of the CPU. cache and progress: for sessions that compile
    the model first; by default the user's cache, and warnings with the elapsed seconds. UserError
    states what is missing.
    """
    if name not in BACKENDS:
        raise UserError(f'There is no backend {name!r}; choose from {", ".join(BACKENDS)}.')
    if name == 'onnxruntime':
        return OnnxRuntimeSession(model, card, threads)
    if name != 'auto':
        try:
            if name in VARIANTS:
                return OpenVinoSession(model, card, name, threads, cache, progress)
            return TensorRTSession(model, card, name, cache, progress)
        except UserError:
            raise
        except Exception as error:  # the libraries raise anything
            title = FLAVORS.get(name, 'OpenVINO')
            raise UserError(f'{title} failed: {_words(error)}.') from error
    reasons = []
    for flavor in FLAVORS:
        try:
            session: Session = TensorRTSession(model, card, flavor, cache, progress)
        except Unavailable as error:
            reasons.append(error.why)
            continue
        except Exception as error:  # unexpected on this GPU; the libraries raise anything
            _log.warning('%s is skipped: %s', FLAVORS[flavor], _words(error))
            reasons.append(f'{FLAVORS[flavor]} failed')
            continue
        break
    else:
        if fixed := os.environ.get(VARIABLE):
            session = open_session(model, card, fixed, threads, cache, progress)
            reasons.append(f'{VARIABLE} is set')
        else:
            session, why = open_faster(Path(model), card, threads, cache, progress)
            reasons.append(why)
    _log.info('Inference by %s, as %s', session.describe(),
              ' and '.join(reasons) or 'TensorRT is the first choice')
    return session


def shipped_model(backend: str = 'auto') -> Path:
    """
    Return the shipped file for a live camera here: the default in FP32 for a GPU, INT8 for a CPU.

    On a CPU thermal_int8 takes less than half of the time, and leaves some to other programs.
    """
    gpus = [flavor for flavor in FLAVORS if backend in ('auto', flavor) and _runs(flavor)]
    cuda = backend in ('auto', 'onnxruntime') and (
        'CUDAExecutionProvider' in load_onnxruntime().get_available_providers())
    return share_file(SHIPPED_MODEL if gpus or cuda or backend == 'openvino_gpu'
                      else SHIPPED_INT8)


def _runs(flavor: str) -> bool:
    try:
        check_device(flavor)
    except Unavailable:
        return False
    return True


def _words(error: Exception) -> str:
    return str(error).rstrip('.') or type(error).__name__
