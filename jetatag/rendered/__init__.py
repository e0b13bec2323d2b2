"""The built-in data set: rendered music with MagnaTagATune's tags, in MagnaTagATune's layout."""

from jetatag.rendered.tag_model import fit_labels, sample_labels
from jetatag.rendered.writer import SIZES, TAGS, Clip, plan, render, write

__all__ = ["SIZES", "TAGS", "Clip", "fit_labels", "plan", "render", "sample_labels", "write"]
