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
The RGB student of a coupled run, and the terms that couple it with the thermal student.

    L = ... + L_det(RGB student) + w (style L_SD + content L_CD + swap L_swap)
    L_swap = L_det(thermal head on the RGB pyramid) + L_det(RGB head on the thermal pyramid)

L_det is that of the thermal student, pseudo-labels included, in the samples that show RGB. See
`distillation.coupling` for L_SD and L_CD. Deployed models contain none of this.
"""

from collections.abc import Callable
import logging
from typing import Any, NamedTuple

from cgdet_core.detection.recipe import DetectionRecipe
from cgdet_core.detection.student import Student
from cgdet_core.detection.unlabeled import blank, Targets
from cgdet_core.distillation.coupling import (
    cells_of,
    Coupling,
    GradientMatch,
    hide,
    own_statistics,
    random_patches,
)
from cgdet_core.distillation.guide import TeacherPyramid
from cgdet_core.nets.trunk import gray_as_color
from cgdet_core.training.module import idle
import torch
from torch import nn, Tensor
from torchvision.ops import roi_align

_log = logging.getLogger(__name__)
Outputs = tuple[Tensor, Tensor]  # logits and box distributions of a head
Learn = Callable[[Outputs, Targets, Tensor | None], Tensor]  # L_det, pseudo-labels included


class Pairs(NamedTuple):
    """What the students and the thermal teacher see in the V samples that show RGB."""

    rows: list[int]
    thermal: list[Tensor]  # P3, P4, P5 (V, C, h, w)
    rgb: list[Tensor]
    teacher: list[Tensor] | None  # the thermal teacher's
    outputs: Outputs  # of the RGB student
    swapped: list[Outputs]


class Coupled(nn.Module):
    """Train the RGB student and couple it with the thermal student."""

    def __init__(self, recipe: DetectionRecipe, of_rgb: tuple[int, ...],
                 of_thermal: int | None) -> None:
        """Widths of the teachers' levels; of_thermal: None if it is the student's average."""
        super().__init__()
        assert recipe.coupled is not None
        self.config = recipe.coupled
        self.least_visible = recipe.augment.min_visible
        with torch.random.fork_rng(devices=[]):  # other weights are those without an RGB student
            self.student = Student(len(recipe.classes), rgb_model(recipe).model)
            self.coupling = Coupling(recipe.model.neck_channels, of_rgb,
                                     None if of_thermal is None else (of_thermal,) * 3)
        weights = {name: getattr(self.config, name) for name in ('style', 'content', 'swap')}
        self.matching = GradientMatch({name: w for name, w in weights.items() if w > 0},
                                      self.config.match_gradients)

    def start(self, thermal: Student, imagenet: bool = False) -> None:
        """Start as the thermal student that looks at gray pictures, but for an ImageNet trunk."""
        self.student.load_state_dict(
            gray_as_color(thermal.state_dict(), self.student.state_dict()))
        if imagenet:
            self.student.backbone.load_pretrained()

    def active(self, epoch: float) -> bool:
        """Return whether the RGB student is trained in an epoch."""
        return self.config.stop_epoch is None or epoch < self.config.stop_epoch

    def mask(self, batch: dict[str, Any], generator: torch.Generator) -> Tensor:
        """Hide patches of the pairs of a batch from both students; return the thermal images."""
        images, rows = batch['images'], batch.get('rgb_rows', [])
        size = images.shape[3], images.shape[2]
        visible = torch.ones(len(images), 1, *size[::-1])
        visible[rows] = random_patches(len(rows), size, self.config.patch, self.config.mask_ratio,
                                       generator)
        batch['visible'] = visible.to(images)
        batch['targets'] = self.seen(batch['targets'], batch['visible'])
        return hide(images, batch['visible']).to(memory_format=torch.channels_last)

    def seen(self, targets: Targets, visible: Tensor) -> Targets:
        """Make ignore regions of objects of which too little is visible (N, 1, H, W)."""
        shares = roi_align(visible, [t['boxes'].to(visible) for t in targets], 1,
                           aligned=True).flatten()
        found: Targets = []
        for target, share in zip(targets, shares.split([len(t['boxes']) for t in targets])):
            kept = share >= self.least_visible
            found.append({key: value[kept] for key, value in target.items() if key != 'ignored'})
            found[-1]['ignored'] = torch.cat([target['ignored'], target['boxes'][~kept]])
        return found

    def look(self, batch: dict[str, Any], thermal: Student, pyramid: list[Tensor],
             outputs: Outputs, teacher: Student) -> Pairs:
        """Run the RGB student and the swapped heads; every weight of `thermal` has been used."""
        rows = batch.get('rgb_rows', [])
        own = [level[rows] for level in pyramid]
        if not rows:  # the loss of a sample without any label, as other ranks may have pairs
            nothing = outputs[0][:1] * 0, outputs[1][:1] * 0
            return Pairs(rows, own, own, None, nothing, [nothing] * (2 if self.config.swap else 0))
        pixels = hide(batch['rgb'], batch['visible'][rows])
        rgb = self.student.pyramid(pixels.to(memory_format=torch.channels_last))
        found = self.student.head(rgb)
        swapped: list[Outputs] = []
        if self.config.swap > 0:
            for head, other in ((thermal.head, rgb), (self.student.head, own)):
                with own_statistics(head):
                    swapped.append(head(other))
        with torch.no_grad():
            seen = teacher.eval().pyramid(batch['images'][rows])
        return Pairs(rows, own, rgb, seen, found, swapped)

    def terms(self, batch: dict[str, Any], pairs: Pairs, pyramid: list[Tensor], det: Tensor,
              teacher: TeacherPyramid | None, learn: Learn, epoch: float) -> dict[str, Tensor]:
        """
        Return the terms of the RGB student, `rgb`, and of its coupling, each with its weight.

        batch has its pseudo-labels; pyramid and det: of the thermal student and the whole batch,
        det with pseudo-labels; teacher: what the RGB teacher sees in it.
        """
        targets, unlabeled, masks = self._targets(batch, pairs)
        raw = {'swap': torch.stack([learn(outputs, targets, unlabeled)
                                    for outputs in pairs.swapped]).sum()} if pairs.swapped else {}
        if teacher is not None:
            teacher = TeacherPyramid(*([level[pairs.rows] for level in part] for part in teacher))
        raw |= self.coupling(pairs.thermal, pairs.rgb, masks, pairs.teacher, teacher)
        raw = {name: raw[name] for name in self.matching.weights}
        # Later than the first steps: heads without training, or with statistics of the other
        # modality, have gradients that say little.
        if epoch >= self.config.warmup_epochs and not self.matching.done:
            self.matching.measure(det, raw, [*pyramid, *pairs.rgb])
            for line in self.matching.lines():
                _log.info(line)
        weight = self.config.weight_at(epoch)
        terms = {name: weight * self.matching.factor(name) * loss for name, loss in raw.items()}
        return {'rgb': learn(pairs.outputs, targets, unlabeled) + idle(self), **terms}

    def _targets(self, batch: dict[str, Any], pairs: Pairs,
                 ) -> tuple[Targets, Tensor | None, list[Tensor]]:
        """Return what the RGB student learns in the pairs, which have no labels, and its cells."""
        images, unlabeled = batch['images'], batch.get('unlabeled')
        size = images.shape[3], images.shape[2]
        if not pairs.rows:
            flags = torch.ones(1, dtype=torch.bool, device=images.device)
            targets = blank(batch['targets'][:1], flags, size)
            return targets, None if unlabeled is None else ~flags, cells_of(images[:0, :1])
        shown = batch['rgb_shown']
        targets = self.seen([batch['targets'][row] for row in pairs.rows], shown)
        for target, bare in zip(targets, batch['rgb_bare']):
            target['ignored'] = torch.cat([target['ignored'], bare])
        return targets, None if unlabeled is None else unlabeled[pairs.rows], cells_of(shown)


def rgb_model(recipe: DetectionRecipe) -> DetectionRecipe:
    """Return the recipe of the RGB student, for its sizes and its card."""
    model = recipe.model.model_copy(update={'in_channels': 3})
    return recipe.model_copy(update={'model': model})
