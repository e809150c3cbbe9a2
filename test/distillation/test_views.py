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

"""Views: the teacher's features are on the same cells as the student's."""

from collections.abc import Callable
from dataclasses import replace
import math
from pathlib import Path

from cgdet_core.data.coco import ImageRecord
from cgdet_core.detection.config import AugmentConfig
from cgdet_core.detection.loading import AugmentedFrames, collate
from cgdet_core.detection.samples import make_sample, Sample
from cgdet_core.distillation.config import TeacherConfig
from cgdet_core.distillation.guide import batch_teacher, Guide
from cgdet_core.distillation.layout import Layout
from cgdet_core.distillation.views import View
from cgdet_core.errors import UserError
from cgdet_core.runtime.imaging.geometry import Letterbox
import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

SIZE = (320, 256)  # of the samples


class Ramps:
    """
    Frames whose "thermal" channels encode the frame and position of each pixel.

    Channel 0 grows from left to right, channel 1 from top to bottom, channel 2 names the frame;
    in frames without an RGB image all are 0, like padding. The RGB image shows the same, with
    another number of pixels.
    """

    def __init__(self, folder: Path, frame: tuple[int, int], rgb: tuple[int, int]) -> None:
        self.frame = frame
        self.paths: list[Path | None] = []
        for i in range(6):
            path = folder / f'{i}.png' if i % 3 else None
            self.paths.append(path)
            if path:
                picture = np.rint(self.picture(i, rgb) * 255).astype(np.uint8)
                cv2.imwrite(str(path), picture[..., ::-1])

    @staticmethod
    def picture(index: int, size: tuple[int, int]) -> np.ndarray:
        x, y = np.meshgrid((np.arange(size[0]) + 0.5) / size[0],
                           (np.arange(size[1]) + 0.5) / size[1])
        return np.stack([x, y, np.full_like(x, 0.4 + index / 10)], -1).astype(np.float32)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        path = self.paths[index]
        image = self.picture(index, self.frame) * (path is not None)
        return make_sample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64),
                           path and view(path, self.frame))


