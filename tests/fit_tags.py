"""How `tags.csv` was made: a Gaussian copula fitted to counts of tags that co-occur."""

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import ndtri

STEEPEST = 0.995  # largest latent correlation for which the normal density can be evaluated
INDEPENDENT = 0.01  # share of each latent variable's own variance: keeps the matrix invertible


def fit_labels(
    counts: np.ndarray, n_clips: int, n_iterations: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the copula to co-occurrence counts: prevalence (tag,) and latent correlation (tag, tag).

    `counts` (tag, tag) holds the number of clips with both tags, on its diagonal those with the
    tag, out of `n_clips`. Minimises the squared error of the pairwise phi coefficients over unit
    vectors whose products are the correlations, which keeps the matrix positive semidefinite
    (pairs fitted one by one would not: tags that never co-occur ask for -1). Raises `ValueError`
    for a tag with no clip or every clip.
    """
    counts = np.asarray(counts, dtype=np.float64)
    prevalence = np.diag(counts) / n_clips
    if not ((prevalence > 0) & (prevalence < 1)).all():
        raise ValueError("A tag marks no clip or every clip: leave it out of the counts.")
    target = phi_coefficients(counts, n_clips)

    def misfit(flat: np.ndarray) -> tuple[float, np.ndarray]:
        matrix = torch.tensor(flat.reshape(target.shape), requires_grad=True)
        rows = torch.nn.functional.normalize(matrix)
        error = expected_phi(rows @ rows.T, prevalence) - torch.from_numpy(target)
        loss = error.fill_diagonal_(0).square().sum()
        loss.backward()
        return loss.item(), matrix.grad.numpy().ravel()

    values, vectors = np.linalg.eigh(target)
    start = vectors * np.sqrt(np.maximum(values, 1e-4))
    options = {"maxiter": n_iterations}
    fitted = minimize(misfit, start.ravel(), jac=True, method="L-BFGS-B", options=options).x
    fitted = fitted.reshape(target.shape)
    rows = fitted / np.linalg.norm(fitted, axis=1, keepdims=True)
    own = INDEPENDENT * np.eye(len(prevalence))
    return prevalence, (1 - INDEPENDENT) * rows @ rows.T + own


def phi_coefficients(counts: np.ndarray, n_clips: int) -> np.ndarray:
    """Correlations (tag, tag) of 0/1 labels from their co-occurrence `counts` (tag, tag)."""
    share = np.diag(counts) / n_clips
    deviation = np.sqrt(share * (1 - share))
    return (counts / n_clips - np.outer(share, share)) / np.outer(deviation, deviation)


def expected_phi(latent: torch.Tensor, prevalence: np.ndarray) -> torch.Tensor:
    """Phi coefficients (tag, tag) of thresholded normals with the correlations `latent`.

    The covariance of two labels is the bivariate normal density at their thresholds, integrated
    over the correlation from 0 to `latent` (Plackett 1954); with the correlation written as a sine,
    Gauss-Legendre quadrature is accurate to about ten digits.
    """
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(24))
    threshold = -ndtri(prevalence)
    squares = torch.from_numpy(threshold[:, None] ** 2 + threshold**2)[..., None]
    product = torch.from_numpy(np.outer(threshold, threshold))[..., None]
    angle = latent.clamp(-STEEPEST, STEEPEST).asin()
    along = angle[..., None] * (nodes + 1) / 2
    density = (-(squares - 2 * product * along.sin()) / along.cos() ** 2 / 2).exp()
    deviation = np.sqrt(prevalence * (1 - prevalence))
    scale = torch.from_numpy(2 * np.pi * np.outer(deviation, deviation))
    return density @ weights * angle / 2 / scale
