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

"""Task-aligned assignment, against a reference of plain loops."""

from cgdet_core.detection.assignment import assign, Assignment
from cgdet_core.detection.head import cell_centers
import pytest
import torch
from torchvision.ops import box_iou


def scene(seed: int):
    generator = torch.Generator().manual_seed(seed)
    centers, strides = cell_centers(64, 96, torch.device('cpu'))
    cells = len(centers)
    half = torch.rand(cells, 2, generator=generator) * 14 + 2
    boxes = torch.cat([centers - half, centers + half], 1)
    scores = torch.rand(cells, 3, generator=generator)
    corner = torch.rand(4, 2, generator=generator) * torch.tensor([60.0, 30.0])
    gt = torch.cat([corner, corner + torch.rand(4, 2, generator=generator) * 28 + 3], 1)
    return scores, boxes, centers, strides, gt, torch.tensor([0, 1, 2, 1])


def assign_one(scores, boxes, centers, strides, gt, labels, **settings) -> Assignment:
    """Assign in a batch of one image."""
    return assign(scores[None], boxes[None], centers, strides, gt, labels,
                  torch.zeros(len(gt), dtype=torch.long), **settings)


def reference(scores, boxes, centers, strides, gt, labels, top_k, alpha=1.0, beta=6.0):
    """Return {cell: (object, quality)}."""
    iou = box_iou(gt, boxes)
    wanted: dict[int, int] = {}
    alignment = torch.zeros_like(iou)
    for m in range(len(gt)):
        candidates = []
        for a in range(len(centers)):
            inside = True
            for d in (0, 1):
                middle = (gt[m, d] + gt[m, d + 2]) / 2
                reach = max((gt[m, d + 2] - gt[m, d]) / 2, strides[a, 0])
                inside &= bool(abs(centers[a, d] - middle) < reach)
            if inside:
                alignment[m, a] = scores[a, labels[m]] ** alpha * (iou[m, a] ** beta + 1e-9)
                candidates.append(a)
        best = sorted(candidates, key=lambda a: -float(alignment[m, a]))[:top_k]
        for a in best:
            if a not in wanted or iou[m, a] > iou[wanted[a], a]:
                wanted[a] = m
    result = {}
    for a, m in wanted.items():
        own = [b for b, k in wanted.items() if k == m]
        peak = max(float(alignment[m, b]) for b in own)
        result[a] = (m, float(alignment[m, a]) / peak * max(float(iou[m, b]) for b in own))
    return result


@pytest.mark.parametrize('seed', range(6))
def test_equals_the_reference(seed: int) -> None:
    data = scene(seed)
    found = assign_one(*data, top_k=5)
    expected = reference(*data, top_k=5)
    assert {int(c): int(o) for c, o in zip(found.cells, found.objects)} == {
        a: m for a, (m, _) in expected.items()}
    for cell, quality in zip(found.cells.tolist(), found.quality.tolist()):
        assert quality == pytest.approx(expected[cell][1], abs=1e-5)


def test_an_object_narrower_than_a_cell_gets_cells() -> None:
    scores, boxes, centers, strides, _, _ = scene(0)
    found = assign_one(scores, boxes, centers, strides,
                       torch.tensor([[16.5, 16.5, 18.5, 22.5]]), torch.tensor([0]))
    assert len(found.cells) > 0


def test_no_objects_no_positives() -> None:
    scores, boxes, centers, strides, gt, labels = scene(0)
    found = assign_one(scores, boxes, centers, strides, gt[:0], labels[:0])
    assert len(found.cells) == len(found.objects) == len(found.quality) == 0


def densely(scores, boxes, centers, strides, gt_boxes, gt_labels, top_k=13) -> Assignment:
    """Assign the objects of one image to all cells, as a matrix of objects and cells."""
    middle = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
    half = (gt_boxes[:, 2:] - gt_boxes[:, :2]) / 2
    reach = torch.maximum(half[:, None], strides[None])
    inside = ((centers[None] - middle[:, None]).abs() < reach).all(-1)
    iou = box_iou(gt_boxes, boxes)
    alignment = scores[:, gt_labels].T * (iou.pow(6) + 1e-9) * inside
    top = alignment.topk(min(top_k, alignment.shape[1]), dim=1).indices
    wanted = torch.zeros_like(inside).scatter_(1, top, True) & inside
    best_iou, owner = torch.where(wanted, iou, -1.0).max(0)
    cells = torch.nonzero(best_iou >= 0).squeeze(1)
    objects = owner[cells]
    chosen = torch.zeros_like(wanted)
    chosen[objects, cells] = True
    alignment = alignment * chosen
    peak_alignment = alignment.amax(1, keepdim=True).clamp(min=1e-12)
    peak_iou = (iou * chosen).amax(1, keepdim=True)
    quality = (alignment / peak_alignment * peak_iou)[objects, cells]
    return Assignment(torch.zeros_like(cells), cells, objects, quality.clamp(0, 1))


@pytest.mark.parametrize('seed', range(8))
def test_a_batch_equals_its_images_one_by_one(seed: int) -> None:
    """Crowded images, twice the same object, tiny and huge objects, and images with none."""
    generator = torch.Generator().manual_seed(seed)
    centers, strides = cell_centers(128, 160, torch.device('cpu'))
    counts = [12, 0, 1, 40, 3][seed % 2:]
    shape = len(counts), len(centers)
    half = torch.rand(*shape, 2, generator=generator) * 30
    near = centers + torch.randn(*shape, 2, generator=generator) * 4
    boxes = torch.cat([near - half, near + half], -1)
    scores = torch.rand(*shape, 3, generator=generator)
    gt, labels = [], []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * torch.tensor([150.0, 120.0])
        size = torch.rand(count, 2, generator=generator).square() * 90 + 1
        gt.append(torch.cat([corner, corner + size], 1))
        gt[-1][2:3] = gt[-1][:1]
        labels.append(torch.randint(3, (count,), generator=generator))
    images = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    found = assign(scores, boxes, centers, strides, torch.cat(gt), torch.cat(labels), images)
    assert len(found.cells) > 100
    before = 0
    for n, count in enumerate(counts):
        mine = found.images == n
        if count:
            one = densely(scores[n], boxes[n], centers, strides, gt[n], labels[n])
            assert torch.equal(found.cells[mine], one.cells)
            assert torch.equal(found.objects[mine] - before, one.objects)
            torch.testing.assert_close(found.quality[mine], one.quality, rtol=1e-6, atol=0)
        else:
            assert not mine.any()
        before += count


def test_a_batch_without_objects_has_no_positives() -> None:
    scores, boxes, centers, strides, gt, labels = scene(0)
    found = assign(scores[None], boxes[None], centers, strides, gt[:0], labels[:0], labels[:0])
    assert [len(part) for part in found] == [0, 0, 0, 0]
