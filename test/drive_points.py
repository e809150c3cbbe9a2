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

"""Points of flir_night/drive, marked by eye: frame, RGB pixel, thermal pixel."""

# Poles, lamps, signs and a pedestrian.
BY_EYE = [
    (180, (103.4, 145.2), (21.8, 72.6)), (180, (258.8, 200.0), (184.6, 131.4)),
    (180, (288.0, 272.9), (214.5, 205.5)), (180, (216.3, 252.9), (139.4, 184.6)),
    (180, (115.1, 278.5), (34.2, 209.8)), (180, (655.4, 244.6), (593.8, 176.2)),
    (180, (668.3, 349.2), (604.6, 283.2)), (100, (542.8, 174.8), (477.1, 109.2)),
    (100, (416.0, 158.5), (347.5, 88.5)), (20, (102.3, 131.5), (20.9, 59.2)),
    (20, (147.2, 131.5), (66.5, 59.2)), (20, (192.2, 113.1), (116.3, 40.2)),
    (20, (625.5, 274.6), (559.4, 206.2)), (20, (291.8, 216.0), (217.8, 149.0))]
