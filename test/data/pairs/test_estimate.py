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

"""A known registration is found from the images alone; what determines none is refused."""

from collections.abc import Callable
from pathlib import Path
import subprocess
from typing import Any

from cgdet_core.data.bags.pairing import Choice
from cgdet_core.data.bags.registration import read_homography
from cgdet_core.data.pairs.check import check_pairs
from cgdet_core.data.pairs.estimate import by_focal_lengths, estimate, Fit, zoom_of
from cgdet_core.data.pairs.output import save_fit
from cgdet_core.data.pairs.reading import PairSource, read_pairs
from cgdet_core.data.synthetic import Scene, to_counts
from cgdet_core.errors import UserError
import cv2
from drive_points import BY_EYE
import numpy as np
import pytest
from two_cameras import RGB, write_two_cameras

Run = Callable[..., subprocess.CompletedProcess]
SIZE, RGB_SIZE = (320, 256), (400, 320)
WIDER = np.array([(0.93, 0.012, -28), (-0.01, 0.94, -20), (2e-5, -3e-5, 1)])
TURNED = np.array([(0.7, -0.025, 26), (0.025, 0.7, 14), (0, 0, 1)])


@pytest.fixture(scope='module')
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return thermal counts and RGB of the same view of 20 streets."""
    drawn = [Scene.random(seed, *SIZE) for seed in range(20)]
    return [(to_counts(scene.render()[0]), scene.paint()[..., ::-1]) for scene in drawn]


def seen(scenes: list[tuple[np.ndarray, np.ndarray]], matrix: np.ndarray,
         ) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the thermal frames, and RGB as a camera with this homography to them sees it."""
    rgb = [np.asarray(cv2.warpPerspective(
        picture, np.linalg.inv(matrix), RGB_SIZE, borderMode=cv2.BORDER_REPLICATE))
        for _, picture in scenes]
    return [thermal for thermal, _ in scenes], rgb


def moved(matrix: np.ndarray, points: Any) -> np.ndarray:
    return cv2.perspectiveTransform(np.array(points, float).reshape(-1, 1, 2), matrix)[:, 0]


