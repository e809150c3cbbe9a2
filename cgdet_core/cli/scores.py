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

"""`cgdet evaluate` and `cgdet fit-scores`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TYPE_CHECKING

from cgdet_core.cli import common
from cgdet_core.cli.common import (
    Backend,
    cell,
    check_not_shipped,
    Data,
    folder_option,
    Images,
    Json,
    model_argument,
    Overwrite,
    say,
    show_table,
)
from cgdet_core.cli.report import check_complete, check_page, command, Page, show_page
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_not_inputs, check_outputs
from rich.table import Table
import typer

FIGURES = ('pr_curve.png', 'reliability.png')
CORRUPTED = 'corruptions.png'
if TYPE_CHECKING:
    from cgdet_core.data.coco import CocoSet
    from cgdet_core.runtime.detection.detector import Detector
Iou = Annotated[float | None, typer.Option(
    min=0.01, max=1, help="Overlap above which a box is suppressed; the card's by default.")]
Voting = Annotated[float | None, typer.Option(
    min=0, max=1, help='Overlap from which boxes are averaged, weighted with their squared '
    "scores; 0: no averaging; the card's by default.")]


def evaluate(
    model: Annotated[Path, model_argument('Checkpoint or ONNX file')],
    data: Data, images: Images = None, json_path: Json = None, backend: Backend = 'onnxruntime',
    update_card: Annotated[bool, typer.Option(
        '--update-card', help='Write the numbers to the card of an ONNX file.')] = False,
    output: Annotated[Path | None, folder_option(
        'Folder for pr_curve.png, reliability.png, and evaluation.json for "cgdet '
        'report".')] = None,
    page: Page = None,
    iou_threshold: Iou = None, voting_iou: Voting = None, overwrite: Overwrite = False,
    corruptions: Annotated[bool, typer.Option(
        '--corruptions', help='Also measure AP on corrupted frames: gain, offset, noise, blur, '
        'fog, dead pixels, polarity, JPEG, in five strengths; with --output, draw '
        'corruptions.png.')] = False,
    seed: Annotated[int, typer.Option(min=0, help='Seed of the corruptions.')] = 0,
    every: Annotated[int, typer.Option(
        min=1, metavar='N', help='Measure every N-th frame only.')] = 1,
) -> None:
    """Measure average precision, and the card's scores and thresholds, on annotated frames."""
    from cgdet_core.data.coco import load_coco
    from cgdet_core.detection.evaluation import detect_all, evaluation_of, suppressing
    from cgdet_core.detection.metrics import curves
    from cgdet_core.detection.predict import open_detector
    from cgdet_core.detection.report import write_page
    from cgdet_core.detection.results import FILE, save
    from cgdet_core.runtime.imaging.frames import check_not_among
    from cgdet_core.runtime.inference.card import card_path, save_card

    if update_card:
        check_not_shipped(model)
        if model.suffix.lower() != '.onnx':
            raise UserError('--update-card requires an ONNX file; export the checkpoint first.')
        if iou_threshold is not None or voting_iou is not None:
            raise UserError('--update-card measures the suppression of the card; write another '
                            'one with "cgdet fit-scores".')
        if every > 1:
            raise UserError('--update-card requires all frames; leave out --every.')
        check_outputs([card_path(model)])
    if output is not None:
        names = (*FIGURES, *([CORRUPTED] if corruptions else []), FILE)
        written = [output / name for name in names]
        check_outputs(written, overwrite=overwrite)
        check_outputs([*written, *filter(None, [json_path])])
        check_not_inputs(written, [data, model])
    if page is not None:
        check_page(page, overwrite)
    detector = open_detector(model, backend)
    card = detector.card = suppressing(detector.card, iou_threshold, voting_iou)
    coco = load_coco(data, images, card.classes, card.channels)
    if output is not None:
        check_not_among(written, [record.path for record in coco.images])
    coco = replace(coco, images=coco.images[::every])
    listed = len(coco.images)
    with common.counting('evaluating', listed) as progress:
        found = detect_all(detector, coco, progress)
    evaluation = evaluation_of(model, detector, found, coco, images, command())
    report = evaluation.report
    if corruptions:
        report = {**report, 'robustness': _corrupted(detector, coco, seed)}
    common.show_report(report, json_path)
    _show_scores(report['scores'], 'at the thresholds of the card')
    if corruptions:
        _show_corruptions(report['robustness'])
    if output is not None:
        save(evaluation, output / FILE)  # first, as the figures may fail
        # With matplotlib, which only the figures need.
        from cgdet_core.detection.curves import draw_curves, draw_reliability, save_figure

        results = [{'variant': model.name, 'curves': curves(found, coco.images, card.classes)}]
        judged = evaluation.judged
        for name, figure in zip(FIGURES, (draw_curves(results, [model.name], card.classes, judged),
                                          draw_reliability(judged, card.classes))):
            save_figure(figure, output / name)
        if corruptions:
            from cgdet_core.detection.curves import draw_corruptions
            from cgdet_core.detection.robustness import rows

            save_figure(draw_corruptions([*rows(report['robustness'])]), output / CORRUPTED)
        say(f'{output}: {", ".join(names)}')
    if page is not None:
        write_page(evaluation, page)
        show_page(page)
    if update_card:
        if len(coco.images) < listed:
            say('The card is unchanged, as frames are missing.', 'yellow')
        else:
            accuracy = {**card.accuracy, data.name: evaluation.report}
            save_card(replace(card, accuracy=accuracy), model)
    check_complete(listed, len(coco.images))


