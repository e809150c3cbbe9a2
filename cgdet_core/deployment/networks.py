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

"""What is exported: the networks of all tasks in their deployed form, by the task of the card."""

from pathlib import Path
from typing import Any, NamedTuple

from cgdet_core.detection.student import DeployedStudent, load_student
from cgdet_core.errors import UserError
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.detector import Detector
from cgdet_core.runtime.files import read_json
from cgdet_core.runtime.inference.card import card_path, ModelCard
from cgdet_core.runtime.inference.session import Session
from cgdet_core.runtime.tracking.card import TrackingCard
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.rgbt import RgbtCard, RgbtModel
from cgdet_core.tracking.network import DeployedTracker, load_tracker
from cgdet_core.tracking.rgbt.network import DeployedRgbt, load_rgbt
from cgdet_core.training.checkpoints import KEY, read_checkpoint
from torch import nn

CARDS: dict[str, type[ModelCard]] = {
    card.TASK: card for card in (DetectionCard, TrackingCard, RgbtCard)}


class Deployed(NamedTuple):
    """A network in its deployed form and its card; trunk: its name, for errors."""

    network: nn.Module
    card: ModelCard
    trunk: str


def card_of(source: Path) -> type[ModelCard]:
    """Return the type of card of an ONNX file or checkpoint."""
    values: Any = {}
    if source.suffix.lower() != '.onnx':
        values = read_checkpoint(source)[KEY].get('card')
    elif card_path(source).is_file():
        values = read_json(card_path(source))
    task = values.get('task') if isinstance(values, dict) else None
    return CARDS.get(task if isinstance(task, str) else '', DetectionCard)


def deployed(source: Path) -> Deployed:
    """Return the network of a checkpoint in its deployed form; UserError for a teacher."""
    kind = card_of(source)
    if kind is TrackingCard:
        tracker, found = load_tracker(source)
        return Deployed(DeployedTracker(tracker), found, tracker.config.trunk)
    if kind is RgbtCard:
        rgbt, held = load_rgbt(source)
        return Deployed(DeployedRgbt(rgbt), held, rgbt.config.trunk)
    student, card = load_student(source)
    if card.channels != 1:
        raise UserError(f'{source} takes RGB images; it is a teacher and is not '
                        'exported. Export a thermal student.')
    return Deployed(DeployedStudent(student, card.input_size, card.top_k), card,
                    student.config.trunk)


def try_out(card: ModelCard, session: Session, model: Path) -> None:
    """Run an exported network once; UserError if outputs of `model` are not finite."""
    if isinstance(card, TrackingCard):
        TrackingModel(card, session).try_out(model)
    elif isinstance(card, RgbtCard):
        RgbtModel(card, session).try_out(model)
    elif isinstance(card, DetectionCard):
        Detector(card, session).try_out(model)
