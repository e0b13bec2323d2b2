"""Metrics of spaces against known cases, scikit-learn and scipy."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import entropy, spearmanr
from simulated import simulated

from jetatag import metrics


def means(points, labels, k):
    by_clip = metrics.neighbour_agreement(points, labels, k)
    return {name: np.nanmean(values) for name, values in by_clip.items()}


def test_neighbour_agreement_of_separate_and_of_shuffled_clusters(rng):
    kind = np.repeat([0, 1], 12)
    labels = np.eye(2, dtype=np.uint8)[kind]
    points = np.array([[1.0, 0.0], [0.0, 1.0]])[kind] + 0.05 * rng.normal(size=(24, 2))
    assert means(points, labels, k=5) == pytest.approx({"agreement": 1.0, "chance": 11 / 23})
    shuffled = means(points, rng.permutation(labels), k=11)
    assert shuffled["agreement"] < 0.7 and shuffled["chance"] == pytest.approx(11 / 23)


def test_neighbour_agreement_is_jaccard_by_cosine_without_untagged_clips():
    points = np.array([[1.0, 0.0], [9.0, 0.1], [0.0, 1.0], [1.0, 0.0]])
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]])
    result = metrics.neighbour_agreement(points, labels, k=1)
    np.testing.assert_allclose(result["agreement"], [1 / 2, 1 / 2, 0, np.nan])
    assert np.nanmean(result["chance"]) == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)


def test_neighbour_agreement_of_more_clips_than_are_in_memory_at_once(rng):
    labels, _ = simulated(rng, n_clips=300)
    points = rng.normal(size=(300, 4))
    tagged = labels.any(axis=1)
    agreement = metrics.neighbour_agreement(points, labels, 3)["agreement"]
    np.testing.assert_array_equal(np.isnan(agreement), ~tagged)
    labels, points = labels[tagged], points[tagged]
    distance = squareform(pdist(points, "cosine")) + np.diag(np.full(len(points), np.inf))
    jaccard = 1 - squareform(pdist(labels.astype(bool), "jaccard"))
    nearest = np.argsort(distance, axis=1)[:, :3]
    expected = np.take_along_axis(jaccard, nearest, axis=1).mean(axis=1)
    np.testing.assert_allclose(agreement[tagged], expected)


def test_gap_of_matched_mirrored_and_collapsed_spaces():
    z = np.eye(4)
    aligned = metrics.gap(z + 0.1 * z[::-1], z)
    assert aligned["matched"] == pytest.approx(1 / np.hypot(1, 0.1))
    assert aligned["unmatched"] == pytest.approx(4 * 0.1 / np.hypot(1, 0.1) / 12)
    assert aligned["gap"] > 3
    assert metrics.gap(-z + 0.1 * z[::-1], z)["gap"] < -3
    collapsed = np.full((4, 8), 0.3, dtype=np.float32)
    assert metrics.gap(collapsed, collapsed)["gap"] == 0


def test_gap_of_more_clips_than_are_in_memory_at_once(rng):
    labels, _ = simulated(rng, n_clips=300, n_tags=3)  # many clips share a tag set
    z_audio, z_tag = rng.normal(size=(2, 300, 8))
    unit_audio, unit_tag = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z_audio, z_tag))
    cosine = unit_audio @ unit_tag.T
    unmatched = cosine[(labels[:, None] != labels).any(axis=2)]
    matched = np.diag(cosine).mean()
    expected = (matched - unmatched.mean()) / unmatched.std()
    result = metrics.gap(z_audio, z_tag, labels)
    assert list(result.values()) == pytest.approx([expected, matched, unmatched.mean()], abs=1e-12)


def test_gap_does_not_count_clips_with_the_same_tags_as_unmatched():
    labels = np.array([[1, 0], [1, 0], [0, 1]])
    z = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert metrics.gap(z, z)["unmatched"] == pytest.approx(1 / 3)
    assert metrics.gap(z, z, labels)["unmatched"] == 0


def test_tag_correlation_is_pearson_and_never_missing(rng):
    labels, _ = simulated(rng)
    expected = np.corrcoef(labels.T)
    assert metrics.tag_correlation(labels) == pytest.approx(expected, abs=1e-12)
    labels[:, 0] = 0
    correlation = metrics.tag_correlation(labels)
    assert correlation[0, 0] == 1 and not correlation[0, 1:].any()


def test_tag_semantics_is_the_rank_correlation_over_pairs_that_scipy_gives(rng):
    labels, _ = simulated(rng, n_tags=12)
    correlation, z = metrics.tag_correlation(labels), rng.normal(size=(12, 5)) + 3
    pairs = np.triu_indices(12, 1)
    centred = z - z.mean(axis=0)
    cosine = 1 - squareform(pdist(centred, "cosine"))
    expected = spearmanr(cosine[pairs], correlation[pairs]).statistic
    assert metrics.tag_semantics(z, correlation) == pytest.approx(expected, abs=1e-12)


def test_tag_semantics_of_perfect_mirrored_collapsed_and_random_spaces(rng):
    """The Gram matrix of centred unit vectors orders the pairs; its negative reverses the order."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
    z = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    centred = z - z.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    assert metrics.tag_semantics(z + 5, centred @ centred.T) == pytest.approx(1)
    assert metrics.tag_semantics(z, -centred @ centred.T) == pytest.approx(-1)
    collapsed = np.tile(rng.normal(size=4).astype(np.float32), (9, 1))
    collapsed[0] *= 1 + 1e-7
    assert metrics.tag_semantics(collapsed, centred @ centred.T) == 0
    random = [
        metrics.tag_semantics(rng.normal(size=(9, 4)), centred @ centred.T) for _ in range(50)
    ]
    assert abs(np.mean(random)) < 0.1
    assert np.isnan(metrics.tag_semantics(z[:2], np.eye(2)))  # one pair has no order


def test_energy_and_rank_of_known_spaces(rng):
    axes = np.concatenate([np.eye(5), -np.eye(5)])
    assert metrics.mean_energy(axes) == pytest.approx(0, abs=1e-12)
    assert metrics.effective_rank(axes) == pytest.approx(5)
    moved = axes + np.array([2.0, 0, 0, 0, 0])
    assert metrics.mean_energy(moved) == pytest.approx(4 / 5)
    assert metrics.effective_rank(moved) == pytest.approx(5)
    same = np.tile(rng.normal(size=8).astype(np.float32), (20, 1))
    assert metrics.mean_energy(same) == pytest.approx(1) and metrics.effective_rank(same) == 0
    assert metrics.effective_rank(np.outer(rng.normal(size=20), np.ones(4))) == pytest.approx(1)
    uneven = axes * [1, 3, 0, 0, 0]
    share = np.array([1, 3]) / 4
    assert metrics.effective_rank(uneven) == pytest.approx(np.exp(entropy(share)))
