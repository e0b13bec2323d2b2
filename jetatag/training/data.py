"""Training data of a stage: crops of audio, or their features from the frozen extractor."""

import zlib
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from jetatag.config import Phase, RunConfig
from jetatag.data.crops import Crops, batches, middle_starts
from jetatag.data.store import AudioStore
from jetatag.joint.heads import JointModel
from jetatag.joint.methods import Stage, adam_epochs_before, crop_epochs
from jetatag.training.device import extract, gather, own_share
from jetatag.training.optimizers import build_optimizer


def seed_of(*place: object) -> int:
    """A seed for one use of random numbers, such as the dropout of a step."""
    return zlib.crc32(" ".join(map(str, place)).encode())


@torch.no_grad()
def frozen_features(
    model: JointModel,
    store: AudioStore,
    rows: np.ndarray,
    starts: np.ndarray,
    config: RunConfig,
    fabric: Fabric,
) -> Tensor:
    """h (clip, n_features) of one window per clip, with the extractor in inference mode; `starts`
    are in samples. Several processes share the clips."""
    model.extractor.eval()
    n_clips, share = len(rows), own_share(len(rows), fabric)
    rows, starts = rows[share], starts[share]
    h = [torch.empty(0, model.extractor.n_features, device=fabric.device)]
    for i in range(0, len(rows), config.batch_size):
        part = slice(i, i + config.batch_size)
        audio = store.read(rows[part], starts[part], config.crop_samples)
        h.append(extract(model, torch.from_numpy(audio), fabric))
    return gather(torch.cat(h), n_clips, fabric)


class StageData:
    """Batches of the training clips and their tags, and the validation scores."""

    def __init__(
        self, model: JointModel, stage: Stage, store: AudioStore, config: RunConfig, fabric: Fabric
    ) -> None:
        self.model, self.stage, self.store = model, stage, store
        self.config, self.fabric = config, fabric
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
        shape = (self.n_clips, model.extractor.n_features)
        self.cache: dict[int, tuple[Tensor, set[int]]] = defaultdict(
            lambda: (torch.empty(shape, device=fabric.device), set())
        )

    def optimizer(self, phase: Phase, previous: Optimizer | None = None) -> Optimizer:
        """The optimizer of `phase` for the parts that learn."""
        parts = (getattr(self.model, part) for part in self.stage.learns)
        parameters = [parameter for part in parts for parameter in part.parameters()]
        adam_steps = self.n_steps * adam_epochs_before(self.stage, self.config)
        return build_optimizer(self.config, phase, parameters, previous, adam_steps)

    def batches(
        self, epoch: int, first: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, np.ndarray]]:
        """The batches of `epoch` from step `first` on: this process's share of the crops (clip,
        sample), or all features (clip, n_features) if the extractor is frozen, the labels and the
        tag sets for the autoencoder and the pair loss (clip, tag), and the clips' rows in the
        store."""
        config = self.config
        crop_epoch = self.crop_epochs[epoch]
        crops = Crops(self.store, self.rows, config.crop_samples, config.seed, crop_epoch)
        order = batches(self.n_clips, config.batch_size, config.seed, epoch, config.shuffle)
        for batch in order[first:]:
            labels, tag_sets = (
                torch.from_numpy(tags[batch]).float() for tags in (self.labels, self.tag_sets)
            )
            if self.stage.frozen:
                inputs = self.features(crops, batch)
            else:
                inputs = crops.take(batch[own_share(len(batch), self.fabric)])
            yield inputs, labels, tag_sets, self.rows[batch]

    def features(self, crops: Crops, positions: list[int]) -> Tensor:
        """h (clip, n_features) of the crops at `positions`, cached if other epochs use them."""
        if self.crop_epochs.count(crops.epoch) == 1:
            return self._extract(crops, positions)
        h, cached = self.cache[crops.epoch]
        size = self.config.batch_size
        for block in {position // size for position in positions} - cached:
            # In fixed blocks: rounding must not depend on where training was resumed.
            block_positions = list(range(self.n_clips)[block * size : (block + 1) * size])
            h[block_positions] = self._extract(crops, block_positions)
            cached.add(block)
        return h[positions]

    def _extract(self, crops: Crops, positions: list[int]) -> Tensor:
        rows, starts = self.rows[positions], crops.starts[positions]
        return frozen_features(self.model, self.store, rows, starts, self.config, self.fabric)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The stage's scores on the middle window of every validation clip."""
        labels = self.store.labels[self.valid_rows]
        if not can_score(labels):
            return {}
        self.model.eval()
        if self.valid_h is None or not self.stage.frozen:
            starts = middle_starts(self.store.lengths[self.valid_rows], self.config.crop_samples)
            self.valid_h = frozen_features(
                self.model, self.store, self.valid_rows, starts, self.config, self.fabric
            )
        truth = torch.from_numpy(labels).float().to(self.fabric.device)
        scores = self.stage.scores(self.model, self.valid_h, truth)
        return {name: value for name, value in scores.items() if np.isfinite(value)}


def can_score(labels: np.ndarray) -> bool:
    """Whether there are clips with different tags."""
    return len(np.unique(labels, axis=0)) > 1
