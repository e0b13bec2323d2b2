"""Shared by the figures: styles, names, panels, and labels that do not overlap."""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import cycle
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps, rcParams
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from PIL import Image
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist

from jetatag.files import check_known
from jetatag.joint.losses import DEFAULT_LOSS

DARK, MIDDLE, LIGHT = (colormaps["cividis"](step) for step in (0.0, 0.55, 0.95))
PALE = "0.72"
PALE_TO_DARK = LinearSegmentedColormap.from_list("pale_to_dark", [PALE, MIDDLE, DARK])
MARKERS = "osD^vPX*<>h"
Panels, Size = tuple[Figure, np.ndarray], tuple[float, float]
NAMES = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "pr_auc_trapezoid": "PR-AUC (trapezoid)",
    "f1_as_coded": "F1 as coded",
    "f1_instance": "instance-based F1 (micro)",
    "autoencoder_ap": "autoencoder AP",
    "stage1": "stage 1: extractor",
    "stage2": "stage 2: classifier",
    "end_to_end": "end to end",
    "one_stage": "one stage",
    "tag_semantics": "rank correlation of tag cosines with label correlation",
    "mean_energy": "share of energy in the mean",
    "effective_rank": "effective rank (dimensions)",
    "label_share": "share of labelled clips used",
    "encoded set": "space, encoded tags",
    "answering clips": "space, means of clips with the tags",
    "combined": "space and classifier combined",
    "random": "chance",
    "steps": "training steps",
}
OWN_FONT = "DejaVu Sans"  # which matplotlib brings
_warned: list[frozenset[str]] = []


