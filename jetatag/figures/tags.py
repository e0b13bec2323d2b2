"""Scores tag by tag: who is tagged well, what gains, and whose probabilities can be trusted."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jetatag.config import refuse_unknown
from jetatag.figures._style import (
    ABOVE,
    DARK,
    LIGHT,
    MARKERS,
    MIDDLE,
    PALE,
    looks,
    name_rows,
    named,
    panels,
    place_labels,
    refuse_lacking,
)


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
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def gain_per_tag(
    table: pd.DataFrame, notes: Mapping[str, str] | None = None, n_named: int = 6
) -> Figure:
    """Draw what each tag gains against how frequent it is and how it correlates with other tags.

    `table` : a row a tag, columns `tag`, `difference` (in average precision) with `low` and
    `high`, `frequency` (share of clips that carry it, in (0, 1]) and `correlation` (with other
    tags); notes : `frequency` or `correlation` → a line printed under that panel, for the rank
    correlation and its interval; n_named : how many tags are named, half of them the largest
    gains and half the largest losses
    """
    scales = {"frequency": "clips that carry the tag (share)", "correlation": "tag correlation"}
    notes = notes or {}
    refuse_lacking(table, ["tag", "difference", "low", "high", *scales], "the gains per tag lack")
    refuse_unknown(notes, scales, "panel")
    if not table["frequency"].between(0, 1, inclusive="right").all():
        raise ValueError("frequency must be in (0, 1]: give the share of clips that carry a tag.")
    figure, axes = panels(1, 2, (9.5, 4.4), sharey=True)
    for ax, (column, scale) in zip(axes[0], scales.items(), strict=True):
        ax.vlines(table[column], table["low"], table["high"], color=PALE, linewidth=1)
        ax.plot(table[column], table["difference"], "o", color=DARK, markersize=4)
        ax.axhline(0, color="0.4", linestyle="--", linewidth=1)
        ax.set(xlabel="\n".join(filter(None, (scale, notes.get(column)))))
    axes[0, 0].set(ylabel="gain in average precision", xscale="log")
    extreme = table["difference"].rank(method="first")
    outer = np.minimum(extreme - 1, len(table) - extreme) < n_named // 2
    figure.draw_without_rendering()  # fixes the layout, so that labels can be placed in pixels
    for ax, column in zip(axes[0], scales, strict=True):
        points = table[[column, "difference"]].to_numpy()
        place_labels(ax, points, table["tag"].where(outer, "").tolist(), np.zeros(len(table), bool))
    return figure


def calibration(
    curves: Mapping[str, pd.DataFrame], per_tag: Mapping[str, pd.DataFrame], n_named: int = 3
) -> Figure:
    """Draw whether probabilities can be trusted: over all tags, and tag by tag.

    curves : name of the run → its reliability curve, a row a bin of pooled probabilities, columns
    `mean_prob`, `share_positive`, `count` (clips × tags in the bin; empty bins are left out);
    per_tag : the same names → columns `tag`, `ece` (expected calibration error, in [0, 1]);
    n_named : how many of the first run's worst tags are named
    """
    refuse_unknown(per_tag, curves, "run")
    for name, curve in curves.items():
        refuse_lacking(curve, ["mean_prob", "share_positive", "count"], f"{name}'s curve lacks")
        errors = per_tag.get(name, pd.DataFrame())
        refuse_lacking(errors, ["tag", "ece"], f"{name}'s errors per tag lack")
    figure, axes = panels(2, 2, (9.5, 5), height_ratios=(3, 1))
    axes[0, 1].set_subplotspec(axes[0, 1].get_gridspec()[:, 1])
    axes[1, 1].remove()
    _draw_reliability(*axes[:, 0], curves)
    ranked = {name: per_tag[name].sort_values("ece", kind="stable") for name in curves}
    _draw_errors(axes[0, 1], ranked)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), **ABOVE)
    figure.draw_without_rendering()  # fixes the layout, so that labels can be placed in pixels
    tags = [tag for table in ranked.values() for tag in table["tag"]]
    worst = range(len(ranked[next(iter(curves))]))[-n_named:] if n_named else ()
    names = [tag if number in worst else "" for number, tag in enumerate(tags)]
    points = np.concatenate([line.get_xydata() for line in axes[0, 1].lines])
    place_labels(axes[0, 1], points, names, np.zeros(len(names), bool))
    return figure


def _draw_reliability(ax: Axes, below: Axes, curves: Mapping[str, pd.DataFrame]) -> None:
    """Share of positives above, counts below; a run's bars stand beside each other's."""
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="perfectly calibrated")
    for number, (name, look) in enumerate(looks(curves).items()):
        full = curves[name][curves[name]["count"] > 0]
        ax.plot(full["mean_prob"], full["share_positive"], **look, markersize=5, label=name)
        place = full["mean_prob"] + 0.02 * (number - (len(curves) - 1) / 2)
        hatch = ("", "//////", "......")[number % 3]
        below.bar(place, full["count"], 0.02, color="white", edgecolor=look["color"], hatch=hatch)
    ax.set(ylabel="share of positives", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    ax.tick_params(labelbottom=False)
    below.set(xlabel="mean probability", ylabel="clips × tags", xlim=(-0.03, 1.03), yscale="log")


def _draw_errors(ax: Axes, ranked: Mapping[str, pd.DataFrame]) -> None:
    for name, look in looks(ranked).items():
        rank = np.arange(1, len(ranked[name]) + 1)
        ax.plot(rank, ranked[name]["ece"], **{**look, "linestyle": "", "markersize": 4})
    ax.set(xlabel="tags, from the best calibrated", ylabel="expected calibration error")
    ax.set_ylim(bottom=0)
    ax.margins(x=0.08)
