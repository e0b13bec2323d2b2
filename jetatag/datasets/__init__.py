"""Folders on disk → `Index`, one file a data set."""

from jetatag.datasets import mtat
from jetatag.datasets.index import SPLITS, Index, Vocabulary

__all__ = ["DATASETS", "SPLITS", "Index", "Vocabulary"]

DATASETS = {"mtat": mtat.load, "rendered": mtat.load}
"""Loaders by name: `DATASETS[name](root)`. The built-in set is written in MagnaTagATune's own
layout and read by the same function."""
