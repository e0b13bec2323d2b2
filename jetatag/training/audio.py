"""The store's audio on the device of a run: crops and windows as float32."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

from jetatag.data.store import FULL_SCALE, AudioStore, in_order

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
        self.store, self.device = store, device
        if resident is None:
            resident = fits(2 * int(store.lengths.sum()), device)
        self.reads_ahead = device.type != "cpu" and not resident
        if resident:
            size, path = len(store.samples), str(store.folder / "audio.i16")
            self.samples = torch.from_file(path, size=size, dtype=torch.int16).to(device)
            self.load, self.crops = self._positions, self._gather
        else:
            self.load, self.crops = self._read, self._transfer

    def batches(self, requests: Iterable[Request], n_samples: int) -> Iterator[Tensor]:
        """For each request, `n_samples` of each of its rows from its start on: (row, n_samples)
        float32 in [-1, 1], zero after the end of a clip."""
        load = partial(self.load, n_samples=n_samples)
        if not self.reads_ahead:
            yield from (self.crops(load(request), n_samples) for request in requests)
            return
        with ThreadPoolExecutor(1) as reader:
            for loaded in in_order(reader, load, requests, AHEAD):
                yield self.crops(loaded, n_samples)

    def _read(self, request: Request, n_samples: int) -> Tensor:
        pinned = self.device.type == "cuda"  # torch reuses it once its transfer is over
        batch = torch.empty(len(request[0]), n_samples, dtype=torch.int16, pin_memory=pinned)
        self.store.read_into(batch.numpy(), *request)
        return batch

    def _transfer(self, batch: Tensor, n_samples: int) -> Tensor:
        return batch.to(self.device, non_blocking=True).float().mul_(1 / FULL_SCALE)

    def _positions(self, request: Request, n_samples: int) -> Tensor:
        rows, starts = request
        left = self.store.lengths[rows] - starts
        return torch.from_numpy(np.stack([self.store.offsets[rows] + starts, left]))

    def _gather(self, positions: Tensor, n_samples: int) -> Tensor:
        begin, left = positions.to(self.device, non_blocking=True).unsqueeze(2)
        place = torch.arange(n_samples, device=self.device)
        index = (begin + place).clamp(max=len(self.samples) - 1)
        return torch.where(place < left, self.samples[index], 0).float().mul_(1 / FULL_SCALE)


def fits(n_bytes: int, device: torch.device) -> bool:
    """Whether a GPU has room for so many bytes beside its `RESERVE`."""
    on_gpu = device.type == "cuda"
    return on_gpu and n_bytes + RESERVE <= torch.cuda.mem_get_info(device)[0]
