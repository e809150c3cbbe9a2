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

"""Plots of success, precision and normalized precision, and of each attribute."""

from collections.abc import Mapping
from typing import Any

from cgdet_core.tracking.metrics import OVERLAPS, PIXELS, RELATIVE
from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

PANELS = {  # key of the curve: title, label of x, its values
    'success': ('success', 'overlap threshold', OVERLAPS),
    'precision': ('precision', 'center error, pixels', PIXELS),
    'normalized_precision': ('normalized precision', 'center error / size of the truth', RELATIVE)}
MAIN, SECOND = '#000000', '#d55e00'  # distinguishable with color blindness


def draw_report(report: Mapping[str, Any], name: str) -> Figure:
    """Draw the mean curves of a report of `summarize`, and a row of bars for its attributes."""
    attributes = report['attributes']
    figure = Figure((13, 4 if not attributes else 8), layout='constrained')
    grid = figure.add_gridspec(2 if attributes else 1, len(PANELS))
    legends = (f'AUC {report["success_auc"]:.3f}', f'{report["precision_20px"]:.3f} at 20 px',
               f'{report["normalized_precision"]:.3f}')
    for column, ((key, (title, label, places)), legend) in enumerate(zip(PANELS.items(), legends)):
        axes = figure.add_subplot(grid[0, column])
        axes.plot(places, report['curves'][key], color=MAIN, label=f'{name}, {legend}')
        axes.set(title=title, xlabel=label, ylabel='share of frames',
                 xlim=(0, places[-1]), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(fontsize='small')
    if attributes:
        _draw_attributes(figure.add_subplot(grid[1, :]), attributes)
    return figure


def _draw_attributes(axes: Axes, attributes: Mapping[str, Any]) -> None:
    places = np.arange(len(attributes))
    for shift, color, key, label in ((-0.2, MAIN, 'success_auc', 'success AUC'),
                                     (0.2, SECOND, 'precision_20px', 'precision (20 px)')):
        axes.bar(places + shift, [numbers[key] for numbers in attributes.values()], 0.4,
                 color=color, label=label)
    axes.set_xticks(places, [f'{name} ({numbers["sequences"]})'
                             for name, numbers in attributes.items()], rotation=30, ha='right')
    axes.set(title='attributes (sequences that have them)', ylim=(0, 1.02))
    axes.grid(alpha=0.3, axis='y')
    axes.legend(fontsize='small')
