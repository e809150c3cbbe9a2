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

"""`cgdet report`, and the evaluation of a model for it."""

from pathlib import Path
import shlex
import sys
from typing import Annotated, Any

from cgdet_core.cli import common
from cgdet_core.cli.common import Images, Overwrite, say
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import check_outputs
import typer

Page = Annotated[Path | None, typer.Option(
    '--report', metavar='FILE', help='Write an HTML page with thresholds, curves and worst frames '
    'to this file.')]


def report(
    source: Annotated[Path, typer.Argument(
        metavar='RUN|EVALUATION', help='Folder of a training run, whose best checkpoint is '
        'evaluated on its validation frames; or the --output of "cgdet evaluate" or "cgdet bag '
        'evaluate", a folder or its evaluation.json.')],
    output: Annotated[Path | None, typer.Option(
        metavar='FILE', help='HTML file to write; report.html in the folder by default.')] = None,
    data: Annotated[Path | None, typer.Option(
        '--data', help='COCO annotation file, if it was moved, or for other frames than the '
        "run's validation frames.")] = None,
    images: Images = None, overwrite: Overwrite = False,
) -> None:
    """Write a page to read an evaluation by and to choose thresholds with, in one HTML file."""
    from cgdet_core.data.sources import MODEL_SUFFIXES
    from cgdet_core.detection.report import write_page
    from cgdet_core.detection.results import FILE, load

    if source.suffix.lower() in MODEL_SUFFIXES:
        raise UserError(f'{source} is a model; use "cgdet evaluate {source} --data FILE '
                        '--report FILE.html".')
    if not source.exists():
        raise UserError(f'{source} does not exist.')
    folder = source if source.is_dir() else source.parent
    page = check_page(output or folder / 'report.html', overwrite)
    run = source / 'best.ckpt'
    listed = 0
    if source.is_dir() and run.is_file():
        evaluation, listed = _evaluate_run(run, data, images)
    else:
        path = source / FILE if source.is_dir() else source
        if not path.is_file():
            raise UserError(f'{source} has neither the best.ckpt of a training run nor the {FILE} '
                            'of an evaluation.')
        evaluation = load(path, data, images)
    write_page(evaluation, page)
    show_page(page)
    check_complete(listed, len(evaluation.records))


def check_complete(listed: int, read: int) -> None:
    """Raise UserError if frames that a set lists are missing in its numbers."""
    if read < listed:
        raise UserError(f'{listed - read} of {listed} frames could not be read; the numbers are '
                        'those of the others.')


def check_page(path: Path, overwrite: bool) -> Path:
    """Return the path of a page that can be written; UserError otherwise."""
    if path.suffix.lower() not in ('.html', '.htm'):
        raise UserError(f'The report must be an .html file, not {path.name}.')
    check_outputs([path], overwrite=overwrite)
    return path


def show_page(path: Path) -> None:
    size = path.stat().st_size
    shown = f'{size / 1e6:.1f} MB' if size >= 1e5 else f'{size / 1e3:.0f} kB'
    say(f'{path}: {shown}, open it in a browser')


def command() -> str:
    """Return the command line that runs."""
    return shlex.join(['cgdet', *sys.argv[1:]])


def _evaluate_run(
    checkpoint: Path, data: Path | None, images: Path | None,
) -> tuple[Any, int]:
    """Return the evaluation of a run's best checkpoint, and how many frames its set lists."""
    from cgdet_core.data.coco import load_coco
    from cgdet_core.detection.evaluation import detect_all, evaluation_of
    from cgdet_core.detection.predict import open_detector

    detector = open_detector(checkpoint)
    if data is None:
        data, images = _validation_frames(checkpoint.parent, images, detector.card.training)
    coco = load_coco(data, images, detector.card.classes, detector.card.channels)
    listed = len(coco.images)
    with common.counting('evaluating', listed) as progress:
        found = detect_all(detector, coco, progress)
    return evaluation_of(checkpoint, detector, found, coco, images, command()), listed


def _validation_frames(
    folder: Path, images: Path | None, training: dict[str, Any],
) -> tuple[Path, Path | None]:
    """Return annotations and image folder of a run's validation frames, from its recipe."""
    from cgdet_core.tasks import load_recipe

    path = folder / 'recipe.yaml'
    if path.is_file():
        section = getattr(load_recipe(path), 'data', None)
        if section is not None:
            return section.val, images or section.images
    name: Any = training  # a free-form record
    for key in ('recipe', 'data', 'val'):
        name = name.get(key) if isinstance(name, dict) else None
    raise UserError(f'{folder} does not say where {name or "its validation set"} is; name the '
                    'file.', 'data')
