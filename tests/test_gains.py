"""Gains planted in simulated scores are found, and those that were not planted are not."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from simulated import gaussian, plausible_counts, simulated
from sklearn.metrics import average_precision_score

from jetatag import metrics

N_TAGS = 12


def runs_with_gains(rng, gains, n_runs=3):
    """Labels, and two methods' runs on the same clips; a's positives lie `gains` (tag,) higher."""
    labels, noise = gaussian(rng, 200, N_TAGS, correlated=0.3)
    a, b = (noise + 0.3 * rng.normal(size=(n_runs, *labels.shape)) for _ in range(2))
    return labels, a + gains * labels, b


def gains_of(labels, a, b, n_resamples=200, seed=0):
    """Resampled gains of two methods' runs, (run, clip, tag) scores each."""
    a, b = (
        [metrics.resampled_per_tag(labels, scores, n_resamples, seed) for scores in runs]
        for runs in (a, b)
    )
    return metrics.resampled_gains(a, b, seed)


def test_gains_are_scikit_learns_and_their_mean_is_the_paired_difference(rng):
    labels, b = simulated(rng)
    labels[:, 2] = 0
    a = np.stack([b + 0.05 * labels, b - 0.02 * labels])
    b = np.stack([b, b])
    table = metrics.gain_by_tag(labels, gains_of(labels, a, b, 50), list("abcdef"))
    assert table.tag.tolist() == list("abcdef")
    assert table.n_positive.tolist() == labels.sum(axis=0).tolist()
    assert table.isna().any(axis=1).tolist() == [tag == "c" for tag in table.tag]
    for tag in (0, 1, 3, 4, 5):
        runs = [
            average_precision_score(labels[:, tag], scores[run, :, tag])
            for scores in (a, b)
            for run in range(2)
        ]
        assert table.difference[tag] == pytest.approx((sum(runs[:2]) - sum(runs[2:])) / 2)
    whole = metrics.paired_difference(labels, a, b, 5).set_index("metric").difference
    assert table.difference.mean() == pytest.approx(whole["average_precision"], abs=1e-12)


def test_the_tags_that_gain_are_told_from_those_that_do_not(rng):
    gains = np.where(np.arange(N_TAGS) < 4, 0.8, 0.0)
    scored = runs_with_gains(rng, gains)
    table = metrics.gain_by_tag(scored[0], gains_of(*scored), range(N_TAGS))
    assert (table.low[:4] > 0).all() and table.difference[:4].min() > table.difference[4:].max()
    assert ((table.low[4:] <= 0) & (table.high[4:] >= 0)).sum() >= 6
    assert ((table.low <= table.difference) & (table.difference <= table.high)).all()


def test_a_trend_is_spearmans_and_is_found_where_it_was_planted(rng):
    planted, chance = np.linspace(0, 1, N_TAGS), rng.random((3, N_TAGS))
    covariates = {"planted": planted, "against": -planted, "chance": chance[0]}
    scored = runs_with_gains(rng, planted)
    table = metrics.gain_trend(scored[0], gains_of(*scored), covariates).set_index("covariate")
    gains = gains_of(*scored)[0]
    for name, values in covariates.items():
        expected = spearmanr(gains, values).statistic
        assert table.correlation[name] == pytest.approx(expected, abs=1e-12)
    assert table.low["planted"] > 0.3 and table.high["against"] < -0.3
    assert table.low["chance"] < 0 < table.high["chance"]
    assert (table.n_tags == N_TAGS).all() and (table.high <= 1).all()


@pytest.mark.parametrize("spread", [0.0, 0.5], ids=["no tag gains", "tags gain by chance"])
def test_a_trend_that_was_not_planted_is_hardly_ever_found(rng, spread):
    found = 0
    for seed in range(60):
        scored = runs_with_gains(rng, spread * rng.random(N_TAGS), n_runs=2)
        covariate = {"chance": rng.random(N_TAGS)}
        gains = gains_of(*scored, 63, seed)
        (row,) = metrics.gain_trend(scored[0], gains, covariate, seed).to_dict("records")
        found += row["low"] > 0 or row["high"] < 0
    assert found <= plausible_counts(60, 0.05)[1]


def test_a_tag_without_positives_takes_no_part_in_a_trend(rng):
    labels, a, b = runs_with_gains(rng, np.linspace(0, 1, N_TAGS))
    labels[:, 3] = 0
    x, gains, kept = np.arange(N_TAGS), gains_of(labels, a, b, 20), np.arange(N_TAGS) != 3
    (row,) = metrics.gain_trend(labels, gains, {"x": x}).to_dict("records")
    without = metrics.gain_trend(labels[:, kept], gains[:, kept], {"x": x[kept]})
    assert row == without.to_dict("records")[0]
    assert row["n_tags"] == N_TAGS - 1
