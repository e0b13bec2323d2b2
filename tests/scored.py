"""Run folders as training leaves them, with made-up scores."""

import json

import numpy as np

from jetatag import metrics
from jetatag.config import RunConfig
from jetatag.predict import describe
from jetatag.queries import choose_queries
from jetatag.runs import Run
from jetatag.store import AudioStore


def scored_run(
    parent, config: RunConfig, store: AudioStore, seed: int, sharpness: float = 1.0
) -> Run:
    """A run whose probabilities lean towards the labels, the more the larger `sharpness`, and
    whose space, where it has one, is of chance."""
    run = Run.start(parent, config, store)
    rng, rows = np.random.default_rng(seed), store.rows("test")
    n_clips, n_tags = len(rows), len(store.vocabulary.tags)
    noise = rng.normal(size=(n_clips, 3, n_tags))
    logits = noise + sharpness * (2.0 * store.labels[rows][:, None] - 1)
    probs = (1 / (1 + np.exp(-logits))).astype(np.float32)
    run.write_arrays("scores.npz", {**describe(store, rows), "probs": probs})
    run.write_arrays("scores.valid.npz", {**describe(store, rows), "probs": probs})
    space = {"h": rng.normal(size=(n_clips, 16))}
    if config.pair_loss != "none":
        train_labels = store.labels[store.rows("train")]
        queries = choose_queries(train_labels)
        sizes = {"z_audio": n_clips, "z_tag": n_clips, "z_single": n_tags}
        sizes |= dict.fromkeys(("z_query", "z_other"), len(queries))
        space |= {name: rng.normal(size=(size, 8)) for name, size in sizes.items()}
        space |= {"z_centre": np.zeros(8), "z_other_centre": np.full(8, 0.1), "queries": queries}
        space["tag_correlation"] = metrics.tag_correlation(train_labels)
    run.write_arrays("embeddings.npz", {**describe(store, rows), **space})
    epochs = "stage,epoch,learning_rate,loss,valid_loss\nstage1,1,0.1,3,2\nstage1,2,0.1,2,1\n"
    (run.folder / "history.csv").write_text(epochs)
    stages = {"stage1": {"wall_time_s": 12.3, "peak_memory_mib": 99, "commit": "abc"}}
    record = run.folder / "record.json"
    record.write_text(json.dumps({**run.record, "stages": stages}))
    return run
