"""Layouts of the points of a space in the plane."""

import sys

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from jetatag.files import check_known

PAPER_PCA = 50
"""Dimensions kept before t-SNE in figure 2 of Lee & Cho 2021."""
FEWEST_POINTS = 5
"""Smallest number of points to lay out."""


def layout(points: np.ndarray, method: str = "umap", seed: int = 0) -> np.ndarray:
    """Lay out `points` (n, dimension) in the plane, (n, 2) float64 without unit.

    `umap` compares by cosine (McInnes et al. 2018), `tsne` follows figure 2 of Lee & Cho 2021
    (PCA to 50 dimensions, then t-SNE), `pca` takes the first two principal components. With `umap`
    and `tsne`, only neighbourhoods are meaningful, not axes or distances. To map two kinds of
    points together, stack them first. The same seed gives the same layout on one machine. Raises
    `ValueError` for an unknown method, or fewer than `FEWEST_POINTS` finite points.
    """
    points = np.asarray(points, dtype=np.float64)
    check_known([method], LAYOUTS, "layout method")
    if points.ndim != 2 or len(points) < FEWEST_POINTS or not np.isfinite(points).all():
        raise ValueError(
            f"a layout needs (n, dimension) finite points, n ≥ {FEWEST_POINTS}: got {points.shape}."
        )
    return LAYOUTS[method](points, seed).astype(np.float64)


def _umap(points: np.ndarray, seed: int) -> np.ndarray:
    """UMAP is imported here because that takes seconds. It would import an installed TensorFlow for
    a part that is not used; TensorFlow is hidden meanwhile, because it and torch's compiler crash
    each other in one process."""
    hidden = "tensorflow" not in sys.modules
    if hidden:
        sys.modules["tensorflow"] = None
    try:
        from umap import UMAP
    finally:
        if hidden:
            del sys.modules["tensorflow"]
    return UMAP(
        n_neighbors=min(15, len(points) - 1),
        metric="cosine",
        init="spectral" if len(points) > 20 else "random",  # spectral fails on few points
        random_state=seed,
        n_jobs=1,
    ).fit_transform(points)


def _tsne(points: np.ndarray, seed: int) -> np.ndarray:
    reduced = PCA(min(PAPER_PCA, *points.shape), random_state=seed).fit_transform(points)
    perplexity = min(30.0, (len(points) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="random", random_state=seed)
    # One thread: a fixed order of sums, and no competition with the threads numba keeps for UMAP.
    with threadpool_limits(1, user_api="openmp"):
        return tsne.fit_transform(reduced)


def _pca(points: np.ndarray, seed: int) -> np.ndarray:
    return PCA(2, random_state=seed).fit_transform(points)


LAYOUTS = {"umap": _umap, "tsne": _tsne, "pca": _pca}
