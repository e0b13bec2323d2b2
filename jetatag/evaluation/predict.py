"""A run and a store → window scores and embeddings of a split, written into the run folder."""

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
from jetatag.metrics.queries import BARRED_SHARE, answers, choose_queries
from jetatag.training.device import extract, gather, launch, own_share, place
from jetatag.training.runs import Run


@torch.no_grad()
def predict(run: Run, model: JointModel, store: AudioStore, split: str = "test") -> None:
    """Write `scores.npz` and `embeddings.npz` of `split` into the run folder, and beside them
    `scores.valid.npz` of the validation clips, from which thresholds are chosen.

    scores: probs (clip, window, tag) float32 with labels, clip_ids, groups, tags and task.
    embeddings: h (clip, n_features) of each clip's middle window; with joint embedding also its
    z_audio (clip, dim), its tags' z_tag (clip, dim), every single tag's z_single (tag, dim), and to
    search by: queries (query, tag) as in `jetatag.metrics.queries`, the tags first, their z_query
    (query, dim), and z_centre (dim,), what to subtract before; z_other and z_other_centre, the same
    for vectors of the other kind, so that losses can be compared by both (`query_vectors`); and the
    training labels' tag_correlation (tag, tag), against which the tags' own space is judged.
    Validation scores are not kept where there are no such clips or they are the ones asked for: no
    threshold is chosen on what it is judged by. Raises `ValueError` for a split without clips and
    for a store of another kind.
    """
    run.check_store(store)
    config, rows = run.config, store.rows(split)
    if not len(rows):
        raise ValueError(f"the store has no {split} clips to score: check the split at preparing.")
    fabric = launch(config)
    place(model, config, fabric)
    model.eval()
    valid = store.rows("valid")
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
    """Probabilities (clip, window, tag) and h of the middle windows (clip, n_features), on the CPU.

    A clip's windows go through the model together and alone, so that no score depends on a batch
    size, on other clips or on how many processes share them; windows that coincide, all of them
    in a clip no longer than the crop, go through it once. `name` stands beside the progress bar.
    """
    own = rows[own_share(len(rows), fabric)]
    n_tags, n_features = len(store.vocabulary.tags), model.extractor.n_features
    probs = torch.empty(len(own), config.n_windows, n_tags, device=fabric.device)
    middle = torch.empty(len(own), n_features, device=fabric.device)
    hidden = not fabric.is_global_zero
    for i, row in enumerate(tqdm(own, f"{config.name} {name}", unit="clip", disable=hidden)):
        starts, window = np.unique(
            window_starts(
                store.lengths[row], config.crop_samples, config.n_windows, config.windows
            ),
            return_inverse=True,
        )
        audio = torch.from_numpy(store.read([row] * len(starts), starts, config.crop_samples))
        h = extract(model, audio, fabric)
        probs[i] = model.probabilities(model.classifier(h))[window]
        middle[i] = h[window[len(window) // 2]]
    every = (gather(own_rows, len(rows), fabric).cpu() for own_rows in (probs, middle))
    return next(every).numpy(), next(every)


def describe(store: AudioStore, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What travels with the scores of `rows`: labels, clip_ids, groups, tags and task."""
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
    """What `predict` keeps of the shared space, float32 (queries int8)."""
    device = next(model.parameters()).device
    train_labels = store.labels[store.rows("train")]
    queries = choose_queries(train_labels)
    own, other = query_vectors(model, store, queries, config)
    parts = {
        "z_audio": model.projection(h.to(device)),
        "z_tag": model.tag_encoder(_as_input(labels, device)),
        "z_single": model.tag_encoder(torch.eye(labels.shape[1], device=device)),
        **dict(zip(("z_query", "z_centre"), own, strict=True)),
        **dict(zip(("z_other", "z_other_centre"), other, strict=True)),
    }
    return {
        **{name: z.cpu().numpy() for name, z in parts.items()},
        "queries": queries,
        "tag_correlation": metrics.tag_correlation(train_labels).astype(np.float32),
    }


def query_vectors(
    model: JointModel, store: AudioStore, queries: np.ndarray, config: RunConfig
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Vectors to search the space with, (query, dim), and the centre to subtract, (dim,): of the
    kind that suits the run's pair loss, then of the other.

    An encoder trained on queries embeds them itself. For any other a set of one or two tags is one
    it hardly ever saw: it is searched by what the training clips that answer have in common.
    """
    kinds = encoded_queries(model, queries), answering_clips(model, store, queries, config)
    return kinds if PAIR_LOSSES[config.pair_loss].searchable_by_tags else kinds[::-1]


def encoded_queries(model: JointModel, queries: np.ndarray) -> tuple[Tensor, Tensor]:
    """The tags wanted embedded as one set, less `BARRED_SHARE` of the set of the tags barred, about
    the origin: a clip is ranked by the weighted difference of its two cosines."""
    device = next(model.parameters()).device
    wanted, barred = (model.tag_encoder(_as_input(q, device)) for q in (queries > 0, queries < 0))
    some = torch.from_numpy((queries < 0).any(axis=1)).to(device).unsqueeze(1)
    return torch.where(some, wanted - BARRED_SHARE * barred, wanted), torch.zeros_like(wanted[0])


def answering_clips(
    model: JointModel, store: AudioStore, queries: np.ndarray, config: RunConfig
) -> tuple[Tensor, Tensor]:
    """The mean z_tag of the training clips that answer, about the mean of all of them, which most
    of z_tag may consist of."""
    device = next(model.parameters()).device
    labels = store.labels[store.rows("train", config.label_share, config.seed)]
    z_tag = model.tag_encoder(_as_input(labels, device))
    answering = _as_input(answers(labels, queries), device)
    count = answering.sum(0).clamp(min=1).unsqueeze(1)
    centre = z_tag.mean(0)
    # A query that no clip of few labels answers has no vector: it asks for nothing in particular.
    return torch.where(answering.any(0).unsqueeze(1), answering.T @ z_tag / count, centre), centre


def _as_input(labels: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.asarray(labels, np.float32)).to(device)
