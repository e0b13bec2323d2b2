"""Layouts of points in the plane, the map that clips and tags share, and how far to trust it."""

import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from jetatag.files import check_known, use_temporary_caches
from jetatag.metrics._arithmetic import ratio, unit_rows
from jetatag.metrics._checks import check_points
from jetatag.metrics.scores import precision_at_k
from jetatag.metrics.spaces import SMALL_GAP

FEWEST_POINTS = 5
"""Smallest number of points to lay out."""
NEIGHBOURS = 10
"""Number of a tag's nearest points, and of its nearest clips, by which a map is judged."""


def layout(points: np.ndarray, method: str = "umap", seed: int = 0) -> np.ndarray:
    """Lay out `points` (n, dimension) in the plane, (n, 2) float64 without unit.
    `umap` compares by cosine (McInnes et al. 2018), `tsne` follows figure 2 of Lee & Cho 2021
    (PCA to 50 dimensions, then t-SNE), `pca` takes the first two principal components. The same
    seed gives the same layout on one CPU type, with any number of cores. Raises `ValueError` for an
    unknown method, or fewer than `FEWEST_POINTS` finite points."""
    points = check_points(points)
    check_known([method], LAYOUTS, "layout method")
    if len(points) < FEWEST_POINTS:
        raise ValueError(f"a layout needs n ≥ {FEWEST_POINTS} points, not {len(points)}: add some.")
    # One thread: a fixed order of sums, and no competition with the threads numba keeps for UMAP.
    with threadpool_limits(1):
        return LAYOUTS[method].single(points, seed).astype(np.float64)


def shared_layout(
    clips: np.ndarray, tags: np.ndarray, method: str = "umap", seed: int = 0
) -> np.ndarray:
    """Lay out the clips (clip, dim) and tags (tag, dim) of one space together: (clip + tag, 2).
    In a joint space, the two kinds lie in separate cones (the modality gap: Liang et al., "Mind the
    gap", NeurIPS 2022), and `layout` draws them as islands. Here the neighbours of clips and tags
    are the clips nearest by cosine. A tag is also a neighbour of its ten nearest clips, at the mean
    distance of each clip's own ten neighbours. `umap` and `tsne` lay out this graph, starting from
    `pca`: the principal components of the clips, with each tag at the mean of its ten nearest
    clips. Otherwise as `layout`; needs three clips."""
    clips, tags = unit_rows(check_points(clips)), unit_rows(check_points(tags))
    check_known([method], LAYOUTS, "layout method")
    if len(clips) < 3:
        raise ValueError(f"a shared map needs at least 3 clips, not {len(clips)}: add some.")
    with threadpool_limits(1):
        return LAYOUTS[method].shared(clips, tags, seed).astype(np.float64)


class MapQuality(NamedTuple):
    """How well tags lie among their clips on a shared map, as means over tags in [0, 1]."""

    mixing: float  # share of clips among the ten points nearest to a tag on the map
    random_mixing: float  # the same, expected if the points were mixed at random
    precision: float  # share of the ten clips nearest to a tag that carry it, for tags of some clip
    full_precision: float  # the same for the first ten clips that a search in the full space finds

    def ratios(self) -> dict[str, float]:
        """Mixing and precision relative to what they are compared with, by name of the metric."""
        precision = float(ratio(self.precision, self.full_precision, empty=np.nan))
        mixing = self.mixing / self.random_mixing
        return {"map_mixing": mixing, f"map_precision_at_{NEIGHBOURS}": precision}


def map_quality(xy: np.ndarray, labels: np.ndarray, fit: np.ndarray) -> MapQuality:
    """Return the quality of a shared map `xy`, (clip + tag, 2). `labels` (clip, tag) 0/1; `fit`
    (clip, tag) is what a search in the full space ranks clips by, such as their cosine with each
    tag. Raises `ValueError` for fewer clips than `NEIGHBOURS`."""
    n_clips, n_tags = labels.shape
    if n_clips < NEIGHBOURS:
        lacks = f"a map of {n_clips} clips cannot show a tag's {NEIGHBOURS} nearest"
        raise ValueError(f"{lacks}: add clips.")
    distances = cdist(xy[n_clips:], xy)  # (tag, clip + tag)
    distances[np.arange(n_tags), n_clips + np.arange(n_tags)] = np.inf  # not its own neighbour
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
    rankings = -distances[:, :n_clips].T, fit
    precisions = [precision_at_k(labels, ranking, NEIGHBOURS) for ranking in rankings]
    mixing, random_mixing = float((nearest < n_clips).mean()), n_clips / (n_clips + n_tags - 1)
    return MapQuality(mixing, random_mixing, *(float(np.nanmean(each)) for each in precisions))


def map_note(xy: np.ndarray, labels: np.ndarray, fit: np.ndarray) -> str:
    """Return what to print beside a shared map: `map_quality`, or why not, and how tags lie."""
    try:
        mixing, random, precision, full = map_quality(xy, labels, fit)
        near = f"{mixing:.2f} of a tag's ten nearest points are clips ({random:.2f} at random)"
        have = f"{precision:.2f} of its ten nearest clips have the tag ({full:.2f}"
        quality = f"{near}, and {have} in the full space)."
    except ValueError as error:
        quality = str(error)
    gap = "Clips and tags may lie apart in the space (modality gap: Liang et al., NeurIPS 2022)"
    own, others = fit[labels > 0], fit[labels == 0]
    if len(own) and len(others) and own.mean() < others.mean() - SMALL_GAP * others.std():
        gap = f"The space is mirrored: clips lie away from their own tags. {gap}"
    return f"{quality} {gap}, so a tag is placed by the clips nearest to it, not by other tags."


