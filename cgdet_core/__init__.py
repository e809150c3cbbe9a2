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

"""
CGDet: small thermal detectors, trained with the help of RGB and run on thermal images only.

    import cgdet_core as cg
    detector = cg.load()
    print(detector('image.png'))
"""

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cgdet_core.runtime import Detector

    __version__: str

__all__ = ['__version__', 'load']


def load(model: str | PathLike[str] | None = None, *, backend: str = 'auto', threads: int = 0,
         score_threshold: float | None = None) -> 'Detector':
    """
    Load a model and return its detector, which is called with an image file or an array.

    model: an ONNX file with its card, a checkpoint (requires torch), or the name of a model of
    this package, such as 'thermal'; None for the shipped model. backend: of an ONNX file, as
    `cgdet detect --backend`. threads: of the CPU, 0 for all cores. score_threshold: minimum score
    of all classes; None for those of the card. UserError, a ValueError, states in one sentence
    what is wrong.
    """
    from dataclasses import replace
    from pathlib import Path

    from cgdet_core.detection.predict import open_detector
    from cgdet_core.runtime.files import model_file

    path = model_file('shipped' if model is None else Path(model))
    detector = open_detector(path, backend, threads)
    if score_threshold is not None:
        detector.card = replace(detector.card, score_threshold=score_threshold,
                                class_thresholds={})
    return detector


def __getattr__(name: str) -> str:
    """Return `__version__`: of the source checkout, or of the installed package."""
    if name != '__version__':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from pathlib import Path

    manifest = Path(__file__).resolve().parents[1] / 'package.xml'
    if manifest.is_file():
        from xml.etree import ElementTree

        return ElementTree.parse(manifest).findtext('version', '')
    from importlib.metadata import version

    return version('cgdet_ros')
