"""Simulated labels and scores with known statistics."""

import numpy as np
from scipy.stats import binom


def simulated(rng, n_clips=60, n_tags=6, n_levels=20):
    """Labels and informative scores in [0, 1]; few levels, so that both classes have ties."""
    labels = (rng.random((n_clips, n_tags)) < 0.25).astype(np.uint8)
    scores = np.round((rng.random(labels.shape) + 0.6 * labels) / 1.6 * n_levels) / n_levels
    return labels, scores.astype(np.float32)


def one_class_each(rng, n_clips=60, n_windows=4, n_classes=6):
    """Labels of one class a clip, and softmax scores of windows that often predict it."""
    kind = rng.integers(n_classes, size=n_clips)
    labels = np.eye(n_classes, dtype=np.uint8)[kind]
    raised = np.exp(rng.normal(size=(n_clips, n_windows, n_classes)) + labels[:, None])
    return labels, raised / raised.sum(axis=2, keepdims=True)


def gaussian(rng, n_clips=200, n_tags=1, deviations=1.5, prevalence=0.3, correlated=0.0):
    """Labels, and normal scores that are `deviations` (number or (tag,)) higher for positives: the
    ROC area is Φ(deviations / √2). `correlated` is the correlation of a clip's noise over tags."""
    labels = rng.random((n_clips, n_tags)) < prevalence
    noise = np.sqrt(1 - correlated) * rng.normal(size=labels.shape)
    noise += np.sqrt(correlated) * rng.normal(size=(n_clips, 1))
    return labels.astype(np.uint8), noise + deviations * labels


def plausible_counts(n, probability=0.95):
    """The range that the successes among n trials leave once in ten thousand times."""
    return binom.interval(1 - 1e-4, n, probability)
