"""Run folders as training writes them, with simulated scores and random weights."""

import json

import numpy as np
import torch

from jetatag import metrics
from jetatag.config import RunConfig
from jetatag.data.store import AudioStore
from jetatag.joint.heads import JointModel, build_model
from jetatag.joint.methods import METHODS
from jetatag.metrics.queries import choose_queries
from jetatag.training.run import Run


def finished_run(parent, config: RunConfig, store: AudioStore, seed: int = 0) -> Run:
    """A scored run with random weights whose probabilities differ between clips."""
    run, method = scored_run(parent, config, store, seed), METHODS[config.method]
    model = with_spread_probabilities(build_model(config, store.vocabulary, method.head), seed)
    run.write_tensors(f"{method.stages[-1].name}.safetensors", model.state_dict())
    return run


def with_spread_probabilities(model: JointModel, seed: int = 0) -> JointModel:
    """The model with the moving statistics of noise and larger weights of the classifier, so that
    its probabilities are neither all equal nor all 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    n_samples = model.extractor.min_samples + 1000
    audio = torch.randn(4, n_samples, generator=generator) * torch.tensor(
        [[0.02], [0.1], [0.2], [1]]
    )
    with torch.no_grad():
        for _ in range(3):
            for norm in (m for m in model.modules() if hasattr(m, "running_mean")):
                norm.momentum = 0.9
            model.train().extractor(audio)
        for layer in (m for m in model.classifier.modules() if hasattr(m, "weight")):
            layer.weight *= 4
    return model.eval()


def scored_run(
    parent, config: RunConfig, store: AudioStore, seed: int, sharpness: float = 1.0
) -> Run:
    """A run whose probabilities follow the labels, the more the larger `sharpness`, with random
    vectors."""
    run = Run.start(parent, config, store)
    rng, rows = np.random.default_rng(seed), store.rows("test")
    n_clips, n_tags = len(rows), len(store.vocabulary.tags)
    noise = rng.normal(size=(n_clips, 3, n_tags))
    logits = noise + sharpness * (2.0 * store.labels[rows][:, None] - 1)
    probs = (1 / (1 + np.exp(-logits))).astype(np.float32)
    run.write_arrays("scores.npz", {**store.describe(rows), "probs": probs})
    run.write_arrays("scores.valid.npz", {**store.describe(rows), "probs": probs})
    space = {"h": rng.normal(size=(n_clips, 16))}
    if config.is_joint:
        train_labels = store.labels[store.rows("train")]
        queries = choose_queries(train_labels)
        sizes = {"z_audio": n_clips, "z_tag": n_clips, "z_single": n_tags}
        sizes |= dict.fromkeys(("z_query", "z_other"), n_tags)
        space |= {name: rng.normal(size=(size, 8)) for name, size in sizes.items()}
        space |= {"z_centre": np.zeros(8), "z_other_centre": np.full(8, 0.1), "queries": queries}
        space["z_scale"] = np.array([4.0, -2.0])
        space["tag_correlation"] = metrics.tag_correlation(train_labels)
    run.write_arrays("embeddings.npz", {**store.describe(rows), **space})
    epochs = "stage,epoch,learning_rate,loss,valid_loss\nstage1,1,0.1,3,2\nstage1,2,0.1,2,1\n"
    (run.folder / "history.csv").write_text(epochs)
    stages = {"stage1": {"wall_time_s": 12.3, "peak_memory_mib": 99, "commit": "abc"}}
    record = run.folder / "record.json"
    record.write_text(json.dumps({**run.record, "stages": stages}))
    return run
