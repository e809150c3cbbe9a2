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

"""Synthetic scenes: repeatable and plausible, with boxes at the objects."""

from pathlib import Path

from cgdet_core.data.coco import load_coco
from cgdet_core.data.synthetic import Scene, to_counts, write_coco
from cgdet_core.runtime.imaging.frames import read_rgb, read_thermal
import numpy as np


def test_scenes_are_repeatable_and_boxes_are_inside() -> None:
    labels_seen: set[int] = set()
    for seed in range(30):
        image, boxes, labels = Scene.random(seed).render(2)
        again = Scene.random(seed).render(2)
        assert all(np.array_equal(a, b) for a, b in zip((image, boxes, labels), again))
        assert image.shape == (512, 640) and 220 < image.min() and image.max() < 360
        assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all()
        assert (boxes[:, 2] <= 640).all() and (boxes[:, 3] <= 512).all()
        labels_seen |= set(labels.tolist())
    assert labels_seen == {0, 1, 2}


def test_a_box_is_where_the_image_changes() -> None:
    """Render with and without the nearest actor; a rider has two boxes."""
    checked: set[str] = set()
    for seed in range(20):
        scene = Scene.random(seed)
        (with_all, _, _), truth = scene.render(), scene.frame(0)
        actor = scene.actors.pop()
        without, _, _ = scene.render()
        # The noise is the same: it has a seed of its own.
        ys, xs = np.nonzero(np.abs(with_all - without) > 1.0)
        boxes = truth.boxes[truth.track_ids // 2 == actor.number]
        if len(boxes) == 0 or len(xs) < 50 or actor.z > 30:
            continue
        inside = [(xs >= x1 - 4) & (xs < x2 + 4) & (ys >= y1 - 4) & (ys < y2 + 4)
                  for x1, y1, x2, y2 in boxes]
        assert np.any(inside, 0).mean() > 0.99
        checked.add(actor.kind)
    assert checked == {'person', 'rider', 'bicycle', 'car'}


def test_written_sets_can_be_read(scenes) -> None:
    coco = load_coco(scenes)
    assert coco.classes == ('person', 'bicycle', 'car') and len(coco.images) == 12
    frame = read_thermal(coco.images[0].path)
    assert frame.dtype == np.uint16 and frame.shape == (128, 160)
    assert np.array_equal(frame, to_counts(Scene.random(7 * 1_000_003, 160, 128).render()[0]))


def test_the_rgb_image_shows_the_same_actors_in_color() -> None:
    """Render with and without the nearest actor, in both modalities."""
    shared, lights = [], []
    for seed in range(10):
        scene = Scene.random(seed)
        (kelvin, _, _), picture = scene.render(), scene.paint()
        assert np.array_equal(picture, scene.paint()) and picture.shape == (512, 640, 3)
        lights.append(picture.mean())
        scene.actors.pop()
        (kelvin_without, _, _), without = scene.render(), scene.paint()
        thermal = np.abs(kelvin - kelvin_without) > 1.0
        color = np.abs(picture.astype(int) - without).max(2) > 40
        if thermal.sum() > 500 and color.sum() > 500:
            shared.append((thermal & color).sum() / color.sum())
    assert len(shared) > 3 and np.median(shared) > 0.7
    assert min(lights) < 40 and max(lights) > 80  # night and day


def test_pairs_are_written_and_shifted_on_request(tmp_path: Path) -> None:
    plain = load_coco(write_coco(tmp_path / 'a', 4, 1, 4, (160, 128), rgb=2))
    moved = load_coco(write_coco(tmp_path / 'b', 4, 1, 4, (160, 128), rgb=2, shift=(6, -3)))
    assert [r.rgb_path is not None for r in plain.images] == [True, False, True, False]
    for one, two in zip(plain.images[::2], moved.images[::2]):
        assert one.rgb_path and two.rgb_path
        a, b = read_rgb(one.rgb_path), read_rgb(two.rgb_path)
        assert np.array_equal(a[3:, :-6], b[:-3, 6:])
        assert np.array_equal(read_thermal(one.path), read_thermal(two.path))
