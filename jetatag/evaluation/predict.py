"""Window scores and embeddings of a split from a run and a store, written into the run folder."""

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from jetatag import metrics
from jetatag.config import RunConfig
from jetatag.data.crops import window_starts
from jetatag.data.store import AudioStore
from jetatag.joint.heads import JointModel
from jetatag.joint.losses import PAIR_LOSSES
from jetatag.metrics.queries import EXCLUDED_WEIGHT, answers, choose_queries
from jetatag.training.device import extract, gather, launch, own_share, place
from jetatag.training.run import Run


@torch.no_grad()
def predict(run: Run, model: JointModel, store: AudioStore, split: str = "test") -> None:
    """Write `scores.npz`, `embeddings.npz` and `scores.valid.npz` into the run folder.

    scores.npz: probs (clip, window, tag) float32 of `split`, with labels, clip_ids, groups, tags
    and task. scores.valid.npz: the same for the validation clips, on which thresholds are chosen;
    not written if there are none or `split` is "valid".
    embeddings.npz: h (clip, n_features) of the middle window of each clip; with joint embedding
    also z_audio (clip, dim) of it, z_tag (clip, dim) of its tags, z_single (tag, dim) of every
    single tag, and for searches: queries (query, tag) as in `jetatag.metrics.queries`, z_query
    (query, dim), and z_centre (dim,), which is subtracted first; z_other and z_other_centre, the
    same for the other kind of query vector (`query_vectors`); and tag_correlation (tag, tag) of the
    training labels. Raises `ValueError` for a split without clips and a store with another sample
    rate or other tags.
    """
    run.check_store(store)
    config, rows, valid = run.config, store.rows(split), store.rows("valid")
    if not len(rows):
        problem = f"the store has no {split} clips to score"
        raise ValueError(f"{problem}: check the split when preparing it.")
    fabric = launch(config)
    place(model, config, fabric)
    model.eval()
    if split != "valid" and len(valid):
        probs, _ = score_clips(model, store, valid, config, fabric, "valid")
        run.write_arrays("scores.valid.npz", {**describe(store, valid), "probs": probs})
    elif run.writes:
        (run.folder / "scores.valid.npz").unlink(missing_ok=True)
    probs, h = score_clips(model, store, rows, config, fabric, split)
    embeddings = {"h": h.numpy()}
    if config.pair_loss != "none":
        embeddings |= shared_space(model, store, h, store.labels[rows], config)
    run.write_arrays("embeddings.npz", {**describe(store, rows), **embeddings})
    run.write_arrays("scores.npz", {**describe(store, rows), "probs": probs})


