"""Layouts in the plane, and the map that clips and tags share."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity
from threadpoolctl import threadpool_limits

from jetatag import metrics
from jetatag.metrics.layouts import MapQuality, layout, map_note, map_quality, shared_layout


def gapped(rng):
    """A joint space: 90 clips and 15 tags of five kinds, three tags each, clips and tags in cones
    of their own; with labels, and the cosines of every clip with every tag."""
    of_clip, of_tag = np.repeat(range(5), 18), np.repeat(range(5), 3)
    clips, tags = (
        np.eye(18)[[kind]] * 4 + np.eye(18)[of] + 0.2 * rng.normal(size=(len(of), 18))
        for kind, of in ((16, of_clip), (17, of_tag))
    )
    return clips, tags, of_clip[:, None] == of_tag, cosine_similarity(clips, tags)


@pytest.mark.parametrize("method", ["umap", "tsne", "pca"])
def test_layouts_are_flat_repeatable_and_take_few_points(rng, method):
    points = rng.normal(size=(9, 4)).astype(np.float32)
    flat = layout(points, method, seed=1)
    assert flat.shape == (9, 2) and np.isfinite(flat).all()
    assert (flat == layout(points, method, seed=1)).all()


@pytest.mark.parametrize("method", ["umap", "tsne", "pca"])
def test_layouts_do_not_depend_on_the_number_of_threads(rng, method):
    points = rng.normal(size=(60, 80))
    first = layout(points, method), shared_layout(points[10:], points[:10], method)
    with threadpool_limits(2):
        np.testing.assert_array_equal(layout(points, method), first[0])
        np.testing.assert_array_equal(shared_layout(points[10:], points[:10], method), first[1])


def test_what_umap_compiles_is_kept_for_later_processes(rng):
    layout(rng.normal(size=(30, 8)))
    from umap.umap_ import smooth_knn_dist

    assert smooth_knn_dist.stats.cache_path


def test_tsne_keeps_separate_clusters_apart(rng):
    kind = np.repeat([0, 1], 15)
    points = 5 * np.eye(60)[kind] + 0.1 * rng.normal(size=(30, 60))
    flat = layout(points, "tsne")
    centred, labels = flat - flat.mean(axis=0), np.eye(2, dtype=int)[kind]
    assert metrics.neighbour_agreement(centred, labels, k=5)["agreement"].mean() > 0.9


@pytest.mark.parametrize("method", ["umap", "tsne"])
def test_a_shared_map_places_tags_among_their_clips_across_the_modality_gap(rng, method):
    clips, tags, labels, fit = gapped(rng)
    islands = map_quality(layout(np.concatenate([clips, tags]), method), labels, fit)
    assert islands.mixing < 0.1
    mixed = map_quality(shared_layout(clips, tags, method), labels, fit).ratios()
    assert mixed["map_mixing"] > 0.85 and mixed["map_precision_at_10"] > 0.8


@pytest.mark.parametrize("method", ["umap", "tsne"])
def test_tags_with_the_same_nearest_clips_mix_with_them(rng, method):
    clips, tags, labels, fit = gapped(rng)
    xy = shared_layout(clips, np.repeat(tags[:1], 4, axis=0), method)
    quality = map_quality(xy, np.repeat(labels[:, :1], 4, axis=1), np.repeat(fit[:, :1], 4, axis=1))
    # As an island, three of each tag's ten neighbours would be tags: a mixing of 0.72.
    assert quality.ratios()["map_mixing"] > 0.8 and quality.precision > 0.8


def test_of_few_clips_each_holds_several_tags(rng):
    clips, tags = rng.normal(size=(5, 6)), rng.normal(size=(12, 6))
    xy = shared_layout(clips, tags, "pca")
    _, n_tags = np.unique(xy[5:], axis=0, return_counts=True)
    assert 3 <= len(n_tags) <= 5 and n_tags.max() < 12


@pytest.mark.parametrize("method", ["umap", "tsne", "pca"])
@pytest.mark.parametrize("n_clips", [2, 4, 5, 20])
def test_a_shared_map_of_few_or_equal_clips_is_finite_and_repeatable(rng, method, n_clips):
    tags = rng.normal(size=(4, 6))
    for clips in (rng.normal(size=(n_clips, 6)), np.ones((n_clips, 6))):
        xy = shared_layout(clips, tags, method, seed=2)
        assert xy.shape == (n_clips + 4, 2) and np.isfinite(xy).all()
        np.testing.assert_array_equal(xy, shared_layout(clips, tags, method, seed=2))


def test_the_quality_of_a_map_counts_neighbours_of_tags():
    """Clips at 0, 1, …, 11 of a line, tags at 0.1 and 0.2: the second is next to the first."""
    clip_x, tag_x = np.arange(12.0), np.array([0.1, 0.2])
    xy = np.stack([np.append(clip_x, tag_x), np.zeros(14)], axis=1)
    labels = np.zeros((12, 2), int)
    labels[:3, 0] = labels[11, 1] = 1
    fit = np.stack([clip_x, clip_x], axis=1)  # a search finds the clips from 11 down to 2
    quality = map_quality(xy, labels, fit)
    expected = (0.9, 12 / 13, (0.3 + 0) / 2, (0.1 + 0.1) / 2, (3 + 1) / 12 / 2)
    assert quality == pytest.approx(expected)
    note = map_note(xy, labels, fit)
    assert "0.90 of a tag's ten nearest points are clips (0.92 at random)" in note
    have = "0.15 of its ten nearest clips have the tag (0.10 in the full space, 0.17 at random)"
    assert have in note
    labels[:, 1] = 0  # a tag that no clip has does not count for precision
    assert map_quality(xy, labels, fit) == pytest.approx((0.9, 12 / 13, 0.3, 0.1, 3 / 12))


def test_a_map_is_compared_with_a_search_unless_that_finds_hardly_more_than_chance():
    quality = MapQuality(0.6, 0.8, 0.3, 0.4, 0.2)
    expected = {"map_mixing": 0.75, "map_precision_at_10": 0.75}
    assert quality.ratios() == pytest.approx(expected)
    assert np.isnan(quality._replace(full_precision=0.39).ratios()["map_precision_at_10"])


def test_the_note_says_if_the_space_is_mirrored(rng):
    labels = rng.integers(0, 2, (40, 3))
    xy, fit = rng.normal(size=(43, 2)), labels + 0.5 * rng.normal(size=(40, 3))
    assert "mirrored" not in map_note(xy, labels, fit)
    assert "mirrored" not in map_note(xy, labels, np.zeros_like(fit))
    sentence = "The space is mirrored: clips lie farther from their own tags than from others'."
    assert sentence in map_note(xy, labels, -fit)


def test_a_map_of_fewer_clips_than_neighbours_is_one_sentence():
    xy, labels = np.zeros((11, 2)), np.ones((9, 2), int)
    sentence = "a map of 9 clips cannot show a tag's 10 nearest: add clips."
    with pytest.raises(ValueError) as error:
        map_quality(xy, labels, np.zeros((9, 2)))
    assert str(error.value) == sentence
    assert map_note(xy, labels, np.zeros((9, 2))).startswith(sentence)


@pytest.mark.parametrize(
    ("points", "method", "message"),
    [
        (np.ones((8, 3)), "isomap", "unknown layout method 'isomap'"),
        (np.ones((1, 3)), "umap", "a layout needs at least 2 points, not 1: add some"),
    ],
)
def test_what_cannot_be_laid_out_is_one_sentence(points, method, message):
    with pytest.raises(ValueError, match=message):
        layout(points, method)
