"""What a run reads: the store's audio on its device, and the training data of a stage, which are
crops of that audio or their features from the frozen extractor."""

import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from jetatag.config import Phase, RunConfig
from jetatag.data.crops import Crops, batches, middle_starts
from jetatag.data.memory import send
from jetatag.data.splits import can_score
from jetatag.data.store import FULL_SCALE, AudioStore
from jetatag.data.workers import in_order
from jetatag.joint.heads import JointModel
from jetatag.joint.methods import Stage, adam_epochs_before, crop_epochs
from jetatag.training.device import fits, inference_batch
from jetatag.training.optimizers import build_optimizer
from jetatag.training.processes import extract, folded, gather, own_share

PREFETCH = 2  # batches that are read while one is computed
Request = tuple[np.ndarray, np.ndarray]  # rows of the store, starts in samples
Batch = tuple[Tensor, Tensor, Tensor, np.ndarray]  # inputs, labels, tag sets, rows of the store


class Audio:
    """Reads a store for one device.

    A GPU holds the whole store (int16) if it has room: crops are then gathered and scaled there.
    Otherwise, a thread reads ahead into pinned memory, and int16 is what is transferred. On a CPU,
    crops are read when they are asked for. `resident` overrides this choice.
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
        read = partial(self._read if self.samples is None else self._gather, n_samples)
        with ThreadPoolExecutor(1) as reader:
            ahead = self.samples is None and self.reads_ahead
            given = in_order(reader, read, requests, PREFETCH) if ahead else map(read, requests)
            for stored in given:
                yield send(stored, self.device).float().mul_(1 / FULL_SCALE)

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


def seed_of(*place: object) -> int:
    """A seed for one use of random numbers, such as the dropout of a step."""
    return zlib.crc32(" ".join(map(str, place)).encode())


@torch.no_grad()
def frozen_features(
    extractor: nn.Module, audio: Audio, requests: list[Request], n_samples: int, fabric: Fabric
) -> Iterator[Tensor]:
    """For each request (rows of the store, starts in samples), h (row, n_features) of a window of
    each row, with the extractor in inference mode. Several processes share the rows."""
    extractor.eval()
    own = [[part[own_share(len(part), fabric)] for part in request] for request in requests]
    for (rows, _), windows in zip(requests, audio.batches(own, n_samples), strict=True):
        h = windows.new_empty(0, extractor.n_features)
        if len(windows):
            h = extract(extractor, windows, fabric)
        yield gather(h, len(rows), fabric)


class StageData:
    """Batches of the training clips and their tags, and the validation scores."""

    def __init__(
        self, model: JointModel, stage: Stage, audio: Audio, config: RunConfig, fabric: Fabric
    ) -> None:
        self.model, self.stage, self.config, self.fabric = model, stage, config, fabric
        self.audio, self.store = audio, (store := audio.store)
        self.extractor = folded(model.extractor, config, fabric)  # for inference
        together = inference_batch(config, fabric.device, config.batch_size)
        self.n_together = fabric.broadcast(together)  # of all processes, which gather each batch
        self.rows = store.rows("train", config.label_share, config.seed)
        self.valid_rows = store.rows("valid")
        self.n_clips = len(self.rows)
        self.n_steps = -(-self.n_clips // config.batch_size)
        self.crop_epochs = crop_epochs(stage, config)
        self.labels = self.tag_sets = store.labels[self.rows]
        if stage.shuffled:
            rng = np.random.default_rng(seed_of(config.seed, "shuffled tags"))
            self.tag_sets = rng.permutation(self.labels)
        self.valid_h: Tensor | None = None
        self.cache: dict[int, Tensor] = {}  # features by the epoch of their crops

    def optimizer(self, phase: Phase, previous: Optimizer | None = None) -> Optimizer:
        """The optimizer of `phase` for the parts that learn."""
        parts = (getattr(self.model, part) for part in self.stage.learns)
        parameters = [parameter for part in parts for parameter in part.parameters()]
        adam_steps = self.n_steps * adam_epochs_before(self.stage, self.config)
        return build_optimizer(self.config, phase, parameters, previous, adam_steps)

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """The batches of `epoch` from step `first` on: this process's share of the crops (clip,
        sample), or all features (clip, n_features) if the extractor is frozen, labels and tag sets
        (clip, tag), and the clips' rows in the store."""
        config = self.config
        crop_epoch = self.crop_epochs[epoch]
        crops = Crops(self.store, self.rows, config.crop_samples, config.seed, crop_epoch)
        order = batches(self.n_clips, config.batch_size, config.seed, epoch, config.shuffle)
        if self.stage.frozen:
            inputs = self.features(crops, order, first)
        else:
            parts = [batch[own_share(len(batch), self.fabric)] for batch in order[first:]]
            inputs = self.audio.batches(map(crops.at, parts), config.crop_samples)
        for batch, x in zip(order[first:], inputs, strict=True):
            both = (tags[batch].astype(np.float32) for tags in (self.labels, self.tag_sets))
            yield x, *both, self.rows[batch]

    def features(self, crops: Crops, order: list[list[int]], first: int) -> Iterator[Tensor]:
        """h (clip, n_features) of the crops of each batch in `order` from `first` on, cached if
        other epochs use them, and computed in fixed blocks, because rounding must not depend on
        where training was resumed."""
        if self.crop_epochs.count(crops.epoch) == 1:
            at_once = max(1, self.n_together // self.config.batch_size)
            skipped = first % at_once  # of the block in which training was resumed
            begins = range(first - skipped, len(order), at_once)
            groups = [order[begin : begin + at_once] for begin in begins]
            requests = [crops.at(np.concatenate(group)) for group in groups]
            for group, h in zip(groups, self._extract(requests), strict=True):
                yield from h.split([len(batch) for batch in group])[skipped:]
                skipped = 0
            return
        if crops.epoch not in self.cache:
            self.cache[crops.epoch] = self._extract_all(self.rows, crops.starts)
        h = self.cache[crops.epoch]
        yield from (h[send(torch.tensor(batch), h.device)] for batch in order[first:])

    def _extract(self, requests: list[Request]) -> Iterator[Tensor]:
        n_samples = self.config.crop_samples
        return frozen_features(self.extractor, self.audio, requests, n_samples, self.fabric)

    def _extract_all(self, rows: np.ndarray, starts: np.ndarray) -> Tensor:
        size = self.n_together
        blocks = [slice(i, i + size) for i in range(0, len(rows), size)]
        return torch.cat([*self._extract([(rows[block], starts[block]) for block in blocks])])

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The stage's scores on the middle window of every validation clip."""
        labels = self.store.labels[self.valid_rows]
        if not can_score(labels):
            return {}
        self.model.eval()
        if self.valid_h is None or not self.stage.frozen:
            if not self.stage.frozen:
                self.extractor = folded(self.model.extractor, self.config, self.fabric)
            starts = middle_starts(self.store.lengths[self.valid_rows], self.config.crop_samples)
            self.valid_h = self._extract_all(self.valid_rows, starts)
        truth = torch.from_numpy(labels).float().to(self.fabric.device)
        scores = self.stage.scores(self.model, self.valid_h, truth)
        return {name: value for name, value in scores.items() if np.isfinite(value)}
