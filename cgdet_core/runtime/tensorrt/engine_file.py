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
Engine files: a compiled network with its key, so that a wrong one is never run.

An engine is code for one GPU: its file names the GPU and has a checksum. A file that another
user could have written is not read. Layout: MAGIC, length of the header (4 bytes, little endian),
header (JSON), engine, SHA-256 of all preceding bytes (32 bytes).
"""

from dataclasses import asdict, dataclass, field
import hashlib
import json
import os
from pathlib import Path
import stat
from typing import Any

from cgdet_core.runtime.files import write_atomically
from cgdet_core.runtime.inference.card import BATCH

MAGIC = b'CGDETENG'
SUFFIX = '.engine'
BUILD = 1  # increment when building.py builds other engines of the same model
PROFILE_BATCHES = (1, 4, 16)  # minimum, optimum, maximum of an open batch size
_DIGEST = hashlib.sha256().digest_size


class Damaged(Exception):
    """The file is not an engine that may be loaded; the message states why."""


class Foreign(Exception):
    """The engine does not match the wanted key; the message states the difference."""

    def __init__(self, why: str, key: 'EngineKey') -> None:
        super().__init__(why)
        self.key = key


@dataclass(frozen=True)
class EngineKey:
    """
    Everything that decides whether an engine may run here.

    targets are compute capabilities ('sm87'); an engine of several runs on each of them. gpu is
    a GPU's name, empty for an engine that any GPU of its targets runs; for OpenVINO it is that of
    the processor. inputs are shapes by name, as in the model card. kind is "engine" or "f32
    engine", "kernels" for what TensorRT-RTX compiles at the first run, or "comparison" for the
    times of several backends.
    """

    onnx_sha256: str
    backend: str
    version: str
    targets: tuple[str, ...]
    gpu: str
    precision: str
    inputs: dict[str, tuple[int | str, ...]]
    batches: tuple[int, ...] = PROFILE_BATCHES
    kind: str = 'engine'
    build: int = BUILD

    def mismatch(self, wanted: 'EngineKey') -> str:
        """Return why this engine does not match the wanted key; empty if it does."""
        for name, have in asdict(self).items():
            want = getattr(wanted, name)
            if name == 'targets' and set(want) <= set(have):
                continue
            if have != want:
                return f'{name} is {_words(have)}, not {_words(want)}'
        return ''

    def file_name(self, model: str) -> str:
        """Return a name that begins with the model's and differs between keys."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f'{model}-{hashlib.sha256(text.encode()).hexdigest()[:16]}{SUFFIX}'


@dataclass(frozen=True)
class EngineFile:
    """An intact engine file; model is the name of the ONNX file it was built from."""

    path: Path
    key: EngineKey
    model: str
    payload: bytes = field(repr=False)


def write_engine(path: Path, key: EngineKey, model: str, payload: bytes,
                 mode: int = 0o644) -> None:
    """Write an engine atomically; OSError if that fails."""
    header = json.dumps({'model': model, **asdict(key)}).encode()
    content = b''.join((MAGIC, len(header).to_bytes(4, 'little'), header, payload))
    write_atomically(path, content + hashlib.sha256(content).digest(), mode)


def read_engine(path: Path, wanted: EngineKey | None = None) -> EngineFile:
    """Read and check an engine file; Damaged, Foreign (the payload is not read) or OSError."""
    # Check the owner of the opened file: the path may point elsewhere by then. A pipe of that
    # name must not block.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), 'rb') as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Damaged('not a file')
        if why := untrusted(status):
            raise Damaged(why)
        start = file.read(len(MAGIC) + 4)
        if start[:len(MAGIC)] != MAGIC:
            raise Damaged('not an engine file of this package')
        length = int.from_bytes(start[len(MAGIC):], 'little')
        if len(start) + length + _DIGEST > status.st_size:
            raise Damaged('truncated')
        header = file.read(length)
        key, model = _parse(header)
        if wanted is not None and (why := key.mismatch(wanted)):
            raise Foreign(why, key)
        rest = memoryview(file.read())
    payload = rest[:-_DIGEST]
    digest = hashlib.sha256(start + header)
    digest.update(payload)
    if digest.digest() != rest[-_DIGEST:]:
        raise Damaged('damaged: its checksum does not match')
    return EngineFile(path, key, model, bytes(payload))


def _parse(header: bytes) -> tuple[EngineKey, str]:
    try:
        values: dict[str, Any] = json.loads(header)
        model = str(values.pop('model'))
        if 'flavour' in values:  # written when images was the only input
            values['backend'] = values.pop('flavour')
            values['inputs'] = {'images': [1, *values.pop('shape')]}
        inputs = {name: tuple(shape) for name, shape in values.pop('inputs').items()}
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        key = EngineKey(inputs=inputs, **values)
        words = (key.onnx_sha256, key.backend, key.version, key.gpu, key.precision, key.kind,
                 *key.targets)
        sizes = [n for shape in inputs.values()
                 for n in (shape[1:] if shape[:1] == (BATCH,) else shape)]
        if not (all(isinstance(w, str) for w in words)
                and all(isinstance(n, int) for n in (*sizes, *key.batches, key.build))):
            raise TypeError
        return key, model
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Damaged('damaged, or written by another version of this package') from None


def untrusted(status: os.stat_result) -> str:
    """Return why a file or folder could contain another user's code; empty if it cannot."""
    if status.st_uid not in (os.geteuid(), 0):
        return 'belongs to another user'
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return 'can be written by other users'
    return ''


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ', '.join(f'{name} {_words(shape)}' for name, shape in value.items())
    if isinstance(value, tuple):
        return '+'.join(map(str, value))
    return (value[:12] if isinstance(value, str) and len(value) == 64 else str(value)) or 'any'
