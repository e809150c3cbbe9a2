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

"""The contents of the engine cache, and what is removed, without the command line."""

from pathlib import Path

from cgdet_core.deployment.engines import clean, inspect
from cgdet_core.errors import UserError
from cgdet_core.runtime.tensorrt.cache import EngineCache
from cgdet_core.runtime.tensorrt.engine_file import Damaged, EngineFile, EngineKey
import pytest

KEY = EngineKey('ab' * 32, 'tensorrt', '10.3.0', ('sm87',), 'Orin', 'fp16',
                {'images': (1, 1, 512, 640)})


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    """Return a cache with engines of two models, a damaged and an incomplete file."""
    cache = EngineCache(tmp_path / 'cache')
    for model in ('day', 'night'):
        assert cache.keep(KEY, tmp_path / f'{model}.onnx', model.encode())
    (cache.folder / f'broken-{0:016x}.engine').write_bytes(b'CGDETENG')
    (cache.folder / '.day.engine.12345678.tmp').write_bytes(b'half')
    return cache


def test_damaged_files_are_listed_with_their_error(cache: EngineCache) -> None:
    found = {path.name.split('-')[0]: engine for path, _, engine in inspect(cache.files())}
    assert isinstance(found['broken'], Damaged) and 'truncated' in str(found['broken'])
    for model in ('day', 'night'):
        engine = found[model]
        assert isinstance(engine, EngineFile) and (engine.model, engine.key) == (model, KEY)
    assert not list(inspect([cache.folder / 'gone.engine']))


@pytest.mark.parametrize(('model', 'everything', 'left'), [
    (None, False, ['day', 'night']), ('models/day.onnx', False, ['night']), (None, True, [])])
def test_damaged_files_are_always_removed(
    cache: EngineCache, model: str | None, everything: bool, left: list[str],
) -> None:
    removed, freed, remaining = clean(cache, model, everything)
    assert (removed, remaining) == (4 - len(left), len(left)) and freed > 0
    assert not cache.leftovers()
    assert sorted(p.name.split('-')[0] for p in cache.files()) == left


def test_a_model_without_engines_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='no engine of dusk'):
        clean(EngineCache(tmp_path), 'dusk.onnx')
