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

"""The program, options and output functions that the commands share."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
import inspect
import logging
import os
from pathlib import Path
import re
import signal
import sys
from time import monotonic
from typing import Annotated, Any, Protocol, TypeVar

from cgdet_core.data.coco import counts_text
from cgdet_core.errors import UserError
from cgdet_core.runtime.files import (
    check_not_inputs,
    check_outputs,
    model_file,
    read_json,
    share_files,
    write_json,
)
from cgdet_core.runtime.imaging.signal import check_polarity, check_unit, POLARITIES, UNITS
from cgdet_core.runtime.inference.card import card_path
from cgdet_core.runtime.inference.choice import BACKENDS
from cgdet_core.words import counted, duration
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
import typer
from typer.core import TyperCommand

Item = TypeVar('Item')
MADE_BY = 'made_by'  # entry by which a report of --json is recognized
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
console = Console(markup=False)  # names of files and models may contain brackets

Images = Annotated[Path | None, typer.Option(
    help='Folder that the file names in the COCO file are relative to.')]


def _writable(path: Path | None) -> Path | None:
    check_outputs([path] if path else [])  # before the work, not after it
    if path is not None and path.is_file() and path.stat().st_size:
        with suppress(UserError):
            earlier = read_json(path)
            if isinstance(earlier, dict) and earlier.get(MADE_BY) == 'cgdet':
                return path
        raise UserError(f'{path} exists and is not a report of cgdet; choose another name or '
                        'remove it.', 'json')
    return path


Json = Annotated[Path | None, typer.Option(
    '--json', metavar='FILE', callback=_writable,
    help='Write the numbers to this file; an earlier report is replaced.')]
Data = Annotated[Path, typer.Option('--data', help='COCO annotation file.')]
Match = Annotated[str, typer.Option(help='Only images whose name matches this shell pattern.')]
Overwrite = Annotated[bool, typer.Option('--overwrite', help='Replace existing files.')]
Topic = Annotated[str | None, typer.Option(help='Image topic; required if a bag has several.')]
Unit = Annotated[str | None, typer.Option(
    callback=lambda unit: unit and check_unit(unit, '--unit'),
    help=f'Unit of 16-bit and float frames: {", ".join(UNITS)}.')]
Polarity = Annotated[str | None, typer.Option(
    callback=lambda polarity: polarity and check_polarity(polarity, '--polarity'),
    help=f'{" or ".join(POLARITIES)}: whether warm objects are bright or dark; by default as a '
    'model expects.')]
Backend = Annotated[str, typer.Option(
    help=f'Backend that runs MODEL, an ONNX file: {", ".join(BACKENDS)}.')]
PAUSE_S = 10.0  # between lines of progress, without a terminal
COLORED = ('{} is in color: a photo, or a thermal image with a palette. The models are trained on '
           'gray thermal frames, so boxes may be wrong.')
FILE_SUFFIXES = ('.json', '.jsonl', '.csv', '.html', '.png', '.jpg', '.mp4', '.onnx', '.txt',
                 '.yaml', '.zip')
ADDRESS = re.compile(r'(https?|ftp|s3|gs|rtsp)://?')  # as a path has one slash less
OUTPUTS = {'json_path', 'output', 'page', 'plot_path', 'video'}  # parameters of commands
TRAINING_MODULES = ('torch', 'torchvision', 'lightning', 'faster_coco_eval', 'pydantic', 'scipy',
                    'onnx', 'onnxscript', 'tensorboard', 'matplotlib')


def names_of(text: str | None) -> tuple[str, ...]:
    """Return the class names of an option, separated by commas; UserError for one named twice."""
    names = [] if text is None else [name.strip() for name in text.split(',')]
    for name in names:
        if not name:
            raise UserError(f'{text!r} has an empty class name; separate names by commas.',
                            'classes')
        if names.count(name) > 1:
            raise UserError(f'The class {name} is named twice.', 'classes')
    return tuple(names)


def folder_option(help: str, *names: str) -> Any:
    """Return an option that names a folder to write to, and refuses what is named like a file."""
    return typer.Option(*names, metavar='FOLDER', callback=_folder, help=help)


def _folder(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() in FILE_SUFFIXES and not path.is_dir():
        raise UserError(f'{path} is named like a file, but several files are written; name a '
                        f'folder, such as {path.with_suffix("")}.', 'output')
    return path


def model_argument(help: str, metavar: str = 'MODEL') -> Any:
    """Return an argument that is a file of a model, or a name, see `model_file`."""
    return _model(typer.Argument, help, metavar)


def model_option(help: str, metavar: str = 'MODEL') -> Any:
    """Return an option that is a file of a model, or a name, see `model_file`."""
    return _model(typer.Option, help, metavar)


def _model(kind: Callable[..., Any], help: str, metavar: str) -> Any:
    return kind(parser=model_file, metavar=metavar,
                help=f'{help}, or the name of one of this package.')


def check_not_shipped(model: Path) -> None:
    """Raise UserError for a model of this package, whose card is not written."""
    model = model_file(model)
    if model in share_files('models/*.onnx'):
        raise UserError(f'{model} is a model of the package, whose card stays as it is; copy '
                        f'it with its card, {card_path(model).name}, and name the copy.')


def word_of(argument: Any) -> str:
    """Return an argument as usage lines have it."""
    word = argument.metavar or argument.name.upper() + ('...' if argument.nargs == -1 else '')
    return word if argument.required or word.startswith('[') else f'[{word}]'


def help_of(function: Callable[..., Any] | None) -> str:
    """Return the docstring of a command, a line for each of its paragraphs."""
    paragraphs = inspect.cleandoc(function.__doc__ or '').split('\n\n')
    return '\n\n'.join(' '.join(paragraph.split()) for paragraph in paragraphs)


def check_local(paths: Iterable[Path]) -> None:
    """Raise UserError for a path that was meant as an address."""
    for path in paths:
        if ADDRESS.match(str(path)):
            raise UserError(f'{str(path).replace(":/", "://", 1)} is an address; download the '
                            'file and name it.')


class KeepsInputs(TyperCommand):
    """A command that refuses to write its output over a file that it reads."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse what a path would lose: an empty argument (the current folder), and file/."""
        for before, arg in zip(['', *args], args):
            if not arg or arg.startswith('--') and arg.endswith('='):
                where = f' after {before}' if not arg and before.startswith('--') else (
                    f', {arg}' if arg else '')
                raise UserError(f'An argument is empty{where}, as a variable that is not set is; '
                                'write its value or leave it out.')
            name = arg.rpartition('=')[2]
            if (name.endswith('/') and Path(name).suffix.lower() in FILE_SUFFIXES
                    and not Path(name).is_dir() and '://' not in name):
                raise UserError(f'{name} is named like a file, but "/" at its end makes it a '
                                'folder; remove the "/".')
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line, arguments as the reference has them."""
        arguments = [p for p in self.params if p.param_type_name == 'argument']
        return ['[OPTIONS]', *map(word_of, arguments)]

    def invoke(self, ctx: Any) -> Any:
        written: list[Path] = []
        read: list[Path] = []
        for name, value in ctx.params.items():
            values = value if isinstance(value, list | tuple) else [value]
            check_local(v for v in values if isinstance(v, Path))
            paths = [Path(v) for v in values if isinstance(v, str | Path)]
            (written if name in OUTPUTS else read).extend(paths)
        for paths in (written, read):
            paths += [card_path(path) for path in paths if path.suffix.lower() == '.onnx']
        check_not_inputs(written, read)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # commands that have something to keep handle it themselves
            complain('interrupted.')
            raise typer.Exit(130) from None


def say(text: str, style: str | None = None) -> None:
    """Print a line at once, without wrapping it."""
    console.print(text, style=style, highlight=False, soft_wrap=True)
    console.file.flush()


def show_table(table: Table) -> None:
    """Print a table; what does not fit in its column continues below, and nothing is cut."""
    for column in table.columns:
        column.overflow, column.no_wrap = 'fold', False
    console.print(table, highlight=False)


def complain(sentence: str) -> None:
    """Print an error."""
    Console(stderr=True).print(f'cgdet: {sentence}', style='red', highlight=False, markup=False,
                               soft_wrap=True)


def sentence_of(error: UserError) -> str:
    """Return an error's sentence with the options of the command that would fix it, if any."""
    command: Any = typer.main.get_command(app)
    for word in sys.argv[1:]:
        command = getattr(command, 'commands', {}).get(word, command)
    known = {option for parameter in command.params for option in parameter.opts}
    shown = ', '.join(option for field in error.fields
                      if (option := f'--{field.replace("_", "-")}') in known)
    return f'{str(error).rstrip(".")} ({shown}).' if shown else str(error)


