"""The door of every extractor: what it is built with, and what a waveform must look like."""

import torch


def check_width(width: int) -> None:
    """Refuse a number of channels that is not a whole number of at least 1 (`ValueError`)."""
    if not isinstance(width, int) or width < 1:
        raise ValueError(
            f"The width of an extractor is a whole number of at least 1, not {width!r}: "
            "the paper's is 128."
        )


def check_waveform(waveform: torch.Tensor, min_samples: int, extractor: str) -> None:
    """Refuse anything but a float (batch, sample) tensor of at least `min_samples` samples.

    Raises `ValueError` with one sentence that names `extractor`, what it got and the remedy.
    """
    if waveform.ndim != 2 or not waveform.is_floating_point():
        raise ValueError(
            f"{extractor} takes a float waveform of shape (batch, sample), not "
            f"{waveform.dtype} of shape {tuple(waveform.shape)}: mix down to mono, scale to "
            "[-1, 1] and give one row per crop."
        )
    if waveform.shape[1] < min_samples:
        raise ValueError(
            f"{extractor} needs at least {min_samples:,} samples, not {waveform.shape[1]:,}: "
            "take longer crops or pad them with silence."
        )