def _corrupted(detector: 'Detector', coco: 'CocoSet', seed: int) -> dict[str, Any]:
    from cgdet_core.detection.robustness import measure_corruptions, VARIANTS

    with common.counting('corrupting', len(coco.images) * len(VARIANTS)) as progress:
        return measure_corruptions(detector, coco, seed, progress)


def _show_corruptions(report: dict[str, Any]) -> None:
    from cgdet_core.detection.robustness import rows

    table = Table('', 'none', *'12345', 'mean, relative', title='AP on corrupted frames')
    for name, values, mean in rows(report):
        table.add_row(name, *map(cell, values), cell(mean, 2))
    show_table(table)


def fit_scores(
    models: Annotated[list[Path], typer.Argument(
        metavar='MODEL...', help='ONNX files of one network, for example its precisions; scores '
        'are fitted to the first, and all cards are written.')],
    data: Data, images: Images = None, json_path: Json = None,
    iou_threshold: Iou = None, voting_iou: Voting = None,
) -> None:
    """
    Fit scores and thresholds to annotated frames, and write them to the cards.

    A score becomes the probability that the detection is correct, and each class has the
    threshold of the largest F1. Use frames that the model was not trained on.
    """
    from cgdet_core.data.coco import load_coco
    from cgdet_core.detection.evaluation import fit_models, suppressing
    from cgdet_core.detection.predict import open_detector
    from cgdet_core.runtime.inference.card import card_path, save_card

    for model in models:
        check_not_shipped(model)
        if model.suffix.lower() != '.onnx':
            raise UserError(f'{model} is not an ONNX file; export the checkpoint first.')
    check_outputs([card_path(model) for model in models])
    detectors = [open_detector(model, 'onnxruntime') for model in models]
    for detector in detectors:
        detector.card = suppressing(detector.card, iou_threshold, voting_iou)
    coco = load_coco(data, images, detectors[0].card.classes)
    with common.counting('detecting', len(models) * len(coco.images)) as progress:
        cards, reports = fit_models(models, detectors, coco, progress)
    for model, card, report in zip(models, cards, reports):
        _show_scores(report['before'], f'{model.name}, raw scores')
        _show_scores(report['scores'], f'{model.name}, fitted on the same frames')
        if report['cross_fitted'] is None:
            say('Half of the frames are too few to fit scores and judge them by the others.')
        else:
            _show_scores(report['cross_fitted'], f'{model.name}, fitted on the other half')
        save_card(card, model)
    for name in cards[0].classes:
        entry = cards[0].score_scaling.get(name)
        say(f'{name}: ' + ('too few objects, scores stay raw' if entry is None else (
            f'slope {entry["slope"]:g}, offset {entry["offset"]:g}, threshold '
            f'{cards[0].class_thresholds[name]:g}')))
    common.write_report({'models': reports}, json_path)


def _show_scores(summary: dict[str, Any], title: str) -> None:
    table = Table('', 'F1', 'precision', 'recall', 'false per frame', 'ECE', title=title)
    for name, values in summary['per_class'].items():
        table.add_row(name, *(cell(values[k]) for k in ('F1', 'precision', 'recall')),
                      cell(values['false_per_frame'], 2), cell(values['ECE']))
    table.add_row('all', '', '', '', cell(summary['false_per_frame'], 2), '')
    show_table(table)
