"""What every figure shares: colours, markers, names, panels, and labels that keep apart."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

DARK, MIDDLE, LIGHT = (colormaps["cividis"](step) for step in (0.0, 0.55, 0.95))
PALE = "0.72"
MARKERS = "osD^vPX*"

NAMES = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "average_precision": "average precision",
    "f1_as_coded": "F1 as coded",
    "f1_instance": "instance-based F1 (micro)",
    "autoencoder_ap": "autoencoder AP",
    "learning_rate": "learning rate",
    "macro_clip": "per clip, macro areas",
    "micro_window": "per window, micro areas",
    "stage1": "stage 1: extractor",
    "stage2": "stage 2: classifier",
}


def panels(
    rows: int, columns: int, size: tuple[float, float], **kwargs
) -> tuple[Figure, np.ndarray]:
    """A figure of `size` inches and its axes (rows, columns), let go by pyplot at once.

    Made through pyplot all the same, because that is what tells a notebook how to show figures.
    """
    figure, axes = plt.subplots(
        rows, columns, figsize=size, squeeze=False, layout="constrained", **kwargs
    )
    plt.close(figure)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(-0.7, len(names) - 0.3)


def rows_of(things: Sequence, columns: int) -> list[Sequence]:
    """`things` in rows of `columns`; the last may be shorter."""
    return [things[start : start + columns] for start in range(0, len(things), columns)]


def line_name(method: str, pair_loss: object) -> str:
    """Method and pair loss; without a loss ("none", "" or missing) the method alone."""
    has_loss = isinstance(pair_loss, str) and pair_loss not in ("", "none")
    return f"{method} · {pair_loss}" if has_loss else method


def named(name: str) -> str:
    return NAMES.get(name, name.replace("_", " "))


def refuse_misfit(array: np.ndarray, shape: tuple[int, ...], what: str, axes: str) -> None:
    if np.shape(array) != shape:
        raise ValueError(f"{what} must be {axes} = {shape}, not {np.shape(array)}.")


def place_labels(ax: Axes, points: np.ndarray, names: Sequence[str], stressed: np.ndarray) -> None:
    """Write each name at the nearest free place around its point, stressed ones first.

    Places lie on rings of growing radius inside the axes; a place is free when the text meets no
    landmark and no earlier text. A thin line leads from a text to its point.
    """
    scale = 72 / ax.figure.dpi  # pixels → typographic points, which stay right at any dpi
    frame = Bbox(ax.bbox.get_points() * scale)
    pixels = ax.transData.transform(points) * scale
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in pixels]
    leader = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
    for index in np.argsort(~stressed, kind="stable"):
        text = ax.annotate(
            names[index],
            points[index],
            (0, 0),
            textcoords="offset points",
            **{"ha": "center", "va": "center", "arrowprops": leader},
            **{"fontsize": 10 if stressed[index] else 8},
            **{"fontweight": "bold" if stressed[index] else "normal"},
        )
        extent = Text.get_window_extent(text)  # of the text alone, without its line
        size = np.array([extent.width, extent.height]) * scale
        offset, box = free_place(pixels[index], size, taken, frame)
        text.set_position(offset)
        taken.append(box)


def free_place(
    point: np.ndarray, size: np.ndarray, taken: Sequence[Bbox], frame: Bbox
) -> tuple[np.ndarray, Bbox]:
    """The first (offset of the text's centre, its box) that is free, or the last one tried."""
    for radius, angle in product((5, 12, 22, 34, 48, 64), np.linspace(0, 2 * np.pi, 16, False)):
        direction = np.array([np.cos(angle), np.sin(angle)])
        offset = direction * (radius + size / 2)
        box = Bbox.from_bounds(*(point + offset - size / 2), *size)
        inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
        if inside and not box.count_overlaps(taken):
            break
    return offset, box
