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

"""Weights that torchvision publishes: downloaded once, checked, and read without running code."""

from collections.abc import Iterator
from contextlib import contextmanager
import hashlib
import os
from pathlib import Path
import pickle
from typing import Any
from urllib.parse import urlparse

from cgdet_core.errors import UserError
from torch.hub import download_url_to_file, get_dir, HASH_REGEX

# What torch.load unpickles where a caller does not say so: tensors only, or anything.
ONLY_WEIGHTS, ANYTHING = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


@contextmanager
def published(weights: Any, what: str, otherwise: str = '') -> Iterator[Any]:
    """
    Yield torchvision's weights (an enum member); in the block they are read as tensors only.

    Their file is downloaded if it is missing, and must have the hash that its name carries. what:
    names the weights in errors; otherwise: what else to do if there is no network. UserError
    states what is wrong with the file.
    """
    path = Path(get_dir()) / 'checkpoints' / Path(urlparse(weights.url).path).name
    named = HASH_REGEX.search(path.name)
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            download_url_to_file(weights.url, str(path), named[1] if named else None, False)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, RuntimeError) as error:  # also for the hash of what was downloaded
        raise UserError(f'{what} cannot be downloaded from {weights.url} ({error}); connect to '
                        'the network once, or put the file into $TORCH_HOME/hub/checkpoints'
                        f'{otherwise}.') from None
    wrong = UserError(f'{what} in {path} are not those that torchvision publishes; delete the '
                      'file, and it will be downloaded again.')
    if named and not digest.startswith(named[1]):
        raise wrong
    before = {name: os.environ.pop(name, None) for name in (ONLY_WEIGHTS, ANYTHING)}
    os.environ[ONLY_WEIGHTS] = '1'
    try:
        yield weights
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        raise wrong from None
    finally:
        del os.environ[ONLY_WEIGHTS]
        os.environ.update({name: value for name, value in before.items() if value is not None})
