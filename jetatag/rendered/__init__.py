"""The built-in data set: rendered music with MagnaTagATune's tags, in MagnaTagATune's layout."""

from jetatag.rendered.writer import SIZES, TAGS, write

__all__ = ["SIZES", "TAGS", "write"]
