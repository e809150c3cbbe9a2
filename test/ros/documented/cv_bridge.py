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
The documented conversions of cv_bridge, for tests on machines without it: no wheel of it exists.

As in vision_opencv, cv_bridge/python/cv_bridge/core.py and src/cv_bridge.cpp: the encoding gives
type and channels, `passthrough` returns them unchanged, and color is converted by OpenCV.
"""

import re
from typing import Any

import cv2
import numpy as np

COLOR = {
    'rgb': cv2.COLOR_RGB2BGR, 'bgra': cv2.COLOR_BGRA2BGR, 'rgba': cv2.COLOR_RGBA2BGR,
    'yuv422': cv2.COLOR_YUV2BGR_UYVY, 'yuv422_yuy2': cv2.COLOR_YUV2BGR_YUY2,
    'bayer_rggb': cv2.COLOR_BayerBG2BGR, 'bayer_bggr': cv2.COLOR_BayerRG2BGR,
    'bayer_gbrg': cv2.COLOR_BayerGR2BGR, 'bayer_grbg': cv2.COLOR_BayerGB2BGR}
CHANNELS = {'rgb': 3, 'bgr': 3, 'rgba': 4, 'bgra': 4}
TYPES = {'8U': 'u1', '8S': 'i1', '16U': 'u2', '16S': 'i2', '32S': 'i4', '32F': 'f4', '64F': 'f8'}


class CvBridgeError(TypeError):
    """A conversion that does not exist."""


class CvBridge:
    """Convert image messages to OpenCV's arrays."""

    def imgmsg_to_cv2(self, message: Any, desired_encoding: str = 'passthrough') -> np.ndarray:
        encoding = message.encoding
        if generic := re.fullmatch(r'(8U|8S|16U|16S|32S|32F|64F)C([0-9]+)', encoding):
            kind, channels = TYPES[generic[1]], int(generic[2])
        elif encoding.startswith('yuv422'):
            kind, channels = 'u1', 2
        elif named := re.fullmatch(r'(mono|rgba?|bgra?|bayer_[rgb]{4})(8|16)', encoding):
            kind, channels = f'u{int(named[2]) // 8}', CHANNELS.get(named[1], 1)
        else:
            raise CvBridgeError(f'Unrecognized image encoding [{encoding}]')
        dtype = np.dtype(('>' if message.is_bigendian else '<') + kind)
        # Rows of whole pixels, whatever the step.
        shape = message.height, message.step // dtype.itemsize // channels, channels
        image = np.ndarray(shape, dtype, message.data)[:, :message.width]
        image = np.ascontiguousarray(image[..., 0] if channels == 1 else image)
        if message.is_bigendian:
            raise AttributeError('`newbyteorder` was removed')  # with numpy 2
        if desired_encoding in ('passthrough', encoding):
            return image
        return self._color(image, encoding, desired_encoding)

    def _color(self, image: np.ndarray, encoding: str, wanted: str) -> np.ndarray:
        if wanted not in ('bgr8', 'bgr16') or 'C' in encoding:
            raise CvBridgeError(f'[{encoding}] is not a color format, but [{wanted}] is')
        name = re.sub('(8|16)$', '', encoding)
        picture = image if name == 'bgr' else cv2.cvtColor(image, COLOR[name])
        if wanted == 'bgr8' and picture.dtype == np.uint16:
            return cv2.convertScaleAbs(picture, alpha=255 / 65535)
        return picture
