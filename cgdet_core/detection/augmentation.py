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