class Complaints(list[UserError]):
    """Print errors as they come, such as of frames that are left out, and keep them."""

    def __call__(self, error: UserError) -> None:
        complain(sentence_of(error))
        self.append(error)


class Advance(Protocol):
    """Advance progress by a number; total: if it has only now become known."""

    def __call__(self, number: int = 1, total: int | None = None) -> None:
        ...


@contextmanager
def counting(what: str, total: int | None = None, noun: str = 'frame') -> Iterator[Advance]:
    """
    Show progress; yield the function that advances it by a number of frames.

    In a terminal it is a bar, from the first frame on; elsewhere (a pipe, a file) a line now and
    then. noun: what is counted.
    """
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    bar = progress.add_task(what, total=total)
    start = said = monotonic()
    done = 0

    def advance(number: int = 1, total: int | None = total) -> None:
        nonlocal done, said
        done += number
        now = monotonic()
        if console.is_terminal:
            progress.start()
            progress.update(bar, completed=done, total=total)
        elif now - said >= PAUSE_S:
            said = now
            say(_line(what, done, total, noun, now - start))

    try:
        yield advance
    finally:
        if console.is_terminal:
            progress.stop()


def tracked(items: Iterable[Item], advance: Advance) -> Iterator[Item]:
    """Yield items and advance the progress by each."""
    for item in items:
        yield item
        advance()


