"""Training curves."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jetatag.figures import _style as style


@style.own_style()
def loss_curves(history: pd.DataFrame) -> Figure:
    """Draw every quantity of a training history by epoch, one panel per stage and quantity.
    `history` has one row per epoch: columns `stage`, `epoch` (from 1), `learning_rate` and any
    number of numeric ones; `valid_x` is drawn dashed in the panel of `x`. Dotted vertical lines
    mark where a new phase of the schedule begins. Raises `ValueError` for a history without rows.
    """
    style.check_rows(len(history), "the history is empty")
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
