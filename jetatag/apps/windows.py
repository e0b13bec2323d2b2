"""Streams any audio file as windows that are preprocessed like the training data.

Memory does not depend on the file's length: a long file is decoded twice, first for its peak and
then for its windows.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jetatag.data.audio import stream
from jetatag.data.ffmpeg import OnDamage
from jetatag.data.store import absolute_peak, to_int16

HELD_S = 600  # longest file that is held in memory and decoded once


@dataclass(frozen=True)
class Stretch:
    """Consecutive windows: `samples` (window, n_samples) int16 as in a store, the sample at which
    each `starts`, the `end` of what has been read, and in words the `damage` that was skipped."""

    samples: np.ndarray
    starts: list[int]
    end: int
    damage: str = ""


def windows(
    path: Path, sample_rate: int, n_samples: int, peak_normalise: bool
) -> Iterator[Stretch]:
    """Yield consecutive windows of `n_samples` of a file at `sample_rate` (Hz). All errors of
    `audio.stream` are raised before the first window."""
    damage: dict[str, None] = {}  # each told once, although a long file is decoded twice
    blocks = stored_blocks(path, sample_rate, peak_normalise, damage.setdefault)
    for stretch in cut(blocks, n_samples, max(1, HELD_S * sample_rate // n_samples)):
        yield replace(stretch, damage="; ".join(damage))


def stored_blocks(
    path: Path, sample_rate: int, peak_normalise: bool, on_damage: OnDamage | None = None
) -> Iterator[np.ndarray]:
    """The samples that a store would hold (`store.decode`), in int16 blocks."""
    held, n_samples, peak = [], 0, 0.0
    for block in stream(path, sample_rate, on_damage):
        n_samples, peak = n_samples + len(block), max(peak, absolute_peak(block))
        held = [*held, block] if n_samples <= HELD_S * sample_rate else []
    for block in held or stream(path, sample_rate, on_damage):
        yield to_int16(block, peak, peak_normalise)


def cut(blocks: Iterable[np.ndarray], n_samples: int, at_once: int) -> Iterator[Stretch]:
    """Windows of a signal that comes in blocks, `at_once` at a time. The last window ends with the
    signal and overlaps the one before; a signal shorter than a window is padded with zeros."""
    held, first, size = np.empty(0, np.int16), 0, at_once * n_samples
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= size + n_samples:  # the last window may need what is left
            starts = list(range(first, first + size, n_samples))
            yield Stretch(held[:size].reshape(-1, n_samples), starts, first + size)
            held, first = held[size:], first + size
    starts = np.minimum(np.arange(0, len(held), n_samples), max(0, len(held) - n_samples))
    padded = np.pad(held, (0, max(0, n_samples - len(held))))
    samples = np.stack([padded[start : start + n_samples] for start in starts])
    yield Stretch(samples, (first + starts).tolist(), first + len(held))


def ahead(
    items: Iterable[Any], function: Callable[[Any], Iterator[Any]], workers: int | None
) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Each item, in order, with an iterator over what `function` yields for it. `workers` threads
    (None: one per core) compute one element ahead, also for the next items."""
    workers = os.cpu_count() or 1 if workers is None else workers
    waiting, pool = deque(), ThreadPoolExecutor(workers)

    def one_ahead(elements: Iterator[Any], coming: Future) -> Iterator[Any]:
        while (element := coming.result()) is not None:
            coming = pool.submit(next, elements, None)
            yield element

    try:
        for item in items:
            elements = function(item)
            waiting.append((item, one_ahead(elements, pool.submit(next, elements, None))))
            if len(waiting) > workers:
                yield waiting.popleft()
        yield from waiting
    finally:
        pool.shutdown(cancel_futures=True)
