"""Features h of a store's clips by an extractor in inference mode."""

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from jetatag.config import RunConfig
from jetatag.data.store import AudioStore
from jetatag.joint.heads import JointModel
from jetatag.training.device import extract, gather, own_share
from jetatag.training.runs import Run


@torch.no_grad()
def frozen_features(
    model: JointModel,
    store: AudioStore,
    rows: np.ndarray,
    starts: np.ndarray,
    config: RunConfig,
    fabric: Fabric,
) -> Tensor:
    """h of one window a clip by the extractor in inference mode, (n_clips, n_features); several
    processes share the clips."""
    model.extractor.eval()
    n_clips, share = len(rows), own_share(len(rows), fabric)
    rows, starts = rows[share], starts[share]
    h = [torch.empty(0, model.extractor.n_features, device=fabric.device)]
    for i in range(0, len(rows), config.batch_size):
        part = slice(i, i + config.batch_size)
        audio = store.read(rows[part], starts[part], config.crop_samples)
        h.append(extract(model, torch.from_numpy(audio), fabric))
    return gather(torch.cat(h), n_clips, fabric)


def check_store_fits(run: Run, store: AudioStore) -> None:
    """Refuse (`ValueError`) a store of another sample rate or other tags than the run's."""
    if store.sample_rate != run.config.sample_rate:
        raise ValueError(
            f"the store is at {store.sample_rate} Hz and the run wants {run.config.sample_rate}: "
            "prepare a store at that rate."
        )
    if store.vocabulary != run.vocabulary:
        raise ValueError(
            f"the store's tags are not those of {run.folder} in its order: prepare a store of the "
            "run's tags, or import weights with --store."
        )
