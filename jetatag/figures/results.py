"""Methods compared."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jetatag.figures._style import (
    DARK,
    MARKERS,
    WHISKER,
    check_lacking,
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
    scale_names,
)
from jetatag.files import check_known

STEP = {"no_je": ("without JE", "white"), "je": ("with JE", DARK)}
HEADINGS = ("pair losses", "controls")
BY_CLIP = {"color": "0.55", "linestyle": "-", "linewidth": 3}
BY_GROUP = {"color": "0.1", "linestyle": "-", "linewidth": 0.9, "marker": "|", "markersize": 7}


def scores_with_intervals(table: pd.DataFrame) -> Figure:
    """Draw methods against metrics as dots with whiskers, a row a protocol, a panel a metric.

    `table` is long: columns `method`, `pair_loss` (missing or empty where a method has none),
    `protocol`, `metric`, `value`, `low`, `high`; rows of one method, such as its seeds, share a
    line. Scales differ between panels, for protocols must not be compared.
    """
    needed = ["method", "pair_loss", "protocol", "metric", "value", "low", "high"]
    check_lacking(table, needed, "the results lack")
    table = table.assign(line=line_names(table))
    lines = list(dict.fromkeys(table["line"]))[::-1]  # the first method on top
    protocols = dict(list(table.groupby("protocol", sort=False)))
    columns = max(rows["metric"].nunique() for rows in protocols.values())
    size = (1.6 + 2.8 * columns, len(protocols) * (1.2 + 0.34 * len(lines)))
    figure, axes = panels(len(protocols), columns, size, sharey=True)
    for row, (protocol, rows) in zip(axes, protocols.items(), strict=True):
        metrics_shown = list(dict.fromkeys(rows["metric"]))
        for ax in row[len(metrics_shown) :]:
            ax.remove()
        for ax, metric in zip(row, metrics_shown, strict=False):
            _draw_intervals(ax, rows[rows["metric"] == metric], lines)
            ax.set(xlabel=named(metric))
            ax.set_title(named(protocol), fontsize=10)
        row[0].set_ylabel("method")
    name_rows(axes[0, 0], lines, fontsize=10)
    return figure


def _draw_intervals(ax: Axes, rows: pd.DataFrame, lines: Sequence[str]) -> None:
    for number, line in enumerate(rows["line"]):
        place = lines.index(line)
        draw_mean(ax, place, rows.iloc[[number]], marker=MARKERS[place % len(MARKERS)])
    grid_values(ax)


def published_gains(table: pd.DataFrame) -> Figure:
    """Draw published scores as steps from without to with joint embedding, a panel a metric.

    `table`: columns `source`, `extractor`, `method` (no_je or je), `roc_auc`, `pr_auc`. An open
    marker is without, a filled one with joint embedding; each source has its own shape.
    """
    long = table.melt(["source", "extractor", "method"], ["roc_auc", "pr_auc"], "metric")
    return _draw_gains(long.assign(protocol="micro_window (published)"))


def measured_gains(table: pd.DataFrame) -> Figure:
    """Draw Table 1 of Lee & Cho 2021 from runs of one's own: a row an extractor, a panel a metric.

    `table` is long, a row a seed: columns `extractor`, `method` (no_je or je), `seed`, `metric`,
    `value`, `low`, `high`, and, where panels shall name it, `protocol`. An open marker is without,
    a filled one with joint embedding: the mean over seeds, which are small ticks. The whisker is
    the mean of their intervals; an interval of the mean, repeated in each row, stays as it is.
    """
    needed = ["extractor", "method", "seed", "metric", "value", "low", "high"]
    check_lacking(table, needed, "the gains lack")
    return _draw_gains(table.assign(source=""))


def _draw_gains(table: pd.DataFrame) -> Figure:
    """`table` is long: `source`, `extractor`, `method`, `metric`, `protocol`, `value`, and for
    measured scores several seeds, `low` and `high`."""
    check_known(table["method"], STEP, "method in a table of gains")
    table = table.assign(scale=scale_names(table))
    sources = {source: number for number, source in enumerate(table["source"].unique())}
    extractors = table["extractor"].unique().tolist()[::-1]  # the first on top
    scales = table["scale"].unique()
    size = (2.3 + 3.1 * len(scales), 1.4 + 0.5 * len(extractors))
    figure, axes = panels(1, len(scales), size, sharey=True)
    for ax, scale in zip(axes[0], scales, strict=True):
        rows = table[table["scale"] == scale]
        for (source, extractor), step in rows.groupby(["source", "extractor"], sort=False):
            aside = 0.32 * ((len(sources) - 1) / 2 - sources[source])
            _draw_step(ax, extractors.index(extractor) + aside, step, MARKERS[sources[source]])
        ax.set(xlabel=scale)
        grid_values(ax)
    name_rows(axes[0, 0], extractors, fontsize=10)
    axes[0, 0].set_ylabel("extractor")
    keys = [
        key(f"{source}, {name}".removeprefix(", "), marker=MARKERS[number], markerfacecolor=fill)
        for source, number in sources.items()
        for name, fill in STEP.values()
    ]
    legend_above(figure, keys + mean_keys(table, ["source", "extractor", "method", "scale"]))
    return figure


def _draw_step(ax: Axes, place: float, step: pd.DataFrame, marker: str) -> None:
    """From without to with joint embedding; whiskers need two heights to be told apart."""
    apart = 0.17 if "low" in step else 0
    heights = {"no_je": place + apart, "je": place - apart}
    means = step.groupby("method")["value"].mean().reindex(list(heights))
    ax.plot(means, list(heights.values()), color="0.6", linewidth=1.2)
    for method, rows in step.groupby("method"):
        draw_mean(ax, heights[method], rows, marker=marker, markerfacecolor=STEP[method][1])


def ablation(
    differences: pd.DataFrame, metric: str = "average_precision", reference: str = "no_je"
) -> Figure:
    """Draw what each pair loss and each control gains over a reference, a panel an extractor.

    `differences`: a row a method, pair loss, extractor and metric, columns `method`, `pair_loss`,
    `extractor`, `metric`, `difference` (to `reference`, paired), `low`, `high`, and for a second,
    thinner whisker of intervals by group `group_low`, `group_high`. `metric` chooses the rows.
    Joint embedding stands under "pair losses", every other method under "controls".
    """
    needed = ["method", "pair_loss", "extractor", "metric", "difference", "low", "high"]
    check_lacking(differences, needed, "the differences lack")
    check_known([metric], differences["metric"].unique(), "metric")
    rows = differences[differences["metric"] == metric]
    rows = rows.assign(line=line_names(rows))
    lines = _under_headings(rows)
    extractors = dict(list(rows.groupby("extractor", sort=False)))
    size = (2.4 + 2.9 * len(extractors), 1.5 + 0.32 * len(lines))
    figure, axes = panels(1, len(extractors), size, sharex=True, sharey=True)
    for ax, (extractor, table) in zip(axes[0], extractors.items(), strict=True):
        for row in table.to_dict("records"):
            _draw_difference(ax, lines.index(row["line"]), row)
        ax.axvline(0, color="0.4", linestyle="--", linewidth=1)
        ax.set(xlabel=f"{named(metric)},\ndifference to {reference}", title=extractor)
        grid_values(ax)
    name_rows(axes[0, 0], lines, fontsize=10)
    for text in axes[0, 0].get_yticklabels():
        text.set_fontweight("bold" if text.get_text() in HEADINGS else "normal")
    axes[0, 0].set_ylabel("method")
    keys = [key("95 % interval by clip", **BY_CLIP), key("95 % interval by group", **BY_GROUP)]
    legend_above(figure, keys[: 2 if "group_low" in rows else 1])
    return figure


def _under_headings(rows: pd.DataFrame) -> list[str]:
    """The lines from the bottom up, pair losses and controls each under its heading."""
    joint = rows["method"] == "je"
    groups = zip(HEADINGS, (rows["line"][joint], rows["line"][~joint]), strict=True)
    top_down = [line for heading, group in groups if len(group) for line in (heading, *group)]
    return list(dict.fromkeys(top_down))[::-1]


def _draw_difference(ax: Axes, place: int, row: dict[str, Any]) -> None:
    ax.plot([row["low"], row["high"]], [place, place], **BY_CLIP)
    if "group_low" in row:
        ax.plot([row["group_low"], row["group_high"]], [place, place], **BY_GROUP)
    marker = "o" if row["method"] == "je" else "s"
    ax.plot(row["difference"], place, marker, color=DARK, markersize=6, zorder=3)


def label_curves(table: pd.DataFrame) -> Figure:
    """Draw scores against the share of labelled clips, a line a method, a panel a metric.

    `table` is long: columns `method`, `pair_loss`, `label_share` in (0, 1], `metric`, `value`,
    `low`, `high`, and, where panels shall name it, `protocol`. Several rows of one method and
    share, such as its seeds, are averaged, and so are their intervals. Lines stand a little
    aside of the share, so that their whiskers do not cover each other.
    """
    needed = ["method", "pair_loss", "label_share", "metric", "value", "low", "high"]
    check_lacking(table, needed, "the label curves lack")
    if not table["label_share"].between(0, 1, inclusive="right").all():
        raise ValueError("label_share must be in (0, 1]: give the share of labelled clips used.")
    table = table.assign(line=line_names(table), scale=scale_names(table))
    scales = dict(list(table.groupby("scale", sort=False)))
    figure, axes = panels(1, len(scales), (0.6 + 3.9 * len(scales), 4))
    styles = looks(table["line"])
    for ax, (scale, rows) in zip(axes[0], scales.items(), strict=True):
        for number, (line, look) in enumerate(styles.items()):
            aside = 1.05 ** (number - (len(styles) - 1) / 2)
            _draw_curve(ax, rows[rows["line"] == line], aside, look)
        shares = sorted(rows["label_share"].unique())
        ax.set(xscale="log", xlabel="labelled clips used", ylabel=scale)
        ax.set_xticks(shares, [f"{100 * share:g} %" for share in shares])
        ax.minorticks_off()
        ax.grid(axis="y", color="0.9")
    keys = [key(line, **look) for line, look in styles.items()]
    keys.append(key("95 % interval", **WHISKER, marker="|", linestyle="-"))
    legend_above(figure, keys)
    return figure


def _draw_curve(ax: Axes, rows: pd.DataFrame, aside: float, look: dict[str, Any]) -> None:
    mean = rows.groupby("label_share")[["value", "low", "high"]].mean()
    whiskers = (mean["value"] - mean["low"], mean["high"] - mean["value"])
    ax.errorbar(mean.index * aside, mean["value"], whiskers, **look, capsize=3, elinewidth=1)
