"""Clips of splits that a run has not scored: its model does so once."""

import numpy as np

from jetatag.apps import tagger
from jetatag.data.store import AudioStore
from jetatag.evaluation.predict import describe, score_clips
from jetatag.training.device import launch
from jetatag.training.runs import Run


def score_once(run: Run, store: AudioStore, split: str) -> dict[str, np.ndarray]:
    """What a run says of the clips of one split, as `predict` does: `describe`'s arrays, probs, h
    and, with joint embedding, z_audio; kept in the run's folder until that is scored anew."""
    kept, rows = run.folder / f"explored.{split}.npz", store.rows(split)
    fresh = kept.is_file() and kept.stat().st_mtime >= (run.folder / "scores.npz").stat().st_mtime
    said = run.read_arrays(kept.name) if fresh else describe(store, rows[:0])
    if np.array_equal(said["clip_ids"], store.table.clip_id.iloc[rows]):
        return said
    run.check_store(store)
    loaded = tagger.load(run.folder, quick=False)
    config = run.config.replace(device=loaded.device.type)
    probs, h = score_clips(loaded.model, store, rows, config, launch(config), split)
    said = {**describe(store, rows), "probs": probs, "h": h.numpy()}
    if config.pair_loss != "none":
        said["z_audio"] = loaded.model.cpu().projection(h).numpy()
    run.write_arrays(kept.name, said)
    return said
