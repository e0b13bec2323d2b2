"""Anybody's file as a run hears it: windows of the samples that a store would hold.

In memory that does not depend on the file's length: a long one is decoded twice, for its peak and
then for its windows, and never held whole.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jetatag.data.audio import stream
from jetatag.data.store import absolute_peak, to_int16

HELD_S = 600
"""Seconds of a file that are held in memory; shorter ones are decoded once."""


@dataclass(frozen=True)
class Stretch:
    """Some windows of a file as they are stored: samples (window, n_samples) int16, the sample at
    which each starts, and the one before which the file is read so far."""

    samples: np.ndarray
    starts: list[int]
    end: int


def windows(
    path: Path, sample_rate: int, n_samples: int, peak_normalise: bool
) -> Iterator[Stretch]:
    """Consecutive windows of `n_samples` of a file at `sample_rate` (Hz). Raises as `audio.stream`
    does, what can be known of the whole alone before the first window."""
    blocks = stored_blocks(path, sample_rate, peak_normalise)
    return cut(blocks, n_samples, max(1, HELD_S * sample_rate // n_samples))


def stored_blocks(path: Path, sample_rate: int, peak_normalise: bool) -> Iterator[np.ndarray]:
    """A file as a store would hold it (`store.decode`), by blocks of int16."""
    held, n_samples, peak = [], 0, 0.0
    for block in stream(path, sample_rate):
        n_samples, peak = n_samples + len(block), max(peak, absolute_peak(block))
        held = [*held, block] if n_samples <= HELD_S * sample_rate else []
    for block in held or stream(path, sample_rate):
        yield to_int16(block, peak, peak_normalise)


def cut(blocks: Iterable[np.ndarray], n_samples: int, at_once: int) -> Iterator[Stretch]:
    """Consecutive windows of a signal that comes by blocks, so many at once. What remains at the
    end is read in the last `n_samples`, or with zeros behind it where there are not as many."""
    start, before = 0, np.empty(0, np.int16)
    for chunk in rechunk(blocks, at_once * n_samples):
        n_whole = len(chunk) // n_samples
        starts = [start + i * n_samples for i in range(n_whole)]
        samples = chunk[: n_whole * n_samples].reshape(n_whole, n_samples)
        start, end = start + n_whole * n_samples, start + len(chunk)
        if start < end:
            last = np.concatenate([before, chunk])[-n_samples:]
            last = np.pad(last, (0, n_samples - len(last)))
            samples = np.concatenate([samples, last[None]])
            starts.append(max(0, end - n_samples))
        before = chunk[-n_samples:]
        yield Stretch(samples, starts, end)


def rechunk(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same signal in chunks of `size` samples, of which the last may be shorter."""
    waiting = np.empty(0, np.int16)
    for block in blocks:
        waiting = np.concatenate([waiting, block])
        n_whole = len(waiting) // size * size
        yield from waiting[:n_whole].reshape(-1, size)
        waiting = waiting[n_whole:]
    if len(waiting):
        yield waiting


def ahead(
    items: Iterable[Any], function: Callable[[Any], Iterator[Any]], workers: int | None
) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Each item with what `function` yields of it, always one element ahead in `workers` threads
    (None: one a core), which also begin on that many items to come; in order."""
    workers, waiting = workers or os.cpu_count() or 1, deque()
    # torch's number of threads is each thread's own: one is enough to resample, and what the model
    # has stays.
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for item in items:
            waiting.append((item, _one_ahead(pool, function(item))))
            if len(waiting) > workers:
                yield waiting.popleft()
        yield from waiting
    finally:
        pool.shutdown(cancel_futures=True)


def _one_ahead(pool: ThreadPoolExecutor, elements: Iterator[Any]) -> Iterator[Any]:
    first = pool.submit(next, elements, None)

    def each(coming: Future) -> Iterator[Any]:
        while (element := coming.result()) is not None:
            coming = pool.submit(next, elements, None)
            yield element

    return each(first)
