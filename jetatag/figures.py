"""Arrays and tables in, matplotlib figures out.

Every function returns a `Figure` that pyplot no longer holds, so a notebook shows it once and
nothing piles up in memory; saving is the caller's. Colours are steps of cividis, which keep their
order in grey print and for colour-blind readers, and no meaning hangs on colour alone: markers,
line styles or hatching repeat it. Wrong shapes and names are refused with a `ValueError`.
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import cycle, product

import librosa
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from jetatag import metrics
from jetatag.config import refuse_unknown

DARK, MIDDLE, LIGHT = (colormaps["cividis"](step) for step in (0.0, 0.55, 0.95))
PALE = "0.72"
MARKERS = "osD^vPX*"
PAPER_PCA = 50
"""Dimensions kept before t-SNE in figure 2 of Lee & Cho 2021."""
FEWEST_POINTS = 5
"""Fewer have no neighbourhoods to lay out."""

NAMES = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "average_precision": "average precision",
    "pr_auc_trapezoid": "PR-AUC (trapezoid)",
    "f1_as_coded": "F1 as coded",
    "f1_instance": "instance-based F1 (micro)",
    "autoencoder_ap": "autoencoder AP",
    "learning_rate": "learning rate",
    "macro_clip": "per clip, macro areas",
    "micro_window": "per window, micro areas",
    "stage1": "stage 1: extractor",
    "stage2": "stage 2: classifier",
}


# Layouts


def layout(points: np.ndarray, method: str = "umap", seed: int = 0) -> np.ndarray:
    """Lay `points` (n, dimension) out in the plane, (n, 2) float64 without unit.

    `umap` compares by cosine (McInnes et al. 2018), `tsne` follows figure 2 of Lee & Cho 2021
    (PCA to 50 dimensions, then t-SNE), `pca` takes the first two principal components. Only
    neighbourhoods mean anything in the first two; neither axes nor distances do. To map two
    kinds of points together, stack them first. Same seed, same layout on one machine.

    Raises `ValueError` for an unknown method, or fewer than `FEWEST_POINTS` finite points.
    """
    points = np.asarray(points, dtype=np.float64)
    refuse_unknown([method], LAYOUTS, "layout method")
    if points.ndim != 2 or len(points) < FEWEST_POINTS or not np.isfinite(points).all():
        raise ValueError(
            f"a layout needs (n, dimension) finite points, n ≥ {FEWEST_POINTS}: got {points.shape}."
        )
    return LAYOUTS[method](points, seed).astype(np.float64)


def _umap(points: np.ndarray, seed: int) -> np.ndarray:
    umap = _umap_class()
    # The spectral start needs more points than it has neighbours to spare.
    start = "spectral" if len(points) > 20 else "random"
    n_neighbors = min(15, len(points) - 1)
    return umap(
        n_neighbors=n_neighbors, metric="cosine", init=start, random_state=seed, n_jobs=1
    ).fit_transform(points)


def _umap_class() -> type:
    """UMAP's class; it is imported here because that takes seconds.

    Where TensorFlow is installed, UMAP would import it for a part that is not used here, and
    TensorFlow and torch's compiler crash each other in one process: meanwhile it is hidden.
    """
    hidden = "tensorflow" not in sys.modules
    if hidden:
        sys.modules["tensorflow"] = None
    try:
        from umap import UMAP
    finally:
        if hidden:
            del sys.modules["tensorflow"]
    return UMAP


def _tsne(points: np.ndarray, seed: int) -> np.ndarray:
    reduced = PCA(min(PAPER_PCA, *points.shape), random_state=seed).fit_transform(points)
    perplexity = min(30.0, (len(points) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="random", random_state=seed)
    # One thread: sums in one order, and none that spin against those numba leaves after UMAP.
    with threadpool_limits(1, user_api="openmp"):
        return tsne.fit_transform(reduced)


def _pca(points: np.ndarray, seed: int) -> np.ndarray:
    return PCA(2, random_state=seed).fit_transform(points)


LAYOUTS = {"umap": _umap, "tsne": _tsne, "pca": _pca}


# Data


def tag_counts(labels: np.ndarray, tags: Sequence[str], splits: Sequence[str]) -> Figure:
    """Draw how many clips carry each tag, one bar a tag, stacked by split, commonest on top.

    labels : (clip, tag) 0/1; tags : names of the columns; splits : (clip,) names such as train
    """
    labels, splits = np.asarray(labels), np.asarray(splits)
    _refuse_misfit(labels, (len(splits), len(tags)), "labels", "(clip, tag)")
    order = np.argsort(labels.sum(axis=0), kind="stable")
    figure, axes = _panels(1, 1, (6.5, 1.2 + 0.17 * len(tags)))
    left = np.zeros(len(tags))
    looks = zip((DARK, MIDDLE, LIGHT), ("", "////", ""), strict=True)
    for split, (colour, hatch) in zip(_in_order(splits), cycle(looks), strict=False):
        counts = labels[splits == split].sum(axis=0)[order]
        name = f"{split} ({(splits == split).sum():,} clips)"
        axes[0, 0].barh(
            np.arange(len(tags)), counts, left=left, color=colour, hatch=hatch, label=name
        )
        left += counts
    _name_rows(axes[0, 0], [tags[i] for i in order])
    axes[0, 0].set(xlabel="clips", ylabel="tag")
    axes[0, 0].legend(loc="lower right", frameon=False)
    return figure


def tag_correlation(labels: np.ndarray, tags: Sequence[str], tag: str, n: int = 10) -> Figure:
    """Draw the Pearson correlations of `tag` and its `n` nearest tags as a heat map with numbers.

    Figure 3 of Lee & Cho 2021. labels : (clip, tag) 0/1; tags : names of the columns. An unknown
    `tag` is refused.
    """
    refuse_unknown([tag], tags, "tag")
    correlation = metrics.tag_correlation(labels)
    _refuse_misfit(correlation, (len(tags), len(tags)), "the tag correlation", "(tag, tag)")
    chosen = np.argsort(-correlation[list(tags).index(tag)], kind="stable")[: n + 1]
    cells = correlation[np.ix_(chosen, chosen)]
    figure, axes = _panels(1, 1, (1.9 + 0.5 * len(chosen), 1.2 + 0.45 * len(chosen)))
    image = axes[0, 0].imshow(cells, cmap="cividis", vmin=-0.2, vmax=0.6, aspect="auto")
    for row, column in product(range(len(chosen)), repeat=2):
        value = cells[row, column]
        colour = "black" if value > 0.25 else "white"
        text = f"{value:z.2f}".replace("0.", ".")
        axes[0, 0].text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    names = [tags[i] for i in chosen]
    axes[0, 0].set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set(xlabel="tag", ylabel="tag", title=f"{tag} and its nearest tags")
    axes[0, 0].spines[:].set_visible(False)
    figure.colorbar(image, label="Pearson correlation", extend="max")
    return figure


def mel_spectrogram(audio: np.ndarray, sample_rate: int, title: str = "") -> Figure:
    """Draw a waveform (sample,) in [-1, 1] above its mel spectrogram in dB below the loudest cell.

    sample_rate : Hz; 128 mel bands, frames of 2048 samples every 512, 80 dB shown
    """
    audio = np.asarray(audio, dtype=np.float32)
    if audio.ndim != 1 or not len(audio):
        raise ValueError(f"audio has shape {audio.shape}: give one mono waveform (sample,).")
    mel = librosa.feature.melspectrogram(y=audio, sr=sample_rate, n_mels=128)
    decibel = librosa.power_to_db(mel, ref=np.max, top_db=80)
    figure, axes = _panels(2, 1, (8, 4), height_ratios=(1, 3), sharex=True)
    wave, picture = axes[:, 0]
    wave.plot(np.arange(len(audio)) / sample_rate, audio, color=DARK, linewidth=0.4)
    wave.set(ylabel="amplitude", ylim=(-1.05, 1.05), title=title)
    wave.tick_params(labelbottom=False)
    shown = librosa.display.specshow(
        decibel, sr=sample_rate, x_axis="time", y_axis="mel", cmap="cividis", ax=picture
    )
    picture.set(xlabel="time (s)", ylabel="frequency (Hz)", xlim=(0, len(audio) / sample_rate))
    figure.colorbar(shown, ax=picture, label="level (dB)", format="%d")
    return figure


# Training


def loss_curves(history: pd.DataFrame) -> Figure:
    """Draw every quantity of a training history against the epoch, one panel a stage and quantity.

    `history` has one row an epoch: columns `stage`, `epoch` (from 1), `learning_rate` and any
    number of numeric ones; `valid_x` is drawn dashed in the panel of `x`. Dotted vertical lines
    mark a change of learning rate, where a new phase of the schedule begins.
    """
    missing = {"stage", "epoch", "learning_rate"} - set(history.columns)
    if missing or history.empty:
        raise ValueError(
            f"history lacks {', '.join(sorted(missing)) or 'rows'}: train a run first."
        )
    stages = [history[history["stage"] == name] for name in history["stage"].unique()]
    panels = [_stage_panels(stage) for stage in stages]
    columns = min(3, max(map(len, panels)))
    rows = [list(row) for stage in panels for row in _rows_of(stage, columns)]
    figure, axes = _panels(len(rows), columns, (3.4 * columns, 2.3 * len(rows)))
    for line, panel_row in zip(axes, rows, strict=True):
        for ax in line[len(panel_row) :]:
            ax.remove()
        for ax, (stage, quantity) in zip(line, panel_row, strict=False):
            _draw_quantity(ax, stage, quantity)
    return figure


def _stage_panels(stage: pd.DataFrame) -> list[tuple[pd.DataFrame, str]]:
    """(rows of the stage, quantity) for every quantity the stage has values of."""
    numeric = stage.drop(columns=["stage", "epoch", "learning_rate"]).select_dtypes("number")
    quantities = dict.fromkeys(
        name.removeprefix("valid_") for name in numeric.dropna(axis=1, how="all")
    )
    if not quantities:
        raise ValueError("history has no numeric column besides epoch and learning rate.")
    return [(stage, quantity) for quantity in quantities]


def _draw_quantity(ax: Axes, stage: pd.DataFrame, quantity: str) -> None:
    looks = {
        quantity: (DARK, "-", "o", "training"),
        f"valid_{quantity}": (MIDDLE, "--", "s", "validation"),
    }
    for column, (colour, line, marker, name) in looks.items():
        if column in stage and stage[column].notna().any():
            few = marker if len(stage) <= 12 else None  # a short curve shows its points
            ax.plot(stage["epoch"], stage[column], line, color=colour, marker=few, ms=4, label=name)
    changes = np.diff(stage["learning_rate"].to_numpy()) != 0
    for change in () if changes.all() else np.flatnonzero(changes):  # a cycle changes every epoch
        ax.axvline(stage["epoch"].iloc[change] + 0.5, color="0.4", linestyle=":", linewidth=1)
    ax.set(xlabel="epoch", ylabel=_named(quantity))
    ax.set_title(_named(str(stage["stage"].iloc[0])), fontsize=9)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, fontsize=8)


# Spaces


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
    figure, axes = _panels(1, len(layouts), (3.3 * len(layouts), 3.7))
    for ax, (title, points) in zip(axes[0], layouts.items(), strict=True):
        _refuse_misfit(points, (len(positive), 2), f"layout {title!r}", "(clip, 2)")
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
    _refuse_misfit(tag_xy, (len(tags), 2), "tag_xy", "(tag, 2)")
    _refuse_misfit(audio_xy, (len(audio_xy), 2), "audio_xy", "(clip, 2)")
    figure, axes = _panels(1, 1, (8, 7))
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
    _place_labels(ax, tag_xy, tags, stressed)
    return figure


# Results


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
        line=[_line_name(*pair) for pair in zip(table["method"], table["pair_loss"], strict=True)]
    )
    lines = list(dict.fromkeys(table["line"]))[::-1]  # the first method on top
    protocols = dict(list(table.groupby("protocol", sort=False)))
    columns = max(rows["metric"].nunique() for rows in protocols.values())
    size = (1.6 + 2.8 * columns, len(protocols) * (1.2 + 0.34 * len(lines)))
    figure, axes = _panels(len(protocols), columns, size, sharey=True)
    for row, (protocol, rows) in zip(axes, protocols.items(), strict=True):
        metrics_shown = list(dict.fromkeys(rows["metric"]))
        for ax in row[len(metrics_shown) :]:
            ax.remove()
        for ax, metric in zip(row, metrics_shown, strict=False):
            _draw_intervals(ax, rows[rows["metric"] == metric], lines)
            ax.set(xlabel=_named(metric))
            ax.set_title(_named(protocol), fontsize=10)
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


def per_tag(tables: Mapping[str, pd.DataFrame], metric: str = "average_precision") -> Figure:
    """Draw the score of every tag in one or more runs, sorted by the first run, best on top.

    tables : name of the run → its table from `metrics.per_tag`, all of the same tags; tags that
    the first run cannot score are left out and counted under the picture
    """
    first = next(iter(tables.values()))
    refuse_unknown([metric], first.columns.difference(["tag", "n_positive"]), "metric")
    scores = pd.DataFrame({name: table.set_index("tag")[metric] for name, table in tables.items()})
    shown = scores.dropna(subset=[scores.columns[0]]).sort_values(scores.columns[0])
    n_out = len(scores) - len(shown)
    figure, axes = _panels(1, 1, (6.5, 1.3 + 0.17 * len(shown)))
    ax, rows = axes[0, 0], np.arange(len(shown))
    ax.hlines(rows, shown.min(axis=1), shown.max(axis=1), color="0.75", linewidth=1.2)
    looks = zip(cycle((DARK, MIDDLE, LIGHT)), cycle(MARKERS), strict=False)
    for name, (colour, marker) in zip(shown, looks, strict=False):
        ax.plot(shown[name], rows, marker, color=colour, markersize=5, label=name)
    counts = first.set_index("tag").loc[shown.index, "n_positive"]
    _name_rows(ax, [f"{tag} ({n})" for tag, n in counts.items()])
    left_out = f"\n({n_out} tags without positive clips are not shown)" if n_out else ""
    ax.set(xlabel=_named(metric) + left_out, ylabel="tag (clips that carry it)")
    ax.grid(axis="x", color="0.9")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


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
    figure, axes = _panels(1, 2, (8.5, 1.4 + 0.5 * len(extractors)), sharey=True)
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
        ax.set(xlabel=f"{_named(metric)}, micro_window (published)")
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
    axes[0, 0].set_yticks(range(len(extractors)), extractors)
    axes[0, 0].set_ylabel("extractor")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


# Shared pieces


def _panels(
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


def _place_labels(ax: Axes, points: np.ndarray, names: Sequence[str], stressed: np.ndarray) -> None:
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
        offset, box = _free_place(pixels[index], size, taken, frame)
        text.set_position(offset)
        taken.append(box)


def _free_place(
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


def _rows_of(panels: Sequence, columns: int) -> list[Sequence]:
    return [panels[start : start + columns] for start in range(0, len(panels), columns)]


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(-0.7, len(names) - 0.3)


def _hide_scale(ax: Axes) -> None:
    """A layout has no unit: frame it and drop the ticks."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("0.7")


def _axis_note(note: str | None) -> str:
    return f"layout axis 1\n{note}" if note else "layout axis 1"


def _line_name(method: str, pair_loss: object) -> str:
    """Method and pair loss; without a loss ("none", "" or missing) the method alone."""
    has_loss = isinstance(pair_loss, str) and pair_loss not in ("", "none")
    return f"{method} · {pair_loss}" if has_loss else method


def _named(name: str) -> str:
    return NAMES.get(name, name.replace("_", " "))


def _in_order(splits: np.ndarray) -> list[str]:
    """Split names in the order of use (train, valid, test), others behind."""
    usual = ("train", "valid", "test")
    return sorted(set(splits), key=lambda name: (usual.index(name) if name in usual else 3, name))


def _refuse_misfit(array: np.ndarray, shape: tuple[int, ...], what: str, axes: str) -> None:
    if np.shape(array) != shape:
        raise ValueError(f"{what} must be {axes} = {shape}, not {np.shape(array)}.")
