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

"""The mean of two exported networks, and what cannot be averaged."""

from dataclasses import replace
from pathlib import Path
import shutil
import sys

from cgdet_core.deployment.average import average, main
from cgdet_core.errors import UserError
from cgdet_core.nets.exported import exported_weights, places
from cgdet_core.runtime import DetectionCard, Detector
from cgdet_core.runtime.inference.card import card_path, file_sha256, load_card, save_card
from cgdet_core.runtime.tracking.card import TrackingCard
import numpy as np
import onnx
from onnx import numpy_helper
import pytest


def copied(source: Path, target: Path) -> Path:
    for one, other in ((source, target), (card_path(source), card_path(target))):
        shutil.copyfile(one, other)
    return target


def test_each_weight_is_the_mean_of_both(onnx_model: Path, tmp_path: Path) -> None:
    one = copied(onnx_model, tmp_path / 'one.onnx')
    model = onnx.load(one)
    weights = {place for place, _ in places(model).values()}
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(
                3 * numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, one)
    text = card_path(one).read_text()
    card_path(one).write_text(text.replace(file_sha256(onnx_model), file_sha256(one)))
    output = tmp_path / 'mean.onnx'
    average(one, onnx_model, output)
    before, after = exported_weights(onnx_model), exported_weights(output)
    assert before.keys() == after.keys()
    for name, values in after.items():
        np.testing.assert_allclose(values, 2 * before[name], rtol=1e-6)
    card = load_card(output, DetectionCard)
    assert card.training['averaged_with'] == file_sha256(one)[:16]
    Detector.load(output)


def test_the_filters_of_trackers_are_averaged_too(tmp_path: Path) -> None:
    shipped = Path(__file__).resolve().parents[2] / 'models' / 'thermal_tracker.onnx'
    one, output = copied(shipped, tmp_path / 'one.onnx'), tmp_path / 'mean.onnx'
    card = load_card(one, TrackingCard)
    learned = replace(card.filter, step=3 * card.filter.step,
                      label=tuple(3 * value for value in card.filter.label))
    save_card(replace(card, filter=learned), one)
    average(one, shipped, output)
    found = load_card(output, TrackingCard).filter
    assert found.step == pytest.approx(2 * card.filter.step)
    assert found.label == pytest.approx([2 * value for value in card.filter.label])
    assert found.mask == pytest.approx(card.filter.mask)
    save_card(replace(card, filter=replace(card.filter, spacing=1.0)), one)
    with pytest.raises(UserError, match='functions of other distances'):
        average(one, shipped, output)


def test_other_networks_are_refused(
    onnx_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shipped = Path(__file__).resolve().parents[2] / 'models'
    for other, words in ((shipped / 'rgbt_tracker.onnx', 'have other layers'),
                         (shipped / 'thermal_fp16.onnx', 'must be in FP32'),
                         (shipped / 'thermal.onnx', 'have other layer')):
        monkeypatch.setattr(sys, 'argv', ['average', str(onnx_model), str(other), '-o',
                                          str(tmp_path / 'mean.onnx')])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 1 and words in capsys.readouterr().err
    own = copied(onnx_model, tmp_path / 'own.onnx')
    with pytest.raises(UserError, match='own.mean must end in .onnx'):
        average(own, own, tmp_path / 'own.mean')
    card = load_card(own, DetectionCard)
    save_card(replace(card, classes=card.classes[::-1]), own)
    with pytest.raises(UserError, match='cards of .* state other classes'):
        average(own, onnx_model, tmp_path / 'mean.onnx')
    assert not [*tmp_path.glob('mean*')]