@contextmanager
def figure_style() -> Iterator[None]:
    """matplotlib's defaults but for the user's resolution, open axes, and dollars as text."""
    own = {"figure.dpi": rcParams["figure.dpi"], "text.parse_math": False}
    own |= {"axes.spines.top": False, "axes.spines.right": False}
    with plt.style.context(["default", own]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # `fonts_for` says it once
        yield


def fonts_for(text: str) -> list[str]:
    """The families of fonts that together hold the signs of `text`; matplotlib tries no others."""
    missing = set(filter(str.isprintable, text)) - _characters_of(findfont(OWN_FONT))
    return [OWN_FONT, *_other_fonts(frozenset(missing))]


def _characters_of(path: str) -> set[str]:
    return set(map(chr, get_font(path).get_charmap()))


@lru_cache
def _other_fonts(missing: frozenset[str]) -> list[str]:
    """Fonts of this machine with the `missing` signs; a process warns once if none has some."""
    families = []
    for font in fontManager.ttflist if missing else ():
        if font.name.startswith(("LastResort", "Last Resort")):  # which draw boxes
            continue
        with suppress(OSError, RuntimeError):  # matplotlib's list may be older than the fonts
            held = missing & _characters_of(font.fname)
            families += [font.name] if held else []
            missing -= held
    if missing and not _warned:
        _warned.append(missing)
        told = f"no font on this machine has the characters {''.join(sorted(missing))}"
        warnings.warn(f"{told}, which are drawn as boxes: install one, such as Noto.", stacklevel=2)
    return families


class JetatagFigure(Figure):
    """A figure that is drawn in `figure_style`, in fonts that hold its signs."""

    savefig = figure_style()(Figure.savefig)

    @figure_style()
    def draw(self, renderer: Any) -> None:
        texts = self.findobj(Text)
        families = fonts_for("".join(text.get_text() for text in texts))
        for text in texts:
            text.set_fontfamily(families)
        super().draw(renderer)


class PaletteCanvas(FigureCanvasAgg):
    """A canvas that writes PNG files with a palette of 256 colours, at a third of the size."""

    def print_png(self, filename_or_obj: Any, **_: Any) -> None:
        FigureCanvasAgg.draw(self)
        picture = Image.fromarray(np.asarray(self.buffer_rgba())).convert("RGB")
        picture = picture.quantize(256, dither=Image.Dither.NONE)
        picture.save(filename_or_obj, "png", dpi=2 * (self.figure.dpi,), optimize=True)


def panels(rows: int, columns: int, size: Size, **kwargs) -> Panels:
    """A figure of `size` inches, made by pyplot so that notebooks show it, and its axes."""
    kwargs |= {"figsize": size, "layout": "constrained", "FigureClass": JetatagFigure}
    figure, axes = plt.subplots(rows, columns, squeeze=False, **kwargs)
    plt.close(figure)
    PaletteCanvas(figure)
    return figure, axes


def row_panels(shape: Size, size: Size, names: Sequence[str], ylabel: str) -> Panels:
    """`panels` of `shape` whose rows, at the heights 0, 1, …, are labelled `names`."""
    figure, axes = panels(*shape, size, sharey=True)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(-0.7, len(names) - 0.3)
    for ax in axes.flat:
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
    plt.setp(axes[:, 0], ylabel=ylabel)
    return figure, axes


def zip_axes(axes: Sequence[Axes], items: Sequence[Any]) -> Iterable[tuple[Axes, Any]]:
    """Pairs of axes and items; axes without an item are removed."""
    for ax in axes[len(items) :]:
        ax.remove()
    return zip(axes, items, strict=False)


def line_styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Name → colour, marker and line style; no two of the first 44 share marker and line style."""
    colours = [colormaps["cividis"](step) for step in (0.0, 0.4, 0.7)]
    cycles = cycle(colours), cycle(MARKERS), cycle(("-", "--", "-.", ":"))
    return {
        name: {"color": colour, "marker": marker, "linestyle": line}
        for name, colour, marker, line in zip(dict.fromkeys(names), *cycles, strict=False)
    }


def legend_handle(label: str, **look: Any) -> Line2D:
    """A legend entry for something drawn many times or in many panels."""
    return Line2D([], [], label=label, **{"color": DARK, "linestyle": "", **look})


def in_legend(name: str) -> str:
    """A user's name as the label of an artist; matplotlib leaves labels that begin with _ out."""
    return f"\N{ZERO WIDTH SPACE}{name}" if name.startswith("_") else name


def legend_above(figure: Figure, keys: Sequence[Artist]) -> None:
    """A legend of several panels, if any, in as few and even rows as the figure's width allows."""
    if not keys:
        return
    widest = 0.9 + 0.085 * max(len(entry.get_label()) for entry in keys)  # inches
    n_rows = math.ceil(len(keys) / max(1, int(figure.get_figwidth() / widest)))
    ncols = math.ceil(len(keys) / n_rows)
    figure.legend(handles=keys, loc="outside upper center", ncols=ncols, frameon=False)


def line_name(method: str, *losses: object) -> str:
    """Method and losses, except those that are missing ("none" or "") or the default."""
    named = [x for x in losses if isinstance(x, str) and x not in ("", "none", DEFAULT_LOSS)]
    return " · ".join([method, *named])


def check_rows(number: int, reason: str = "the table is empty") -> None:
    if not number:
        raise ValueError(f"there are no rows to draw: {reason}; choose other rows.")


def with_lines(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each row's `line`, named by method and losses."""
    check_known(["method"], table.columns, "column")
    methods = table.reindex(columns=["method", "pair_loss", "classification_loss"])
    return table.assign(line=[line_name(*row) for row in methods.itertuples(index=False)])


def display_name(name: str) -> str:
    return NAMES.get(name, name.replace("_", " "))


def scale_name(table: pd.DataFrame) -> str:
    """What one axis shows: the metric, and the protocol and the method subtracted, if any. Raises
    `ValueError` if the table has several of one kind."""
    table = table.reindex(columns=["metric", "protocol", "minus"], fill_value="")
    for column, values in table.items():
        if values.nunique(dropna=False) > 1:
            several = f"{column} ({', '.join(sorted(values.unique()))})"
            raise ValueError(f"one axis cannot show several of {several}: choose one.")
    metric, protocol, minus = table.iloc[0]
    name = fill(", ".join(filter(None, [display_name(metric), protocol])), 32)
    return f"{name},\ndifference from {minus}" if minus else name


def check_shape(array: np.ndarray, shape: tuple[int, ...], what: str, axes: str) -> None:
    if np.shape(array) != shape:
        raise ValueError(f"{what} must be {axes} = {shape}, not {np.shape(array)}.")


# Labels of points

LEADER = {"arrowstyle": "-", "color": "0.5", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
LOOK = {"ha": "center", "va": "center", "fontsize": 8, "linespacing": 1.0, "arrowprops": LEADER}
HALO = {"path_effects": [withStroke(linewidth=2, foreground="white")]}
MANY = 6  # names in a label; if more points touch, it tells how many


def place_labels(
    ax: Axes, points: np.ndarray, names: Sequence[str], highlighted: np.ndarray | None = None
) -> None:
    """Write each name at the nearest free place around its point, joined to it by a thin line.
    `highlighted` points come first. Points that touch share one label; a point with an empty name
    has none. Labels lie inside the axes, at most a fifth of the figure's shorter side away, and
    cover as little as possible of points and other labels; matplotlib itself does not move labels.
    Call it last: it fixes the figure's layout."""
    ax.figure.draw_without_rendering()
    scale = 72 / ax.figure.dpi  # pixels → typographic points, which stay right at any dpi
    frame, reach = ax.bbox.get_points() * scale, 0.2 * 72 * ax.figure.get_size_inches().min()
    places = ax.transData.transform(points) * scale
    highlighted = np.zeros(len(points), bool) if highlighted is None else highlighted
    reserved = np.where(highlighted, 8, 4)  # a highlighted point is a larger marker
    taken = [np.array([p - r, p + r]) for p, r in zip(places, reserved, strict=True)]  # boxes
    is_named = np.array([name != "" for name in names], bool)
    plain, named = np.flatnonzero(is_named & ~highlighted), places[is_named]
    groups = [plain[own] for own in touching(places[plain], distance=7)]
    groups.sort(key=lambda group: -(cdist(places[group[:1]], named) < 60).sum())  # crowds first
    for group in (*np.flatnonzero(is_named & highlighted)[:, None], *groups):
        first, label = group[0], wrapped([names[index] for index in sorted(group)])
        own = {"textcoords": "offset points", "fontfamily": fonts_for(label)}
        text = ax.annotate(label, points[first], (0, 0), **LOOK, **own, **HALO)
        if highlighted[first]:
            text.set(fontsize=10, fontweight="bold")
        extent = Text.get_window_extent(text)  # of the text alone, without its line
        half = np.array([extent.width, extent.height]) * scale / 2
        offset = _free_place(places[first], half, np.array(taken), frame, reach)
        text.set_position(offset)
        around = half + np.array([6, 0])  # so that two labels side by side do not read as one
        taken.append(places[first] + offset + np.array([-around, around]))


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
