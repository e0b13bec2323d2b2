"""The baselines: shapes, constant scores, and the ranking of simulated data."""

import numpy as np
import pytest

from jetatag.evaluation import baselines


def test_tag_frequency_is_the_share_of_training_clips():
    scores = baselines.tag_frequency(np.array([[1, 0], [1, 0], [0, 0], [1, 0]], np.uint8), 3)
    np.testing.assert_array_equal(scores, np.tile(np.float32([0.75, 0.0]), (3, 1)))
    assert scores.dtype == np.float32


@pytest.mark.parametrize("labels", [np.zeros((0, 4)), np.zeros(4)])
def test_tag_frequency_needs_training_rows(labels):
    with pytest.raises(ValueError, match="one row per training clip"):
        baselines.tag_frequency(labels, 2)


@pytest.mark.parametrize("sample_rate", [16_000, 22_050])
def test_statistics_follow_pitch_and_loudness(sample_rate):
    time_s = np.arange(sample_rate) / sample_rate
    low, high = (0.1 * np.sin(2 * np.pi * hz * time_s).astype(np.float32) for hz in (200, 4000))
    features = baselines.log_mel_statistics(low, sample_rate)
    assert features.shape == (192,) and features.dtype == np.float32
    bands = slice(0, 96)
    peak = np.argmax(features[bands])
    assert peak < np.argmax(baselines.log_mel_statistics(high, sample_rate)[bands])
    louder = baselines.log_mel_statistics(10 * low, sample_rate)
    assert louder[peak] - features[peak] == pytest.approx(20, abs=0.01)  # dB


def test_statistics_of_silence_are_finite():
    assert np.isfinite(baselines.log_mel_statistics(np.zeros(16_000), 16_000)).all()


@pytest.mark.parametrize("audio", [np.zeros((2, 16_000)), np.zeros(100)])
def test_statistics_need_one_channel_and_one_window(audio):
    with pytest.raises(ValueError, match="one channel of at least 512 samples"):
        baselines.log_mel_statistics(audio, 16_000)


def test_regression_ranks_and_scores_constant_tags_by_their_share():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 5)) * [1, 1000, 1, 1, 1] + 7
    y = np.stack([x[:, 1] > 7, np.zeros(300), np.ones(300)], axis=1).astype(np.uint8)
    scores = baselines.logistic_regression(x[:200], y[:200], x[200:])
    assert scores.shape == (100, 3) and scores.dtype == np.float32
    positive = y[200:, 0] == 1
    in_order = scores[positive, 0][:, None] > scores[~positive, 0]
    assert in_order.mean() > 0.95
    assert (scores[:, 1] == 0).all() and (scores[:, 2] == 1).all()


def test_regression_needs_paired_rows():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        baselines.logistic_regression(np.zeros((3, 2)), np.eye(2), np.zeros((1, 2)))


def test_scores_of_a_split_have_clip_ids_labels_tags_and_thresholds(tiny_store):
    scores, rows = baselines.score_split(tiny_store), tiny_store.rows("test")
    chosen = {f"{name}.thresholds" for name in baselines.NAMES}
    described = {"clip_ids", "labels", "groups", "tags", "task"}
    assert scores.keys() == {*described, *baselines.NAMES, *chosen}
    assert all(scores[name].shape == (4,) for name in chosen)
    assert scores["tags"].tolist() == list(tiny_store.vocabulary.tags)
    assert scores["task"] == "multilabel"
    assert all(scores[name].shape == (len(rows), 4) for name in baselines.NAMES)
