"""Layouts of points in the plane, the map that clips and tags share, and how far to trust it."""

import sys
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from jetatag.files import check_known, use_temporary_caches
from jetatag.metrics._arithmetic import unit_rows
from jetatag.metrics._checks import check_points
from jetatag.metrics.scores import precision_at_k
from jetatag.metrics.spaces import SMALL_GAP

NEIGHBOURS = 10
"""Number of a tag's nearest points, and of its nearest clips, by which a map is judged."""


def layout(points: np.ndarray, method: str = "umap", seed: int = 0) -> np.ndarray:
    """Lay out `points` (n, dimension) in the plane, (n, 2) float64 without unit.
    `umap` compares by cosine (McInnes et al. 2018), `tsne` follows figure 2 of Lee & Cho 2021
    (PCA to 50 dimensions, then t-SNE), `pca` takes the first two principal components. Fewer than
    five points, too few for the other two, are always laid out by `pca`. The same seed gives the
    same layout on one CPU type, with any number of cores. Raises `ValueError` for an unknown
    method, or fewer than two finite points."""
    points = check_points(points)
    check_known([method], LAYOUTS, "layout method")
    if len(points) < 2:
        raise ValueError(f"a layout needs at least 2 points, not {len(points)}: add some.")
    _, place = LAYOUTS[method if len(points) >= 5 else "pca"]
    # One thread: a fixed order of sums, and no competition with the threads numba keeps for UMAP.
    with threadpool_limits(1):
        return place(points, seed).astype(np.float64)


def shared_layout(
    clips: np.ndarray, tags: np.ndarray, method: str = "umap", seed: int = 0, spacing: int = 5
) -> np.ndarray:
    """Lay out the clips (clip, dim) and tags (tag, dim) of one space together: (clip + tag, 2). In
    a joint space, the two kinds lie in separate cones (the modality gap: Liang et al., "Mind the
    gap", NeurIPS 2022), and `layout` would draw them as islands. Here it lays out the clips alone,
    by cosine. The tags are then put beside those clips for which the mean cosine of the ten clips
    nearest on the map, in each tag's standard deviations, has the highest sum over tags. They keep
    away from the `spacing` clips around another tag, from fewer where there are many: else tags
    that fit the same clips best would form an island again. Raises what `layout` raises."""
    clips, tags = unit_rows(check_points(clips)), unit_rows(check_points(tags))
    xy, n_clips, n_tags = layout(clips, method, seed), len(clips), len(tags)
    k = min(NEIGHBOURS, n_clips)
    with threadpool_limits(1):
        fit = clips @ tags.T
        near = NearestNeighbors(n_neighbors=k).fit(xy).kneighbors(xy, return_distance=False)
    fit_near = sum(fit[neighbour] for neighbour in near.T) / k
    fit_near = (fit_near - fit_near.mean(axis=0)) / np.maximum(fit_near.std(axis=0), 1e-9)
    n_kept = np.clip(n_clips // (2 * n_tags), 1, spacing)  # with the clip itself
    free, places = np.ones(n_clips, bool), []
    for clip in np.argsort(-fit_near.max(axis=1), kind="stable"):
        if free[clip]:
            free[near[clip, :n_kept]] = False
            places.append(clip)
    places = np.tile(places, -(-n_tags // len(places)))  # of few clips, each may hold several tags
    chosen, order = linear_sum_assignment(fit_near[places], maximize=True)
    beside = xy[near[:, :2]].mean(axis=1)  # half way to the next clip, so that none is hidden
    return np.concatenate([xy, beside[places[chosen][np.argsort(order)]]])


class MapQuality(NamedTuple):
    """How well tags lie among their clips on a shared map, as means over tags in [0, 1]."""

    mixing: float  # share of clips among the ten points nearest to a tag on the map
    random_mixing: float  # the same, expected if the points were mixed at random
    precision: float  # share of the ten clips nearest to a tag that carry it, for tags of some clip
    full_precision: float  # the same for the first ten clips that a search in the full space finds
    random_precision: float  # the same, expected of clips in random order

    def ratios(self) -> dict[str, float]:
        """Mixing and precision relative to what they are compared with, by name of the metric. The
        precision is NaN where a search finds hardly more than chance: there is none to lose."""
        searchable = self.full_precision >= 2 * self.random_precision
        precision = self.precision / self.full_precision if searchable else np.nan
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
    precisions.append(labels.mean(axis=0)[labels.any(axis=0)])
    mixing, random_mixing = float((nearest < n_clips).mean()), n_clips / (n_clips + n_tags - 1)
    return MapQuality(mixing, random_mixing, *(float(np.nanmean(each)) for each in precisions))


def map_note(xy: np.ndarray, labels: np.ndarray, fit: np.ndarray) -> str:
    """Return what to print beside a shared map: `map_quality`, or why not, and how tags lie."""
    try:
        mixing, by_chance, precision, full, random = map_quality(xy, labels, fit)
        near = f"{mixing:.2f} of a tag's ten nearest points are clips ({by_chance:.2f} at random)"
        have = f"{precision:.2f} of its ten nearest clips have the tag ({full:.2f}"
        quality = f"{near}, and {have} in the full space, {random:.2f} at random)."
    except ValueError as error:
        quality = str(error)
    gap = "Clips and tags may lie apart in the space (modality gap: Liang et al., NeurIPS 2022)"
    own, others = fit[labels > 0], fit[labels == 0]
    if len(own) and len(others) and own.mean() < others.mean() - SMALL_GAP * others.std():
        mirrored = "The space is mirrored: clips lie farther from their own tags than from others'."
        gap = f"{mirrored} {gap}"
    return f"{quality} {gap}, so a tag is put among clips that fit it."


def _umap(points: np.ndarray, seed: int) -> np.ndarray:
    """UMAP's import takes seconds. It would also import an installed TensorFlow, unused; that is
    hidden meanwhile, because it and torch's compiler crash each other."""
    use_temporary_caches()  # numba, which compiles UMAP, refuses to work without
    hidden = sys.modules.setdefault("tensorflow", None) is None
    try:
        from umap import UMAP
    finally:
        if hidden:
            del sys.modules["tensorflow"]
    _cache_compiled_code()
    n_neighbors = min(15, len(points) - 1)
    init = "spectral" if len(points) > 20 else "random"  # spectral fails on few points
    options = {"metric": "cosine", "random_state": seed, "n_jobs": 1}
    return UMAP(n_neighbors, init=init, **options).fit_transform(points)


def _cache_compiled_code() -> None:
    """Let numba keep what it compiles of UMAP, which takes ten seconds, for later processes. UMAP
    itself asks for that only in part."""
    for name, module in list(sys.modules.items()):
        for function in vars(module).values() if name.startswith("umap.") else ():
            if hasattr(function, "enable_caching") and not function.stats.cache_path:
                function.enable_caching()


def _tsne(points: np.ndarray, seed: int) -> np.ndarray:
    tsne = TSNE(perplexity=min(30.0, (len(points) - 1) / 3), init="random", random_state=seed)
    return tsne.fit_transform(_pca(points, seed, min(50, *points.shape)))


def _pca(points: np.ndarray, seed: int, n_components: int = 2) -> np.ndarray:
    return PCA(n_components, random_state=seed).fit_transform(points)


LAYOUTS = {
    "umap": ("UMAP", _umap),
    "tsne": ("t-SNE", _tsne),
    "pca": ("first principal axes", _pca),
}
"""Methods of layout: name → its name for readers, and its function of points and seed."""
