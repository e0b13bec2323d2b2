"""Uses of a trained run: tag, search, explore, export."""

from typing import Literal

RANKINGS = {"combined": "by both", "space": "in the shared space"}
RANKINGS |= {"classifier": "by the classifier"}
"""The rankings for a query by tags, and their names in the explorer."""
By = Literal[*RANKINGS]
