# ruff: noqa: F401 – imported names are the public ones
"""Matplotlib figures of arrays and tables.

Every function returns a `Figure` that pyplot does not keep, so that a notebook shows it once.
Colours are steps of cividis, which keep their order in grey print; markers, line styles or hatching
repeat what they show. Wrong shapes and names raise `ValueError`.
"""

from jetatag.figures._style import PALE_TO_DARK, touching, wrapped
from jetatag.figures.data import mel_spectrogram, tag_correlation, tag_counts
from jetatag.figures.results import curves, dots, loss_curves
from jetatag.figures.spaces import maps
from jetatag.figures.tags import calibration, gain_per_tag, taggram
