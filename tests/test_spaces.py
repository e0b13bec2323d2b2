"""Spaces by hand, and against scikit-learn and scipy."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import entropy, spearmanr
from simulated import simulated
from sklearn.metrics import average_precision_score

from jetatag import metrics


def test_neighbour_agreement_of_separate_and_of_shuffled_clusters(rng):
    kind = np.repeat([0, 1], 12)
    labels = np.eye(2, dtype=np.uint8)[kind]
    points = np.array([[1.0, 0.0], [0.0, 1.0]])[kind] + 0.05 * rng.normal(size=(24, 2))
    result = metrics.neighbour_agreement(points, labels, k=5)
    assert result == pytest.approx({"agreement": 1.0, "chance": 11 / 23})
    shuffled = metrics.neighbour_agreement(points, rng.permutation(labels), k=11)
    assert shuffled["agreement"] < 0.7 and shuffled["chance"] == pytest.approx(11 / 23)


def test_neighbour_agreement_is_jaccard_by_cosine_without_untagged_clips():
    points = np.array([[1.0, 0.0], [9.0, 0.1], [0.0, 1.0], [1.0, 0.0]])
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]])
    result = metrics.neighbour_agreement(points, labels, k=1)
    assert result["agreement"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert result["chance"] == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)


def test_agreement_by_clip_has_the_agreement_as_its_mean(rng):
    labels, _ = simulated(rng, n_clips=70)
    labels[5] = 0
    points = rng.normal(size=(70, 4))
    by_clip, whole = metrics.agreement_by_clip(points, labels, 3), {}
    for name, values in by_clip.items():
        assert np.flatnonzero(np.isnan(values)).tolist() == np.flatnonzero(~labels.any(1)).tolist()
        whole[name] = np.nanmean(values)
    assert metrics.neighbour_agreement(points, labels, 3) == pytest.approx(whole)
    tagged = np.flatnonzero(labels.any(axis=1))
    cosine = 1 - squareform(pdist(points[tagged], "cosine")) - 2 * np.eye(len(tagged))
    first = tagged[np.argsort(-cosine[0])[:3]]
    jaccard = [(labels[0] & labels[i]).sum() / (labels[0] | labels[i]).sum() for i in first]
    assert labels[0].any() and by_clip["agreement"][0] == pytest.approx(np.mean(jaccard))


def test_gap_of_matched_mirrored_and_collapsed_spaces():
    z = np.eye(4)
    aligned = metrics.gap(z + 0.1 * z[::-1], z)
    assert aligned["matched"] == pytest.approx(1 / np.hypot(1, 0.1))
    assert aligned["unmatched"] == pytest.approx(4 * 0.1 / np.hypot(1, 0.1) / 12)
    assert aligned["gap"] > 3
    assert metrics.gap(-z + 0.1 * z[::-1], z)["gap"] < -3
    collapsed = np.full((4, 8), 0.3, dtype=np.float32)
    assert metrics.gap(collapsed, collapsed)["gap"] == 0


def test_gap_of_more_clips_than_are_held_at_once(rng):
    labels, _ = simulated(rng, n_clips=100, n_tags=3)  # many clips share a tag set
    z_audio, z_tag = rng.normal(size=(2, 100, 8))
    unit_audio, unit_tag = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z_audio, z_tag))
    cosine = unit_audio @ unit_tag.T
    unmatched = cosine[(labels[:, None] != labels).any(axis=2)]
    matched = np.diag(cosine).mean()
    expected = (matched - unmatched.mean()) / unmatched.std()
    result = metrics.gap(z_audio, z_tag, labels)
    assert list(result.values()) == pytest.approx([expected, matched, unmatched.mean()], abs=1e-12)


def test_gap_does_not_count_clips_with_the_same_tags_as_others():
    labels = np.array([[1, 0], [1, 0], [0, 1]])
    z = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert metrics.gap(z, z)["unmatched"] == pytest.approx(1 / 3)
    assert metrics.gap(z, z, labels)["unmatched"] == 0


def test_query_map_known_case():
    z_audio = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    relevant = np.array([[1, 0], [0, 1], [0, 1]])
    assert metrics.query_map(np.array([[2.0, 0.0], [0.0, 1.0]]), z_audio, relevant) == 1.0
    assert metrics.query_map(-z_audio[[0, 2]], z_audio, relevant) == pytest.approx(
        (1 / 3 + (1 / 2 + 2 / 3) / 2) / 2
    )
    with pytest.warns(UserWarning, match="1 of 2 queries have no relevant clip"):
        metrics.query_map(z_audio[:2], z_audio, relevant * [1, 0])


def test_tag_correlation_is_pearson_and_never_missing(rng):
    labels, _ = simulated(rng)
    expected = np.corrcoef(labels.T)
    assert metrics.tag_correlation(labels) == pytest.approx(expected, abs=1e-12)
    labels[:, 0] = 0
    correlation = metrics.tag_correlation(labels)
    assert correlation[0, 0] == 1 and not correlation[0, 1:].any()


def test_rank_table_equals_scikit_learn_and_knows_no_order_of_clips(rng):
    relevant, scores = simulated(rng, n_levels=6)
    relevant[:, 2] = 0
    table = metrics.rank_table(scores, relevant)
    assert list(table.columns) == ["n_relevant", "average_precision", "precision_at_10"]
    assert table.n_relevant.tolist() == relevant.sum(axis=0).tolist()
    assert table.isna().any(axis=1).tolist() == [query == 2 for query in range(6)]
    orders = [rng.permutation(60) for _ in range(2000)]
    for query in (0, 1, 3, 4, 5):
        expected = average_precision_score(relevant[:, query], scores[:, query])
        assert table.average_precision[query] == pytest.approx(expected, abs=1e-12)
        found = [
            relevant[order, query][np.argsort(-scores[order, query], kind="stable")[:10]].mean()
            for order in orders
        ]
        assert table.precision_at_10[query] == pytest.approx(np.mean(found), abs=0.01)
    assert table.equals(metrics.rank_table(scores[orders[0]], relevant[orders[0]]))


def test_precision_at_k_by_hand():
    scores, relevant = np.array([[0.9], [0.5], [0.5], [0.5], [0.1]]), np.array([[0, 1, 1, 0, 1]]).T
    precise = [metrics.rank_table(scores, relevant, k).iloc[0, 2] for k in (1, 2, 3, 4, 5)]
    assert precise == pytest.approx([0, (2 / 3) / 2, (4 / 3) / 3, 2 / 4, 3 / 5])


def test_tag_semantics_is_the_rank_correlation_over_pairs_that_scipy_gives(rng):
    labels, _ = simulated(rng, n_tags=12)
    correlation, z = metrics.tag_correlation(labels), rng.normal(size=(12, 5)) + 3
    pairs = np.triu_indices(12, 1)
    centred = z - z.mean(axis=0)
    cosine = 1 - squareform(pdist(centred, "cosine"))
    expected = spearmanr(cosine[pairs], correlation[pairs]).statistic
    assert metrics.tag_semantics(z, correlation) == pytest.approx(expected, abs=1e-12)


def test_tag_semantics_of_spaces_that_know_mirror_and_have_lost_the_tags(rng):
    """A Gram matrix of centred unit vectors is the order of the pairs; its negative reverses it."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
    z = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    centred = z - z.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    assert metrics.tag_semantics(z + 5, centred @ centred.T) == pytest.approx(1)
    assert metrics.tag_semantics(z, -centred @ centred.T) == pytest.approx(-1)
    collapsed = np.tile(rng.normal(size=4).astype(np.float32), (9, 1))
    collapsed[0] *= 1 + 1e-7
    assert metrics.tag_semantics(collapsed, centred @ centred.T) == 0
    unknowing = [
        metrics.tag_semantics(rng.normal(size=(9, 4)), centred @ centred.T) for _ in range(50)
    ]
    assert abs(np.mean(unknowing)) < 0.1


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
