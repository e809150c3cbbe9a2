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

"""The parameters that the nodes of a thermal camera share: session, transport, images."""

from os.path import expanduser

from cgdet_core.runtime.imaging.dead_pixels import MAX_SHARE
from cgdet_core.runtime.imaging.geometry import Crop
from cgdet_core.runtime.imaging.signal import CARD, POLARITIES, UNITS
from cgdet_core.runtime.inference.choice import BACKENDS
from cgdet_ros.node.parameters import Spec
from cgdet_ros.node.topics import CAMERA_NAME
from rclpy.node import Node

SIDES = ('top', 'bottom', 'left', 'right')


def refuse_topic(name: str) -> str:
    """Return why a text is no topic name, '' if it is one or empty."""
    return '' if not name or CAMERA_NAME.fullmatch(name.removeprefix('/')) else (
        'must be a topic name: letters, digits and _ between slashes, with a letter first')


SESSION_SPECS = (
    Spec('backend', 'auto', 'Inference backend; auto: TensorRT or TensorRT-RTX if usable, else '
         'the faster of ONNX Runtime and, if installed, OpenVINO, measured once', effect='static',
         choices=BACKENDS),
    Spec('threads', 0, 'CPU threads for inference; 0: the cores that affinity and the CPU quota '
         'of a container leave to the process',
         0, 256, effect='static'),
)
TRANSPORT_SPECS = (
    Spec('input_transport', 'raw', 'raw: sensor_msgs/Image on image_raw; compressed: '
         'sensor_msgs/CompressedImage (PNG, JPEG, TIFF) on image_raw/compressed',
         effect='static', choices=('raw', 'compressed')),
    Spec('image_transport', '', 'The same under the name that image_pipeline uses; empty: '
         'input_transport', effect='static', choices=('', 'raw', 'compressed')),
)
CAMERA_SPECS = (
    Spec('autostart', True, 'Configure and activate at start, without a lifecycle manager',
         effect='read_only'),
    Spec('max_image_age_s', 0.0, 'Skip images whose stamp is older, in seconds; 0: never', 0.0,
         3600.0),
    *(Spec(f'crop_{side}', 0, f'Pixels to crop at the {side} of every received image, '
           'for example telemetry rows', 0, 65535)
      for side in SIDES),
    Spec('max_dead_share', MAX_SHARE, 'Maximum share of NaN and infinite pixels in a 32FC1 image, '
         'which are filled from their neighbors; an image with more is skipped', 0.0, 0.5),
    Spec('debug_image', True, 'Publish debug_image, which is drawn only if there is a subscriber'),
    Spec('no_input_warn_s', 2.0, 'Report WARN in /diagnostics for a camera that has sent no image '
         'for this many seconds', 0.1, 3600.0),
    Spec('max_failures', 10, 'Reload the model after this many failed inferences in a row, '
         'with waits of 1, 2, 4 ... 60 s between attempts; 0: never', 0, 100000),
    Spec('unit', CARD, 'Unit of 16-bit and float images, for a model that is normalized by '
         "temperature; card: the card's kelvin_per_count and kelvin_offset, and kelvin",
         effect='static', choices=(CARD, *UNITS)),
    Spec('polarity', POLARITIES[0], 'What the camera shows bright (white_hot: warm objects)',
         effect='static', choices=POLARITIES),
    Spec('ffc_topic', '', 'std_msgs/Bool topic of the camera driver, true while the shutter is '
         "closed, relative to the camera's name; empty: frozen and flat images are recognized",
         effect='static', refusal=refuse_topic),
)


def read_path(node: Node, name: str) -> str:
    """Return a path, in which no shell has replaced ~."""
    return expanduser(node.get_parameter(name).value)


def read_transport(node: Node) -> str:
    """Return raw or compressed."""
    return str(node.get_parameter('image_transport').value
               or node.get_parameter('input_transport').value)


def read_crop(node: Node) -> Crop:
    """Return the crop of every received image."""
    return Crop(**{side: node.get_parameter(f'crop_{side}').value for side in SIDES})
