"""Figures that compare methods, and the curves of one run.

Tables that compare are long, as `evaluation.results` makes and selects them: the columns `method`,
`pair_loss` (missing or empty if a method has none), `metric`, `value` or `difference`, the interval
`low` to `high`, and those that the arguments of a figure name.
"""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from jetatag.evaluation.reading import extractor_label
from jetatag.figures import _style as style
from jetatag.files import check_known

BY_CLIP = {"color": "0.6", "linewidth": 3, "linestyle": "-"}
BY_GROUP = {"color": "0.1", "linewidth": 1, "linestyle": "-"}
SEED = {"color": "0.35", "marker": "|", "markersize": 12, "markeredgewidth": 1}
REFERENCE = {"color": "0.3", "linewidth": 1.3}
ZERO = {"color": "0.4", "linestyle": "--", "linewidth": 1}
SEARCHES = {  # what ranks clips → look, classifier and combined beside each other
    "classifier": {"marker": "o", "markerfacecolor": "white", "markersize": 6},
    "combined": {"marker": "D", "markerfacecolor": style.DARK},
    "encoded set": {"marker": "^", "markerfacecolor": style.MIDDLE},
    "answering clips": {"marker": "s", "markerfacecolor": style.MIDDLE},
    "random": {"marker": "x", "markersize": 4, "color": "0.5"},
}
SHADE = {"alpha": 0.2, "linewidth": 0}
NUMBERS = ["seed", "value", "low", "high", "group_low", "group_high"]
NAMED_BELOW = ("", "metric", "protocol")
MARK_STEP = 0.17  # between the markers of a row; rows are 1 apart
SHARE_STEP = 1.1  # factor between the lines at one share of labelled clips


