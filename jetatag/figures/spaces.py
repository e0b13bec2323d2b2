"""Maps of the spaces, searches in them, and what they know about the tags."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from jetatag.evaluation.reading import MINUS
from jetatag.evaluation.spaces import ANSWERING, CLASSIFIER, COMBINED, ENCODED
from jetatag.figures import _style as style
from jetatag.files import check_known

Layouts, Notes = Mapping[str, np.ndarray], Mapping[str, str] | None
RANKINGS = {
    ENCODED: {"label": "space, encoded tags", "marker": "o"},
    ANSWERING: {"label": "space, means of clips with the tags", "marker": "^"},
    CLASSIFIER: {"label": "classifier", "marker": "s", "markerfacecolor": "white"},
    COMBINED: {"label": "space and classifier combined", "marker": "D"},
    "random": {"label": "chance", "marker": "x", "color": "0.4"},
}
MEASURES = {
    "tag_semantics": "rank correlation of tag cosines\nwith label correlation",
    "mean_energy": "share of energy in the mean",
}


@style.own_style()
def tag_map(layouts: Layouts, positive: np.ndarray, tag: str, notes: Notes = None) -> Figure:
    """Draw one tag against the rest in several layouts side by side (Lee & Cho 2021, figure 2).
    layouts : title → (clip, 2); positive : (clip,) whether a clip carries `tag`; notes : title →
    text below the map"""
    positive = np.asarray(positive).astype(bool)
    figure, axes = _map_panels(list(layouts), (3.3 * len(layouts), 3.7), notes)
    rest = {"s": 9, "color": style.PALE, "marker": "o", "label": "other"}
    look = {"s": 20, "color": style.DARK, "marker": "^", "label": style.in_legend(tag)}
    for ax, (title, points) in zip(axes, layouts.items(), strict=True):
        style.check_shape(points, (len(positive), 2), f"layout {title!r}", "(clip, 2)")
        ax.scatter(*points[~positive].T, **rest, linewidth=0)
        ax.scatter(*points[positive].T, **look, linewidth=0)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside upper right", ncols=2, frameon=False)
    return figure


@style.own_style()
def shared_space(
    audio_xy: np.ndarray,
    tag_xy: np.ndarray,
    tags: Sequence[str],
    highlight: Sequence[str] = (),
    note: str = "",
) -> Figure:
    """Draw clips, `audio_xy` (clip, 2), as grey points and tags, `tag_xy` (tag, 2), as labelled
    landmarks in one map, with tags to `highlight` and a `note` below."""
    check_known(highlight, tags, "tag")
    style.check_shape(tag_xy, (len(tags), 2), "tag_xy", "(tag, 2)")
    style.check_shape(audio_xy, (len(audio_xy), 2), "audio_xy", "(clip, 2)")
    figure, (ax,) = _map_panels([""], (8, 7), {"": note})
    stressed = np.isin(tags, highlight)
    plain, star = tag_xy[~stressed].T, tag_xy[stressed].T
    ax.scatter(*audio_xy.T, s=8, color=style.PALE, linewidth=0, label=f"{len(audio_xy):,} clips")
    ax.scatter(*plain, s=22, color=style.DARK, marker="D", edgecolor="white", label="tags")
    if stressed.any():
        ax.scatter(*star, s=60, color=style.DARK, marker="*", label="highlighted tags")
    ax.margins(0.08)
    ax.legend(loc="upper left", bbox_to_anchor=(0, 1.06), ncols=3, frameon=False, fontsize=9)
    style.place_labels(ax, tag_xy, tags, stressed)
    return figure


@style.own_style()
def maps(
    layouts: Layouts, tags: Sequence[str], values: np.ndarray, name: str, notes: Notes = None
) -> Figure:
    """Draw several spaces side by side, clips as points coloured alike, tags as labelled landmarks.
    layouts : title → (clip + tag, 2), tags after clips; values : (clip,) or longer, numbers (darker
    is more) or names (each with its own marker) that colour the clips; name : what they are;
    notes : title → text below the map"""
    n_clips = len(next(iter(layouts.values()))) - len(tags)
    values = np.asarray(values)[:n_clips]
    figure, axes = _map_panels(list(layouts), (4.6 * len(layouts), 5.6 if notes else 4.9), notes)
    landmarks = {"s": 16, "color": "black", "marker": "D", "edgecolor": "white", "label": "tags"}
    for ax, (title, xy) in zip(axes, layouts.items(), strict=True):
        style.check_shape(xy, (n_clips + len(tags), 2), f"layout {title!r}", "(clip + tag, 2)")
        points = _draw_clips(ax, xy[:n_clips], values)
        ax.scatter(*xy[n_clips:].T, **landmarks)
        ax.margins(0.08)
    if points:
        figure.colorbar(points, ax=list(axes), label=name, fraction=0.02, pad=0.01)
    style.legend_above(figure, axes[0].get_legend_handles_labels()[0])
    for ax, xy in zip(axes, layouts.values(), strict=True):
        style.place_labels(ax, xy[n_clips:], tags)
    return figure


def _draw_clips(ax: Axes, xy: np.ndarray, values: np.ndarray) -> PathCollection | None:
    """Clips coloured by numbers, with a colour bar, or by names, with a legend."""
    points = {"s": 9, "linewidth": 0}
    if values.dtype.kind in "biuf":
        order = np.argsort(values, kind="stable")  # the highest values on top
        colours = {"c": values[order], "cmap": style.PALE_TO_DARK, "label": "clips"}
        return ax.scatter(*xy[order].T, **points, **colours)
    for value, look in style.looks(np.unique(values)).items():
        look = {"color": look["color"], "marker": look["marker"], "label": style.in_legend(value)}
        ax.scatter(*xy[values == value].T, **points, **look)
    return None


def _map_panels(titles: Sequence[str], size: tuple[float, float], notes: Notes) -> style.Panels:
    """Framed panels without ticks, because a layout has no unit, and the notes below them."""
    check_known(notes or {}, titles, "layout title")
    figure, axes = style.panels(1, len(titles), size)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set(title=title, xlabel="layout axis 1", xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
        ax.spines[:].set_color("0.7")
        if note := (notes or {}).get(title):
            width = int(14 * size[0] / len(titles))  # characters
            ax.set_xlabel(f"layout axis 1\n{fill(note, width)}", fontsize=9)
    axes[0, 0].set_ylabel("layout axis 2")
    return figure, axes[0]


@style.own_style()
def retrieval(table: pd.DataFrame) -> Figure:
    """Draw how well clips are found by tags: a row per pair loss, a panel per query and metric.
    `table` has rows of searches as in `evaluation.spaces`: columns `method`, `pair_loss`, `kind`
    (of query), `ranked_by`, `metric`, `value`. Markers are means over seeds or rows with `seed`
    "mean", whose `low` and `high` are whiskers, small ticks single seeds. Differences between
    rankings are left out."""
    table = style.with_lines(table, "kind ranked_by metric value", "the searches")
    table = table[~table["ranked_by"].str.contains(MINUS)]
    check_known(table["ranked_by"], RANKINGS, "ranking")
    lines = table["line"].unique().tolist()[::-1]
    kinds, shown = table["kind"].unique(), table["metric"].unique()
    size = (2.2 + 2.7 * len(kinds), 1.2 + len(shown) * (0.8 + 0.52 * len(lines)))
    figure, axes = style.row_panels((len(shown), len(kinds)), size, lines, "pair loss")
    for (row, column), ax in np.ndenumerate(axes):
        here = table[(table["metric"] == shown[row]) & (table["kind"] == kinds[column])]
        for (line, ranking), rows in here.groupby(["line", "ranked_by"]):
            place = lines.index(line) + 0.17 * (2 - list(RANKINGS).index(ranking))
            style.draw_mean(ax, place, rows, **RANKINGS[ranking])
        ax.set(xlabel=style.named(shown[row]), title=style.named(kinds[column]) if row == 0 else "")
        ax.set_yticks(np.arange(len(lines) - 1) + 0.5, minor=True)  # lines between the rows
        ax.tick_params(axis="y", which="minor", length=0)
        ax.grid(axis="y", which="minor", color="0.9")
    used = [look for name, look in RANKINGS.items() if name in set(table["ranked_by"])]
    seeds = style.mean_keys(table, ["line", "kind", "ranked_by", "metric"])
    style.legend_above(figure, [*(style.key(**look) for look in used), *seeds])
    return figure


@style.own_style()
def semantics(
    table: pd.DataFrame, references: Mapping[str, Mapping[str, float]] | None = None
) -> Figure:
    """Draw what the shared space knows about the tags: a row per method, a panel per measure.
    table : as from `evaluation.spaces`, columns `method`, `pair_loss`, `seed`, `space`, `metric`,
    `value` and, if any, `classification_loss`; references : name → metric → value, drawn as
    vertical lines"""
    references = references or {}
    table = style.with_lines(table, "seed space metric value", "the shared spaces")
    for measures in references.values():
        check_known(measures, MEASURES, "measure")
    table = table[table["metric"].isin(MEASURES) & (table["space"] == "shared")]
    lines = table["line"].unique().tolist()[::-1]
    figure, axes = style.row_panels((1, 2), (7.5, 1.7 + 0.36 * len(lines)), lines, "method")
    styles = dict(zip(references, cycle(("--", ":", "-.")), strict=False))
    for ax, (measure, scale) in zip(axes[0], MEASURES.items(), strict=True):
        for line, seeds in table[table["metric"] == measure].groupby("line"):
            style.draw_mean(ax, lines.index(line), seeds, marker="o")
        for name, values in references.items():
            if measure in values:
                ax.axvline(values[measure], color="0.3", linestyle=styles[name], linewidth=1.3)
        ax.set(xlabel=scale)
    keys = [style.key(name, color="0.3", linestyle=dashes) for name, dashes in styles.items()]
    seeds = style.mean_keys(table, ["line", "metric"])
    style.legend_above(figure, [style.key("mean over seeds", marker="o"), *seeds, *keys])
    return figure
