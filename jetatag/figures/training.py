"""Training curves."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jetatag.figures import _style as style


@style.own_style()
def loss_curves(history: pd.DataFrame) -> Figure:
    """Draw every quantity of a training history by epoch, one panel per stage and quantity.
    `history` has one row per epoch: columns `stage`, `epoch` (from 1), `learning_rate` and any
    number of numeric ones; `valid_x` is drawn dashed in the panel of `x`. Dotted vertical lines
    mark where a new phase of the schedule begins."""
    style.check_columns(history, "stage epoch learning_rate", "the epochs", "train a run first")
    stages = []
    for _, stage in history.groupby("stage", sort=False):
        known = stage.dropna(axis="columns", how="all").select_dtypes("number").columns
        known = known.difference(["epoch", "learning_rate"], sort=False)
        stages.append((stage, known.str.removeprefix("valid_").unique()))
    columns = min(3, max(len(quantities) for _, quantities in stages))
    rows = [
        (stage, quantities[start : start + columns])
        for stage, quantities in stages
        for start in range(0, len(quantities), columns)
    ]
    figure, axes = style.panels(len(rows), columns, (3.4 * columns, 2.3 * len(rows)))
    for line, (stage, quantities) in zip(axes, rows, strict=True):
        for ax, quantity in style.used(line, quantities):
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
    ax.set(xlabel="epoch", ylabel=style.named(quantity))
    ax.set_title(style.named(str(stage["stage"].iloc[0])), fontsize=9)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, fontsize=8)


@style.own_style()
def curves_by_method(history: pd.DataFrame, metric: str = "valid_average_precision") -> Figure:
    """Draw one quantity of many runs by epoch, a line per method, a panel per stage that has it.
    `history` holds the rows of all runs: columns `method`, `pair_loss`, `seed`, `stage`, `epoch`
    (from 1) and `metric`; a line is the mean over seeds, shaded from the lowest to the highest."""
    needed = f"seed stage epoch {metric}"
    history = style.with_lines(history, needed, "the epochs of the runs")
    styles = style.looks(history["line"])  # of all lines, so that every metric draws them alike
    drawn = style.with_lines(history.dropna(subset=metric), needed, f"the epochs with {metric}")
    stages = [stage for stage in history["stage"].unique() if stage in set(drawn["stage"])]
    figure, axes = style.panels(1, len(stages), (2.9 + 3.4 * len(stages), 4.2), sharey=True)
    for ax, stage in zip(axes[0], stages, strict=True):
        for line, curve in drawn[drawn["stage"] == stage].groupby("line", sort=False):
            seeds = curve.groupby("epoch")[metric].agg(["min", "mean", "max"])
            shade = {"color": styles[line]["color"], "alpha": 0.15, "linewidth": 0}
            ax.fill_between(seeds.index, seeds["min"], seeds["max"], **shade)
            every = max(1, len(seeds) // 6)
            ax.plot(seeds.index, seeds["mean"], **styles[line], markevery=every, markersize=5)
        ax.set(xlabel="epoch", title=style.named(stage))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(color="0.92")
    name = style.named(metric.removeprefix("valid_"))
    axes[0, 0].set_ylabel(f"{name}, validation" if metric.startswith("valid_") else name)
    keys = [style.key(line, **look) for line, look in styles.items() if line in set(drawn["line"])]
    if drawn["seed"].nunique() > 1:
        keys.append(Patch(color="0.85", label="lowest to highest seed"))
    figure.legend(handles=keys, loc="outside right upper", frameon=False, handlelength=4)
    return figure