@pytest.mark.parametrize('cached', [False, True], ids=['computed', 'cached'])
@pytest.mark.parametrize('batch', ['n', 1])
@pytest.mark.parametrize(('frame', 'rgb', 'teacher_size'), [
    ((160, 128), (320, 256), (160, 128)),  # all of one shape
    ((160, 128), (200, 160), (384, 192)),  # the teacher's input is wide: pad on the right
    ((640, 480), (320, 240), (352, 352)),  # high: pad below
    ((160, 128), (400, 200), (320, 256)),  # RGB of other proportions, stretched onto the frame
], ids=['same', 'wide', 'high', 'stretched'])
def test_the_teacher_sees_what_the_student_sees_cell_by_cell(
    tmp_path: Path, pooling_teacher: Callable[..., Path], frame: tuple[int, int],
    rgb: tuple[int, int], teacher_size: tuple[int, int], batch: int | str,
    cached: bool,
) -> None:
    """
    Follow random windows, flips and mosaics through the real loader and a teacher of colors.

    A cell of the laid-out features must have the colors of the sample there (a displacement of
    one pixel of the frame would show with a cache, of two of the teacher's without), and the mask
    must be 1 exactly where there is a picture.
    """
    guide = Guide(TeacherConfig(
        kind='onnx', path=pooling_teacher(tmp_path / 'pooling.onnx', batch), pad=114,
        cache=tmp_path / 'cache' if cached else None,
        tensors=('p8', 'p16', 'p32'), input_size=teacher_size))
    source = Ramps(tmp_path, frame, rgb)
    guide.fill_cache([ImageRecord(i, Path(), *frame, rgb_path=path)
                      for i, path in enumerate(source.paths)], torch.device('cpu'), False)
    frames = AugmentedFrames(
        [source], SIZE, AugmentConfig(contrast=0, mosaic=0.6, close_mosaic_epochs=0), 3, 9,
        teacher=guide.reader)
    samples = [frames[(e, i, i)] for e in (0, 1) for i in range(6)]
    assert max(len(s['views']) for s in samples) > 1, 'no mosaic'
    assert any(v.scale[0] < 0 for s in samples for v in s['views']), 'no flip'
    batch_dict = collate(samples)
    seen = guide.of(batch_dict)
    assert seen is not None
    images = batch_dict['images']
    for level, stride in enumerate((8, 16, 32)):
        middle = images[:, 2:, stride // 2::stride, stride // 2::stride]
        assert torch.equal(seen.masks[level], (middle > 0.2).float())
        mean = functional.avg_pool2d(images, stride)
        if cached:
            whole = torch.stack([one_tile(s['views'], stride, stride / 2) for s in samples])
            for axis, (used, of) in enumerate(zip(Letterbox(frame, teacher_size).fitted,
                                                  teacher_size)):
                # Not where the teacher's own cells end, nor where they hold its padding.
                near, far = 0.6 * stride / used, (0.6 if used == of else 1.5) * stride / used
                whole &= (mean[:, axis] > near) & (mean[:, axis] < 1 - far)
            rounding = 0.0
        else:
            # Nor where teacher's cells, of these many pixels of the sample, mix two tiles.
            cells = stride * SIZE[0] / Letterbox(SIZE, teacher_size).fitted[0]
            whole = torch.stack([one_tile(s['views'], stride, 1.5 * cells) for s in samples])
            rounding = 0.5 * cells / stride / (0.6 * SIZE[0])  # half a pixel of the teacher's
        assert whole.sum() > ({8: 2000, 16: 400, 32: 60} if cached else
                              {8: 1000, 16: 80, 32: 0})[stride]
        error = ((seen.features[level] - mean) * whole[:, None]).abs()
        # 8 bits of color, cached in half precision: about 0.004; one pixel of 160 is 0.00625.
        assert error[:, :2].max() < 0.0055 + rounding and error[:, 2].max() < 0.004
        assert not seen.features[level][(seen.masks[level] == 0).expand(-1, 3, -1, -1)].any()


def one_tile(views: list[View], stride: int, margin: float) -> torch.Tensor:
    """
    Say which cells (H/stride, W/stride) lie in the region of one view.

    margin: how many pixels a cell's center keeps from its ends, half a cell or more.
    """
    result = torch.zeros(SIZE[1] // stride, SIZE[0] // stride, dtype=torch.bool)
    for v in views:
        x1, y1, x2, y2 = v.region
        m = margin - stride / 2
        result[math.ceil((y1 + m) / stride):max(0, int((y2 - m) // stride)),
               math.ceil((x1 + m) / stride):max(0, int((x2 - m) // stride))] = True
    return result


def view(path: Path, frame: tuple[int, int] = (64, 32)) -> View:
    return View.whole(path, frame)


def test_views_follow_by_hand() -> None:
    start = view(Path('x'))
    moved = start.moved((2, 3), (-10, 6), (100, 90))
    assert moved.scale == (128, 96) and moved.offset == (-10, 6)
    assert moved.region == (0, 6, 100, 90)
    placed = moved.placed(20, 40)
    assert placed.offset == (10, 46) and placed.region == (20, 46, 120, 130)
    mirrored = placed.mirrored(200)
    assert mirrored.scale == (-128, 96) and mirrored.offset == (190, 46)
    assert mirrored.region == (80, 46, 180, 130)
    assert mirrored.mirrored(200) == placed


def test_a_picture_cut_away_by_the_window_shows_nothing() -> None:
    gone = view(Path('x')).moved((1, 1), (-64, 0), (64, 32))
    layout = Layout((64, 32), 0, (2, 2, 2))
    laid, masks = layout.empty((64, 32))
    layout.lay_out(gone, [torch.ones(2, 32 // s, 64 // s) for s in (8, 16, 32)], laid, masks)
    assert not any(x.any() for x in laid + masks)


@pytest.mark.parametrize('offset', [0.0, 0.5])
def test_a_sample_of_one_whole_picture_is_laid_out_like_the_picture(offset: float) -> None:
    layout = Layout((320, 192), 0, (2, 2, 2), offset)
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(1, 2, 192 // s, 320 // s, generator=generator) for s in (8, 16, 32)]
    whole = view(Path('x'), (256, 192))
    found, masks = layout.lay_out_samples([(1, [whole])], features, 3, (256, 192))
    laid, full = ([x.float() for x in part] for part in layout.empty((256, 192)))
    layout.lay_out(whole, [level[0] for level in features], laid, full)
    for one, mask, level, m in zip(found, masks, laid, full):
        assert torch.equal(one[1], level) and torch.equal(mask[1], m) and m.all()
        assert not one[::2].any() and not mask[::2].any()


def test_a_batch_without_pictures_has_no_teacher_entries() -> None:
    sample = make_sample(np.zeros((32, 64), np.float32), np.zeros((0, 4), np.float32),
                         np.zeros(0, np.int64))
    assert batch_teacher([sample, sample]) == {}
    assert batch_teacher([{**sample, 'teacher': None}] * 2) == {}


def test_samples_are_painted_without_seams(tmp_path: Path) -> None:
    """Two pictures side by side, the second mirrored, at places between the teacher's pixels."""
    ramp, plain = tmp_path / 'ramp.png', tmp_path / 'plain.png'
    cv2.imwrite(str(ramp), np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (80, 1, 3)))
    cv2.imwrite(str(plain), np.full((80, 200, 3), 250, np.uint8))
    layout = Layout((160, 96), 114, (1, 1, 1))
    # The sample's 192 x 96 pixels are 160 x 80 of the teacher's, its 111 are 92.5.
    left = View(plain, (200, 80), (154, 123), (-43, -21), (0, 0, 111, 96))
    right = View(ramp, (200, 80), (-81, 123), (192, -21), (111, 0, 192, 96))
    found = layout.pixels([left, right], (192, 96))
    assert (found[:, 80:] == 114).all()
    assert (found[:, :80, :92] == 250).all()
    # From 92 to 160, and from -17.5, which rounds to -18, to 85.
    expected = cv2.resize(cv2.imread(str(ramp)), (68, 103), interpolation=cv2.INTER_AREA)
    assert np.array_equal(found[0, :80, 92:].numpy(), expected[18:98, ::-1, 0])
    assert torch.equal(layout.pixels([right, left], (192, 96)), found)


@pytest.fixture
def layout() -> Layout:
    return Layout((64, 64), 9, (2, 3, 4))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / 'picture.png'
    cv2.imwrite(str(path), np.full((32, 64, 3), (10, 20, 30), np.uint8))
    return path


def test_pixels_are_rgb_letterboxed_on_the_teachers_pad(layout: Layout, picture: Path) -> None:
    found = layout.pixels([view(picture)], (64, 32))
    assert found.shape == (3, 64, 64) and found.dtype == torch.uint8
    assert (found[:, :32] == torch.tensor([30, 20, 10])[:, None, None]).all()
    assert (found[:, 32:] == 9).all()


def test_a_file_that_is_not_an_image_is_named(layout: Layout, picture: Path) -> None:
    picture.write_bytes(b'damaged')
    with pytest.raises(UserError, match='picture.png is not an image'):
        layout.pixels([view(picture)], (64, 32))


def test_a_teacher_may_see_a_frame_without_rgb_as_it_is(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / 'thermal.png'
    cv2.imwrite(str(path), np.linspace(3000, 4000, 64 * 32).astype(np.uint16).reshape(32, 64))
    record = ImageRecord(1, path, 64, 32)
    assert View.of(record, 'skip') is None
    seen = View.of(record, 'thermal')
    assert seen is not None and seen.thermal
    found = layout.pixels([seen], (64, 32))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert found[0, 0, 0] == 0 and found[0, 31, 63] == 255 and (found[:, 32:] == 9).all()
    black_hot = View.of(record, 'black_hot')
    assert black_hot is not None and black_hot.thermal
    negative = layout.pixels([black_hot], (64, 32))
    assert (negative[:, :32].int() + found[:, :32].int() == 255).all()
    assert (negative[:, 32:] == 9).all()
    # A camera that sends black hot shows the same.
    cv2.imwrite(str(path), np.invert(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))
    inverted = View.of(replace(record, polarity='black_hot'), 'black_hot')
    assert inverted is not None and torch.equal(layout.pixels([inverted], (64, 32)), negative)
    for unpaired in ('thermal', 'black_hot'):
        paired = View.of(replace(record, rgb_path=tmp_path / 'rgb.png'), unpaired)
        assert paired is not None and paired.picture.name == 'rgb.png'
        assert not paired.thermal and not paired.black_hot
