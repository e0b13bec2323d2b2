"""Maps of the spaces, what can be found in them, and what they know of the tags."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from jetatag.figures._style import (
    DARK,
    PALE,
    PALE_TO_DARK,
    SEED,
    check_lacking,
    check_misfit,
    draw_mean,
    grid_values,
    key,
    legend_above,
    line_names,
    looks,
    mean_keys,
    name_rows,
    named,
    panels,
    place_labels,
)
from jetatag.files import check_known

RANKINGS = {
    "encoded set": {"label": "space, tags encoded as a set", "marker": "o"},
    "answering clips": {"label": "space, mean of clips that answer", "marker": "^"},
    "classifier": {"label": "classifier", "marker": "s", "markerfacecolor": "white"},
    "random": {"label": "chance", "marker": "x", "color": "0.4"},
}
MEASURES = {
    "semantics": "rank correlation of tag cosines\nwith label correlation",
    "mean_energy": "share of energy in the mean",
    "effective_rank": "effective rank (dimensions)",
}


def tag_map(
    layouts: Mapping[str, np.ndarray],
    positive: np.ndarray,
    tag: str,
    notes: Mapping[str, str] | None = None,
) -> Figure:
    """Draw one tag against the rest in several layouts side by side (Lee & Cho 2021, figure 2).

    layouts : title → (clip, 2); positive : (clip,) whether a clip carries `tag`; notes : title →
    a line printed under the picture, for the number that says whether the picture can be trusted
    """
    positive, notes = np.asarray(positive).astype(bool), notes or {}
    check_known(notes, layouts, "layout title")
    figure, axes = panels(1, len(layouts), (3.3 * len(layouts), 3.7))
    for ax, (title, points) in zip(axes[0], layouts.items(), strict=True):
        check_misfit(points, (len(positive), 2), f"layout {title!r}", "(clip, 2)")
        ax.scatter(*points[~positive].T, s=9, color=PALE, marker="o", linewidth=0, label="other")
        ax.scatter(*points[positive].T, s=20, color=DARK, marker="^", linewidth=0, label=tag)
        ax.set(title=title, xlabel=_axis_note(notes.get(title)))
        _hide_scale(ax)
    axes[0, 0].set_ylabel("layout axis 2")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside upper right", ncols=2, frameon=False)
    return figure


def shared_space(
    audio_xy: np.ndarray,
    tag_xy: np.ndarray,
    tags: Sequence[str],
    highlight: Sequence[str] = (),
    note: str = "",
) -> Figure:
    """Draw clips as grey points and tags as labelled landmarks in one map.

    audio_xy : (clip, 2) and tag_xy : (tag, 2), laid out together; tags : names of the landmarks;
    highlight : tags to stress, placed first; note : a line printed under the picture
    """
    check_known(highlight, tags, "tag")
    check_misfit(tag_xy, (len(tags), 2), "tag_xy", "(tag, 2)")
    check_misfit(audio_xy, (len(audio_xy), 2), "audio_xy", "(clip, 2)")
    figure, axes = panels(1, 1, (8, 7))
    ax, stressed = axes[0, 0], np.isin(tags, highlight)
    ax.scatter(*audio_xy.T, s=8, color=PALE, linewidth=0, label=f"{len(audio_xy):,} clips")
    ax.scatter(*tag_xy[~stressed].T, s=22, color=DARK, marker="D", edgecolor="white", label="tags")
    if stressed.any():
        ax.scatter(*tag_xy[stressed].T, s=60, color=DARK, marker="*", label="highlighted tags")
    ax.set(xlabel=_axis_note(note), ylabel="layout axis 2")
    _hide_scale(ax)
    ax.margins(0.08)
    ax.legend(loc="upper left", bbox_to_anchor=(0, 1.06), ncols=3, frameon=False, fontsize=9)
    figure.draw_without_rendering()  # fixes the layout, so that labels can be placed in pixels
    place_labels(ax, tag_xy, tags, stressed)
    return figure


def maps(
    layouts: Mapping[str, np.ndarray], tags: Sequence[str], values: np.ndarray, name: str
) -> Figure:
    """Draw several spaces side by side, clips as points coloured alike, tags as labelled landmarks.

    layouts : title → (clip + tag, 2), the tags behind the clips; values : (clip,) or longer, what
    the clips are coloured by, numbers (darker is more) or names (each its own marker); name : of it
    """
    n_clips = len(next(iter(layouts.values()))) - len(tags)
    values = np.asarray(values)[:n_clips]
    figure, axes = panels(1, len(layouts), (4.6 * len(layouts), 4.9))
    for ax, (title, xy) in zip(axes[0], layouts.items(), strict=True):
        check_misfit(xy, (n_clips + len(tags), 2), f"layout {title!r}", "(clip + tag, 2)")
        drawn = _draw_clips(ax, xy[:n_clips], values)
        ax.scatter(
            *xy[n_clips:].T, s=16, color="black", marker="D", edgecolor="white", label="tags"
        )
        ax.set(title=title, xlabel="layout axis 1")
        _hide_scale(ax)
        ax.margins(0.08)
    axes[0, 0].set_ylabel("layout axis 2")
    if drawn:
        figure.colorbar(drawn, ax=axes, label=name, fraction=0.02, pad=0.01)
    legend_above(figure, axes[0, 0].get_legend_handles_labels()[0])
    figure.draw_without_rendering()  # fixes the layout, so that labels can be placed in pixels
    for ax, xy in zip(axes[0], layouts.values(), strict=True):
        place_labels(ax, xy[n_clips:], tags)
    return figure


def _draw_clips(ax: Axes, xy: np.ndarray, values: np.ndarray) -> PathCollection | None:
    """Clips coloured by numbers, which a colour bar explains, or by names, which a legend does."""
    if values.dtype.kind in "biuf":
        order = np.argsort(values, kind="stable")  # what is rare lies on top
        colours = {"c": values[order], "cmap": PALE_TO_DARK, "label": "clips"}
        return ax.scatter(*xy[order].T, s=9, linewidth=0, **colours)
    for value, look in looks(np.unique(values)).items():
        points = {"s": 9, "color": look["color"], "marker": look["marker"], "linewidth": 0}
        ax.scatter(*xy[values == value].T, **points, label=value)
    return None


def _hide_scale(ax: Axes) -> None:
    """A layout has no unit: frame it and drop the ticks."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("0.7")


