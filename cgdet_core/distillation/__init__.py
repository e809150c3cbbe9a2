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
Distillation from RGB to a thermal network, in training only.

CGDet (arXiv 2511.01435) trains a thermal student by

    L_total = L_det + lambda_rcs L_rcs + lambda_cms L_cms

- L_det is the detector's (detection/loss.py). detection/training.py returns the weighted terms,
  and training/module.py adds them up to L_total.
- L_rcs is `contrast` (RCS, recipe key `rcs`); `rois` pools regions for L_rcs and L_cms.
- L_cms is `guidance` (CMG, recipe key `cmg`); one of the `objectives` compares features.
- `ScheduledLoss` (training/recipe.py) sets the lambdas over the epochs.
- The teacher, a frozen RGB network, is one of the `teachers`.

A View (`views`) records where an RGB picture is in an augmented sample, `layout` maps the
teacher's features to the student's cells, and `guide` runs the teacher or looks up the features of
whole pictures that it has stored.

`regions` and `predictions` are for frames without labels (CMD, arXiv 2108.00187), and `coupling`
is for an RGB student that is trained with the thermal one (CKD, arXiv 2410.11586).
docs/papers.md lists all equations of the three papers.
"""
