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

"""The tracker node's parameters: one table declares, describes and checks them."""

from dataclasses import dataclass, fields

from cgdet_core.runtime.files import SHIPPED_TRACKER
from cgdet_core.runtime.imaging.geometry import Crop
from cgdet_ros.node.camera_parameters import (
    CAMERA_SPECS,
    read_crop,
    read_path,
    read_transport,
    refuse_topic,
    SESSION_SPECS,
    TRANSPORT_SPECS,
)
from cgdet_ros.node.parameters import Spec
from rclpy.node import Node

SHIPPED = 'shipped'  # the detector of this package

SPECS = (
    Spec('model_path', '', 'ONNX file of a tracker with its model card next to it; empty: the '
         f'shipped model, {SHIPPED_TRACKER.rpartition("/")[2]}', effect='static'),
    Spec('detector_model_path', SHIPPED, 'ONNX file of a detector, which finds a lost target and '
         'the object at a point; shipped: the same as that of the detector node; empty: none',
         effect='static'),
    *SESSION_SPECS,
    *TRANSPORT_SPECS,
    Spec('max_targets', 1, 'Number of targets that are followed at a time; another start is '
         'refused', 1, 16),
    Spec('history_s', 2.0, 'Seconds of images that are kept, so that a target starts on the '
         'image with the stamp of its box; at most 128 images and 256 MiB', 0.1, 10.0,
         effect='static'),
    Spec('point_radius_px', 40.0, 'A point stands for the detection that contains it, or else for '
         'the nearest one within this distance', 0.0, 10000.0),
    Spec('point_size_px', 40.0, 'Width and height of the box around a point without a detection',
         4.0, 10000.0),
    Spec('rgb_topic', '', 'Topic of RGB images for a model that takes them, registered to the '
         'thermal pixels; a name that ends with /compressed has CompressedImage; empty: none',
         effect='static', refusal=refuse_topic),
    Spec('rgb_max_delay_s', 0.05, 'Maximum difference between the stamps of a thermal image and '
         'its RGB image; without one, thermal alone is used', 0.0, 10.0),
    *CAMERA_SPECS,
)


@dataclass(frozen=True)
class ModelSettings:
    """The parameters that are read once, in configure."""

    model_path: str
    detector_model_path: str
    backend: str
    threads: int
    input_transport: str
    history_s: float
    rgb_topic: str
    unit: str
    polarity: str
    ffc_topic: str


@dataclass(frozen=True)
class Settings:
    """The parameters that may change while running, read after a change and not per frame."""

    max_image_age_s: float
    no_input_warn_s: float
    max_failures: int
    debug_image: bool
    max_dead_share: float
    max_targets: int
    point_radius_px: float
    point_size_px: float
    rgb_max_delay_s: float
    crop: Crop


def read_model_settings(node: Node) -> ModelSettings:
    """Return the parameters that configure reads."""
    values = {f.name: node.get_parameter(f.name).value for f in fields(ModelSettings)}
    paths = {name: read_path(node, name) for name in ('model_path', 'detector_model_path')}
    return ModelSettings(**values | paths | {'input_transport': read_transport(node)})


def read_settings(node: Node) -> Settings:
    """Return the parameters that may change."""
    names = (f.name for f in fields(Settings) if f.name != 'crop')
    return Settings(**{name: node.get_parameter(name).value for name in names},
                    crop=read_crop(node))
