"""Maps of the spaces."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jetatag.config import refuse_unknown
from jetatag.figures._style import DARK, PALE, panels, place_labels, refuse_misfit


def tag_map(
    layouts: Mapping[str, np.ndarray],
    positive: np.ndarray,
    tag: str,
    notes: Mapping[str, str] | None = None,
) -> Figure:
    """Draw one tag against the rest in several layouts side by side (Lee & Cho 2021, figure 2).

    layouts : title → (clip, 2); positive : (clip,) whether a clip carries `tag`; notes : title →
    a line printed under the picture, for the number that says whether the picture can be trusted
    """
    positive, notes = np.asarray(positive).astype(bool), notes or {}
    refuse_unknown(notes, layouts, "layout title")
    figure, axes = panels(1, len(layouts), (3.3 * len(layouts), 3.7))
    for ax, (title, points) in zip(axes[0], layouts.items(), strict=True):
        refuse_misfit(points, (len(positive), 2), f"layout {title!r}", "(clip, 2)")
        ax.scatter(*points[~positive].T, s=9, color=PALE, marker="o", linewidth=0, label="other")
        ax.scatter(*points[positive].T, s=20, color=DARK, marker="^", linewidth=0, label=tag)
        ax.set(title=title, xlabel=_axis_note(notes.get(title)))
        _hide_scale(ax)
    axes[0, 0].set_ylabel("layout axis 2")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside upper right", ncols=2, frameon=False)
    return figure


def shared_space(
    audio_xy: np.ndarray,
    tag_xy: np.ndarray,
    tags: Sequence[str],
    highlight: Sequence[str] = (),
    note: str = "",
) -> Figure:
    """Draw clips as grey points and tags as labelled landmarks in one map.

    audio_xy : (clip, 2) and tag_xy : (tag, 2), laid out together; tags : names of the landmarks;
    highlight : tags to stress, placed first; note : a line printed under the picture
    """
    refuse_unknown(highlight, tags, "tag")
    refuse_misfit(tag_xy, (len(tags), 2), "tag_xy", "(tag, 2)")
    refuse_misfit(audio_xy, (len(audio_xy), 2), "audio_xy", "(clip, 2)")
    figure, axes = panels(1, 1, (8, 7))
    ax, stressed = axes[0, 0], np.isin(tags, highlight)
    ax.scatter(*audio_xy.T, s=8, color=PALE, linewidth=0, label=f"{len(audio_xy):,} clips")
    ax.scatter(*tag_xy[~stressed].T, s=22, color=DARK, marker="D", edgecolor="white", label="tags")
    if stressed.any():
        ax.scatter(*tag_xy[stressed].T, s=60, color=DARK, marker="*", label="highlighted tags")
    ax.set(xlabel=_axis_note(note), ylabel="layout axis 2")
    _hide_scale(ax)
    ax.margins(0.08)
    ax.legend(loc="upper left", bbox_to_anchor=(0, 1.06), ncols=3, frameon=False, fontsize=9)
    figure.draw_without_rendering()  # fixes the layout, so that labels can be placed in pixels
    place_labels(ax, tag_xy, tags, stressed)
    return figure


def _hide_scale(ax: Axes) -> None:
    """A layout has no unit: frame it and drop the ticks."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("0.7")


def _axis_note(note: str | None) -> str:
    return f"layout axis 1\n{note}" if note else "layout axis 1"
