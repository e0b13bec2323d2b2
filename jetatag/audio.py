"""One function: a file on disk becomes a mono float32 waveform at the wanted rate."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from torchaudio.functional import resample

RESAMPLING = {"lowpass_filter_width": 64, "rolloff": 0.9475937167399596, "beta": 14.769656459379492}
"""Kaiser window and width that equal the high-quality setting of the resampy library."""


class AudioError(ValueError):
    """A file that cannot be used as audio; the message says why, in one sentence."""


def load(path: Path | str, sample_rate: int) -> np.ndarray:
    """Decode `path`, average its channels and resample it.

    Returns (n_samples,) float32 at `sample_rate` (Hz), nominally within [-1, 1]. soundfile
    decodes (WAV, FLAC, OGG, MP3), torchaudio resamples. Raises `AudioError` for a file that is
    missing, empty, not audio, truncated, or that holds values which are not numbers. Truncation
    shows where the file itself states its length, as WAV, FLAC and MP3 with an Info header do.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError("audio file missing")
    if path.stat().st_size == 0:
        raise AudioError("empty file (0 bytes)")
    try:
        with soundfile.SoundFile(path) as file:
            expected, rate = file.frames, file.samplerate
            audio = file.read(dtype="float32", always_2d=True).mean(axis=1)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(f"unreadable audio ({_sentence(error)})") from None
    if len(audio) < expected or len(audio) == 0:
        raise AudioError(f"truncated: {len(audio):,} of {expected:,} samples could be decoded")
    if not np.isfinite(audio).all():
        raise AudioError("holds values that are not numbers (NaN or infinity)")
    return to_rate(audio, rate, sample_rate)


def to_rate(audio: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Resample (n_samples,) float32 from `rate` to `sample_rate` (both Hz)."""
    if rate == sample_rate:
        return audio
    waveform = torch.from_numpy(np.ascontiguousarray(audio))
    return resample(
        waveform, rate, sample_rate, resampling_method="sinc_interp_kaiser", **RESAMPLING
    ).numpy()


def _sentence(error: Exception) -> str:
    """The reason alone: libsndfile puts the path, which the report already names, before it."""
    return str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
