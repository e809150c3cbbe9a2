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

"""Pairs whose RGB is black, of another time, or shifted are named and counted."""

from collections.abc import Callable
import json
from pathlib import Path
import subprocess

from cgdet_core.data.coco import load_coco
from cgdet_core.data.pairs.check import check_pairs, check_records, PairReport
from cgdet_core.data.pairs.edges import is_dark
from cgdet_core.data.synthetic import Scene, to_counts, write_coco
import cv2
import numpy as np
import pytest

SIZE = 320, 256
BLACK = np.zeros((256, 320, 3), np.uint8)


@pytest.fixture(scope='module')
def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    drawn = [Scene.random(100 + seed, *SIZE) for seed in range(12)]
    return [(to_counts(s.render()[0]), np.ascontiguousarray(s.paint()[..., ::-1])) for s in drawn]


def shifted(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    move = np.array([(1, 0, x), (0, 1, y)], np.float32)
    return np.asarray(cv2.warpAffine(picture, move, SIZE, borderMode=cv2.BORDER_REPLICATE))


def test_pairs_that_fit(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    report = check_pairs(pairs)
    assert report.good and report.confident and report.pairs == 12 and not report.dark
    assert np.hypot(*report.shift_px) < 0.5 and 'RGB is off by' in report.sentence
    json.dumps(report.values())


def test_shifted_rgb_is_reported(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    report = check_pairs((t, shifted(p, 9, -6)) for t, p in pairs)
    assert report.confident and not report.good
    assert report.shift_px == pytest.approx((9, -6), abs=0.5)
    assert 'off by +9.0, -6.0 px' in report.sentence
    small = check_pairs((t, shifted(p, 2, 1)) for t, p in pairs)
    assert small.good and small.shift_px == pytest.approx((2, 1), abs=0.5)


def test_rgb_of_another_time_or_zoom_is_reported(
    pairs: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    other = check_pairs((t, p) for (t, _), (_, p) in zip(pairs, pairs[5:] + pairs[:5]))
    assert not other.good and not other.confident
    zoomed = check_pairs((t, p[40:-40, 50:-50]) for t, p in pairs)
    assert not zoomed.good
    differing = check_pairs((t, shifted(p, 15 * (i % 3), 0)) for i, (t, p) in enumerate(pairs))
    assert not differing.good and not differing.confident and 'from pair to pair' in (
        differing.sentence)


def test_rgb_of_another_time_of_a_fixed_camera_is_reported(
    pairs: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    """The scene always fits; what moves does only in images of the same time."""
    thermal, picture = pairs[0]
    moving = []
    for i in range(12):
        t, p = thermal.copy(), picture.copy()
        x, y = 20 + 23 * i, 60 + 37 * i % 150
        t[y:y + 40, x:x + 16] = thermal.max()
        p[y:y + 40, x:x + 16] = (30, 220, 90)
        moving.append((t, p))
    assert check_pairs(moving).good and check_pairs(moving).won > 0.9
    late = check_pairs((t, p) for (t, _), (_, p) in zip(moving, moving[5:] + moving[:5]))
    assert late.confident and not late.good and 'as if it was of another time' in late.sentence


def test_black_rgb_is_counted(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    some = check_pairs([*pairs[:9], *((t, BLACK) for t, _ in pairs[9:])])
    assert some.good and some.dark == 3 and '3 of them black' in some.sentence
    most = check_pairs([*pairs[:5], *((t, BLACK) for t, _ in pairs[5:])])
    assert not most.good and most.dark == 7 and 'in 7 of 12 pairs' in most.sentence
    every = check_pairs((t, BLACK) for t, _ in pairs)
    assert not every.good and every.dark == 12 and every.shift_px is None


def test_too_few_pairs_are_not_good(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert check_pairs([]) == PairReport(0, 0, None, None, 0, None, False, False,
                                         'There are no pairs that can be read.')
    few = check_pairs(pairs[:3])
    assert not few.good and few.sentence.startswith('3 pairs, too few')


def test_noise_and_lamps_do_not_brighten_a_dark_image() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(6, 4, (480, 640)).clip(0).astype(np.uint8)
    noise[100:110, 200:210] = 255
    assert is_dark(noise) and is_dark(np.full((480, 640), 255, np.uint8))
    lit = noise.copy()
    lit[240:] = 60  # the road
    assert not is_dark(lit)


def test_a_check_of_a_set_names_dark_and_shifted_pairs(
    tmp_path: Path, run_cgdet: Callable[..., subprocess.CompletedProcess],
) -> None:
    path = write_coco(tmp_path / 'set', 12, size=SIZE, frames_per_scene=1, rgb=1, shift=(12, 0))
    black = tmp_path / 'set/rgb/scene_00003.png'
    assert cv2.imwrite(str(black), BLACK)
    (tmp_path / 'set/rgb/scene_00004.png').write_bytes(b'no picture')
    assert check_records(load_coco(path).images).pairs == 11
    report = tmp_path / 'report.json'
    result = run_cgdet('data', 'check', path, '--output', tmp_path / 'sheets', '--json', report)
    assert result.returncode == 0, result.stderr
    assert 'RGB does not fit thermal: it is off by' in result.stdout
    assert 'pairs whose RGB is black or nearly uniform: 1' in result.stdout
    found = json.loads(report.read_text())
    assert found['findings']['dark']['frames'][0]['file'] == 'thermal/scene_00003.png'
    pairs = found['sets'][0]['pairs']
    assert pairs['dark'] == 1 and not pairs['good']
    assert pairs['shift_px'] == pytest.approx([12, 0], abs=1)
    assert (tmp_path / 'sheets/dark.png').is_file()
