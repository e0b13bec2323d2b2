"""Queries of one tag, of two tags, and of a tag without another."""

import numpy as np
import pytest

from jetatag.metrics import queries

TAGS = ["rock", "drums", "quiet", "flute"]
# 100 clips: rock 50 (40 with drums), drums 45, quiet 30 (1 with flute), flute 3
LABELS = np.zeros((100, 4), np.uint8)
LABELS[:50, 0] = LABELS[10:55, 1] = LABELS[60:90, 2] = 1
LABELS[[60, 95, 96], 3] = 1


def test_queries_are_tags_pairs_and_pairs_with_one_tag_excluded():
    chosen = queries.choose_queries(LABELS)
    rows = {tuple(row) for row in chosen.tolist()}
    assert len(rows) == len(chosen) and (chosen[:4] == np.eye(4)).all()
    assert {(1, 1, 0, 0), (0, 0, 1, 1)} <= rows  # 40 clips and 1, which is 1 %
    assert {(1, -1, 0, 0), (-1, 1, 0, 0), (0, 0, -1, 1)} <= rows
    assert (1, 0, 1, 0) not in rows and (1, 0, -1, 0) not in rows  # never together
    kinds = queries.kinds(chosen)
    assert [(kinds == kind).sum() for kind in queries.KINDS] == [4, 2, 4]


def test_rare_pairs_are_left_out():
    many = np.concatenate([LABELS, LABELS * [1, 1, 1, 0]])  # quiet with flute: 1 in 200
    assert (0, 0, 1, 1) not in {tuple(row) for row in queries.choose_queries(many).tolist()}


def test_answers_carry_every_wanted_tag_and_no_excluded_one():
    answers = queries.answers(LABELS, np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, -1, 0, 0]]))
    assert answers.sum(axis=0).tolist() == [50, 40, 10]
    assert (answers[:, 2] == answers[:, 0] - answers[:, 1]).all()


def test_clips_rank_by_the_product_of_probabilities():
    probs = np.array([[0.9, 0.8, 0.1, 0.5], [0.5, 0.1, 0.1, 0.5], [1.0, 0.0, 0.1, 0.5]])
    scores = queries.query_scores(probs, np.array([[1, 1, 0, 0], [1, -1, 0, 0]]))
    assert np.exp(scores[:2]) == pytest.approx(np.array([[0.72, 0.18], [0.05, 0.45]]))
    assert np.isfinite(scores).all() and scores[2].argmax() == 1


def test_probabilities_in_the_space_follow_the_cosine_from_the_centre():
    centre = np.array([1.0, 1.0], np.float32)
    audio = queries.directions(np.array([[3, 1], [1, 0.5], [0, 0]], np.float32), centre)
    assert audio == pytest.approx(np.array([[1, 0], [0, -1], [-np.sqrt(0.5), -np.sqrt(0.5)]]))
    tags = queries.directions(np.array([[1.1, 1], [1, 1]], np.float32), centre)
    probs = queries.space_probs(audio, tags, np.array([2.0, -1.0]))
    expected = 1 / (1 + np.exp([[-1, 1], [1, 1], [1 + 2**0.5, 1]]))  # logits 2 · cosine − 1
    assert probs == pytest.approx(expected)  # a tag at the centre has cosine 0 with every clip


def test_equal_vectors_have_equal_probabilities_at_every_position(rng):
    audio = np.tile(rng.standard_normal((1, 7)), (501, 1)).astype(np.float32)
    probs = queries.space_probs(audio, rng.standard_normal((3, 7)), np.array([2.0, -1.0]))
    assert (probs == probs[0]).all()
