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

"""Show what `cgdet benchmark` measured: tables, and a plot."""

from io import BytesIO
from pathlib import Path
from typing import Any

from cgdet_core.runtime.files import write_atomically
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

COLORS = {'pre': '#56b4e9', 'infer': '#0072b2', 'post': '#e69f00'}
Report = dict[str, Any]


def print_report(report: Report, console: Console) -> None:
    """Print machine, latency and, where there are several batch sizes, throughput."""
    machine, settings = report['machine'], report['settings']
    console.print(
        f'{machine["cpu"]}, {settings["threads"]} threads of {machine["cores"]} cores, '
        f'governor {machine["governor"] or "unknown"}, {machine["mhz"]} MHz before and '
        f'{machine["mhz_after"]} after, load {machine["load"]}, {machine["date"]}, '
        f'commit {machine["commit"] or "unknown"}; {settings["frames"]} frames in '
        f'{settings["rounds"]} rounds', highlight=False)
    if machine['busy']:
        console.print(f'The machine was busy at the start (load {machine["load"]} on '
                      f'{machine["cores"]} cores): milliseconds are too high, percentiles too '
                      'wide.', style='yellow', highlight=False)
    for backend in dict.fromkeys(r['backend'] for r in report['results']):
        console.print(backend, highlight=False)
    table = Table('ms', box=SIMPLE, padding=0, caption=(
        'pre, infer, post, all (end to end), CPU (of all threads): p50. p95, p99, max: end to '
        'end, of peers inference alone. MB: resident.'))
    for column in ('pre', 'infer', 'post', 'all', 'p95', 'p99', 'max', 'CPU', 'all/infer', 'MB'):
        table.add_column(column, justify='right', no_wrap=True)
    for result in report['results']:
        table.add_row(result['label'], *_latency(result))
    console.print(table)
    print_throughput(report, console)


def _latency(result: Report) -> list[str]:
    ms = result['ms']
    whole = ms.get('total', ms['infer'])
    cells = [ms[n]['p50'] if n in ms else None for n in ('pre', 'infer', 'post', 'total')]
    cells += [whole['p95'], whole['p99'], whole['max'], ms['cpu']['p50'],
              result.get('total_over_infer'), result['memory_mb']['resident']]
    return [_cell(c) for c in cells]


def print_throughput(report: Report, console: Console) -> None:
    """Print images per second by batch size; nothing if only single images were measured."""
    sizes = [str(s) for s in report['settings']['batches']]
    if sizes == ['1']:
        return
    table = Table('images per second, inference alone', box=SIMPLE, padding=0)
    for size in sizes:
        table.add_column(f'batch {size}', justify='right')
    for result in report['results']:
        found = result['batches']
        table.add_row(result['label'], *(
            f'{found[s]["images_per_s"]:.1f}' if s in found else '-' for s in sizes))
    console.print(table)
    for result in report['results']:
        if result['skipped_batches']:
            skipped = ', '.join(map(str, result['skipped_batches']))
            console.print(f'{result["label"]}: batch {skipped} left out, the file takes at most '
                          f'{result["max_batch"]}.', highlight=False)


def plot(report: Report, path: Path) -> None:
    """Draw latency as bars and, with several batch sizes, throughput as lines (PNG, SVG, PDF)."""
    from matplotlib.figure import Figure

    results = report['results']
    lines = any(len(r['batches']) > 1 for r in results)
    figure = Figure(figsize=(12 if lines else 7, 1.6 + 0.6 * len(results)), dpi=120,
                    layout='constrained')
    axes = figure.subplots(1, 2 if lines else 1, squeeze=False)[0]
    names = [r['label'] for r in results]
    for row, result in enumerate(results):
        left = 0.0
        for part, color in COLORS.items():
            if part in result['ms']:
                width = result['ms'][part]['p50']
                axes[0].barh(row, width, left=left, color=color, label=part)
                left += width
        whole = result['ms'].get('total', result['ms']['infer'])
        axes[0].plot([whole['p50'], whole['p95']], [row, row], color='black', marker='|',
                     label='p50 to p95')
    axes[0].set_yticks(range(len(results)), names)
    axes[0].invert_yaxis()
    axes[0].set_xlabel('milliseconds per frame')
    handles = dict(zip(*axes[0].get_legend_handles_labels()[::-1]))
    axes[0].legend(handles.values(), handles.keys(), fontsize='small')
    if lines:
        for result, name in zip(results, names):
            found = result['batches']
            axes[1].plot([int(s) for s in found], [b['images_per_s'] for b in found.values()],
                         marker='o', label=name)
        axes[1].set(xlabel='images a call', ylabel='images per second, inference', ylim=(0, None))
        axes[1].legend(fontsize='small')
    machine = report['machine']
    figure.suptitle(f'{machine["cpu"]}, {report["settings"]["threads"]} threads, '
                    f'{machine["date"][:10]}', fontsize='medium')
    content = BytesIO()
    figure.savefig(content, format=path.suffix[1:])
    write_atomically(path, content.getvalue())


def _cell(value: float | None) -> str:
    return '-' if value is None else f'{value:.2f}' if value < 10 else f'{value:.1f}'
