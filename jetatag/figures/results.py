"""Figures that compare methods.

Tables are long, as `evaluation.results` makes and selects them: the columns `method`, `pair_loss`
(missing or empty if a method has none), `metric`, `value`, `low` and `high`, and those named below.
"""

from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jetatag.evaluation.reading import extractor_label
from jetatag.figures import _style as style
from jetatag.files import check_known
from jetatag.joint.methods import BASELINE, METHODS

SIDES = {"without JE": "white", "with JE": style.DARK}
HEADINGS = ("pair losses", "controls")
DOT = {"color": style.DARK, "markersize": 6, "zorder": 3}
BY_CLIP = {"color": "0.55", "linestyle": "-", "linewidth": 3}
BY_GROUP = {"color": "0.1", "linestyle": "-", "linewidth": 0.9, "marker": "|", "markersize": 7}


@style.own_style()
def scores_with_intervals(table: pd.DataFrame) -> Figure:
    """Draw scores of methods as dots with whiskers, one row of panels per `protocol`, one panel per
    metric. Rows of one method, such as its seeds, share a line."""
    table = style.with_lines(table, "protocol metric value low high", "the results")
    lines = table["line"].unique().tolist()[::-1]  # the first method on top
    protocols = table.groupby("protocol", sort=False)
    columns = protocols["metric"].nunique().max()
    size = (1.6 + 2.8 * columns, len(protocols) * (1.2 + 0.34 * len(lines)))
    figure, axes = style.row_panels((len(protocols), columns), size, lines, "method")
    for row, (protocol, rows) in zip(axes, protocols, strict=True):
        for ax, (metric, own) in style.used(row, list(rows.groupby("metric", sort=False))):
            for number, place in enumerate(map(lines.index, own["line"])):
                marker = style.MARKERS[place % len(style.MARKERS)]
                style.draw_mean(ax, place, own.iloc[[number]], marker=marker)
            ax.set(xlabel=style.named(metric))
            ax.set_title(style.named(protocol), fontsize=10)
    return figure


@style.own_style()
def published_gains(table: pd.DataFrame) -> Figure:
    """Draw published scores as steps from without (open marker) to with joint embedding (filled).
    `table` has the columns `source`, `extractor`, `method`, `roc_auc` and `pr_auc`."""
    long = table.melt(["source", "extractor", "method"], ["roc_auc", "pr_auc"], "metric")
    return _draw_gains(long.assign(protocol="micro_window (published)"))


@style.own_style()
def measured_gains(table: pd.DataFrame) -> Figure:
    """Draw Table 1 of Lee & Cho 2021 from your own runs, a row per extractor, a panel per metric.
    `table` has a row per `seed` of a method without joint embedding (open marker) and of one with
    it (filled), and optionally a `protocol`. Markers are means over seeds, small ticks are single
    seeds, and whiskers are the means of their intervals."""
    style.check_columns(table, "extractor method seed metric value low high", "the gains")
    return _draw_gains(table.assign(source=""))


def _draw_gains(table: pd.DataFrame) -> Figure:
    without_control = [n for n, method in METHODS.items() if method.with_je or not method.is_joint]
    check_known(table["method"], without_control, "method in a table of gains")
    sides = [[*SIDES][METHODS[method].with_je] for method in table["method"]]
    table = table.assign(scale=style.scale_names(table), side=sides)
    if (table.groupby("side")["method"].nunique() > 1).any():
        raise ValueError("more than one method with or without joint embedding: choose one each.")
    markers = dict(zip(table["source"].unique(), style.MARKERS, strict=False))
    extractors = table["extractor"].unique().tolist()[::-1]  # the first on top
    scales = table.groupby("scale", sort=False)
    size = (2.3 + 3.1 * len(scales), 1.4 + 0.5 * len(extractors))
    lines = [extractor_label(extractor).replace(" (", "\n(") for extractor in extractors]
    figure, axes = style.row_panels((1, len(scales)), size, lines, "extractor")
    for ax, (scale, own) in zip(axes[0], scales, strict=True):
        for (source, extractor), step in own.groupby(["source", "extractor"], sort=False):
            offset = 0.32 * ((len(markers) - 1) / 2 - list(markers).index(source))
            middle, shift = extractors.index(extractor) + offset, 0.17 if "low" in step else 0
            heights = dict(zip(SIDES, (middle + shift, middle - shift), strict=True))
            means = step.groupby("side", sort=False)["value"].mean()
            ax.plot(means, means.index.map(heights), color="0.6", linewidth=1.2)
            for side, rows in step.groupby("side", sort=False):
                look = {"marker": markers[source], "markerfacecolor": SIDES[side]}
                style.draw_mean(ax, heights[side], rows, **look)
        ax.set(xlabel=scale)
    keys = [
        style.key(f"{source}, {name}".removeprefix(", "), marker=marker, markerfacecolor=fill)
        for source, marker in markers.items()
        for name, fill in SIDES.items()
    ]
    keys += style.mean_keys(table, ["source", "extractor", "method", "scale"])
    style.legend_above(figure, keys)
    return figure


