"""Explore a run's spaces in a notebook: see where clips and tags lie, search, and listen.

`Clips` holds the clips with a run's predictions; `Explorer` shows them as linked maps, or as a
figure if there is no browser.
"""

from jetatag.apps.explorer.clips import Clips
from jetatag.apps.explorer.panel import Explorer

__all__ = ["Clips", "Explorer"]
