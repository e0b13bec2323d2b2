"""Window scores and embeddings of a split from a run and a store, written into the run folder."""

from functools import partial

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from jetatag import metrics
from jetatag.config import RunConfig
from jetatag.data.crops import window_starts
from jetatag.data.memory import fetch, send
from jetatag.data.store import AudioStore
from jetatag.files import write_json
from jetatag.joint.heads import JointModel
from jetatag.joint.losses import PAIR_LOSSES
from jetatag.metrics.queries import choose_queries
from jetatag.training import device, processes
from jetatag.training.data import Audio
from jetatag.training.run import Run


@torch.no_grad()
def predict(run: Run, model: JointModel, store: AudioStore, split: str = "test") -> None:
    """Write `scores.npz`, `embeddings.npz` and `scores.valid.npz` into the run folder. scores.npz:
    probs (clip, window, tag) float32 of `split`, with the arrays of `store.describe`.
    scores.valid.npz: the same for the validation clips, on which thresholds are chosen; not written
    if there are none or `split` is "valid". embeddings.npz: the arrays of `store.describe`, h
    (clip, n_features) of the middle window of each clip, and with joint embedding z_audio (clip,
    dim), the direction of the mean over its windows, and those of `shared_space`. Raises
    `ValueError` for a split without clips and a store with another sample rate or other tags."""
    run.check_store(store)
    config, rows = run.config, store.rows(split)
    valid = store.rows("valid") if split != "valid" else rows[:0]
    if not len(rows):
        raise ValueError(f"the store has no {split} clips: check the split when preparing it.")
    fabric, compiled_before = processes.launch(config), device.compile_seconds()
    processes.place(model, config, fabric, run.folder.parent)
    model.eval()
    scored = score_clips(model, store, np.concatenate([valid, rows]), config, fabric, split)
    if len(valid):
        saved = {**store.describe(valid), "probs": scored[0][: len(valid)]}
        run.write_arrays("scores.valid.npz", saved)
    elif run.writes:
        (run.folder / "scores.valid.npz").unlink(missing_ok=True)
    probs, h, z_audio = (part[len(valid) :] for part in scored)
    embeddings = {**store.describe(rows), "h": h.numpy()}
    if config.is_joint:
        embeddings["z_audio"] = z_audio.numpy()
        embeddings |= shared_space(model, store, store.labels[rows], config)
    run.write_arrays("embeddings.npz", embeddings)
    run.write_arrays("scores.npz", {**store.describe(rows), "probs": probs})
    precision = device.precision_label(config, fabric.device)
    facts = {"device": str(fabric.device), "precision": precision}
    if config.compile:
        facts["compile_s"] = round(device.compile_seconds() - compiled_before, 1)
    if run.writes:
        write_json(run.folder / "record.json", {**run.record, "prediction": facts})


def score_clips(
    model: JointModel,
    store: AudioStore,
    rows: np.ndarray,
    config: RunConfig,
    fabric: Fabric,
    name: str,
) -> tuple[np.ndarray, Tensor, Tensor]:
    """Return probabilities (clip, window, tag), h of the middle windows (clip, n_features), and
    z_audio (clip, dim), as `predict` saves them; `name` labels the progress bar. On a CPU, each
    clip is its own batch, so scores do not depend on a batch size, on other clips or on the number
    of processes. On a GPU, many clips form a batch, which changes scores only by rounding.
    Identical windows, those of a clip no longer than the crop, are computed once."""
    own = rows[processes.own_share(len(rows), fabric)]
    n_tags, n_features = len(store.vocabulary.tags), model.extractor.n_features
    shapes = (config.n_windows, n_tags), (n_features,), (config.embedding_dim,)
    parts = [torch.empty(len(own), *shape, device=fabric.device) for shape in shapes]
    probs, middle, z_audio = parts
    places = config.crop_samples, config.n_windows, config.windows
    every = (window_starts(length, *places) for length in store.lengths[own])
    windows = [np.unique(starts, return_inverse=True) for starts in every]
    together = device.inference_batch(config, fabric.device, config.n_windows) // config.n_windows
    groups = [slice(i, i + together) for i in range(0, len(own), together)]
    counts = [len(starts) for starts, _ in windows]
    requests = [
        (np.repeat(own[group], counts[group]), np.concatenate([s for s, _ in windows[group]]))
        for group in groups
    ]
    extractor = processes.folded(model.extractor, config, fabric)
    audio = Audio(store, fabric.device, resident=False)  # every window is needed once
    hidden = not fabric.is_global_zero
    with tqdm(total=len(own), desc=f"{config.name} {name}", unit="clip", disable=hidden) as bar:
        for group, read in zip(groups, audio.batches(requests, config.crop_samples), strict=True):
            h_group = processes.extract(extractor, read, fabric).split(counts[group])
            for i, h in enumerate(h_group, start=group.start):
                window = send(torch.from_numpy(windows[i][1]), fabric.device)
                probs[i] = model.probabilities(model.classifier(h))[window]
                middle[i] = h[windows[i][1][len(window) // 2]]
                z_audio[i] = F.normalize(model.projection(h)[window].mean(0), dim=0)
            bar.update(len(h_group))
    probs, middle, z_audio = (fetch(processes.gather(part, len(rows), fabric)) for part in parts)
    return probs.numpy(), middle, z_audio


def shared_space(
    model: JointModel, store: AudioStore, labels: np.ndarray, config: RunConfig
) -> dict[str, np.ndarray]:
    """Return the arrays of the shared space, float32: z_tag (clip, dim) of the clips' tags,
    z_single (tag, dim) of every single tag, tag_correlation (tag, tag) of the training labels, and
    for searches `queries` (query, tag) int8, z_query (tag, dim), z_centre (dim,), which is
    subtracted first, and z_scale (2,), scale and offset from a cosine to a logit.

    z_query are encoded tags if the tag encoder learns single tags, else means over the training
    clips with a tag, which are better then. z_other and z_other_centre are the other kind.
    """
    train_labels = store.labels[store.rows("train")]
    learned_labels = store.labels[store.rows("train", config.label_share, config.seed)]
    floats = partial(torch.tensor, dtype=torch.float32, device=next(model.parameters()).device)
    single, carried, own = map(floats, (np.eye(labels.shape[1]), learned_labels, labels))
    z_single, z_train = model.tag_encoder(single), model.tag_encoder(carried)
    count, centre = carried.sum(0).unsqueeze(1), z_train.mean(0)
    # A tag that no training clip carries gets the centre, which ranks no clip above another.
    means = torch.where(count > 0, carried.T @ z_train / count.clamp(min=1), centre)
    pairs = [(means, centre), (z_single, torch.zeros_like(centre))]
    if PAIR_LOSSES[config.pair_loss].searchable_by_tags:
        pairs.reverse()
    vectors = {"z_tag": model.tag_encoder(own), "z_single": z_single}
    (vectors["z_query"], vectors["z_centre"]), other = pairs
    vectors["z_other"], vectors["z_other_centre"] = other
    scale = model.query_scale
    vectors["z_scale"] = torch.stack([scale.log_scale.exp(), scale.offset])
    return {
        **{name: z.cpu().numpy() for name, z in vectors.items()},
        "queries": choose_queries(train_labels),
        "tag_correlation": metrics.tag_correlation(train_labels).astype(np.float32),
    }
