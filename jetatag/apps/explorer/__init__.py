"""Walk through a run's spaces: see where clips and tags lie, ask for music, and hear it.

`Clips` are a run's clips with all it says of them; `Explorer` shows them in a notebook, live where
there are widgets and as a picture where there are none.
"""

from jetatag.apps.explorer.clips import Clips
from jetatag.apps.explorer.explorer import Explorer

__all__ = ["Clips", "Explorer"]
