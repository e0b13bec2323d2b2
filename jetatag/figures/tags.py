"""Scores tag by tag."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jetatag.config import refuse_unknown
from jetatag.figures._style import DARK, LIGHT, MARKERS, MIDDLE, name_rows, named, panels


def per_tag(tables: Mapping[str, pd.DataFrame], metric: str = "average_precision") -> Figure:
    """Draw the score of every tag in one or more runs, sorted by the first run, best on top.

    tables : name of the run → its table from `metrics.per_tag`, all of the same tags; tags that
    the first run cannot score are left out and counted under the picture
    """
    first = next(iter(tables.values()))
    refuse_unknown([metric], first.columns.difference(["tag", "n_positive"]), "metric")
    scores = pd.DataFrame({name: table.set_index("tag")[metric] for name, table in tables.items()})
    shown = scores.dropna(subset=[scores.columns[0]]).sort_values(scores.columns[0])
    n_out = len(scores) - len(shown)
    figure, axes = panels(1, 1, (6.5, 1.3 + 0.17 * len(shown)))
    ax, rows = axes[0, 0], np.arange(len(shown))
    ax.hlines(rows, shown.min(axis=1), shown.max(axis=1), color="0.75", linewidth=1.2)
    looks = zip(cycle((DARK, MIDDLE, LIGHT)), cycle(MARKERS), strict=False)
    for name, (colour, marker) in zip(shown, looks, strict=False):
        ax.plot(shown[name], rows, marker, color=colour, markersize=5, label=name)
    counts = first.set_index("tag").loc[shown.index, "n_positive"]
    name_rows(ax, [f"{tag} ({n})" for tag, n in counts.items()])
    left_out = f"\n({n_out} tags without positive clips are not shown)" if n_out else ""
    ax.set(xlabel=named(metric) + left_out, ylabel="tag (clips that carry it)")
    ax.grid(axis="x", color="0.9")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure
