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

"""The figure of a run's results, and how figures are saved; a robot can load it."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from cgdet_core.runtime.files import write_atomically
from cgdet_core.runtime.imaging.frames import as_drawn
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def draw_results(rows: Sequence[Mapping[str, float]], monitor: str) -> Figure:
    """Draw the losses, the validation metrics and the learning rate of a run over its epochs."""
    figure = Figure((13, 4), layout='constrained')
    losses, metrics, rate = figure.subplots(1, 3)
    names = dict.fromkeys(key for row in rows for key in row)
    for name in names:
        points = [(row['epoch'], row[name]) for row in rows if name in row]
        section, _, label = name.partition('/')
        axes = {'train': losses, 'val': metrics, 'lr': rate}.get(section)
        if axes is not None:
            main = name in ('train/loss', monitor, 'lr')
            axes.plot(*zip(*points), '.-', label=label or None, linewidth=2 if main else 1,
                      color='black' if main else None, alpha=1 if main else 0.8)
    for axes, title in ((losses, 'training losses'), (metrics, 'validation'),
                        (rate, 'learning rate')):
        axes.set(title=title, xlabel='epoch')
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if rows:  # the same in all three, also if few epochs were validated
            axes.set_xlim(rows[0]['epoch'] - 0.5, rows[-1]['epoch'] + 0.5)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize='small')
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    content = BytesIO()
    figure.savefig(content, dpi=120, format=path.suffix[1:])
    write_atomically(path, as_drawn(content.getvalue()))
    return path