def errors(fit: Fit, matrix: np.ndarray, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return where a fit puts points of the thermal frame, against where they are, in pixels."""
    x, y = np.meshgrid(*(np.linspace(0.1, 0.9, 7) * n for n in size))
    points = np.stack([x.ravel(), y.ravel()], 1)
    there = moved(np.linalg.inv(matrix), points)
    inside = ((there > 0) & (there < fit.rgb_size)).all(1)
    return np.asarray(np.hypot(*(moved(fit.homography, there) - points)[inside].T))


@pytest.mark.parametrize(('matrix', 'focal'), [(WIDER, None), (TURNED, (140.0, 200.0))])
def test_a_known_homography_is_found(
    scenes: list[tuple[np.ndarray, np.ndarray]], matrix: np.ndarray,
    focal: tuple[float, float] | None,
) -> None:
    start = None if focal is None else by_focal_lengths(*focal, SIZE, RGB_SIZE)
    fit = estimate(*seen(scenes, matrix), start)
    assert errors(fit, matrix).max() < 2
    assert fit.residual_px < 1 and fit.halves_px < 1 and fit.won > 0.95
    assert fit.correlation > 5 * abs(fit.by_chance) and fit.pairs == 20 and not fit.dark


def test_rgb_of_other_frames_is_refused(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    thermal, rgb = seen(scenes, WIDER)
    with pytest.raises(UserError, match='no place in the thermal frames.*of the same time'):
        estimate(thermal, rgb[7:] + rgb[:7])


def test_dark_rgb_is_refused_or_left_out(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    thermal, rgb = seen(scenes, WIDER)
    rng = np.random.default_rng(0)
    night = rng.integers(0, 8, rgb[0].shape).astype(np.uint8)
    night[20:26, 30:36] = 255  # a lamp
    with pytest.raises(UserError, match='black or uniform in 11 of 20 pairs'):
        estimate(thermal, [night] * 11 + rgb[11:])
    fit = estimate(thermal, rgb[:-1] + [night], by_focal_lengths(0.93, 1, SIZE, RGB_SIZE))
    assert fit.dark == 1 and fit.pairs == 19 and errors(fit, WIDER).max() < 2


def test_pairs_that_determine_nothing_are_refused(
    scenes: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    thermal, rgb = seen(scenes, WIDER)
    with pytest.raises(UserError, match='5 pairs are too few'):
        estimate(thermal[:5], rgb[:5])
    with pytest.raises(UserError, match='2 different sizes'):
        estimate(thermal, [*rgb[:-1], rgb[0][:-2]])
    with pytest.raises(UserError, match='All frames show the same scene'):
        estimate([thermal[0]] * 20, rgb)


def test_a_registration_of_half_the_drive_is_refused(
    scenes: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Chosen: the camera was moved after the tenth pair."""
    thermal, rgb = seen(scenes, WIDER)
    other = seen(scenes, np.array([(1.0, 0, 12), (0, 1, 12), (0, 0, 1)]) @ WIDER)[1]
    with pytest.raises(UserError, match=r'second half of the pairs differ by 1\d\.'):
        estimate(thermal, rgb[:10] + other[10:], by_focal_lengths(0.93, 1, SIZE, RGB_SIZE))


def test_the_zoom_of_a_start_is_that_of_the_focal_lengths() -> None:
    start = by_focal_lengths(765, 612, (640, 512), (800, 600))
    assert zoom_of(start, (600, 800)) == pytest.approx(1.25)
    assert moved(start, [(400, 300)])[0] == pytest.approx((320, 256))


@pytest.mark.parametrize(('lengths', 'words'), [
    ((0.0, 600.0), 'must be positive, not 0 and 600'),
    ((600.0, float('nan')), 'must be positive, not 600 and nan'),
    ((1e6, 1.0), 'RGB shows 1.25e\\+06 times the width')])
def test_focal_lengths_that_cannot_be_are_refused(
    lengths: tuple[float, float], words: str,
) -> None:
    with pytest.raises(UserError, match=words):
        by_focal_lengths(*lengths, (640, 512), (800, 600))


def test_a_folder_is_registered(
    scenes: list[tuple[np.ndarray, np.ndarray]], tmp_path: Path,
    run_cgdet: Run, program: Run,
) -> None:
    for name in ('thermal', 'rgb'):
        (tmp_path / name).mkdir()
    for i, (thermal, rgb) in enumerate(zip(*seen(scenes, WIDER))):
        assert cv2.imwrite(str(tmp_path / f'thermal/{i:02d}.png'), thermal)
        assert cv2.imwrite(str(tmp_path / f'rgb/{i:02d}.jpg'), rgb)
    output = tmp_path / 'mount.yaml'
    command = 'data', 'register', tmp_path, '--output', output, '--focal-px', '93', '100'
    result = program(*command)
    assert result.returncode == 0, result.stderr
    assert 'from where the homography puts them' in result.stdout
    matrix = read_homography(output, SIZE, RGB_SIZE)
    points = [(60, 50), (300, 250)]
    assert np.abs(moved(matrix, points) - moved(WIDER, points)).max() < 2
    assert cv2.imread(str(tmp_path / 'mount.png')).shape == (4 * 256, 640, 3)
    with pytest.raises(UserError, match='another rgb_size'):
        read_homography(output, SIZE, (1280, 1024))
    (tmp_path / 'rgb' / '03.jpg').write_bytes(b'no image')
    again = run_cgdet(*command)
    assert again.returncode == 1 and '--overwrite' in again.stderr
    again = run_cgdet(*command, '--overwrite')
    assert again.returncode == 1 and '1 image could not be read, first: ' in again.stderr
    assert '03.jpg is not an image' in again.stderr
    assert np.abs(moved(read_homography(output), points) - moved(WIDER, points)).max() < 2
    frame = tmp_path / 'thermal' / '05.png'
    before = frame.read_bytes()
    over = run_cgdet('data', 'register', tmp_path, '--output', frame.with_suffix('.yaml'),
                     '--overwrite')
    assert over.returncode == 1 and 'is an input and would be replaced' in over.stderr
    assert frame.read_bytes() == before
    picture = run_cgdet('data', 'register', tmp_path, '--output', tmp_path / 'mount.png')
    assert picture.returncode == 1 and 'name a YAML file (--output).' in picture.stderr


def test_pairs_of_a_bag_are_those_of_the_same_time(tmp_path: Path) -> None:
    frames = {i * 10**8: np.full((40, 60), i * 100, np.uint16) for i in range(6)}
    colors = {stamp + 10**6: np.full((20, 30, 3), i, np.uint8)
              for i, stamp in enumerate(list(frames)[1:], 1)}
    bag = write_two_cameras(tmp_path / 'drive', frames, colors)
    with pytest.raises(UserError, match='RGB topic'):
        read_pairs(PairSource(bag), 10)
    source = PairSource(bag, choice=Choice(thermal_topic='/thermal/image_raw', rgb_topic=RGB))
    found = read_pairs(source, 10)
    assert [int(t[0, 0]) // 100 for t in found.thermal] == [1, 2, 3, 4, 5]
    assert [int(p[0, 0, 0]) for p in found.rgb] == [1, 2, 3, 4, 5]
    assert len(read_pairs(source, 3).thermal) == 3 and not found.unreadable


def test_pairs_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name in ('thermal', 'rgb'):
        (tmp_path / name).mkdir()
        for i in range(3):
            assert cv2.imwrite(str(tmp_path / name / f'{i}.png'), np.zeros((8, 8), np.uint8))
    (tmp_path / 'thermal' / '1.png').write_bytes(b'')
    found = read_pairs(PairSource(tmp_path), 10)
    assert found.names == ['0.png', '2.png'] and len(found.rgb) == 2
    assert found.unreadable == [f'{tmp_path}/thermal/1.png is empty']
    for i in range(3):
        (tmp_path / 'rgb' / f'{i}.png').write_bytes(b'')
    with pytest.raises(UserError, match='None of the 3 pairs of .* can be read, first: .* empty'):
        read_pairs(PairSource(tmp_path), 10)
    (tmp_path / 'rgb' / '2.jpg').write_bytes(b'')
    with pytest.raises(UserError, match=r'rgb/2\.jpg and .*rgb/2\.png have one name'):
        read_pairs(PairSource(tmp_path), 10)
    with pytest.raises(UserError, match='neither a bag nor a COCO file'):
        read_pairs(PairSource(tmp_path / 'thermal' / '0.png'), 10)


def test_thermal_images_of_pairs_may_be_floats_with_dead_pixels(tmp_path: Path) -> None:
    for name in ('thermal', 'rgb'):
        (tmp_path / name).mkdir()
    for dead in (1, 3):  # of 128 pixels
        frame = np.full((8, 16), 290, np.float32)
        frame.ravel()[:dead] = np.nan
        assert cv2.imwrite(str(tmp_path / f'thermal/{dead}.tif'), frame)
        assert cv2.imwrite(str(tmp_path / f'rgb/{dead}.png'), np.zeros((8, 8), np.uint8))
    found = read_pairs(PairSource(tmp_path), 10)
    assert found.names == ['1.tif'] and (found.thermal[0] == 290).all()
    [why] = found.unreadable
    assert why.startswith(f'{tmp_path}/thermal/3.tif: 3 of 128 pixels are NaN or infinite')


def test_folders_without_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='does not exist'):
        read_pairs(PairSource(tmp_path / 'none'), 10)
    with pytest.raises(UserError, match='images .*other is for a COCO file, and .* is none'):
        read_pairs(PairSource(tmp_path, images=tmp_path / 'other'), 10)
    with pytest.raises(UserError, match='thermal does not exist'):
        read_pairs(PairSource(tmp_path), 10)
    for name in ('thermal', 'rgb'):
        (tmp_path / name).mkdir()
        assert cv2.imwrite(str(tmp_path / name / f'{name}.png'), np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match='of the same name'):
        read_pairs(PairSource(tmp_path), 10)


def test_a_saved_fit_is_read_as_it_was(tmp_path: Path) -> None:
    fit = Fit(WIDER, SIZE, RGB_SIZE, 20, 0, 30.0, 40, 0.5, 1.0, 0.25, 0.2, 0.01, 1.0)
    save_fit(tmp_path / 'h.yaml', fit, 'by a test')
    assert read_homography(tmp_path / 'h.yaml') == pytest.approx(WIDER)
    assert 'halves_px: 0.25' in (tmp_path / 'h.yaml').read_text()


def test_a_real_drive_is_registered(real_data: Path) -> None:
    drive = real_data.parents[1] / 'flir_night' / 'drive'
    if not drive.is_dir():
        pytest.skip('the drive of flir_night is not on this machine')
    pairs = read_pairs(PairSource(drive), 24)
    assert not check_pairs(zip(pairs.thermal, pairs.rgb)).good
    fit = estimate(pairs.thermal, pairs.rgb, by_focal_lengths(765, 781, (640, 512), (776, 622)))
    there = moved(fit.homography, [rgb for _, rgb, _ in BY_EYE])
    off = np.hypot(*(there - [thermal for _, _, thermal in BY_EYE]).T)
    assert np.median(off) < 3 and off.max() < 6
    warped = [cv2.warpPerspective(p, fit.homography, (640, 512)) for p in pairs.rgb]
    report = check_pairs(zip(pairs.thermal, warped))
    assert report.good and np.hypot(*report.shift_px) < 3
