"""Figures of a data set: its tags, their correlation, a clip."""

from collections.abc import Sequence
from itertools import cycle

import librosa
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from jetatag import metrics
from jetatag.data import SPLITS
from jetatag.figures import _style as style
from jetatag.files import check_known


@style.figure_style()
def tag_counts(labels: np.ndarray, tags: Sequence[str], splits: Sequence[str]) -> Figure:
    """Draw how many clips have each tag, one bar per tag, stacked by split, most common on top.
    labels : (clip, tag) 0/1; tags : names of the columns; splits : (clip,) names such as train"""
    labels, splits = np.asarray(labels), np.asarray(splits)
    style.check_shape(labels, (len(splits), len(tags)), "labels", "(clip, tag)")
    order = np.argsort(labels.sum(axis=0), kind="stable")
    size, names = (6.5, 1.2 + 0.17 * len(tags)), [tags[i] for i in order]
    figure, ((ax,),) = style.row_panels((1, 1), size, names, "tag")
    ax.tick_params("y", labelsize=8)
    left = np.zeros(len(tags))
    looks = cycle([(style.DARK, ""), (style.MIDDLE, "////"), (style.LIGHT, "")])
    held = [name for name in SPLITS if name in splits] + sorted(set(splits) - set(SPLITS))
    for split, (colour, hatch) in zip(held, looks, strict=False):
        own = labels[splits == split]
        counts, name = own.sum(axis=0)[order], f"{split} ({len(own):,} clips)"
        ax.barh(range(len(tags)), counts, left=left, color=colour, hatch=hatch, label=name)
        left += counts
    ax.set(xlabel="clips")
    ax.legend(loc="lower right", frameon=False)
    return figure


@style.figure_style()
def tag_correlation(
    labels: np.ndarray, tags: Sequence[str], tag: str | Sequence[str], n: int = 10
) -> Figure:
    """Draw the Pearson correlations of `tag`, one or several side by side, and the `n` tags nearest
    to it as a heat map (Lee & Cho 2021, figure 3). labels : (clip, tag) 0/1; tags : their names"""
    shown = [tag] if isinstance(tag, str) else list(tag)
    check_known(shown, tags, "tag")
    correlation = metrics.tag_correlation(labels)
    style.check_shape(correlation, (len(tags), len(tags)), "the tag correlation", "(tag, tag)")
    side = min(n + 1, len(tags))
    size = (len(shown) * (1.1 + 0.5 * side) + 0.8, 1.2 + 0.45 * side)
    figure, axes = style.panels(1, len(shown), size)
    look = {"ha": "center", "va": "center", "fontsize": 8}
    for ax, name in zip(axes[0], shown, strict=True):
        nearest = np.argsort(-correlation[list(tags).index(name)], kind="stable")[:side]
        cells, names = correlation[np.ix_(nearest, nearest)], [tags[i] for i in nearest]
        image = ax.imshow(cells, cmap="cividis", vmin=-0.2, vmax=0.6, aspect="auto")
        for (row, column), value in np.ndenumerate(cells):
            text, colour = f"{value:z.2f}".replace("0.", "."), "black" if value > 0.25 else "white"
            ax.text(column, row, text, color=colour, **look)
        ax.set_xticks(range(side), names, rotation=45, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(side), names)
        ax.spines[:].set_visible(False)
        ax.set(xlabel="tag", ylabel="tag", title=f"{name} and its nearest tags")
    bar = {"label": "Pearson correlation", "extend": "max", "fraction": 0.15 / len(shown)}
    figure.colorbar(image, ax=axes, **bar)
    return figure


@style.figure_style()
def mel_spectrogram(audio: np.ndarray, sample_rate: int, title: str = "") -> Figure:
    """Draw a waveform (sample,) in [-1, 1] above its mel spectrogram in dB below the maximum.
    sample_rate : Hz; 128 mel bands, frames of 2048 samples every 512, 80 dB shown"""
    figure, ((wave,), (picture,)) = style.panels(2, 1, (8, 4), height_ratios=(1, 3), sharex=True)
    mesh = draw_mel(picture, audio, sample_rate)
    wave.plot(np.arange(len(audio)) / sample_rate, audio, color=style.DARK, linewidth=0.4)
    wave.set(ylabel="amplitude", ylim=(-1.05, 1.05), title=title)
    wave.tick_params(labelbottom=False)
    picture.set(xlabel="time (s)")
    figure.colorbar(mesh, ax=picture, label="level (dB)", format="%d")
    return figure


def draw_mel(ax: Axes, audio: np.ndarray, sample_rate: int) -> QuadMesh:
    """Draw the mel spectrogram of `mel_spectrogram` into `ax`."""
    audio = np.asarray(audio, dtype=np.float32)
    if audio.ndim != 1 or not len(audio):
        raise ValueError(f"audio has shape {audio.shape}: give one mono waveform (sample,).")
    mel = librosa.feature.melspectrogram(y=audio, sr=sample_rate, n_mels=128)
    decibel = librosa.power_to_db(mel, ref=np.max, top_db=80)
    look = {"x_axis": "time", "y_axis": "mel", "cmap": "cividis"}
    mesh = librosa.display.specshow(decibel, sr=sample_rate, ax=ax, **look)
    ax.set(xlabel="", ylabel="frequency (Hz)", xlim=(0, len(audio) / sample_rate))
    return mesh
