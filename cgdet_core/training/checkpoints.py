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

"""Checkpoints of a training run: the entry next to the weights, and safe reading."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
import re
from typing import Any, TypeVar
import warnings
import zipfile

from cgdet_core.errors import UserError
from cgdet_core.runtime.files import file_kind, no_model
from cgdet_core.runtime.imaging.normalization import Normalization
from cgdet_core.runtime.inference.card import Card, ModelCard, read_card
from pydantic import BaseModel
import torch
from torch import nn, Tensor

KEY = 'cgdet'  # the checkpoint's entry with the card and the model's sizes
ZIP = 'a ZIP archive'  # as torch.save writes; see `file_kind`
STUDENT = 'student.'  # prefix of the names of the network's weights
Network = TypeVar('Network', bound=nn.Module)


def checkpoint_entry(card: ModelCard, model: BaseModel) -> dict[str, Any]:
    """Return a checkpoint's entry next to its weights, as plain values."""
    return {'card': card.to_dict(), 'model': model.model_dump(mode='json')}


def origin(training: dict[str, Any]) -> dict[str, Any]:
    """
    Return what a card tells of the run that its weights began with, from that run's `training`.

    Of the teachers of that run and of those before only `teacher_origin`: with all that is known
    of them, cards would double with every run.
    """
    found = dict(training)
    taught = found.get('imitation')
    if taught:
        found['imitation'] = [teacher_origin(t.get('sha256'), t) for t in (
            taught if isinstance(taught, list) else [taught])]
    if isinstance(found.get('init'), dict):
        found['init'] = origin(found['init'])
    return found


def teacher_origin(sha256: str | None, training: dict[str, Any]) -> dict[str, Any]:
    """Return what a card tells of a teacher: its file's hash and name, its data and license."""
    name = training.get('name') or (training.get('recipe') or {}).get('name')
    return {'sha256': sha256, 'name': name,
            **{key: training.get(key) for key in ('data', 'license', 'commit')}}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint's dictionary, tensors and plain values only; UserError otherwise."""
    path = Path(path)
    if not path.is_file():
        raise no_model(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of files that are something else
            data = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # the unpickler raises any type for a file that is something else
        raise UserError(f'{path} is not a checkpoint of "cgdet train": '
                        f'{_what_it_is(path, error)}.') from None
    if not isinstance(data, dict) or not isinstance(
            data.get(KEY), dict) or 'state_dict' not in data:
        raise UserError(f'{path} is not a checkpoint of "cgdet train": it holds the weights or '
                        'values of another program.')
    if isinstance(data['state_dict'], dict) and (bad := not_finite(data['state_dict'])):
        raise UserError(f'The checkpoint {path} has weights that are not finite (in {bad}); '
                        'choose another one, or train again with a lower optim.lr.')
    return data


def not_finite(weights: dict[str, Any]) -> str:
    """Return the name of the first tensor with NaN or infinite values, or nothing."""
    return next((name for name, value in weights.items()
                 if isinstance(value, Tensor) and not bool(value.isfinite().all())), '')


def _what_it_is(path: Path, error: Exception) -> str:
    """Return what a file seems to be that PyTorch could not load safely, a clause."""
    kind = file_kind(path)
    if isinstance(error, OSError):
        return f'it cannot be read ({error.strerror or error})'
    if not path.stat().st_size:
        return 'it is empty'
    if kind != ZIP:
        return f'it seems to be {kind}' if kind else 'it seems to be text or another format'
    if not zipfile.is_zipfile(path):
        return ('it is cut off, as by a full disk or an interrupted copy; copy it again or use '
                'another checkpoint of the run')
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if not any(name.endswith('data.pkl') for name in names):
        return f'it seems to be {ZIP}'
    if any(name.endswith('constants.pkl') for name in names):
        return 'it seems to be a TorchScript model'
    found = re.search(r'GLOBAL ([\w.]+)', str(error))
    return (f'it contains {found[1]}, which is code of another program and is not executed'
            if found else 'it is damaged; copy it again or use another checkpoint of the run')


def student_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Return the network's averaged weights, by their names in the network."""
    return {name.removeprefix(STUDENT): value for name, value in checkpoint['state_dict'].items()
            if name.startswith(STUDENT)}


def load_network(path: str | Path, kind: type[Card],
                 build: Callable[[Card, Any], Network]) -> tuple[Network, Card]:
    """Build the network of a card and its sizes, with its averaged weights, and the card."""
    data = read_checkpoint(path)
    card = read_card(data[KEY].get('card'), kind, path)
    with fits(path):
        network = build(card, data[KEY]['model'])
        load_weights(network, student_weights(data))
    return network.eval(), card


def load_weights(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load the weights of a checkpoint; ValueError if they are of other layers."""
    own, found = ({name: tuple(value.shape) for name, value in tensors.items()}
                  for tensors in (network.state_dict(), weights))
    if other := sorted({name for name, _ in own.items() ^ found.items()}):
        raise ValueError(f'its network has other layers ({other[0]}); use the version of cgdet '
                         'that wrote it')
    network.load_state_dict(weights)


def input_size_of(card: dict[str, Any]) -> tuple[int, int]:
    """Return the input size (width, height) from a card of any version."""
    if 'inputs' in card:
        height, width = card['inputs']['images']['shape'][2:]
    else:  # version 1
        width, height = card['input_size']
    return int(width), int(height)


def check_normalization(path: Path, card: dict[str, Any], wanted: Normalization) -> None:
    """Raise UserError if a model sees frames normalized otherwise, according to its card."""
    held = card.get('normalization')
    try:
        same = Normalization.from_dict(held or {}) == wanted
    except (AttributeError, TypeError, ValueError):
        same = False
    if not same:
        raise UserError(f'{path} sees frames normalized by {held}; set normalization in the '
                        'recipe to the same.')


@contextmanager
def fits(path: str | Path) -> Iterator[None]:
    """Raise UserError if the contents of a checkpoint do not fit what is built from them."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f'The checkpoint {path} does not fit this version: '
                        f'{str(error).splitlines()[0].rstrip(".")}.') from None
