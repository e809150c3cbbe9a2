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

"""Building with the real TensorRT-RTX builder, which needs no GPU."""

from pathlib import Path
import shutil
import threading

from cgdet_core.deployment.export import export
from cgdet_core.errors import UserError
from cgdet_core.runtime import DetectionCard, load_card, ModelCard
from cgdet_core.runtime.tensorrt import building
from cgdet_core.runtime.tensorrt.building import build_engine, engine_key, load_tensorrt, TensorRT
from cgdet_core.runtime.tensorrt.cache import EngineCache, log_progress, obtain
import pytest
from toy_model import write_toy, write_tracker

MODELS = sorted((Path(__file__).resolve().parents[2] / 'models').glob('*.onnx'))
SHIPPED = MODELS[0].with_name('thermal.onnx')


@pytest.fixture(scope='module')
def rtx() -> TensorRT:
    pytest.importorskip('tensorrt_rtx', reason='TensorRT-RTX is not installed here')
    return load_tensorrt('tensorrt_rtx')


def quiet(what: str, seconds: float) -> None:
    pass


@pytest.mark.parametrize('model', MODELS, ids=lambda path: path.stem)
@pytest.mark.parametrize('targets', [('sm86', 'sm89'), ('sm75',), ('sm120',)])
def test_every_shipped_model_builds(
    rtx: TensorRT, model: Path, targets: tuple[str, ...],
) -> None:
    if targets == ('sm75',) and 'tracker' in model.stem:
        with pytest.raises(UserError, match='for Turing .*FP32 GEMM is not supported'):
            build_engine(rtx, model, targets, quiet)
        return
    told: list[str] = []
    engine = build_engine(rtx, model, targets, lambda what, seconds: told.append(what))
    assert len(engine) > 1e6
    assert told[0] == f'Building the TensorRT-RTX engine of {model.name}'


@pytest.mark.parametrize('name', ['thermal_tracker', 'rgbt_tracker'])
def test_trackers_in_fp16_build_for_turing_too(rtx: TensorRT, tmp_path: Path, name: str) -> None:
    export(SHIPPED.with_stem(name), tmp_path / 'half.onnx', 'fp16')
    assert build_engine(rtx, tmp_path / 'half.onnx', ('sm75',), quiet)


@pytest.mark.parametrize('batch', [1, 4, 'n'])
def test_fixed_and_open_batches_build(
    rtx: TensorRT, tmp_path: Path, batch: int | str,
) -> None:
    assert build_engine(rtx, write_toy(tmp_path / 'toy.onnx', batch), ('sm86',), quiet)


@pytest.mark.parametrize('batch', [1, 'batch'])
def test_several_inputs_build_whatever_they_are_called(
    rtx: TensorRT, tmp_path: Path, batch: int | str,
) -> None:
    model = write_tracker(tmp_path / 'tracker.onnx', batch)
    key = engine_key(rtx, load_card(model, ModelCard), ('sm86',), 'RTX 3090')
    assert key.inputs == {'target': (1, 1, 8, 8), 'search': (batch, 1, 16, 16)}
    assert build_engine(rtx, model, ('sm86',), quiet)


def test_the_cache_stores_what_the_builder_returns(rtx: TensorRT, tmp_path: Path) -> None:
    model, cache = write_toy(tmp_path / 'toy.onnx'), EngineCache(tmp_path / 'cache')
    builds = []

    def start(targets: tuple[str, ...]) -> bytes:
        key = engine_key(rtx, load_card(model, DetectionCard), targets, 'left out')
        return obtain(cache, key, model,
                      lambda: builds.append(targets) or build_engine(rtx, model, targets, quiet),
                      bytes, log_progress())[0]

    assert start(('sm86', 'sm89')) == start(('sm89',)) == start(('sm86',))
    start(('sm120',))
    write_toy(model, 2)
    start(('sm86',))
    assert builds == [('sm86', 'sm89'), ('sm120',), ('sm86',)]


def test_the_key_names_the_gpu_only_where_it_matters(rtx: TensorRT) -> None:
    card = load_card(SHIPPED, DetectionCard)
    key = engine_key(rtx, card, ('sm86',), 'RTX 3090')
    assert (key.gpu, key.backend, key.version) == ('', 'tensorrt_rtx', rtx.version)
    assert key.onnx_sha256 == card.onnx_sha256 and key.inputs == {'images': (1, 1, 512, 640)}
    full = TensorRT('tensorrt', '10.3.0', rtx.module)
    assert engine_key(full, card, ('sm87',), 'Orin').gpu == 'Orin'


def test_a_file_that_tensorrt_cannot_read_is_an_error(rtx: TensorRT, tmp_path: Path) -> None:
    path = tmp_path / 'bad.onnx'
    path.write_bytes(SHIPPED.read_bytes()[:5000])
    with pytest.raises(UserError, match='TensorRT-RTX .* cannot read .*bad.onnx: .'):
        build_engine(rtx, path, ('sm86',), quiet)


def test_unknown_targets_are_named_with_the_known(rtx: TensorRT, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the target 'sm90'; choose from sm75, "):
        build_engine(rtx, write_toy(tmp_path / 'toy.onnx'), ('sm86', 'sm90'), quiet)


def test_an_interruption_stops_the_builder(rtx: TensorRT, tmp_path: Path) -> None:
    model = Path(shutil.copy(SHIPPED, tmp_path / 'm.onnx'))
    before = threading.active_count()

    def interrupt(what: str, seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(rtx, model, ('sm86',), interrupt)
    assert threading.active_count() == before


def test_a_missing_flavor_states_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for flavor, words in (('tensorrt', 'JetPack'), ('tensorrt_rtx', 'pip install tensorrt-rtx')):
        monkeypatch.setitem(building.importlib.sys.modules, flavor, None)
        with pytest.raises(UserError, match=f'is not installed; it comes with .*{words}'):
            load_tensorrt(flavor)
