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
What RGB teaches a thermal network: the losses of three papers, which exist in training only.

CGDet (arXiv 2511.01435) trains a thermal student by

    L_total = L_det + lambda_rcs L_rcs + lambda_cms L_cms

- L_det is the task's own, in detection/loss.py; the task's training module sums up L_total.
- L_rcs is `contrast` (RCS, recipe key `rcs`); RoIs are `rois`, for both.
- L_cms is `guidance` (CMG, recipe key `cmg`), comparing features by one of the `objectives`.
- The lambdas over the epochs are `schedule`.
- The teacher, a frozen network that knows RGB, is one of the `teachers`.

How the teacher sees a training batch: a View (`views`) says where in an augmented sample an RGB
picture lies, `layout` on which of the student's cells its features fall, `feature_cache` keeps the
features of whole pictures, and `guide` runs the teacher or looks them up.

Of CKD (arXiv 2410.11586) the split of style and content is an objective; CMD (arXiv 2108.00187) is
not built. docs/papers.md lists all equations of the three.
"""
