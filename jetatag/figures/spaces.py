"""Maps of the spaces."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from jetatag.figures import _style as style
from jetatag.files import check_known

LANDMARK = {"facecolor": "none", "edgecolor": "black", "zorder": 2, **style.HALO}  # above clips


@style.figure_style()
def maps(
    layouts: Mapping[str, np.ndarray],
    values: np.ndarray,
    name: str,
    tags: Sequence[str] = (),
    notes: Mapping[str, str] | None = None,
) -> Figure:
    """Draw spaces side by side: clips as points and tags, if any, as labelled landmarks.

    layouts : title → (clip + tag, 2), the tags after the clips
    values : (clip,) or longer: numbers (darker is higher), names (a marker each) or bools, which
    tell whether a clip has the tag `name`
    name : what `values` are; the landmark of a tag of this name is a star
    tags : names of the landmarks; those that touch share one label
    notes : title → text below the map

    Raises `ValueError` without layouts, for a layout of another shape and a note on an unknown one.
    """
    if not layouts:
        raise ValueError("there are no maps to draw: give at least one layout.")
    check_known(notes or {}, layouts, "layout title")
    n_clips = len(next(iter(layouts.values()))) - len(tags)
    values, is_chosen = np.asarray(values)[:n_clips], np.isin(tags, [name])
    width = max(4.6, 8 / len(layouts)) if len(tags) else 3.3  # of a panel, in inches
    notes = {title: fill(note, int(14 * width)) for title, note in (notes or {}).items()}
    n_lines = max((note.count("\n") + 1 for note in notes.values() if note), default=0)
    size = (width * len(layouts), 1.1 + 0.8 * width + 0.15 * n_lines)
    figure, axes = style.panels(1, len(layouts), size)
    for ax, (title, xy) in zip(axes[0], layouts.items(), strict=True):
        style.check_shape(xy, (n_clips + len(tags), 2), f"layout {title!r}", "(clip + tag, 2)")
        coloured = _draw_clips(ax, xy[:n_clips], values, name)
        if len(tags):
            ax.scatter(*xy[n_clips:][~is_chosen].T, s=16, marker="D", label="tags", **LANDMARK)
        if is_chosen.any():
            star = {"s": 140, "marker": "*", "label": style.in_legend(f"{name} (tag)")}
            ax.scatter(*xy[n_clips:][is_chosen].T, **LANDMARK | star | {"zorder": 2.5})
        ax.set(title=title, xticks=[], yticks=[])  # a layout has no unit
        ax.set_xlabel(f"layout axis 1\n{notes.get(title, '')}".strip(), fontsize=9)
        ax.spines[:].set_visible(True)
        ax.spines[:].set_color("0.7")
        ax.margins(0.08)
    axes[0, 0].set_ylabel("layout axis 2", fontsize=9)
    if coloured:
        figure.colorbar(coloured, ax=axes, label=name, fraction=0.02, pad=0.01)
    style.legend_above(figure, axes[0, 0].get_legend_handles_labels()[0])
    for ax, xy in zip(axes[0], layouts.values(), strict=True):
        style.place_labels(ax, xy[n_clips:], tags, is_chosen)
    return figure


def _draw_clips(ax: Axes, xy: np.ndarray, values: np.ndarray, name: str) -> PathCollection | None:
    """Draw clips with labels for a legend, and return what a colour bar needs if they have one."""
    if values.dtype == bool:
        others = {"color": style.PALE, "label": f"other clips ({(~values).sum():,})"}
        own = {"color": style.DARK, "label": style.in_legend(f"{name} ({values.sum():,} clips)")}
        ax.scatter(*xy[~values].T, s=9, linewidth=0, **others)
        ax.scatter(*xy[values].T, s=20, marker="^", linewidth=0, **own)
        return None
    if values.dtype.kind in "iuf":
        order = np.argsort(values, kind="stable")  # the highest values on top
        colours = {"c": values[order], "cmap": style.PALE_TO_DARK, "label": "clips"}
        return ax.scatter(*xy[order].T, s=9, linewidth=0, **colours)
    for value, look in style.line_styles(np.unique(values)).items():
        look = {"color": look["color"], "marker": look["marker"], "label": style.in_legend(value)}
        ax.scatter(*xy[values == value].T, s=9, linewidth=0, **look)
    return None
