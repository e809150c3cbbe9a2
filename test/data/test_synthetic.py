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

from dataclasses import replace
from pathlib import Path

from cgdet_core.data.coco import load_coco
from cgdet_core.data.scenes.sensor import Sensor
from cgdet_core.data.synthetic import CLASSES, record, Scene, sequence, to_counts, write_coco
from cgdet_core.runtime.imaging.frames import read_rgb, read_thermal
import numpy as np
from numpy.typing import NDArray


def test_scenes_are_repeatable_and_boxes_are_inside() -> None:
    labels_seen: set[int] = set()
    for seed in range(12):
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
    for seed in range(24):
        scene = Scene.random(seed, 320, 256)
        (with_all, _, _), truth = scene.render(), scene.frame(0)
        actor = scene.actors.pop()
        without, _, _ = scene.render()
        # The noise is the same: it has a seed of its own.
        ys, xs = np.nonzero(np.abs(with_all - without) > 1.0)
        boxes = truth.boxes[truth.track_ids // 2 == actor.number]
        if len(boxes) == 0 or len(xs) < 20 or actor.z > 30:
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
    for seed in range(16):
        scene = Scene.random(seed, 320, 256)
        (kelvin, _, _), picture = scene.render(), scene.paint()
        assert np.array_equal(picture, scene.paint()) and picture.shape == (256, 320, 3)
        lights.append(picture.mean())
        scene.actors.pop()
        (kelvin_without, _, _), without = scene.render(), scene.paint()
        thermal = np.abs(kelvin - kelvin_without) > 1.0
        color = np.abs(picture.astype(int) - without).max(2) > 40
        if thermal.sum() > 125 and color.sum() > 125:
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


def test_a_sequence_is_repeatable_and_its_truth_fits_the_image() -> None:
    frames = list(sequence(3, 2.0, 5.0, (160, 128)))
    for number, (frame, again) in enumerate(zip(frames, sequence(3, 2.0, 5.0, (160, 128)))):
        assert frame.stamp == number / 5 and frame.kelvin.shape == (128, 160)
        assert np.array_equal(frame.kelvin, again.kelvin)
        assert np.array_equal(frame.boxes, again.boxes)
        assert len(set(frame.track_ids.tolist())) == len(frame.boxes) == len(frame.labels)
        assert (frame.boxes >= 0).all() and (frame.boxes <= (160, 128, 160, 128)).all()
        assert ((frame.visible >= 0.1) & (frame.visible <= 1)).all()
    assert len(frames) == 10
    assert not np.array_equal(frames[0].kelvin, Scene.random(3, 160, 128).frame(0).kelvin)


def test_objects_move_enter_and_leave_and_keep_their_class() -> None:
    labels: dict[int, int] = {}
    seen = []
    for frame in sequence(3, 20.0, 0.5, (320, 256)):
        for track, label in zip(frame.track_ids.tolist(), frame.labels.tolist()):
            assert labels.setdefault(track, label) == label
        seen.append(set(frame.track_ids.tolist()))
    assert seen[0] - seen[-1] and seen[-1] - seen[0]
    assert {CLASSES[label] for label in labels.values()} == set(CLASSES)
    # A rider's bicycle follows the rider's id; nobody on foot has one.
    kinds = {a.number: a.kind for a in Scene.traffic(3, 20.0, 320, 256).actors}
    expected = {'person': {0: 0}, 'rider': {0: 0, 1: 1}, 'bicycle': {0: 1}, 'car': {0: 2}}
    for track, label in labels.items():
        assert expected[kinds[track // 2]][track % 2] == label


def test_a_hidden_object_is_less_visible() -> None:
    scene = Scene.traffic(5, 20.0, 320, 256)
    near = next(a for a in scene.actors if a.kind == 'person')
    far = replace(near, number=1, x=0.0, z=16.0, heading=0.0, speed=0.0)
    scene.street.plants.clear()
    scene.actors[:] = [far]
    alone = scene.frame(0.0)
    eye = scene.view(0.0)
    beside = (far.x - eye.x) * 8 / 16 + eye.x + 0.25  # covers a part of the other person
    scene.actors.append(replace(far, number=2, x=beside, z=8.0))
    both = scene.frame(0.0)
    assert alone.track_ids.tolist() == [2] and alone.visible[0] > 0.99
    shares = dict(zip(both.track_ids.tolist(), both.visible.tolist()))
    assert shares[4] > 0.99 and shares.get(2, 0.0) < 0.9


def test_people_swing_their_legs() -> None:
    scene = Scene.traffic(5, 20.0, 320, 256)
    walker = next(a for a in scene.actors if a.kind == 'person')
    scene.street.plants.clear()
    for speed, changes in ((1.4, True), (0.0, False)):
        scene.actors[:] = [replace(walker, x=-2.0, z=9.0, heading=np.pi / 2, speed=speed)]
        widths = [np.diff(scene.frame(t).boxes[0, ::2])[0] for t in np.arange(0, 1.0, 0.1)]
        assert (max(widths) > 1.6 * min(widths)) == changes


def test_a_night_has_plausible_temperatures() -> None:
    frame = Scene.traffic(1, 20.0, 320, 256).frame(0.0)
    assert 225 < frame.kelvin[:10].mean() < 265 and 272 < frame.kelvin[-40:].mean() < 290
    warmest: dict[int, float] = {}
    for (x1, y1, x2, y2), label in zip(frame.boxes.astype(int), frame.labels.tolist()):
        inside = float(frame.kelvin[y1:y2, x1:x2].max())
        warmest[label] = max(inside, warmest.get(label, 0.0))
    assert 296 < warmest[0] < 308 and 285 < warmest[2] < 320


def test_a_camera_has_the_noise_of_its_data_sheet() -> None:
    flat = np.full((96, 128), 290, np.float32)
    for seed in range(4):
        sensor = Sensor(seed, (128, 96))
        one, two = (sensor.expose(flat, 0.0, i) for i in range(2))
        assert 0.038 < (one - two).std() / np.sqrt(2) < 0.088
        mean = np.mean([sensor.expose(flat, 0.0, i) for i in range(16)], 0)
        assert mean.mean(0).std() > 0.02  # columns differ
        counts = sensor.counts(one)
        assert counts.dtype == np.uint16 and counts.max() < 1 << 14
        assert abs(float(counts.mean()) / 25 - 290) < 1
        assert sensor.agc(counts).dtype == np.uint8


def test_a_correction_freezes_the_frames_and_changes_the_pattern() -> None:
    size, rate = (96, 80), 20.0
    still = next(sequence(2, 1.0, 1.0, size))
    moving = (replace(still, stamp=i / rate, boxes=still.boxes + i) for i in range(280))
    recorded = list(record(moving, 2, size))
    same = [np.array_equal(a[1], b[1]) and np.array_equal(a[2], b[2])
            for a, b in zip(recorded, recorded[1:])]
    frozen = np.flatnonzero(same)
    assert 0.3 * rate - 1 <= len(frozen) <= 0.5 * rate + 1
    assert np.array_equal(frozen, np.arange(frozen[0], frozen[-1] + 1))  # one event
    held = [recorded[i][0] for i in (frozen[0], frozen[-1])]
    assert held[0].stamp < held[1].stamp and np.array_equal(held[0].boxes, held[1].boxes)
    sensor, flat = Sensor(2, size), np.full(size[::-1], 280, np.float32)

    def pattern(seconds: float) -> NDArray[np.float32]:
        shown = np.mean([sensor.expose(flat, seconds, i) for i in range(16)], 0)
        return shown - shown.mean()

    before, shortly_before, after = (pattern(sensor.shutter + t) for t in (-0.5, -0.1, 0.6))
    assert np.abs(before - shortly_before).mean() < np.abs(before - after).mean() / 4


def test_gain_control_does_not_flash_when_a_warm_object_enters() -> None:
    size = (96, 80)
    cold = next(sequence(2, 1.0, 1.0, size)).kelvin
    warm = cold.copy()
    warm[30:60, 30:70] = 310
    damped, direct = Sensor(2, size), Sensor(2, size)
    first = damped.agc(damped.counts(cold)).astype(int)
    second = damped.agc(damped.counts(warm)).astype(int)
    at_once = direct.agc(direct.counts(warm)).astype(int)
    where = np.ones(cold.shape, bool)
    where[20:70, 20:80] = False
    assert (np.abs(second - first)[where].mean() < 0.3 * np.abs(at_once - first)[where].mean())