@style.own_style()
def ablation(differences: pd.DataFrame, reference: str = BASELINE) -> Figure:
    """Draw the gains in average precision of pair losses (joint embedding) and controls, one panel
    per `extractor`. `differences` has the column `difference`, to `reference`, instead of `value`,
    and optionally `group_low` and `group_high` for a second, thinner whisker."""
    rows = style.with_lines(differences, "extractor metric difference low high", "the differences")
    rows = rows[rows["metric"] == "average_precision"]
    joint = [METHODS[method].with_je for method in rows["method"]]
    rows = rows.assign(heading=np.where(joint, *HEADINGS), marker=np.where(joint, "o", "s"))
    parts = [(heading, rows["line"][rows["heading"] == heading].unique()) for heading in HEADINGS]
    lines = [line for heading, own in parts if len(own) for line in (heading, *own)][::-1]
    extractors = rows.groupby("extractor", sort=False)
    size = (2.4 + 2.9 * len(extractors), 1.5 + 0.32 * len(lines))
    figure, axes = style.row_panels((1, len(extractors)), size, lines, "method", sharex=True)
    for ax, (extractor, own) in zip(axes[0], extractors, strict=True):
        for row in own.to_dict("records"):
            place = lines.index(row["line"])
            ax.plot([row["low"], row["high"]], [place, place], **BY_CLIP)
            if "group_low" in row:
                ax.plot([row["group_low"], row["group_high"]], [place, place], **BY_GROUP)
            ax.plot(row["difference"], place, row["marker"], **DOT)
        ax.axvline(0, color="0.4", linestyle="--", linewidth=1)
        ax.set(xlabel=f"average precision,\ndifference from {reference}", title=extractor)
    for text in axes[0, 0].get_yticklabels():
        text.set_fontweight("bold" if text.get_text() in HEADINGS else "normal")
    keys = [style.key("95 % interval by clip", **BY_CLIP)]
    keys += [style.key("95 % interval by group", **BY_GROUP)] if "group_low" in rows else []
    style.legend_above(figure, keys)
    return figure


@style.own_style()
def label_curves(table: pd.DataFrame) -> Figure:
    """Draw scores by `label_share` in (0, 1], one line per method, one panel per metric. Rows of
    one method and share, such as its seeds, are averaged, and so are their intervals."""
    table = style.with_lines(table, "label_share metric value low high", "the label curves")
    if not table["label_share"].between(0, 1, inclusive="right").all():
        raise ValueError("label_share must be in (0, 1]: give the share of labelled clips used.")
    table = table.assign(scale=style.scale_names(table))
    scales = table.groupby("scale", sort=False)
    figure, axes = style.panels(1, len(scales), (0.6 + 3.9 * len(scales), 4))
    styles = style.looks(table["line"])
    for ax, (scale, rows) in zip(axes[0], scales, strict=True):
        for number, (line, look) in enumerate(styles.items()):
            by_share = rows[rows["line"] == line].groupby("label_share")
            mean = by_share[["value", "low", "high"]].mean()
            whiskers = (mean["value"] - mean["low"], mean["high"] - mean["value"])
            places = mean.index * 1.05 ** (number - (len(styles) - 1) / 2)  # beside one another
            ax.errorbar(places, mean["value"], whiskers, **look, capsize=3, elinewidth=1)
        shares = sorted(rows["label_share"].unique())
        ax.set(xscale="log", xlabel="labelled clips used", ylabel=scale)
        ax.set_xticks(shares, [f"{100 * share:g} %" for share in shares])
        ax.minorticks_off()
        ax.grid(axis="y", color="0.9")
    keys = [style.key(line, **look) for line, look in styles.items()]
    keys.append(style.key("95 % interval", **style.WHISKER, marker="|", linestyle="-"))
    style.legend_above(figure, keys)
    return figure


@style.own_style()
def gains_by_steps(differences: pd.DataFrame, reference: str = BASELINE) -> Figure:
    """Draw differences from `reference` after so many training `steps`, one panel per method, with
    their intervals shaded. `differences` has one metric, `difference` instead of `value`, and
    optionally a `seed`, each of which is a line."""
    table = style.with_lines(differences, "steps metric difference low high", "the differences")
    (metric,) = set(table["metric"])
    lines = list(table.groupby("line", sort=False))
    rows, columns = -(-len(lines) // 4), min(4, len(lines))
    size = (0.8 + 2.4 * columns, 0.8 + 2.0 * rows)
    figure, axes = style.panels(rows, columns, size, sharex=True, sharey=True)
    for ax, (line, own) in style.used(axes.flat, lines):
        seeds = own.assign(seed=own.get("seed", "mean")).groupby("seed")
        for (_, each), marker in zip(seeds, cycle("os^"), strict=False):
            each = each.sort_values("steps")
            thousands = each["steps"] / 1000
            shade = {"color": "0.5", "alpha": 0.35, "linewidth": 0}
            ax.fill_between(thousands, each["low"], each["high"], **shade)
            ax.plot(thousands, each["difference"], f"{marker}-", color=style.DARK, markersize=3)
        ax.axhline(0, color="0.4", linestyle="--", linewidth=1)
        ax.set_title(line, fontsize=10)
        ax.tick_params(labelbottom=True)
    figure.supxlabel("training steps (thousands)", fontsize=10)
    figure.supylabel(f"{style.named(metric)},\ndifference from {reference}", fontsize=10)
    names = sorted(table["seed"].unique()) if "seed" in table else ["mean"]
    names = [f"seed {name}" if name.isdigit() else name for name in names]
    looks = zip(names, cycle("os^"), strict=False)
    keys = [style.key(name, marker=marker, linestyle="-") for name, marker in looks]
    shaded = Patch(color="0.5", alpha=0.35, linewidth=0, label="95 % interval")
    style.legend_above(figure, [*keys, shaded])
    return figure
