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

"""Training transforms: geometry moves image, boxes and views together."""

from cgdet_core.detection.config import AugmentConfig
from cgdet_core.detection.samples import IGNORED, Sample
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import box_area
from torchvision.transforms.v2 import functional


def uniform(low: float, high: float) -> float:
    """Draw from torch's generator, which the dataset seeds per sample."""
    return float(torch.empty(()).uniform_(low, high))


def random_window(
    sample: Sample, size: tuple[int, int], scale: tuple[float, float], fit: tuple[int, int],
    min_visible: float,
) -> Sample:
    """
    Scale a sample at random and cut or pad it at random to `size` = (width, height).

    A factor of 1 fits the frame into `fit` = (width, height), the model's input. What is left of
    an object of which less is visible than the share `min_visible`, or 2 pixels or less of a
    side, is neither object nor background: its label becomes IGNORED.
    """
    height, width = sample['image'].shape[-2:]
    factor = min(fit[0] / width, fit[1] / height) * uniform(*scale)
    new_h, new_w = max(8, round(height * factor)), max(8, round(width * factor))
    left = round(uniform(0, 1) * (new_w - size[0]))  # negative: padding on both sides
    top = round(uniform(0, 1) * (new_h - size[1]))

    # Anti-aliasing is for shrinking; when enlarging it only costs time.
    image = functional.resize(sample['image'], [new_h, new_w], antialias=factor < 1)
    # By hand: torchvision's crop clips boxes, which hides how much of each is left.
    factors = torch.tensor([new_w / width, new_h / height] * 2)
    full = sample['boxes'].as_subclass(Tensor) * factors - torch.tensor([left, top] * 2)
    boxes = full.clone()
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, size[0])
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, size[1])
    sides = (boxes[:, 2:] - boxes[:, :2]).amin(1)
    whole = (box_area(boxes) > min_visible * box_area(full)) & (sides > 2)
    labels = torch.where(whole, sample['labels'], IGNORED)
    keep = sides > 0
    scales, shift = (new_w / width, new_h / height), (-left, -top)
    return {
        'image': functional.crop(image, top, left, size[1], size[0]),
        'boxes': tv_tensors.BoundingBoxes(  # type: ignore[call-overload]
            boxes[keep], format='XYXY', canvas_size=(size[1], size[0])),
        'labels': labels[keep], 'scores': sample['scores'][keep],
        'views': [view.moved(scales, shift, size) for view in sample['views']]}


def mosaic(
    samples: list[Sample], size: tuple[int, int], scale: tuple[float, float], min_visible: float,
) -> Sample:
    """
    Join windows of four samples around a random center (YOLOv4, arXiv 2004.10934).

    Tiles whose frame has an RGB image keep their view of it.
    """
    width, height = size
    cx, cy = round(width * uniform(0.25, 0.75)), round(height * uniform(0.25, 0.75))
    canvas = torch.empty(samples[0]['image'].shape[0], height, width)
    boxes, labels, scores, views = [], [], [], []
    quadrants = ((0, 0, cx, cy), (cx, 0, width, cy), (0, cy, cx, height), (cx, cy, width, height))
    for sample, (x1, y1, x2, y2) in zip(samples, quadrants):
        tile = random_window(sample, (x2 - x1, y2 - y1), scale, size, min_visible)
        canvas[:, y1:y2, x1:x2] = tile['image']
        views += [view.placed(x1, y1) for view in tile['views']]
        boxes.append(tile['boxes'].as_subclass(Tensor) + torch.tensor([x1, y1, x1, y1]))
        labels.append(tile['labels'])
        scores.append(tile['scores'])
    return {
        'image': tv_tensors.Image(canvas),
        'boxes': tv_tensors.BoundingBoxes(  # type: ignore[call-overload]
            torch.cat(boxes), format='XYXY', canvas_size=(height, width)),
        'labels': torch.cat(labels), 'scores': torch.cat(scores), 'views': views}


def flip(sample: Sample) -> Sample:
    width = sample['image'].shape[-1]
    return {
        **sample, 'image': functional.horizontal_flip(sample['image']),
        'boxes': functional.horizontal_flip(sample['boxes']),
        'views': [view.mirrored(width) for view in sample['views']]}