@style.figure_style()
def dots(
    table: pd.DataFrame | Mapping[str, pd.DataFrame],
    panels: str = "metric",
    panel_rows: str = "",
    rows: str = "line",
    marks: str = "",
    references: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """Draw values or differences as dots with their 95 % intervals, one row for every method.

    table : rows of `results.select`, or heading → such rows, to draw them in groups
    panels, panel_rows : columns whose values are panels side by side and below one another
    rows : column whose values are rows of dots; "line" is made of the method and its losses
    marks : column whose values have a marker each
    references : name → metric → value, drawn as vertical lines

    Rows of `table` that differ only in their `seed` are one dot: the row of seed "mean" or else
    their mean; small ticks are single seeds. Whiskers are the intervals by clip and, thinner, those
    by group (`group_low` to `group_high`) as far as the table has them. Panels below one another
    that show the same have the same axis. Raises `ValueError` for a table without rows or a named
    column, and if a panel would have several metrics, protocols or references of differences.
    """
    parts = table if isinstance(table, Mapping) else {"": table}
    style.check_rows(sum(map(len, parts.values())))
    table = style.with_lines(pd.concat(parts, names=["heading"]).reset_index("heading"))
    is_difference = "difference" in table
    table = table.rename(columns={"difference": "value"})
    columns = [panels, panel_rows, rows, marks, "metric", "value"]
    check_known(filter(None, columns), table.columns, "column")
    table = table.reindex(columns=table.columns.union(NUMBERS, sort=False))
    table = table.assign(mark=table[marks] if marks else "")
    places = _row_places(table, rows)
    names = [name or heading for heading, name in places]
    looks = _mark_looks(table["mark"])
    offsets = {mark: (len(looks) - 1) / 2 - number for number, mark in enumerate(looks)}
    heights = table.set_index(["heading", rows]).index.map(places)
    table = table.assign(height=heights + MARK_STEP * table["mark"].map(offsets))
    references = references or {}
    dashes = dict(zip(references, cycle(("--", ":", "-.")), strict=False))

    bands = [own for _, own in table.groupby(panel_rows, sort=False)] if panel_rows else [table]
    n_columns = max(band[panels].nunique() for band in bands)
    row_height = 0.22 + 0.09 * len(looks)  # inches
    width = 2.8 if n_columns > 1 else 4
    size = (2.2 + width * n_columns, 0.6 + len(bands) * (0.9 + row_height * len(names)))
    labels, what = names, "method"
    if rows == "extractor":
        labels, what = [extractor_label(name).replace(" (", "\n(") for name in names], rows
    figure, axes = style.row_panels((len(bands), n_columns), size, labels, what)
    for line, band in zip(axes, bands, strict=True):
        for text, (_, name) in zip(line[0].get_yticklabels(), places, strict=True):
            text.set_fontweight("normal" if name else "bold")
        for ax, (_, own) in style.zip_axes(line, list(band.groupby(panels, sort=False))):
            _draw_dots(ax, own, looks)
            if is_difference:
                ax.axvline(0, **ZERO)
            for name, values in references.items():
                if (metric := own["metric"].iloc[0]) in values:
                    ax.axvline(values[metric], linestyle=dashes[name], **REFERENCE)
            ax.set(xlabel=style.scale_name(own))  # which names metric and protocol
            titled = [name for name in (panel_rows, panels) if name not in NAMED_BELOW]
            ax.set_title(", ".join(own[name].iloc[0] for name in titled), fontsize=10)
    for column in axes.T:
        if len({ax.get_xlabel() for ax in column}) == 1:  # all show the same
            for ax in column[1:]:
                ax.sharex(column[0])
            column[0].autoscale_view()
    keys = [style.legend_handle(style.NAMES.get(m, m), **look) for m, look in looks.items() if m]
    keys += _dot_keys(table)
    drawn = [name for name, values in references.items() if set(values) & set(table["metric"])]
    keys += [style.legend_handle(name, linestyle=dashes[name], **REFERENCE) for name in drawn]
    style.legend_above(figure, keys)
    return figure


def _row_places(table: pd.DataFrame, rows: str) -> dict[tuple[str, str], int]:
    """(heading, name) → height of its row, from the last row up; a heading's own name is ""."""
    order = []
    for heading, own in table.groupby("heading", sort=False):
        order += [(heading, "")] if heading else []
        order += [(heading, name) for name in own[rows].unique()]
    return {row: place for place, row in enumerate(reversed(order))}


def _mark_looks(marks: pd.Series) -> dict[str, dict]:
    """Mark → look: that of a search, else a marker, white and dark in turns (a single one dark)."""
    if set(marks) <= set(SEARCHES):
        return {mark: look for mark, look in SEARCHES.items() if mark in set(marks)}
    fills = cycle(("white", style.DARK) if marks.nunique() > 1 else (style.DARK,))
    return {
        mark: {"marker": marker, "markerfacecolor": fill}
        for mark, marker, fill in zip(marks.unique(), cycle(style.MARKERS), fills, strict=False)
    }


def _draw_dots(ax: Axes, table: pd.DataFrame, looks: dict[str, dict]) -> None:
    """Draw the dots of one panel at their heights, with seeds and intervals."""
    what = table.columns.difference(NUMBERS).tolist()
    for _, dot in table.groupby(what, sort=False, dropna=False):
        mark, height = dot[["mark", "height"]].iloc[0]
        is_mean = dot["seed"] == "mean"
        mean, seeds = (dot[is_mean], dot[~is_mean]) if is_mean.any() else (dot, dot)
        for prefix, look in {"": BY_CLIP, "group_": BY_GROUP}.items():
            bounds = mean[[f"{prefix}low", f"{prefix}high"]].mean()
            if bounds.notna().all():
                ax.hlines(height, *bounds, **look)
        if len(seeds) > 1:
            ax.plot(seeds["value"], seeds["height"], **SEED, linestyle="", zorder=2.5)
        look = {"color": style.DARK, "markersize": 5, "zorder": 3, **looks[mark]}
        ax.plot(mean["value"].mean(), height, **look)
    if len(looks) > 1:  # lines between the rows
        ax.set_yticks(ax.get_yticks()[:-1] + 0.5, minor=True)
        ax.tick_params(axis="y", which="minor", length=0)
        ax.grid(axis="y", which="minor", color="0.9")


def _dot_keys(table: pd.DataFrame) -> list[Line2D]:
    """Legend entries for seeds and intervals, as far as `table` has them."""
    seeds, keys = table[table["seed"].notna() & (table["seed"] != "mean")], []
    if seeds.duplicated(table.columns.difference(NUMBERS).tolist()).any():
        keys.append(style.legend_handle("one seed", **SEED))
    has_intervals, has_groups = table[["low", "group_low"]].notna().any()
    if has_intervals:
        keys.append(style.legend_handle("95 % interval" + " by clip" * has_groups, **BY_CLIP))
    if has_groups:
        keys.append(style.legend_handle("95 % interval by group", **BY_GROUP))
    return keys


@style.figure_style()
def curves(
    table: pd.DataFrame, x: str, y: str = "value", panels: str = "metric", lines: str = "line"
) -> Figure:
    """Draw the column `y` of a long table by its column `x`, one line for every method.

    x : such as "epoch", "steps" or "label_share"
    y : "value", "difference" or a validation score of histories, such as "valid_gap"
    panels : column whose values are panels with the same axes; "line" is the method and its losses
    lines : column whose values are lines; empty for one line in each panel

    A line is the mean of the rows with the same `x`, such as of all seeds. Its shade is their mean
    interval or, if the table has none, from the lowest to the highest row. Lines by "label_share"
    are offset, with bars instead of shades. Raises `ValueError` for a table without rows or a named
    column, if all `y` are missing, and for several metrics or protocols.
    """
    style.check_rows(len(table))
    if y not in table:  # as of imported runs, which have no validation scores
        raise ValueError(f"the table lacks {y}: choose another column, or runs that have it.")
    table = style.with_lines(table)
    check_known(filter(None, [x, panels, lines]), table.columns, "column")
    table = table.assign(drawn=table[lines] if lines else "")
    looks = style.line_styles(table["drawn"])  # the same for every y
    looks = {line: {**look, "fillstyle": "none"} for line, look in looks.items()}
    parts = [(panel, own.dropna(subset=y)) for panel, own in table.groupby(panels, sort=False)]
    parts = [(panel, own) for panel, own in parts if len(own)]
    table = table.dropna(subset=y)
    style.check_rows(len(table), f"every {y} is missing")
    keys = [
        style.legend_handle(f"seed {line}" if lines == "seed" else line, **look)
        for line, look in looks.items()
        if lines and line in set(table["drawn"])
    ]
    has_intervals = "low" in table and table["low"].notna().any()  # of single seeds, none
    bounds = {"low": (y, "min"), "high": (y, "max")}
    if has_intervals:
        bounds = {"low": ("low", "mean"), "high": ("high", "mean")}
    is_by_share = x == "label_share"
    if has_intervals or table.duplicated([panels, "drawn", x]).any():
        shaded = "95 % interval" if has_intervals else "lowest to highest seed"
        shade, bar = Patch(color="0.5", **SHADE, label=shaded), style.legend_handle(shaded, **SEED)
        keys.append(bar if is_by_share else shade)

    n_rows, n_columns = -(-len(parts) // 4), min(4, len(parts))
    size = (1 + 2.8 * n_columns, 1 + 2.5 * n_rows)
    if lines:  # with room for their names
        size = (size[0] + 2.4, max(size[1], 0.5 + 0.21 * len(keys)))
    figure, axes = style.panels(n_rows, n_columns, size, sharex=True, sharey=True)
    for ax, (panel, own) in style.zip_axes(axes.flat, parts):
        for line, rows in own.groupby("drawn", sort=False):
            by_x = rows.groupby(x).agg(mean=(y, "mean"), **bounds)
            if is_by_share:
                by_x.index *= SHARE_STEP ** ([*looks].index(line) - (len(looks) - 1) / 2)
            _draw_line(ax, by_x, looks[line], has_bars=is_by_share)
        if y == "difference":
            ax.axhline(0, **ZERO)
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
        ax.tick_params(labelbottom=True)
        ax.set_xlabel(style.display_name(x), fontsize=9)
        if panels != "metric":
            ax.set_title(style.NAMES.get(panel, panel), fontsize=10)
    if is_by_share:
        shares = sorted(table[x].unique())
        axes[0, 0].set_xscale("log")
        axes[0, 0].set_xticks(shares, [f"{100 * share:g} %" for share in shares])
        axes[0, 0].minorticks_off()
    else:
        axis, is_integer = axes[0, 0].xaxis, table[x].dtype.kind == "i"
        axis.get_major_locator().set_params(nbins=5, integer=is_integer)
        if is_integer:
            axis.set_major_formatter("{x:,.0f}")
    label = f"{style.display_name(y.removeprefix('valid_'))}, validation"
    if y in ("value", "difference"):
        label = style.scale_name(table)
    for ax in axes[:, 0]:
        ax.set_ylabel(label, fontsize=9)
    place = "outside right upper" if lines else "outside upper center"
    if keys:
        figure.legend(handles=keys, loc=place, frameon=False, handlelength=4)
    return figure


def _draw_line(ax: Axes, by_x: pd.DataFrame, look: dict, has_bars: bool) -> None:
    """Draw the column `mean` by the index, and from `low` to `high` bars or a shade."""
    bounds = by_x.index, by_x["low"], by_x["high"]
    if has_bars:
        ax.vlines(*bounds, color=look["color"], linewidth=1.2)
    else:
        ax.fill_between(*bounds, color=look["color"], **SHADE)
    ax.plot(by_x.index, by_x["mean"], **look, markevery=max(1, len(by_x) // 6), markersize=5)


@style.figure_style()
def loss_curves(history: pd.DataFrame) -> Figure:
    """Draw every quantity of a training history by epoch, one panel per stage and quantity.
    `history` has one row per epoch: columns `stage`, `epoch` (from 1), `learning_rate` and any
    number of numeric ones; `valid_x` is drawn dashed in the panel of `x`. Dotted vertical lines
    mark where a new phase of the schedule begins. Raises `ValueError` for a history without rows.
    """
    style.check_rows(len(history), "the history is empty")
    rows = []
    for _, stage in history.groupby("stage", sort=False):
        known = stage.dropna(axis="columns", how="all").select_dtypes("number").columns
        known = known.difference(["epoch", "learning_rate"], sort=False)
        names = known.str.removeprefix("valid_").unique()
        rows += [(stage, names[start : start + 3]) for start in range(0, len(names), 3)]
    columns = max(len(quantities) for _, quantities in rows)
    figure, axes = style.panels(len(rows), columns, (3.4 * columns, 2.3 * len(rows)))
    for line, (stage, quantities) in zip(axes, rows, strict=True):
        for ax, quantity in style.zip_axes(line, quantities):
            _draw_quantity(ax, stage, quantity)
    return figure


def _draw_quantity(ax: Axes, stage: pd.DataFrame, quantity: str) -> None:
    looks = ("training", style.DARK, "o-"), ("validation", style.MIDDLE, "s--")
    for column, (name, colour, form) in zip((quantity, f"valid_{quantity}"), looks, strict=True):
        if column in stage and stage[column].notna().any():
            form = form if len(stage) <= 12 else form[1:]  # a short curve shows its points
            ax.plot(stage["epoch"], stage[column], form, color=colour, ms=4, label=name)
    changes = np.diff(stage["learning_rate"].to_numpy()) != 0
    for change in () if changes.all() else np.flatnonzero(changes):  # a cycle changes every epoch
        ax.axvline(stage["epoch"].iloc[change] + 0.5, color="0.4", linestyle=":", linewidth=1)
    ax.set(xlabel="epoch", ylabel=style.display_name(quantity))
    ax.set_title(style.display_name(str(stage["stage"].iloc[0])), fontsize=9)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, fontsize=8)