def _line(what: str, done: int, total: int | None, noun: str, seconds: float) -> str:
    """Return progress as words: how much is done and, if that is known, the time left."""
    if not total:
        return f'{what}: {counted(done, noun)}'
    left = f', {duration(seconds / done * (total - done))} left' if 0 < done < total else ''
    return f'{what}: {done} of {counted(total, noun)}{left}'


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Raise SystemExit on SIGTERM, so that unfinished files and Ray's processes are removed."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def ending(run: Callable[[], None]) -> tuple[str, int]:
    """Run a function and return why it ended early, or nothing, and the exit status."""
    try:
        with exit_on_sigterm():
            run()
    except KeyboardInterrupt:
        return 'interrupted', 130
    except SystemExit as error:  # SIGTERM
        return 'stopped', int(error.code or 0)
    except OSError as error:
        return f'{error.strerror}: {error.filename}' if error.filename else str(error), 1
    except UserError as error:
        return sentence_of(error).rstrip('.'), 1
    return '', 0


def check_plot(path: Path, *others: Path | None) -> None:
    """
    Raise UserError before the measurement if the plot cannot be written.

    others: further files that will be written.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ModuleNotFoundError:
        raise UserError('--plot requires matplotlib; install it with '
                        '"pip install matplotlib".') from None
    check_outputs([path, *(other for other in others if other is not None)])
    if path.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise UserError(f'--plot requires a .png, .svg or .pdf file, not {path.name}.')


class _ConsoleLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        warning = record.levelno >= logging.WARNING
        target = Console(stderr=True) if warning else console
        target.print(record.getMessage(), style='yellow' if warning else 'dim', highlight=False,
                     markup=False, soft_wrap=True)


def show_log() -> None:
    """Print the log: what data lack, warnings; `--verbose` adds why a backend was chosen."""
    log = logging.getLogger('cgdet_core')
    first = os.environ.get('LOCAL_RANK', '0') == '0'  # of the processes that train together
    log.setLevel(logging.INFO if first else logging.ERROR)
    logging.getLogger('cgdet_core.runtime').setLevel(logging.WARNING)
    log.addHandler(_ConsoleLog())
    log.propagate = False


def cell(value: float | None, digits: int = 3) -> str:
    return '-' if value is None else f'{value:.{digits}f}'


def show_report(report: dict[str, Any], json_path: Path | None) -> None:
    """Print average precision as a table."""
    table = Table('', 'AP', 'AP50', 'AP75', 'small', 'medium', 'large')
    table.add_row('all', *(cell(report[k]) for k in (
        'AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large')))
    for group in ('per_class', 'per_time_of_day', 'per_source'):
        for name, values in report.get(group, {}).items():
            table.add_row(name, cell(values['AP']), cell(values['AP50']))
    for name in report['other_classes']:
        table.add_row(Text(name, 'yellow'), '-', '-', '-')
    if report['other_classes']:
        table.caption = ('Not measured, as the model does not know these classes; numbers of '
                         f'boxes: {counts_text(report["other_classes"])}')
    show_table(table)
    write_report(report, json_path)


def write_report(report: dict[str, Any], json_path: Path | None) -> None:
    """Write the numbers to the file of --json, if it is set."""
    if json_path is not None:
        write_json(json_path, {MADE_BY: 'cgdet', **report})
