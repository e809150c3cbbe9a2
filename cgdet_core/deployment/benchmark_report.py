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

"""Plot what `cgdet benchmark` measured."""

from io import BytesIO
from pathlib import Path
from typing import Any

from cgdet_core.runtime.files import write_atomically

COLORS = {'pre': '#56b4e9', 'infer': '#0072b2', 'post': '#e69f00'}


def plot(report: dict[str, Any], path: Path) -> None:
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
