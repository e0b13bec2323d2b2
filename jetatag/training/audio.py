"""The store's audio on the device of a run: crops and windows as float32."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

from jetatag.data.memory import send
from jetatag.data.store import FULL_SCALE, AudioStore, in_order
from jetatag.training.device import free_memory

RESERVE = 16 * 2**30  # bytes of a GPU that the store leaves free, for weights and activations
AHEAD = 2  # batches that are read while one is computed
Request = tuple[np.ndarray, np.ndarray]  # rows of the store, starts in samples


class Audio:
    """Reads a store for one device.

    A GPU holds the whole store (int16) if it has room: crops are then gathered and scaled there.
    Otherwise, a thread reads ahead into pinned memory, and int16 is what is transferred. On a CPU,
    crops are read when they are asked for. `resident` decides instead, for tests.
    """

    def __init__(self, store: AudioStore, device: torch.device, resident: bool | None = None):
        self.store, self.device, self.reads_ahead = store, device, device.type != "cpu"
        self.samples: Tensor | None = None
        if fits(2 * int(store.lengths.sum()), device) if resident is None else resident:
            size, path = len(store.samples), str(store.folder / "audio.i16")
            self.samples = torch.from_file(path, size=size, dtype=torch.int16).to(device)

    def batches(self, requests: Iterable[Request], n_samples: int) -> Iterator[Tensor]:
        """For each request, `n_samples` of each of its rows from its start on: (row, n_samples)
        float32 in [-1, 1], zero after the end of a clip."""
        for stored in self._stored(requests, n_samples):
            yield send(stored, self.device).float().mul_(1 / FULL_SCALE)

    def _stored(self, requests: Iterable[Request], n_samples: int) -> Iterator[Tensor]:
        read = partial(self._read if self.samples is None else self._gather, n_samples)
        if self.samples is None and self.reads_ahead:
            with ThreadPoolExecutor(1) as reader:
                yield from in_order(reader, read, requests, AHEAD)
        else:
            yield from map(read, requests)

    def _gather(self, n_samples: int, request: Request) -> Tensor:
        rows, starts = request
        left = self.store.lengths[rows] - starts
        positions = torch.from_numpy(np.stack([self.store.offsets[rows] + starts, left]))
        begin, left = send(positions, self.device).unsqueeze(2)
        place = torch.arange(n_samples, device=self.device)
        index = (begin + place).clamp(max=len(self.samples) - 1)
        return torch.where(place < left, self.samples[index], 0)

    def _read(self, n_samples: int, request: Request) -> Tensor:
        pinned = self.device.type == "cuda"  # torch reuses it once its transfer is over
        batch = torch.empty(len(request[0]), n_samples, dtype=torch.int16, pin_memory=pinned)
        self.store.read_into(batch.numpy(), *request)
        return batch


def fits(n_bytes: int, device: torch.device) -> bool:
    """Whether a GPU has room for so many bytes beside its `RESERVE`."""
    return device.type == "cuda" and n_bytes + RESERVE <= free_memory(device)