def paste(sample: Sample, donor: Sample, classes: Tensor) -> Sample:
    """
    Put an object of another frame, with what overlaps it, into a frame (arXiv 2012.07177).

    One of the donor's objects of `classes` (labels) is drawn; both samples are whole frames. It is
    scaled and mirrored at random and stands as high in the frame as it did, where it covers no
    other object. Its brightness is shifted to that around it, and its border blends. The frame
    itself is returned if there is no place or no such object.
    """
    height, width = sample['image'].shape[-2:]
    candidates = torch.isin(donor['labels'], classes).nonzero()[:, 0]
    if not len(candidates):
        return sample
    chosen = candidates[torch.randint(len(candidates), ())]
    ends = torch.tensor(donor['image'].shape[:-3:-1] * 2)
    whole = donor['boxes'].as_subclass(Tensor).clamp(min=0).minimum(ends)  # what is visible
    (x1, y1, x2, y2), margin = _group(whole, donor['labels'], chosen, ends)
    factor = width / donor['image'].shape[-1] * uniform(0.7, 1.3)
    new_h, new_w = round((y2 - y1) * factor), round((x2 - x1) * factor)
    if min(new_h, new_w) < 4 or new_h > height // 2 or new_w > width // 2:
        return sample
    patch = functional.resize(donor['image'].as_subclass(Tensor)[:, y1:y2, x1:x2], [new_h, new_w],
                              antialias=True)
    scales = torch.tensor([new_w / (x2 - x1), new_h / (y2 - y1)] * 2)
    boxes = (whole - torch.tensor([x1, y1] * 2)) * scales
    if uniform(0, 1) < 0.5:
        patch = patch.flip(2)
        boxes = boxes[:, [2, 1, 0, 3]] * torch.tensor([-1, 1, -1, 1]) + torch.tensor(
            [new_w, 0, new_w, 0])
    foot = y2 / donor['image'].shape[-2] * height
    for _ in range(10):
        left = round(uniform(0, width - new_w))
        top = min(max(round(foot + uniform(-0.05, 0.05) * height - new_h), 0), height - new_h)
        place = torch.tensor([[left, top, left + new_w, top + new_h]], dtype=torch.float32)
        others = sample['boxes'].as_subclass(Tensor)
        if not ((_shared(others, place) > 0.1) | (_shared(place, others) > 0.1)).any():
            break
    else:
        return sample
    image = sample['image'].as_subclass(Tensor).clone()
    window = image[:, top:top + new_h, left:left + new_w]
    opaque = _faded(new_h, new_w, max(1, round(margin * factor)))
    border = 1 - opaque  # what surrounds the object
    shift = ((window - patch) * border).sum() / (border.sum() * len(image)).clamp(min=1e-6)
    window += opaque * ((patch + shift).clamp(0, 1) - window)
    inside = _shared(boxes, torch.tensor([[0.0, 0.0, new_w, new_h]]))
    boxes = boxes.clamp(min=0).minimum(torch.tensor([new_w, new_h] * 2))
    keep = inside > 0
    labels = torch.where(inside > 0.9, donor['labels'], IGNORED)[keep]
    return {
        **sample, 'image': tv_tensors.Image(image),
        'boxes': tv_tensors.BoundingBoxes(  # type: ignore[call-overload]
            torch.cat([sample['boxes'].as_subclass(Tensor), boxes[keep] + torch.tensor(
                [left, top] * 2)]), format='XYXY', canvas_size=(height, width)),
        'labels': torch.cat([sample['labels'], labels]),
        'scores': torch.cat([sample['scores'], donor['scores'][keep]])}


def _group(
    boxes: Tensor, labels: Tensor, chosen: Tensor, ends: Tensor,
) -> tuple[list[int], float]:
    """Return x1, y1, x2, y2 of an object and those that overlap it, with a margin, and that."""
    own = boxes[chosen][None]
    near = (_shared(boxes, own) > 0.3) | (_shared(own, boxes) > 0.3)
    together = boxes[near & (labels != IGNORED)]
    corners = torch.cat([together[:, :2].amin(0), together[:, 2:].amax(0)])
    margin = max(3.0, 0.15 * float((corners[2:] - corners[:2]).amin()))
    around = (corners + torch.tensor([-margin, -margin, margin, margin])).round()
    return around.clamp(min=0).minimum(ends).int().tolist(), margin


def _shared(boxes: Tensor, others: Tensor) -> Tensor:
    """Return which share of each box (M, 4) another covers, (M, 4) or (1, 4)."""
    sides = (torch.minimum(boxes[:, 2:], others[:, 2:])
             - torch.maximum(boxes[:, :2], others[:, :2])).clamp(min=0)
    return sides.prod(1) / box_area(boxes).clamp(min=1e-6)


def _faded(height: int, width: int, margin: int) -> Tensor:
    """Return opacity (height, width): 1 inside, a ramp towards 0 over the margin."""
    y, x = (torch.minimum(torch.arange(n) + 1, torch.arange(n, 0, -1)) / (margin + 1)
            for n in (height, width))
    return torch.minimum(y.clamp(max=1)[:, None], x.clamp(max=1)[None])


def jitter_contrast(image: Tensor, config: AugmentConfig) -> Tensor:
    """
    Simulate variations of cameras, their gain control and the weather, on values in [0, 1].

    Gamma, then gain about the mean, offset, blur and sensor noise; the result stays in [0, 1].
    """
    x = image.clamp(0, 1)
    x = x ** float(torch.exp(torch.tensor(uniform(-config.gamma, config.gamma))))
    mean = x.mean()
    x = (x - mean) * uniform(1 - config.gain, 1 + config.gain) + mean
    x = x + uniform(-config.offset, config.offset)
    if uniform(0, 1) < config.blur:
        x = functional.gaussian_blur(x, [5, 5], [uniform(0.3, 1.2)])
    x = x + torch.randn_like(x) * uniform(0, config.noise)
    return x.clamp(0, 1)
