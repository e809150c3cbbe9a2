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

"""The protocol of inference sessions: named tensors in, named tensors out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.card import ModelCard, TensorSpec, words
from cgdet_core.runtime.processor import available_cores
from numpy.typing import NDArray

OPEN_BATCH = 64  # maximum batch of a file or network whose batch size is open
FileTensors = dict[str, tuple[tuple[int, ...], str]]  # name: shape, -1 where open; dtype


class NotFinite(ValueError):
    """The network's outputs are NaN or infinite."""

    def __init__(self) -> None:
        super().__init__(
            'the network returned values that are not numbers (NaN or infinite); if it does so '
            'for every frame, export the model again from finite weights')


class Session(Protocol):
    """Run a network; the constructor loads the model and checks its tensors against the card."""

    max_batch: int  # maximum rows per call

    def run(self, inputs: Mapping[str, NDArray[Any]],
            out: dict[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        """
        Run the card's inputs, by name, and return its outputs.

        The arrays are C-contiguous, with the card's shapes and types; with an open batch size
        they all have the same number of rows, 1 to max_batch. out: the caller's arrays, one for
        each output, which are filled and returned.
        """
        ...

    def describe(self) -> str:
        """Return the library, its version and device, for logs and diagnostics."""
        ...

    def close(self) -> None:
        """Free the model's memory; the session must not be in use, nor be used afterwards."""
        ...


def cpu_threads(threads: int) -> int:
    """Return the number of threads; for 0 that of the cores available to this process."""
    return threads or available_cores()


def check_tensors(model: Path, card: ModelCard, inputs: FileTensors, outputs: FileTensors) -> None:
    """Raise UserError if the file differs from the card; it may leave a fixed batch size open."""
    in_card, in_file = [], []
    for specs, found in ((card.inputs, inputs), (card.outputs, outputs)):
        for name in {**specs, **found}:
            if name not in found or name not in specs or not _fits(specs[name], *found[name]):
                in_card += [f'{name} {words(s.shape, s.dtype)}' for s in [specs.get(name)] if s]
                in_file += [f'{name} {words(*f)}' for f in [found.get(name)] if f]
    if in_card or in_file:
        raise UserError(
            f'{model} does not fit its card: the card has {", ".join(in_card) or "nothing more"}, '
            f'the file has {", ".join(in_file) or "nothing more"}; rerun "cgdet export".')


def _fits(spec: TensorSpec, shape: tuple[int, ...], dtype: str) -> bool:
    return (dtype == spec.dtype and shape[1:] == spec.shape[1:]
            and shape[:1] in ((-1,), spec.shape[:1]))
