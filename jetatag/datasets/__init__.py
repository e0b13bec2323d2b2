"""Folders on disk → `Index`, one file a data set."""

from pathlib import Path
from typing import Any

from jetatag.config import refuse_unknown
from jetatag.datasets import mtat
from jetatag.datasets.index import SPLITS, Index, Vocabulary

__all__ = ["DATASETS", "SPLITS", "Index", "Vocabulary", "load"]

DATASETS = {"mtat": mtat.load, "rendered": mtat.load}
"""Loaders by name. The built-in set is written in MagnaTagATune's own layout and read by the
same function."""


def load(name: str, root: Path | str, **options: Any) -> Index:
    """Read the folder `root` of the data set called `name`; `options` are its loader's own.

    An unknown name is refused in one sentence (`ValueError`), as the loaders refuse bad folders.
    """
    refuse_unknown([name], DATASETS, "data set")
    return DATASETS[name](root, name=name, **options)
