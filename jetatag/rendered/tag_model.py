"""Tag sets that co-occur as in MagnaTagATune: a Gaussian copula over its 50 most frequent tags."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtri


@cache
def tag_table() -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The shipped model: tag names, prevalence (tag,) and latent correlation (tag, tag)."""
    table = pd.read_csv(Path(__file__).with_name("tags.csv"), comment="#", index_col="tag")
    tags = tuple(table.index)
    return tags, table["prevalence"].to_numpy(), table[list(tags)].to_numpy()


def sample_labels(n: int, seed: int) -> np.ndarray:
    """Draw `n` tag sets: (n, 50) uint8 of 0 and 1, columns in the order of `TAGS`. About 18 % are
    empty, as in MagnaTagATune. The first rows do not depend on `n`."""
    _, prevalence, correlation = tag_table()
    independent = np.random.default_rng(seed).standard_normal((n, len(prevalence)))
    latent = independent @ np.linalg.cholesky(correlation).T
    return (latent > -ndtri(prevalence)).astype(np.uint8)
