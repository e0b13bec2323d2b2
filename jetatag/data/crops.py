"""Which part of a clip an extractor gets: random crops in training, which depend only on (seed,
epoch, clip id), not on workers, batch size or call order, and windows in evaluation.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from jetatag.data.store import AudioStore


def crop_starts(
    lengths: np.ndarray, crop_samples: int, seed: int, epoch: int, clip_ids: Iterable[str]
) -> np.ndarray:
    """Start of one random crop per clip, (n_clips,) int64 samples: uniform over 0 … length −
    crop_samples, and 0 for shorter clips, which are padded."""
    keys = np.array([zlib.crc32(str(clip_id).encode()) for clip_id in clip_ids], np.uint64)
    room = np.maximum(np.asarray(lengths, np.int64) - crop_samples, 0) + 1
    uniform = _mix(_mix(_mix(np.uint64(seed)) + np.uint64(epoch)) + keys) / 2.0**64
    return np.minimum((uniform * room).astype(np.int64), room - 1)


def _mix(x: np.ndarray | np.uint64) -> np.ndarray:
    """SplitMix64 (Steele et al., OOPSLA 2014); NumPy has no generator seeded per element."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def window_starts(
    length: int, window_samples: int, n_windows: int = 16, placement: str = "even"
) -> np.ndarray:
    """Starts of a clip's evaluation windows, (n_windows,) int64 samples.

    "even": the first window begins and the last one ends with the clip. "as_coded": the original's
    hop, (length − window) // n_windows, which does not cover the end. For clips shorter than a
    window, all `n_windows` windows are the padded clip.
    """
    room = max(length - window_samples, 0)
    if placement == "as_coded":
        return np.arange(n_windows, dtype=np.int64) * (room // n_windows)
    return np.linspace(0, room, n_windows).round().astype(np.int64)


def middle_starts(lengths: np.ndarray, window_samples: int) -> np.ndarray:
    """Starts of the clips' middle windows, (n_clips,) int64 samples."""
    return np.maximum(np.asarray(lengths, np.int64) - window_samples, 0) // 2


def batches(n_clips: int, batch_size: int, seed: int, epoch: int, shuffle: bool) -> list:
    """Positions of the clips in each training step: every clip once, in batches whose sizes differ
    by at most one, so no remainder is dropped or padded."""
    order = np.arange(n_clips)
    if shuffle:
        order = np.random.default_rng((seed, epoch)).permutation(n_clips)
    return [part.tolist() for part in np.array_split(order, -(-n_clips // batch_size))]


@dataclass(frozen=True)
class Crops:
    """One crop of each clip in `rows` for one epoch."""

    store: AudioStore
    rows: np.ndarray
    crop_samples: int
    seed: int
    epoch: int

    def take(self, positions: Sequence[int]) -> torch.Tensor:
        """The crops of the clips at `positions` of `rows`, (n, crop_samples) float32."""
        return torch.from_numpy(self.store.read(*self.at(positions), self.crop_samples))

    def at(self, positions: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the store and starts (samples) of the crops of the clips at `positions`."""
        return self.rows[positions], self.starts[positions]

    @cached_property
    def starts(self) -> np.ndarray:
        """Start of each clip's crop, (n_clips,) int64 samples."""
        ids, lengths = self.store.table.clip_id.iloc[self.rows], self.store.lengths[self.rows]
        return crop_starts(lengths, self.crop_samples, self.seed, self.epoch, ids)