def score_clips(
    model: JointModel,
    store: AudioStore,
    rows: np.ndarray,
    config: RunConfig,
    fabric: Fabric,
    name: str,
) -> tuple[np.ndarray, Tensor]:
    """Return probabilities (clip, window, tag) and h of the middle windows (clip, n_features).

    Each clip is its own batch, so scores do not depend on a batch size, on other clips or on the
    number of processes. Identical windows, those of a clip no longer than the crop, are computed
    once. `name` labels the progress bar.
    """
    own = rows[own_share(len(rows), fabric)]
    n_tags, n_features = len(store.vocabulary.tags), model.extractor.n_features
    probs = torch.empty(len(own), config.n_windows, n_tags, device=fabric.device)
    middle = torch.empty(len(own), n_features, device=fabric.device)
    hidden = not fabric.is_global_zero
    for i, row in enumerate(tqdm(own, f"{config.name} {name}", unit="clip", disable=hidden)):
        every = window_starts(
            store.lengths[row], config.crop_samples, config.n_windows, config.windows
        )
        starts, window = np.unique(every, return_inverse=True)
        audio = torch.from_numpy(store.read([row] * len(starts), starts, config.crop_samples))
        h = extract(model, audio, fabric)
        probs[i] = model.probabilities(model.classifier(h))[window]
        middle[i] = h[window[len(window) // 2]]
    probs, middle = (gather(part, len(rows), fabric).cpu() for part in (probs, middle))
    return probs.numpy(), middle


def describe(store: AudioStore, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return what is saved with the scores of `rows`: labels, clip_ids, groups, tags and task."""
    return {
        "labels": store.labels[rows],
        "clip_ids": store.table.clip_id.iloc[rows].to_numpy(np.str_),
        "groups": store.table.group.iloc[rows].to_numpy(np.str_),
        "tags": np.array(store.vocabulary.tags),
        "task": np.array(store.vocabulary.task),
    }


def shared_space(
    model: JointModel, store: AudioStore, h: Tensor, labels: np.ndarray, config: RunConfig
) -> dict[str, np.ndarray]:
    """Return the arrays of the shared space that `predict` saves, float32 (queries int8)."""
    device = next(model.parameters()).device
    train_labels = store.labels[store.rows("train")]
    queries = choose_queries(train_labels)
    (z_query, z_centre), (z_other, z_other_centre) = query_vectors(model, store, queries, config)
    vectors = {
        "z_audio": model.projection(h.to(device)),
        "z_tag": _encode(model, labels),
        "z_single": _encode(model, np.eye(labels.shape[1])),
        "z_query": z_query,
        "z_centre": z_centre,
        "z_other": z_other,
        "z_other_centre": z_other_centre,
    }
    return {
        **{name: z.cpu().numpy() for name, z in vectors.items()},
        "queries": queries,
        "tag_correlation": metrics.tag_correlation(train_labels).astype(np.float32),
    }


def query_vectors(
    model: JointModel, store: AudioStore, queries: np.ndarray, config: RunConfig
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return two pairs of query vectors (query, dim) and the centre to subtract (dim,), first the
    pair that suits the pair loss.

    A tag encoder trained on queries can encode them. One trained on whole tag sets has hardly seen
    sets of one or two tags, so the mean over the training clips that match is better.
    """
    kinds = encoded_queries(model, queries), answering_clips(model, store, queries, config)
    return kinds if PAIR_LOSSES[config.pair_loss].searchable_by_tags else kinds[::-1]


def encoded_queries(model: JointModel, queries: np.ndarray) -> tuple[Tensor, Tensor]:
    """The wanted tags encoded as one set, minus `EXCLUDED_WEIGHT` times the encoded set of unwanted
    tags: clips are ranked by the weighted difference of two cosines. The centre is 0."""
    wanted, excluded = _encode(model, queries > 0), _encode(model, queries < 0)
    excludes = torch.from_numpy((queries < 0).any(axis=1)).to(wanted.device).unsqueeze(1)
    z_query = torch.where(excludes, wanted - EXCLUDED_WEIGHT * excluded, wanted)
    return z_query, torch.zeros_like(wanted[0])


def answering_clips(
    model: JointModel, store: AudioStore, queries: np.ndarray, config: RunConfig
) -> tuple[Tensor, Tensor]:
    """The mean z_tag of the training clips that match; the centre is the mean of all training
    clips. A query that no training clip matches gets the centre, which ranks no clip above
    another."""
    labels = store.labels[store.rows("train", config.label_share, config.seed)]
    z_tag = _encode(model, labels)
    answering = torch.from_numpy(answers(labels, queries).astype(np.float32)).to(z_tag.device)
    count, centre = answering.sum(0).clamp(min=1).unsqueeze(1), z_tag.mean(0)
    return torch.where(answering.any(0).unsqueeze(1), answering.T @ z_tag / count, centre), centre


def _encode(model: JointModel, tag_sets: np.ndarray) -> Tensor:
    """z_tag (set, dim) of 0/1 tag sets (set, tag)."""
    device = next(model.parameters()).device
    return model.tag_encoder(torch.from_numpy(np.asarray(tag_sets, np.float32)).to(device))
