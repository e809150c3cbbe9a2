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

"""
Average two exported FP32 networks: `python -m cgdet_core.deployment.average A.onnx B.onnx -o C`.

B must have begun as A, or both as a third, with the same layers: such weights can be averaged, and
their mean often generalizes better than either (arXiv 2203.05482). So is the learned filter in the
cards of trackers. C.onnx is exported again by its own commands: fit its scores, and measure it.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from cgdet_core.deployment.networks import card_of
from cgdet_core.errors import UserError
from cgdet_core.nets.exported import exported_weights, places, PREFIX
from cgdet_core.runtime.files import check_not_inputs, check_outputs, together
from cgdet_core.runtime.inference.card import card_path, file_sha256, load_card, save_card
from cgdet_core.runtime.tracking.filter import FilterSettings
import numpy as np
import onnx
from onnx import numpy_helper


def average(one: Path, other: Path, output: Path) -> None:
    """Write the mean of two networks, with the card of the second; UserError if they differ."""
    if output.suffix.lower() != '.onnx':  # another model's card may have the name of its card
        raise UserError(f'The output {output} must end in .onnx.')
    check_outputs([output, card_path(output)])
    check_not_inputs([output], [one, other])
    cards = [load_card(path, card_of(path)) for path in (one, other)]
    if any(card.precision != 'fp32' for card in cards):
        raise UserError('Both files must be in FP32.')
    if len({bool((c.trained_model or {}).get('one_to_one')) for c in cards}) > 1:
        raise UserError(f'{one} and {other} score objects in other ways (model.one_to_one).')
    learned = _mean_filter(*(getattr(card, 'filter', None) for card in cards))
    weights, model = exported_weights(one), onnx.load(other)
    tensors = {i.name: i for i in model.graph.initializer}
    ours = {name.removeprefix(PREFIX): place for name, place in places(model).items()}
    if weights.keys() != ours.keys():
        raise UserError(f'{one} and {other} have other layers.')
    for name in ('classes', 'normalization', 'polarity'):
        if getattr(cards[0], name, None) != getattr(cards[1], name, None):
            raise UserError(f'The cards of {one} and {other} state other {name}.')
    done = set()
    for name, (own, transposed) in ours.items():
        values, mine = weights[name].numpy(), numpy_helper.to_array(tensors[own])
        values = values.T if transposed else values
        if values.shape != mine.shape:
            raise UserError(f'{one} and {other} have other layer sizes.')
        if own not in done:  # equal weights are kept once
            tensors[own].CopyFrom(numpy_helper.from_array((values + mine) / 2, own))
            done.add(own)
    with together(output, (output.name, card_path(output).name)) as folder:
        onnx.save(model, folder / output.name)
        training = {**cards[1].training, 'averaged_with': file_sha256(one)[:16]}
        save_card(replace(cards[1], training=training, accuracy={}, **learned,
                          onnx_sha256=file_sha256(folder / output.name)), folder / output.name)


def _mean_filter(one: FilterSettings | None, other: FilterSettings | None) -> dict[str, Any]:
    """Return the entry `filter` of the mean's card, nothing without two filters."""
    if one is None or other is None:
        return {}
    a, b = one.to_dict(), other.to_dict()
    if one.spacing != other.spacing or len(one.label) != len(other.label):
        raise UserError('The filters in the cards are functions of other distances.')
    return {'filter': FilterSettings.from_dict(
        {name: np.mean([a[name], b[name]], 0).tolist() for name in a})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('one', type=Path)
    parser.add_argument('other', type=Path)
    parser.add_argument('-o', '--output', type=Path, required=True)
    options = parser.parse_args()
    try:
        average(options.one, options.other, options.output)
    except UserError as error:
        parser.exit(1, f'{error}\n')


if __name__ == '__main__':
    main()
