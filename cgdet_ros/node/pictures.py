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

"""Pictures as messages."""

from array import array

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header


def to_debug_image(picture: NDArray[np.uint8], header: Header) -> Image:
    """Return a BGR picture (H, W, 3) as a bgr8 message with the header of the image."""
    data = array('B')
    # rclpy accepts an array unchecked and checks every single byte of other types.
    data.frombytes(np.ascontiguousarray(picture).data)
    height, width, channels = picture.shape
    return Image(header=header, height=height, width=width, encoding='bgr8',
                 step=width * channels, data=data)
