"""The clips that runs tag best and worst, to be heard."""

import io
from typing import Any

import numpy as np
import soundfile
import soxr
from sklearn.metrics import label_ranking_average_precision_score

from jetatag.data.store import AudioStore
from jetatag.grid.report.evaluation import Evaluation

EXAMPLES = 5
"""Clips of the best, and as many of the worst."""
EXCERPT_S = 10
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Hz; MP3 knows no others."""
GUESSES = 6
"""Tags shown of what a model says of a clip, likeliest first."""


def listening(
    one: Evaluation, store: AudioStore | None, rows: np.ndarray | None
) -> list[dict[str, Any]]:
    """The best and the worst clips of the runs shown: `run`, `best` and `worst`.

    For each clip `row` (among the test clips), `clip_id`, `title`, `ranking`, `tags`, `guesses`
    (tag, probability, whether it is right), `heard` (whether a place before this one plays it) and
    `audio`, an MP3, None without the store's `rows` (clip,) and where the clip was heard.
    """
    heard: set[int] = set()
    told = []
    for name, run in one.shown.items():
        probs = run.read_arrays("scores.npz")["probs"].mean(1)
        ranking = ranking_precision(one.labels, probs)
        best, worst = _extremes(ranking, one.labels, probs)
        kinds: dict[str, Any] = {"run": f"{name}, seed {run.config.seed}", "best": [], "worst": []}
        for kind, clip in [("best", clip) for clip in best] + [("worst", clip) for clip in worst]:
            row = None if rows is None else rows[clip]
            example = _described(one, probs[clip], clip) | {
                "ranking": f"{ranking[clip]:.3f}",
                "heard": clip in heard,
                "title": "" if row is None else store.table.title.iloc[row],
                "audio": None if row is None or clip in heard else excerpt(store, row),
            }
            heard.add(clip)
            kinds[kind].append(example)
        told.append(kinds)
    return told


def _described(one: Evaluation, probs: np.ndarray, clip: int) -> dict[str, Any]:
    """A clip's tags, and what `probs` (tag,) say of it."""
    carried = one.labels[clip] == 1
    likeliest = np.argsort(-probs, kind="stable")[:GUESSES]
    return {
        "row": clip,
        "clip_id": str(one.clip_ids[clip]),
        "tags": [one.tags[i] for i in np.flatnonzero(carried)],
        "guesses": [(one.tags[i], f"{probs[i]:.2f}", bool(carried[i])) for i in likeliest],
    }


def ranking_precision(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """How well each clip's own tags rank before the others: label ranking average precision
    (Schapire & Singer 2000, "BoosTexter") of every clip alone, (clip,) float64 in (0, 1]; NaN for
    clips without tags. `labels` and `probs` are (clip, tag)."""
    precision = np.full(len(labels), np.nan)
    for clip in np.flatnonzero(np.any(labels, axis=1)):
        precision[clip] = label_ranking_average_precision_score(labels[[clip]], probs[[clip]])
    return precision


def _extremes(
    ranking: np.ndarray, labels: np.ndarray, probs: np.ndarray
) -> tuple[list[int], list[int]]:
    """The clips that rank best, best first, and worst, worst first; of equal ones those come first
    whose tags are given the highest (worst: lowest) probability. No clip is in both."""
    sure = (probs * labels).sum(axis=1) / np.maximum(labels.sum(axis=1), 1)
    order = [int(i) for i in np.lexsort((-sure, -ranking)) if not np.isnan(ranking[i])]
    n = min(EXAMPLES, len(order) // 2)
    return order[:n], order[::-1][:n]


def excerpt(store: AudioStore, row: int) -> bytes:
    """`EXCERPT_S` seconds from the middle of a clip, or all of a shorter one, as MP3."""
    n_samples = min(int(store.lengths[row]), EXCERPT_S * store.sample_rate)
    start = (int(store.lengths[row]) - n_samples) // 2
    rate = next((rate for rate in MP3_RATES if rate >= store.sample_rate), MP3_RATES[-1])
    sound = soxr.resample(store.read([row], [start], n_samples)[0], store.sample_rate, rate, "HQ")
    coded = io.BytesIO()
    soundfile.write(coded, sound, rate, format="MP3")
    return coded.getvalue()
