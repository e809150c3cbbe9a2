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

"""Weights of a network in an exported FP32 file, whose normalization layers are folded."""

from contextlib import suppress
import json
from pathlib import Path
from typing import TYPE_CHECKING

from cgdet_core.nets.blocks import normalized, set_folded
import numpy as np
import torch
from torch import nn, Tensor

if TYPE_CHECKING:
    from onnx import ModelProto

PREFIX = 'student.'  # of the names of the network's weights
RENAMED = 'renamed_weights'  # in the file's metadata, see `keep_names`


def keep_names(model: 'ModelProto', network: nn.Module) -> None:
    """
    Note in the metadata where a network's weights are that PyTorch's exporter renamed.

    It transposes those of linear layers, and keeps one of several that are equal. What it adds
    to each node, such as paths of this machine, is removed.
    """
    from onnx import numpy_helper
    held = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    renamed: dict[str, tuple[str, bool]] = {}
    for name, value in network.state_dict().items():
        if name not in held and name.startswith(PREFIX):
            wanted = value.numpy()
            for other, array in held.items():
                for transposed in ((False, True) if value.ndim == 2 else (False,)):
                    if np.array_equal(array, wanted.T if transposed else wanted):
                        renamed[name] = other, transposed
    del model.metadata_props[:]
    if renamed:
        model.metadata_props.add(key=RENAMED, value=json.dumps(renamed))
    graph = model.graph
    for noted in (graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input,
                  *graph.output):
        del noted.metadata_props[:]
        noted.doc_string = ''


def exported_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights of an FP32 file of "cgdet export", by their names in the network."""
    import onnx
    from onnx import numpy_helper
    model = onnx.load(path)
    held = {i.name: torch.tensor(numpy_helper.to_array(i)) for i in model.graph.initializer}
    return {name.removeprefix(PREFIX): held[place].T if transposed else held[place]
            for name, (place, transposed) in places(model).items() if place in held}


def places(model: 'ModelProto') -> dict[str, tuple[str, bool]]:
    """Return the initializer of each weight, by its name in the network, and if it is turned."""
    found = {i.name: (i.name, False) for i in model.graph.initializer
             if i.name.startswith(PREFIX)}
    for entry in model.metadata_props:
        if entry.key != RENAMED:
            continue
        with suppress(AttributeError, TypeError, ValueError):  # of another program
            found |= {str(name): (str(place), bool(transposed))
                      for name, (place, transposed) in json.loads(entry.value).items()
                      if str(name).startswith(PREFIX)}
    return found


def set_exported(network: nn.Module, weights: dict[str, Tensor]) -> bool:
    """Load exported weights in place; return whether they are those of the network and no more."""
    weights = dict(weights)
    names = {module: name for name, module in network.named_modules()}
    folded: set[str] = set()
    try:
        for _, _, conv, _, norm in normalized(network):
            weight, bias = (weights.pop(f'{names[conv]}.{key}') for key in ('weight', 'bias'))
            set_folded(conv, norm, weight, bias)
            folded |= {names[conv], names[norm]}
        loaded = network.load_state_dict(weights, strict=False)
    except (KeyError, RuntimeError):  # no weights of this name, or of this size
        return False
    missing = [name for name in loaded.missing_keys if name.rpartition('.')[0] not in folded]
    return not missing and not loaded.unexpected_keys
