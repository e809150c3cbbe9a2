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

"""Feature cache: features are computed once and read back, and never for another picture."""

from collections.abc import Callable
import hashlib
import os
from pathlib import Path
import re

from cgdet_core.data.coco import ImageRecord
from cgdet_core.distillation.config import TeacherConfig
from cgdet_core.distillation.guide import FeatureCache, Guide
from cgdet_core.distillation.layout import Layout
from cgdet_core.distillation.views import View
from cgdet_core.errors import UserError
import cv2
import numpy as np
import pytest
import torch


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / 'cache', Layout((64, 64), 9, (2, 3, 4)))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / 'picture.png'
    cv2.imwrite(str(path), np.full((32, 64, 3), (10, 20, 30), np.uint8))
    return path


def view(path: Path, frame: tuple[int, int] = (64, 32)) -> View:
    return View.whole(path, frame)


def pyramid() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(c, 64 // s, 64 // s, generator=generator) * 10).half()
            for c, s in ((2, 8), (3, 16), (4, 32))]


def test_kept_features_come_back_in_half_precision(cache: FeatureCache, picture: Path) -> None:
    features = pyramid()
    cache.write(view(picture), features)
    found = cache.read(view(picture))
    assert found is not None
    for one, two in zip(features, found):
        assert two.dtype == torch.float16 and torch.equal(one, two)


def test_files_keep_the_names_that_users_caches_have(cache: FeatureCache, picture: Path) -> None:
    """A cache takes hours to compute: other file names would recompute all of it."""
    os.utime(picture, ns=(5, 7))
    cache.write(view(picture), pyramid())
    name = f'{picture.resolve()} {picture.stat().st_size} 7 64x32'
    assert [path.name for path in cache.folder.iterdir()] == [
        f'{hashlib.sha256(name.encode()).hexdigest()[:24]}.f16']


def test_a_changed_picture_and_another_frame_size_are_recomputed(
    cache: FeatureCache, picture: Path,
) -> None:
    cache.write(view(picture), pyramid())
    assert cache.read(view(picture, (128, 64))) is not None, 'of the same proportions'
    assert cache.read(view(picture, (64, 48))) is None
    cv2.imwrite(str(picture), np.full((32, 64, 3), (90, 20, 30), np.uint8))
    assert cache.read(view(picture)) is None


@pytest.mark.parametrize('damage', [b'', b'short', None])
def test_a_damaged_file_of_the_cache_is_recomputed(
    cache: FeatureCache, picture: Path, damage: bytes | None,
) -> None:
    cache.write(view(picture), pyramid())
    [path] = (picture.parent / 'cache').iterdir()
    path.write_bytes(path.read_bytes()[:-2] if damage is None else damage)
    assert cache.read(view(picture)) is None
    assert cache.check(view(picture)) == 'changed' and cache.check(view(picture)) == 'missing'
    cache.write(view(picture), pyramid())
    assert cache.read(view(picture)) is not None and cache.check(view(picture)) == 'good'


def test_a_changed_value_and_the_features_of_another_picture_are_noticed(
    cache: FeatureCache, picture: Path, tmp_path: Path,
) -> None:
    cache.write(view(picture), pyramid())
    [path] = (picture.parent / 'cache').iterdir()
    whole = path.read_bytes()
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(UserError, match='picture.png were removed from .* or changed .*resume'):
        cache.show([view(picture)], (64, 32))
    cv2.imwrite(str(other := tmp_path / 'other.png'), np.zeros((32, 64, 3), np.uint8))
    cache.write(view(other), pyramid())
    [another] = {*(picture.parent / 'cache').iterdir()} - {path}
    path.write_bytes(another.read_bytes())
    assert cache.read(view(picture)) is None


def test_files_without_a_checksum_are_kept(cache: FeatureCache, picture: Path) -> None:
    """As above: they may have taken hours."""
    cache.write(view(picture), pyramid())
    [path] = (picture.parent / 'cache').iterdir()
    path.write_bytes(path.read_bytes()[:2 * sum(x.numel() for x in pyramid())])
    assert cache.check(view(picture)) == 'old' and cache.check(view(picture)) == 'good'
    found = cache.read(view(picture))
    assert found is not None and all(torch.equal(*pair) for pair in zip(found, pyramid()))


def test_removed_features_are_named(cache: FeatureCache, picture: Path) -> None:
    with pytest.raises(UserError, match='picture.png were removed from .*resume'):
        cache.show([view(picture)], (64, 32))
    features, masks = cache.show([], (64, 32))
    assert [x.shape[1:] for x in features] == [(4, 8), (2, 4), (1, 2)]
    assert not any(x.any() for x in features + masks)


def test_a_thermal_picture_has_separate_features(cache: FeatureCache, picture: Path) -> None:
    seen = View.of(ImageRecord(1, picture, 64, 32), 'thermal')
    assert seen is not None
    cache.write(seen, pyramid())
    assert cache.read(seen) is not None
    # The same file has other features as an RGB image.
    assert cache.read(seen._replace(thermal=False)) is None
    assert cache.read(seen._replace(black_hot=True)) is None


def test_changed_features_are_reported_and_computed_again_when_a_run_starts(
    tmp_path: Path, picture: Path, pooling_teacher: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    guide = Guide(TeacherConfig(
        kind='onnx', path=pooling_teacher(tmp_path / 'teacher.onnx'), tensors=('p8', 'p16', 'p32'),
        input_size=(64, 64), cache=tmp_path / 'features'), unpaired='thermal')
    records, device = [ImageRecord(1, picture, 64, 32)], torch.device('cpu')
    guide.fill_cache(records, device, progress=False)
    [path] = (tmp_path / 'features').rglob('*.f16')
    whole = path.read_bytes()
    for content, words in ((bytes([whole[0] ^ 1]) + whole[1:], '1 files .* were changed'),
                           (whole[:-16], '1 files .* had no checksum'), (whole, '')):
        path.write_bytes(content)
        caplog.clear()
        guide.fill_cache(records, device, progress=False)
        assert path.read_bytes() == whole
        assert re.search(words, caplog.text) if words else not caplog.text
