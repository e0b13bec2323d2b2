"""Methods compared."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jetatag.figures._style import DARK, MARKERS, line_name, named, panels


def scores_with_intervals(table: pd.DataFrame) -> Figure:
    """Draw methods against metrics as dots with whiskers, a row a protocol, a panel a metric.

    `table` is long: columns `method`, `pair_loss` (missing or empty where a method has none),
    `protocol`, `metric`, `value`, `low`, `high`; rows of one method, such as its seeds, share a
    line. Scales differ between panels, for protocols must not be compared.
    """
    needed = {"method", "pair_loss", "protocol", "metric", "value", "low", "high"}
    missing = needed - set(table.columns)
    if missing or table.empty:
        raise ValueError(f"the results lack {', '.join(sorted(missing)) or 'rows'}.")
    table = table.assign(
        line=[line_name(*pair) for pair in zip(table["method"], table["pair_loss"], strict=True)]
    )
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
    axes[0, 0].set_yticks(range(len(lines)), lines)
    return figure


def _draw_intervals(ax: Axes, rows: pd.DataFrame, lines: Sequence[str]) -> None:
    for _, row in rows.iterrows():
        place = lines.index(row["line"])
        ax.hlines(place, row["low"], row["high"], color="0.35", linewidth=1.4)
        ax.plot(row["value"], place, MARKERS[place % len(MARKERS)], color=DARK, markersize=6)
    ax.set_ylim(-0.6, len(lines) - 0.4)
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)


def published_gains(table: pd.DataFrame) -> Figure:
    """Draw published scores as steps from without to with joint embedding, a panel a metric.

    `table`: columns `source`, `extractor`, `method` (no_je or je), `roc_auc`, `pr_auc`. An open
    marker is without, a filled one with joint embedding; each source has its own shape.
    """
    wide = table.pivot(
        index=["source", "extractor"], columns="method", values=["roc_auc", "pr_auc"]
    )
    sources = list(dict.fromkeys(table["source"]))
    extractors = list(dict.fromkeys(table["extractor"]))[::-1]
    figure, axes = panels(1, 2, (8.5, 1.4 + 0.5 * len(extractors)), sharey=True)
    for ax, metric in zip(axes[0], ("roc_auc", "pr_auc"), strict=True):
        for (source, extractor), row in wide[metric].iterrows():
            number = sources.index(source)
            place = extractors.index(extractor) + 0.16 * (1 - 2 * number)
            ax.plot([row["no_je"], row["je"]], [place, place], color="0.6", linewidth=1.2)
            for method, fill in (("no_je", "white"), ("je", DARK)):
                name = f"{source}, {'with' if method == 'je' else 'without'} JE"
                ax.plot(
                    *(row[method], place, MARKERS[number]),
                    color=DARK,
                    markerfacecolor=fill,
                    linestyle="",
                    label=name if extractor == extractors[0] and metric == "roc_auc" else None,
                )
        ax.set(xlabel=f"{named(metric)}, micro_window (published)")
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
    axes[0, 0].set_yticks(range(len(extractors)), extractors)
    axes[0, 0].set_ylabel("extractor")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure
