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

"""Inference sessions behind one small protocol: named tensors in, named tensors out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.card import ModelCard, TensorSpec, words
from numpy.typing import NDArray

OPEN_BATCH = 64  # the largest batch of a file or network that takes any
FileTensors = dict[str, tuple[tuple[int, ...], str]]  # name: shape, -1 where open; dtype


class Session(Protocol):
    """Run a network; built by loading a model, which compares its tensors with the card."""

    max_batch: int  # rows of one call

    def run(
        self, inputs: Mapping[str, NDArray[Any]], out: dict[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """
        Run the card's inputs, by name, and return its outputs.

        The arrays are C-contiguous and as the card says; where the first axis is open they have
        1 to max_batch rows, all the same number. out: the caller's arrays, one for each output,
        which are filled and returned.
        """
        ...

    def describe(self) -> str:
        """Name the library, its version and device, for logs and diagnostics."""
        ...

    def close(self) -> None:
        """Free the model's memory; the session can't be used afterwards, nor be in use now."""
        ...


def check_tensors(
    model: Path, card: ModelCard, inputs: FileTensors, outputs: FileTensors,
) -> None:
    """
    Raise UserError where the opened file has other tensors than the card says.

    A first axis that the card fixes may be open in the file, which then takes more.
    """
    said, has = [], []
    for specs, found in ((card.inputs, inputs), (card.outputs, outputs)):
        for name in {**specs, **found}:
            if name not in found or name not in specs or not _fits(specs[name], *found[name]):
                said += [f'{name} {words(s.shape, s.dtype)}' for s in [specs.get(name)] if s]
                has += [f'{name} {words(*f)}' for f in [found.get(name)] if f]
    if said or has:
        raise UserError(
            f'{model} does not fit its card: the card says {", ".join(said) or "nothing more"}, '
            f'the file has {", ".join(has) or "nothing more"}; rerun "cgdet export".')


def _fits(spec: TensorSpec, shape: tuple[int, ...], dtype: str) -> bool:
    return (dtype == spec.dtype and shape[1:] == spec.shape[1:]
            and shape[:1] in ((-1,), spec.shape[:1]))
