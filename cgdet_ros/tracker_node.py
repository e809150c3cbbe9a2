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

"""The program `tracker_node`: `ros2 run cgdet_ros tracker_node`, or run this module."""

import os
import signal

# Ctrl-C before the node exists. An exception would become an ImportError where a library of C is
# imported.
signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from cgdet_ros.tracking.node import main  # noqa: E402

if __name__ == '__main__':
    main()
