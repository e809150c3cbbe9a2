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

"""The robot's runtime: thermal frames in, detections out. No torch, no ROS; logs by `logging`."""

from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.detection.postprocess import Detections
from cgdet_core.runtime.detection.result import Result
from cgdet_core.runtime.imaging.normalization import Normalization, normalize
from cgdet_core.runtime.inference.card import load_card, ModelCard
from cgdet_core.runtime.inference.session import Session

__all__ = ['DetectionCard', 'Detections', 'Detector', 'load_card', 'ModelCard', 'Normalization',
           'normalize', 'Result', 'Session']
