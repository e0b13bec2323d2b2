"""Scores by tag: which tags are tagged well, which gain, and which are calibrated."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from jetatag.figures import _style as style
from jetatag.figures.data import draw_mel
from jetatag.files import check_known

UNNAMED = {"color": "0.45", "linestyle": "", "marker": "o", "markersize": 3}
NAMED = {"color": style.DARK, "linestyle": "", "marker": "D", "markersize": 5}
COVARIATES = {"frequency": "clips that carry the tag", "correlation": "correlation with other tags"}


@style.figure_style()
def gain_per_tag(table: pd.DataFrame, trends: pd.DataFrame) -> Figure:
    """Draw the gain of each tag by its frequency and by its correlation with other tags, and name
    the largest three and smallest three. table, trends : of one method minus another, from
    `results.gains`"""
    notes = {
        row.covariate: f"rank correlation {row.correlation:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
        for row in trends.itertuples()
    }
    check_known(notes, COVARIATES, "panel")
    table = table.dropna(subset="difference")
    if table["tag"].duplicated().any() or len(trends) > len(notes):
        raise ValueError("rows of several comparisons: give those of one method minus another.")
    rank = table["difference"].rank(method="first")
    outer = np.minimum(rank - 1, len(table) - rank) < 3  # gains and as many losses
    figure, axes = style.panels(1, 2, (9.5, 4.4), sharey=True)
    for ax, (column, scale) in zip(axes[0], COVARIATES.items(), strict=True):
        ax.vlines(table[column], table["low"], table["high"], color="0.8", linewidth=1)
        for rows, look in ((table[~outer], UNNAMED), (table[outer], NAMED)):
            ax.plot(rows[column], rows["difference"], **look)
        ax.axhline(0, color="0.4", linestyle="--", linewidth=1)
        ax.set(xlabel=f"{scale}\n{notes.get(column, '')}".strip())
    over = f" over {table['minus'].iloc[0]}" if "minus" in table else ""
    axes[0, 0].set(ylabel=f"gain{over} in average precision\n(95 % interval)", xscale="log")
    axes[0, 0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[0, 0].xaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    axes[0, 0].xaxis.set_minor_formatter(NullFormatter())
    names = table["tag"].where(outer, "").tolist()
    for ax, column in zip(axes[0], COVARIATES, strict=True):
        style.place_labels(ax, table[[column, "difference"]].to_numpy(), names)
    return figure


@style.figure_style()
def calibration(curves: Mapping[str, pd.DataFrame], per_tag: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw whether probabilities can be trusted, over all tags and tag by tag.
    curves : name of the run → its table from `metrics.reliability`; per_tag : the same names →
    their tables from `metrics.calibration`, of which the first run's three worst tags are named"""
    figure, ((above, ax), (below, unused)) = style.panels(2, 2, (9.5, 5), height_ratios=(3, 1))
    ax.set_subplotspec(ax.get_gridspec()[:, 1])
    unused.remove()
    above.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="perfectly calibrated")
    names = []
    for number, (name, look) in enumerate(style.line_styles(curves).items()):
        dots, full = {**look, "linestyle": ""}, curves[name][curves[name]["count"] > 0]
        above.plot(full["mean_prob"], full["share_positive"], **look, markersize=5, label=name)
        place = full["mean_prob"] + 0.02 * (number - (len(curves) - 1) / 2)  # side by side
        below.bar(place, full["count"], 0.008, color=look["color"])
        below.plot(place, full["count"], **dots, markersize=3.5)
        ranked = per_tag[name].sort_values("calibration_error", kind="stable")
        rank = np.arange(1, len(ranked) + 1)
        ax.plot(rank, ranked["calibration_error"], **dots, markersize=4)
        n_plain = len(ranked) - (0 if names else 3)  # of the first run, the worst are named
        names += ranked["tag"].where(rank > n_plain, "").tolist()
    above.set(ylabel="share of positives", ylim=(-0.03, 1.03))
    above.sharex(below)
    above.tick_params(labelbottom=False)
    below.set(xlabel="mean probability", ylabel="clips × tags", xlim=(-0.03, 1.03), yscale="log")
    below.yaxis.set_major_formatter(EngFormatter(sep=""))
    below.yaxis.set_minor_formatter(NullFormatter())
    style.legend_above(figure, above.get_legend_handles_labels()[0])
    ax.set(xlabel="tags, from the best calibrated", ylabel="expected calibration error")
    ax.set_ylim(bottom=0)
    ax.margins(x=0.08)
    style.place_labels(ax, np.concatenate([line.get_xydata() for line in ax.lines]), names)
    return figure


@style.figure_style()
def taggram(
    probs: np.ndarray,
    edges_s: np.ndarray,
    tags: Sequence[str],
    n_tags: int = 10,
    audio: np.ndarray | None = None,
    sample_rate: int = 0,
) -> Figure:
    """Draw the probabilities of a recording's `n_tags` most probable tags over time, below its mel
    spectrogram if its audio is given.
    probs : (window, tag); edges_s : (window + 1,) seconds, between which each window is drawn;
    audio : (sample,) in [-1, 1] at sample_rate (Hz)"""
    probs, edges_s = np.asarray(probs), np.asarray(edges_s)
    style.check_shape(probs, (len(edges_s) - 1, len(tags)), "probs", "(window, tag)")
    means = np.average(probs, axis=0, weights=np.diff(edges_s))
    top = np.argsort(-means, kind="stable")[:n_tags][::-1]
    heights = [1.8] * (audio is not None) + [max(1.9, 1.2 + 0.22 * len(top))]
    options = {"height_ratios": heights, "sharex": True}
    figure, axes = style.panels(len(heights), 1, (8, sum(heights)), **options)
    if audio is not None:
        level = draw_mel(axes[0, 0], audio, sample_rate)
        figure.colorbar(level, ax=axes[0, 0], label="level (dB)", format="%d")
    ax, rows = axes[-1, 0], np.arange(len(top) + 1) - 0.5
    mesh = ax.pcolormesh(edges_s, rows, probs[:, top].T, cmap="cividis", vmin=0, vmax=1)
    ax.set_yticks(range(len(top)), [f"{tags[i]} ({means[i]:.2f})" for i in top], fontsize=8)
    divisors = {"steps": [1, 3, 6, 10], "integer": True, "min_n_ticks": 1}  # of a minute
    ax.xaxis.set_major_locator(MaxNLocator(11, **divisors))
    ax.xaxis.set_major_formatter(lambda s, _: f"{int(s // 60)}:{s % 60:02.0f}")
    ax.set(xlabel="time (min:s)", ylabel="tag\n(mean probability)")
    figure.colorbar(mesh, ax=ax, label="probability")
    return figure