def _axis_note(note: str | None) -> str:
    return f"layout axis 1\n{note}" if note else "layout axis 1"


def retrieval(table: pd.DataFrame) -> Figure:
    """Draw how well clips are found by tags: a row a pair loss, a column of panels a kind of query.

    `table` has a row a seed: columns `method`, `pair_loss`, `kind` (of query: one tag, two tags,
    tag and not tag), `ranked_by` (encoded set, answering clips, classifier or random), `metric`,
    `value`; each metric has its own row of panels. Markers are means over seeds, which are small
    ticks. With a column `seed`, rows of seed "mean" are the markers, and their `low` and `high`
    the whiskers. Differences between rankings, "a − b", have no place on this scale and are left
    out.
    """
    needed = ["method", "pair_loss", "kind", "ranked_by", "metric", "value"]
    check_lacking(table, needed, "the retrieval table lacks")
    table = table[~table["ranked_by"].str.contains(" − ")]
    check_known(table["ranked_by"], RANKINGS, "ranking")
    table = table.assign(line=line_names(table))
    lines = table["line"].unique().tolist()[::-1]
    kinds, shown = table["kind"].unique(), table["metric"].unique()
    size = (2.2 + 2.7 * len(kinds), 1.2 + len(shown) * (0.8 + 0.52 * len(lines)))
    figure, axes = panels(len(shown), len(kinds), size, sharey=True)
    for (row, column), ax in np.ndenumerate(axes):
        here = table[(table["metric"] == shown[row]) & (table["kind"] == kinds[column])]
        for (line, ranking), rows in here.groupby(["line", "ranked_by"]):
            aside = 0.21 * (1.5 - list(RANKINGS).index(ranking))
            _draw_ranking(ax, lines.index(line) + aside, rows, RANKINGS[ranking])
        ax.set(xlabel=named(shown[row]), title=named(kinds[column]) if row == 0 else "")
        ax.set_yticks(np.arange(len(lines) - 1) + 0.5, minor=True)  # lines between the rows
        ax.tick_params(axis="y", which="minor", length=0)
        ax.grid(axis="y", which="minor", color="0.9")
        grid_values(ax)
    for ax in axes[:, 0]:
        ax.set_ylabel("pair loss")
    name_rows(axes[0, 0], lines, fontsize=10)
    used = [name for name in RANKINGS if name in set(table["ranked_by"])]
    keys = [key(**RANKINGS[name]) for name in used]
    keys += mean_keys(table, ["line", "kind", "ranked_by", "metric"])
    legend_above(figure, keys)
    return figure


def _draw_ranking(ax: Axes, place: float, rows: pd.DataFrame, look: Mapping[str, Any]) -> None:
    """A ranking's seeds, and their mean, told or taken here."""
    told = rows["seed"] == "mean" if "seed" in rows else np.zeros(len(rows), bool)
    seeds = rows[~told]
    if not told.any():
        draw_mean(ax, place, seeds, **look)
        return
    draw_mean(ax, place, rows[told], **look)
    if len(seeds) > 1:
        ax.plot(seeds["value"], np.full(len(seeds), place), **SEED, linestyle="", zorder=2.5)


def semantics(
    table: pd.DataFrame, references: Mapping[str, Mapping[str, float]] | None = None
) -> Figure:
    """Draw what the tag space knows of the tags, a row a pair loss, a panel a measure.

    table : a row a seed, columns `pair_loss`, `seed`, `semantics` (rank correlation, over pairs of
    tags, of the cosine of their embeddings with their label correlation), `mean_energy` (share of
    z_tag's energy in its mean) and `effective_rank`; references : name → measure → value, such as
    {"released weights": {"semantics": 0.03, "mean_energy": 0.91}}, drawn as vertical lines
    """
    check_lacking(table, ["pair_loss", "seed", *MEASURES], "the tag-space table lacks")
    references = references or {}
    for measures in references.values():
        check_known(measures, MEASURES, "measure")
    losses = table["pair_loss"].unique().tolist()[::-1]
    figure, axes = panels(1, len(MEASURES), (10, 1.7 + 0.36 * len(losses)), sharey=True)
    styles = dict(zip(references, cycle(("--", ":", "-.")), strict=False))
    for ax, (measure, scale) in zip(axes[0], MEASURES.items(), strict=True):
        for loss, seeds in table.groupby("pair_loss"):
            draw_mean(ax, losses.index(loss), seeds, measure, marker="o")
        for name, values in references.items():
            if measure in values:
                ax.axvline(values[measure], color="0.3", linestyle=styles[name], linewidth=1.3)
        ax.set(xlabel=scale)
        grid_values(ax)
    name_rows(axes[0, 0], losses, fontsize=10)
    axes[0, 0].set_ylabel("pair loss")
    keys = [key(name, color="0.3", linestyle=style) for name, style in styles.items()]
    keys = [key("mean over seeds", marker="o"), *mean_keys(table, ["pair_loss"]), *keys]
    legend_above(figure, keys)
    return figure
