"""Labels of points that overlap neither one another nor the points."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist

from jetatag.figures._style import fonts_for

LEADER = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
LOOK = {"ha": "center", "va": "center", "fontsize": 8, "linespacing": 1.0, "arrowprops": LEADER}
LOOK["path_effects"] = [withStroke(linewidth=2, foreground="white")]
MANY = 6  # names in a label; if more points touch, it tells how many


def place_labels(
    ax: Axes, points: np.ndarray, names: Sequence[str], stressed: np.ndarray | None = None
) -> None:
    """Write each name at the nearest free place around its point, joined to it by a thin line.
    `stressed` points come first. Points that touch share one label; a point with an empty name has
    none. Labels lie inside the axes, at most a fifth of the figure's shorter side away, and cover
    as little as possible of points and other labels. Call it last: it fixes the figure's layout."""
    ax.figure.draw_without_rendering()
    scale = 72 / ax.figure.dpi  # pixels → typographic points, which stay right at any dpi
    frame, reach = ax.bbox.get_points() * scale, 0.2 * 72 * ax.figure.get_size_inches().min()
    places = ax.transData.transform(points) * scale
    taken = [np.array([place - 4, place + 4]) for place in places]  # (corner, axis) of boxes
    stressed = np.zeros(len(points), bool) if stressed is None else stressed
    is_named = np.array([name != "" for name in names])
    plain, named = np.flatnonzero(is_named & ~stressed), places[is_named]
    groups = [plain[own] for own in touching(places[plain], distance=7)]
    groups.sort(key=lambda group: -(cdist(places[group[:1]], named) < 60).sum())  # crowds first
    for group in (*np.flatnonzero(is_named & stressed)[:, None], *groups):
        first, label = group[0], wrapped([names[index] for index in sorted(group)])
        own = {"textcoords": "offset points", "fontfamily": fonts_for(label)}
        text = ax.annotate(label, points[first], (0, 0), **LOOK, **own)
        if stressed[first]:
            text.set(fontsize=10, fontweight="bold")
        extent = Text.get_window_extent(text)  # of the text alone, without its line
        half = np.array([extent.width, extent.height]) * scale / 2
        offset = _free_place(places[first], half, np.array(taken), frame, reach)
        text.set_position(offset)
        taken.append(places[first] + offset + np.array([-half, half]))


def touching(points: np.ndarray, distance: float) -> list[np.ndarray]:
    """Indices of `points` (n, 2) that all lie within `distance` of one another, group by group, the
    point nearest to the middle of a group first."""
    if len(points) < 2:
        return [np.array([index]) for index in range(len(points))]
    numbers = fcluster(linkage(points, "complete"), distance, "distance")
    groups = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    middles = [np.linalg.norm(points[own] - points[own].mean(axis=0), axis=1) for own in groups]
    return [own[np.argsort(far, kind="stable")] for own, far in zip(groups, middles, strict=True)]


def _free_place(
    point: np.ndarray, half: np.ndarray, taken: np.ndarray, frame: np.ndarray, reach: float
) -> np.ndarray:
    """The offset of a text's centre from `point` at which the text covers least of the boxes
    `taken` (box, corner, axis) and of what lies outside `frame`; of several, the shortest."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    directions = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    radii = np.arange(5, reach, 7)[:, None, None]
    offsets = (directions * (radii + half)).reshape(-1, 2)
    inside = (half / np.maximum(np.abs(offsets), 1e-9)).min(axis=1)  # part of the line in the text
    offsets = offsets[np.linalg.norm(offsets, axis=1) * (1 - inside) <= reach]
    low, high = point + offsets - half, point + offsets + half
    covered = np.minimum(high[:, None], taken[:, 1]) - np.maximum(low[:, None], taken[:, 0])
    outside = np.maximum(frame[0] - low, 0) + np.maximum(high - frame[1], 0)
    cost = covered.clip(min=0).prod(axis=2).sum(axis=1) + 100 * outside.sum(axis=1)
    return offsets[cost.argmin()]


def wrapped(names: Sequence[str], width: int = 24) -> str:
    """At most `MANY` names in lines of `width` characters that end between two of them."""
    if len(names) > MANY:
        names = [*names[: MANY - 1], f"{len(names) - MANY + 1} more"]
    whole = ", ".join(name.replace(" ", "\xa0") for name in names)
    return fill(whole, width).replace("\xa0", " ")
