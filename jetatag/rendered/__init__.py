"""The built-in data set: rendered music with MagnaTagATune's tags, in MagnaTagATune's layout."""

from jetatag.rendered.tag_model import sample_labels
from jetatag.rendered.writer import SIZES, TAGS, Clip, plan, render, write, write_tables

__all__ = ["SIZES", "TAGS", "Clip", "plan", "render", "sample_labels", "write", "write_tables"]
