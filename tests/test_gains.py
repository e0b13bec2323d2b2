"""Gains planted in simulated scores are found, and those that were not planted are not."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from simulated import gaussian, plausible_counts, simulated
from sklearn.metrics import average_precision_score

from jetatag import metrics

N_TAGS = 12


def runs_with_gains(rng, gains, n_runs=3):
    """Labels, and the scores of two methods on the same clips; the positives of a lie `gains`
    (tag,) higher."""
    labels, noise = gaussian(rng, 200, N_TAGS, correlated=0.3)
    a, b = (noise + 0.3 * rng.normal(size=(n_runs, *labels.shape)) for _ in range(2))
    return labels, a + gains * labels, b


def resampled_runs(labels, a, b, n_resamples=200, seed=0):
    """The resampled tables of two methods' runs, from (run, clip, tag) scores each."""
    tags = [str(tag) for tag in range(labels.shape[1])]
    return [
        [metrics.resampled_per_tag(labels, scores, tags, n_resamples, seed) for scores in runs]
        for runs in (a, b)
    ]


def gains_of(*scored, **options):
    seed = options.get("seed", 0)
    return metrics.mean_runs(metrics.differences(*resampled_runs(*scored, **options)), seed)


def test_gains_are_scikit_learns_and_their_mean_is_the_paired_difference(rng):
    labels, b = simulated(rng)
    labels[:, 2] = 0
    a = np.stack([b + 0.05 * labels, b - 0.02 * labels])
    b = np.stack([b, b])
    table = metrics.difference_table(*resampled_runs(labels, a, b, 50))
    assert table.tag.tolist() == list("01345") and table.low.notna().all()  # no clip carries 2
    for tag, difference in zip(table.tag.astype(int), table.difference, strict=True):
        own, theirs = (
            [average_precision_score(labels[:, tag], run[:, tag]) for run in runs]
            for runs in (a, b)
        )
        assert difference == pytest.approx(np.mean(own) - np.mean(theirs))
    a, b = ([metrics.resampled(labels, run, n_resamples=5) for run in runs] for runs in (a, b))
    whole = metrics.difference_table(a, b).set_index("metric").difference
    assert table.difference.mean() == pytest.approx(whole["average_precision"], abs=1e-12)


def test_tags_that_gain_are_separated_from_those_that_do_not(rng):
    gains = np.where(np.arange(N_TAGS) < 4, 0.8, 0.0)
    table = metrics.difference_table(*resampled_runs(*runs_with_gains(rng, gains)))
    assert (table.low[:4] > 0).all() and table.difference[:4].min() > table.difference[4:].max()
    assert ((table.low[4:] <= 0) & (table.high[4:] >= 0)).sum() >= 6
    assert ((table.low <= table.difference) & (table.difference <= table.high)).all()


def test_a_trend_is_spearmans_and_is_found_where_it_was_planted(rng):
    planted, noise = np.linspace(0, 1, N_TAGS), rng.random((3, N_TAGS))
    covariates = {"planted": planted, "against": -planted, "noise": noise[0]}
    gains = gains_of(*runs_with_gains(rng, planted))
    table = metrics.gain_trend(gains, covariates).set_index("covariate")
    for name, values in covariates.items():
        expected = spearmanr(gains.iloc[0], values).statistic
        assert table.correlation[name] == pytest.approx(expected, abs=1e-12)
    assert table.low["planted"] > 0.3 and table.high["against"] < -0.3
    assert table.low["noise"] < 0 < table.high["noise"]
    assert (table.n_tags == N_TAGS).all() and (table.high <= 1).all()


@pytest.mark.parametrize("spread", [0.0, 0.5], ids=["no tag gains", "tags gain at random"])
def test_a_trend_that_was_not_planted_is_hardly_ever_found(rng, spread):
    found = 0
    for seed in range(60):
        gains = gains_of(
            *runs_with_gains(rng, spread * rng.random(N_TAGS), n_runs=2), n_resamples=63, seed=seed
        )
        row = metrics.gain_trend(gains, {"noise": rng.random(N_TAGS)}, seed).iloc[0]
        found += row.low > 0 or row.high < 0
    assert found <= plausible_counts(60, 0.05)[1]


def test_few_tags_and_equal_ones_have_no_trend(rng):
    gains = gains_of(*runs_with_gains(rng, np.linspace(0, 1, N_TAGS)), n_resamples=20)
    same = metrics.gain_trend(gains, {"x": np.ones(N_TAGS)})
    few = metrics.gain_trend(gains.iloc[:, :2], {"x": [1, 2]})
    for table in (same, few):
        assert table[["correlation", "low", "high"]].isna().all(axis=None)
