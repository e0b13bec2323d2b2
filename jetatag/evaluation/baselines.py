"""Baselines without a network: tag frequencies, and logistic regression on log-mel statistics."""

from functools import cache

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from jetatag.data.store import AudioStore
from jetatag.evaluation.reading import BASELINES as NAMES
from jetatag.extractors.layers import LogMel
from jetatag.metrics import choose_thresholds

build_log_mel = cache(LogMel)


def score_split(store: AudioStore, split: str = "test") -> dict[str, np.ndarray]:
    """Score the clips of `split` by every baseline, fitted on the training clips. Returns the
    scores by name (`NAMES`), each (clip, tag) float32 in the store's order, and the arrays of
    `store.describe`; in a multilabel task with validation clips, also the thresholds chosen on
    them, NAME.thresholds (tag,). Raises `ValueError` without training clips or clips of `split`."""
    train, valid, rows = (store.rows(name) for name in ("train", "valid", split))
    if not (len(train) and len(rows)):
        raise ValueError(f"train or {split} has no clips: check the split when preparing it.")
    clips = tqdm([*train, *valid, *rows], desc="log-mel statistics", unit="clip")
    audio = (store.read([row], [0], store.lengths[row])[0] for row in clips)
    statistics = np.stack([log_mel_statistics(own, store.sample_rate) for own in audio])
    train_x, x, train_y = statistics[: len(train)], statistics[len(train) :], store.labels[train]
    of_each = logistic_regression(train_x, train_y, x), tag_frequency(train_y, len(x))
    saved = store.describe(rows)
    for name, scores in zip(NAMES, of_each, strict=True):
        saved[name] = scores[len(valid) :]
        if len(valid) and store.vocabulary.task == "multilabel":
            chosen = choose_thresholds(store.labels[valid], scores[: len(valid)])
            saved[f"{name}.thresholds"] = chosen
    return saved


def tag_frequency(train_labels: np.ndarray, n_rows: int) -> np.ndarray:
    """Score every row by the share of training clips that carry each tag: (n_rows, n_tags) float32.
    `train_labels` (clip, tag) 0/1. Raises `ValueError` without a training clip."""
    train_labels = np.asarray(train_labels)
    if train_labels.ndim != 2 or len(train_labels) == 0:
        raise ValueError(f"train_labels {train_labels.shape}: give one row per training clip.")
    return np.tile(train_labels.mean(axis=0, dtype=np.float32), (n_rows, 1))


def log_mel_statistics(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return mean and standard deviation over time of 96 log-mel bands: (192,) float32, in dB.
    `audio` (n_samples,), `sample_rate` in Hz; windows of 32 ms every 16 ms. Raises `ValueError` for
    audio of the wrong shape or shorter than one window."""
    audio = np.asarray(audio, dtype=np.float32)
    window = round(0.032 * sample_rate)
    if audio.ndim != 1 or len(audio) < window:
        raise ValueError(f"audio {audio.shape}: give one channel of at least {window} samples.")
    log_mel = build_log_mel(sample_rate, window, window // 2, 96, float(sample_rate // 2))
    with torch.inference_mode():
        frames = log_mel(torch.from_numpy(audio))
    return torch.cat([frames.mean(dim=1), frames.std(dim=1, correction=0)]).numpy()


def logistic_regression(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray) -> np.ndarray:
    """Fit one logistic regression per tag on standardised features: (test row, tag) float32.
    `train_x` (clip, feature), `train_y` (clip, tag) 0/1, `test_x` (row, feature); with
    scikit-learn's default penalty, C = 1. A tag that no training clip or every training clip has
    gets that share as its score. Raises `ValueError` if the numbers of rows differ."""
    train_y = np.asarray(train_y)
    scale = StandardScaler().fit(train_x)
    train_x, test_x = scale.transform(train_x), scale.transform(test_x)
    scores = tag_frequency(train_y, len(test_x))
    for tag in np.flatnonzero(train_y.any(axis=0) & ~train_y.all(axis=0)):
        model = LogisticRegression(max_iter=1000)
        scores[:, tag] = model.fit(train_x, train_y[:, tag]).predict_proba(test_x)[:, 1]
    return scores
