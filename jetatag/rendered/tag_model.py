"""Tag sets that co-occur as MagnaTagATune's do: a Gaussian copula over its 50 tags."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import ndtri

TABLE = Path(__file__).with_name("tags.csv")
NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
STEEPEST = 0.995  # latent correlation above which densities are no longer computable
INDEPENDENT = 0.01  # share of every latent variable that is its own: keeps the matrix invertible


@cache
def tag_table() -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Read the shipped table: tag names, prevalence (tag,) and latent correlation (tag, tag)."""
    table = pd.read_csv(TABLE, comment="#", index_col="tag")
    tags = tuple(table.index)
    return tags, table["prevalence"].to_numpy(), table[list(tags)].to_numpy()


def sample_labels(n: int, seed: int) -> np.ndarray:
    """Draw `n` tag sets, (n, 50) uint8 of 0/1, columns in the order of `TAGS`.

    A tag is present where its latent normal variable exceeds the threshold of its prevalence;
    the latent variables carry MagnaTagATune's co-occurrence. About 18 % of the sets are empty,
    as there. The first rows do not depend on `n`. Raises ValueError for a negative `n`.
    """
    if n < 0:
        raise ValueError(f"n is {n}: ask for zero or more tag sets.")
    _, prevalence, correlation = tag_table()
    independent = np.random.default_rng(seed).standard_normal((n, len(prevalence)))
    latent = independent @ np.linalg.cholesky(correlation).T
    return (latent > -ndtri(prevalence)).astype(np.uint8)


def fit_labels(counts: np.ndarray, n_clips: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit the copula to co-occurrence counts: prevalence (tag,) and latent correlation (tag, tag).

    `counts` (tag, tag) holds the number of clips with both tags, its diagonal the clips with the
    tag, out of `n_clips`. The correlation matrix minimises the squared error of the pairwise phi
    coefficients; each row is a unit vector's products with the others, so that it stays a
    correlation matrix throughout (a pair-by-pair solution would not be one, because pairs never
    seen together ask for -1). Raises ValueError where a tag has no clip or every clip.
    """
    counts = np.asarray(counts, dtype=np.float64)
    prevalence = np.diag(counts) / n_clips
    if not ((prevalence > 0) & (prevalence < 1)).all():
        raise ValueError("A tag marks no clip or every clip: leave it out of the counts.")
    target = phi_coefficients(counts, n_clips)
    values, vectors = np.linalg.eigh(target)
    start = vectors * np.sqrt(np.maximum(values, 1e-4))
    fitted = minimize(
        _misfit, start.ravel(), args=(target, prevalence), jac=True, method="L-BFGS-B"
    )
    rows = _unit_rows(fitted.x.reshape(target.shape))
    correlation = rows @ rows.T
    return prevalence, (1 - INDEPENDENT) * correlation + INDEPENDENT * np.eye(len(prevalence))


def phi_coefficients(counts: np.ndarray, n_clips: int) -> np.ndarray:
    """Correlations (tag, tag) of 0/1 labels from their co-occurrence `counts` (tag, tag)."""
    share = np.diag(counts) / n_clips
    deviation = np.sqrt(share * (1 - share))
    return (counts / n_clips - np.outer(share, share)) / np.outer(deviation, deviation)


def _unit_rows(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def _misfit(
    flat: np.ndarray, target: np.ndarray, prevalence: np.ndarray
) -> tuple[float, np.ndarray]:
    """Squared error of the phi coefficients and its gradient in the unnormalised rows `flat`."""
    matrix = flat.reshape(target.shape)
    rows = _unit_rows(matrix)
    phi, slope = _phi_of_latent(rows @ rows.T, prevalence)
    error = phi - target
    np.fill_diagonal(error, 0)
    gradient = 4 * (error * slope) @ rows
    gradient -= (gradient * rows).sum(axis=1, keepdims=True) * rows
    gradient /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return float((error**2).sum()), gradient.ravel()


def _phi_of_latent(latent: np.ndarray, prevalence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Phi coefficient of two thresholded normals with correlation `latent`, and its derivative.

    The covariance of the two labels is the bivariate normal density at the thresholds,
    integrated over the correlation from 0 to `latent` (Plackett 1954); with the correlation
    written as a sine, Gauss-Legendre quadrature is exact to about ten digits.
    """
    threshold = -ndtri(prevalence)
    latent = np.clip(latent, -STEEPEST, STEEPEST)
    squares = threshold[:, None] ** 2 + threshold**2
    product = np.outer(threshold, threshold)
    deviation = np.sqrt(prevalence * (1 - prevalence))
    scale = 2 * np.pi * np.outer(deviation, deviation)
    angle = np.arcsin(latent)
    along = angle[..., None] * (NODES + 1) / 2
    exponent = (squares[..., None] - 2 * product[..., None] * np.sin(along)) / np.cos(along) ** 2
    phi = np.exp(-exponent / 2) @ WEIGHTS * angle / 2 / scale
    at_latent = np.exp(-(squares - 2 * product * latent) / (2 * (1 - latent**2)))
    return phi, at_latent / np.sqrt(1 - latent**2) / scale
