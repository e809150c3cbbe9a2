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

"""Pixels of image messages: our own view of five encodings, cv_bridge for all others."""

from array import array
from functools import cache
import importlib
import re
from typing import Any

from cgdet_core.runtime.imaging.message import data_of, encoding_of, LIVE, view_pixels
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

# Viewed without a copy and checked; cv_bridge would scale 16 bits to 8.
OWN = ('mono8', '8UC1', 'mono16', '16UC1', '32FC1')
SET = f'set the driver to one of {", ".join(OWN)}'
GENERIC = ('UC', 'SC', 'FC')  # OpenCV's types, which have no color order
NAMES = {'uyvy': 'yuv422', 'yuyv': 'yuv422_yuy2'}  # newer names, which cv_bridge does not know
TYPE = re.compile(r'(8|16|32|64)[USF]C(\d+)')
CHANNELS = {'rgb': 3, 'bgr': 3, 'rgba': 4, 'bgra': 4, 'baye': 1}
COLOR = re.compile(r'(rgba|bgra|rgb|bgr|bayer_[rgb]{4})(8|16)')
YUV = re.compile(r'yuv422\w*|uyvy|yuyv|nv\d\d')


def read_pixels(message: Image | CompressedImage) -> NDArray[Any]:
    """
    Return the pixels of a message: (H, W) uint8, uint16 or float32, or BGR (H, W, 3).

    ValueError if the message is not a valid image, or has an encoding that requires cv_bridge,
    which is missing or cannot convert it.
    """
    if hasattr(message, 'format') or message.encoding in OWN:
        return view_pixels(message, LIVE)
    encoding = encoding_of(message)[:40]
    data = data_of(message)  # raises ValueError where cv_bridge fails in various ways
    generic = any(kind in encoding for kind in GENERIC)
    wanted = 'passthrough' if generic else 'bgr16' if encoding.endswith('16') else 'bgr8'
    convert = _converter(encoding)
    try:
        pixels = np.asarray(convert(_plain(message, data), wanted))
    except (ImportError, AttributeError, SystemError) as error:  # of its compiled part
        raise ValueError(_required(encoding, f'cannot be loaded with numpy {np.__version__} '
                                   f'({error})')) from None
    except Exception as error:  # CvBridgeError, and those of numpy
        raise ValueError(_unknown(encoding) or (
            f'cv_bridge cannot convert the image encoding {encoding!r}: {error}; {SET}')) from None
    return _thermal(pixels, encoding)


def _plain(message: Image, data: NDArray[np.uint8]) -> Image:
    """
    Return the message, or a copy that cv_bridge reads correctly.

    It shifts rows whose step is not a whole number of pixels, and fails for other byte orders
    than the machine's with numpy 2. data: of the message.
    """
    encoding = NAMES.get(message.encoding, message.encoding)
    if found := TYPE.fullmatch(encoding):
        size, channels = int(found[1]) // 8, int(found[2])
    elif found := COLOR.fullmatch(encoding):
        size, channels = int(found[2]) // 8, CHANNELS[found[1][:4]]
    else:
        size, channels = 1, 2  # YUV
    row = message.width * size * channels
    if encoding == message.encoding and not message.step % (size * channels) and not (
            message.is_bigendian and size > 1) or row > message.step:
        return message
    rows = data.reshape(message.height, message.step)[:, :row]
    values = np.ascontiguousarray(rows).view(f'{">" if message.is_bigendian else "<"}u{size}')
    return Image(height=message.height, width=message.width, encoding=encoding, step=row,
                 data=array('B', values.astype(f'u{size}').tobytes()))


def _converter(encoding: str) -> Any:
    try:
        return _bridge().imgmsg_to_cv2
    except ImportError:
        raise ValueError(_required(encoding, 'is missing')) from None
    except Exception as error:  # a build for another numpy raises several kinds
        raise ValueError(_required(encoding, f'cannot be loaded ({error})')) from None


@cache
def _bridge() -> Any:
    return importlib.import_module('cv_bridge').CvBridge()


def _unknown(encoding: str) -> str:
    """Return a sentence for an encoding that ROS does not have, nothing for others."""
    if any(known.fullmatch(encoding) for known in (TYPE, COLOR, YUV)):
        return ''
    return f'the image encoding {encoding!r} is none of ROS; {SET}'


def _required(encoding: str, why: str) -> str:
    return _unknown(encoding) or (
        f'the image encoding {encoding!r} requires cv_bridge, which {why}: install it '
        f'(ros-$ROS_DISTRO-cv-bridge), or {SET}')


def _thermal(pixels: NDArray[Any], encoding: str) -> NDArray[Any]:
    """Return pixels of any type as one that a thermal frame can have; color is BGR."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 3:
        if pixels.shape[2] < 3:
            raise ValueError(f'the image encoding {encoding!r} has {pixels.shape[2]} channels, '
                             'a thermal image must be gray or color')
        pixels = pixels[..., :3]
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        pixels = pixels.astype(np.float32)  # values are kept, unlike those of a scaled type
    return np.ascontiguousarray(pixels)