def _fit_umap(points: np.ndarray, seed: int, **options: Any) -> np.ndarray:
    """Lay out by UMAP, whose import takes seconds. It would also import an installed TensorFlow,
    unused; that is hidden meanwhile, because it and torch's compiler crash each other."""
    use_temporary_caches()  # numba, which compiles UMAP, refuses to work without
    hidden = sys.modules.setdefault("tensorflow", None) is None
    try:
        from umap import UMAP
    finally:
        if hidden:
            del sys.modules["tensorflow"]
    return UMAP(metric="cosine", random_state=seed, n_jobs=1, **options).fit_transform(points)


def _umap(points: np.ndarray, seed: int) -> np.ndarray:
    init = "spectral" if len(points) > 20 else "random"  # spectral fails on few points
    return _fit_umap(points, seed, n_neighbors=min(15, len(points) - 1), init=init)


def _tsne(points: np.ndarray, seed: int) -> np.ndarray:
    tsne = TSNE(perplexity=min(30.0, (len(points) - 1) / 3), init="random", random_state=seed)
    return tsne.fit_transform(_pca(points, seed, min(50, *points.shape)))


def _pca(points: np.ndarray, seed: int, n_components: int = 2) -> np.ndarray:
    return PCA(n_components, random_state=seed).fit_transform(points)


def _neighbours(clips: np.ndarray, tags: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and cosine distances of every clip and tag itself, as libraries expect it, and of its
    `k` neighbours, or all: (clip + tag, 1 + k) each."""
    search = NearestNeighbors(n_neighbors=min(k, len(clips) - 1), metric="cosine").fit(clips)
    (of_clips, clip_ids), (of_tags, tag_ids) = search.kneighbors(), search.kneighbors(tags)
    first, tag = tag_ids[:, :NEIGHBOURS], np.arange(len(tags))
    to_tags = np.full((len(clips), len(tags)), np.inf)
    to_tags[first, tag[:, None]] = of_clips[:, :NEIGHBOURS].mean(axis=1)[first]
    all_ids = np.hstack([clip_ids, np.tile(len(clips) + tag, (len(clips), 1))])
    distances = np.hstack([of_clips, to_tags])
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : of_clips.shape[1]]
    ids = np.concatenate([np.take_along_axis(all_ids, nearest, 1), tag_ids])
    distances = np.concatenate([np.take_along_axis(distances, nearest, 1), of_tags])
    itself = np.arange(len(ids))[:, None]
    return np.hstack([itself, ids]), np.hstack([np.zeros_like(itself), distances])


def _shared_umap(clips: np.ndarray, tags: np.ndarray, seed: int) -> np.ndarray:
    ids, distances = _neighbours(clips, tags, 14)
    graph = (ids.astype(np.int32), distances.astype(np.float32))
    options = {"init": _shared_pca(clips, tags, seed), "precomputed_knn": graph}
    points = np.concatenate([clips, tags])
    with warnings.catch_warnings(action="ignore"):  # it says that it cannot place further points
        return _fit_umap(points, seed, n_neighbors=ids.shape[1], **options)


def _shared_tsne(clips: np.ndarray, tags: np.ndarray, seed: int) -> np.ndarray:
    """Perplexity 15 and 500 steps take half the time of the usual 30 and 1,000."""
    ids, distances = _neighbours(clips, tags, 46)
    lengths = np.sqrt(2 * distances)  # chords between unit vectors
    rows = np.arange(0, ids.size + 1, ids.shape[1])
    graph = csr_array((lengths.ravel(), ids.ravel(), rows), shape=2 * (len(ids),))
    start = _shared_pca(clips, tags, seed)
    start = (1e-4 * start / start.std()).astype(np.float32)
    options = {"perplexity": min(15.0, (len(clips) - 2) / 3), "init": start, "max_iter": 500}
    return TSNE(metric="precomputed", random_state=seed, **options).fit_transform(graph)


def _shared_pca(clips: np.ndarray, tags: np.ndarray, seed: int) -> np.ndarray:
    """Tags lie at the mean of their nearest clips. Clips that are all the same lie at random."""
    of_clips = _pca(clips, seed)
    if np.ptp(of_clips, axis=0).min() < 1e-9:
        of_clips = np.random.default_rng(seed).normal(size=of_clips.shape)
    ids, _ = _neighbours(clips, tags, NEIGHBOURS)
    return np.concatenate([of_clips, of_clips[ids[len(clips) :, 1:]].mean(axis=1)])


class Layout(NamedTuple):
    """A method by its name for readers, of one set of points, and of clips and tags together."""

    title: str
    single: Callable[..., np.ndarray]
    shared: Callable[..., np.ndarray]


LAYOUTS = {
    "umap": Layout("UMAP", _umap, _shared_umap),
    "tsne": Layout("t-SNE", _tsne, _shared_tsne),
    "pca": Layout("first principal axes", _pca, _shared_pca),
}
