"""Applies a finished run to any audio file, in consecutive windows of the run's crop.

The probabilities of a file are the mean over windows, each weighted by the audio that it adds, so
that every second counts once. Memory does not depend on the file's length: a long file is decoded
twice, first for its peak and then for its windows.
"""

import json
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from jetatag.apps import hub
from jetatag.config import RunConfig
from jetatag.data import DATASETS, Vocabulary
from jetatag.data.audio import AudioWarning, stream
from jetatag.data.ffmpeg import OnDamage
from jetatag.data.memory import keep_freed_memory
from jetatag.data.store import absolute_peak, to_float, to_int16
from jetatag.extractors.layers import fold
from jetatag.files import checksum
from jetatag.joint.heads import JointModel, build_model
from jetatag.joint.methods import METHODS
from jetatag.training.device import allow_tensor_float, pick_device
from jetatag.training.run import Run

WEIGHTS = "model.safetensors"  # of an exported model; a run has those of its last stage
FILES = ("config.json", "record.json", WEIGHTS, "embeddings.npz")  # all that `load` reads
QUERY_ARRAYS = ("z_query", "z_centre", "z_scale")  # of embeddings.npz
GPU_BATCH = 64  # windows; on a CPU one at a time is fastest
HELD_S = 600  # longest file that is held in memory and decoded once


@dataclass(frozen=True)
class Prediction:
    """What a model predicts for each window of a file, in float32: its start `starts_s` (window,)
    in seconds, probabilities `probs` (window, tag), features `h` (window, n_features), and unit
    vectors in the shared space `z_audio` (window, dim), None without joint embedding. `damage` says
    what was skipped of a damaged file."""

    starts_s: np.ndarray
    probs: np.ndarray
    h: np.ndarray
    z_audio: np.ndarray | None
    duration_s: float
    damage: str = ""

    @property
    def edges_s(self) -> np.ndarray:
        """Edges (window + 1,), in seconds, of the audio that each window adds to those before."""
        window_s = self.duration_s - self.starts_s[-1]
        return np.minimum(np.arange(len(self.starts_s) + 1) * window_s, self.duration_s)

    @property
    def clip_probs(self) -> np.ndarray:
        """Probabilities of the whole file, (tag,) float32."""
        return np.average(self.probs, axis=0, weights=np.diff(self.edges_s)).astype(np.float32)


@dataclass(frozen=True)
class Tagger:
    """A trained model that tags files, made by `load`."""

    folder: Path
    config: RunConfig
    vocabulary: Vocabulary
    model: JointModel
    peak_normalise: bool
    data: dict[str, Any]

    def __str__(self) -> str:
        name, n_train = self.data["name"], self.data["clips_by_split"].get("train")
        title = DATASETS[name].title if name in DATASETS else name
        origin = f"trained on {title}" + (f" ({n_train:,} training clips)" if n_train else "")
        if self.data.get("imported"):
            origin = f"the authors' weights, {title}"
        return f"{self.config.name}, {origin}, {len(self.vocabulary.tags)} tags"

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def tag(self, path: Path | str) -> pd.DataFrame:
        """Table of `tag` and `prob`, the most probable first. Raises what `predict` raises."""
        probs = self.predict(path).clip_probs
        table = pd.DataFrame({"tag": self.vocabulary.tags, "prob": probs})
        return table.sort_values("prob", ascending=False, kind="stable", ignore_index=True)

    def predict(self, path: Path | str) -> Prediction:
        """Predict all windows of a file of any sample rate, number of channels and length from
        0.1 s. Raises `AudioError` (a `ValueError`) for audio that cannot be used, such as a silent
        file, and `OSError` for system errors; warns (`AudioWarning`) of damage."""
        prediction = self._predict(self._windows(Path(path)))
        if prediction.damage:
            warnings.warn(f"{path} is {prediction.damage}.", AudioWarning, stacklevel=2)
        return prediction

    def predict_files(
        self, paths: Iterable[Path | str], workers: int | None = None
    ) -> Iterator[tuple[Path, Prediction | str]]:
        """Yield every path, in order, with its prediction or with the reason why there is none.
        `workers` files (None: one per core) are decoded while the model runs."""
        paths = list(map(Path, paths))
        for path, blocks in zip(paths, prefetch(map(self._windows, paths), workers), strict=True):
            try:
                yield path, self._predict(blocks)
            except (OSError, ValueError) as error:  # `AudioError` is a `ValueError`
                yield path, getattr(error, "strerror", None) or str(error)

    def query_vectors(self) -> dict[str, np.ndarray]:
        """What searches in the shared space need (`jetatag.metrics.queries.space_probs`): z_query
        (tag, dim), z_centre (dim,), which is subtracted first, and z_scale (2,). Raises
        `ValueError` for a run without joint embedding or without scores."""
        run = Run(self.folder, self.config)
        arrays = run.read_arrays("embeddings.npz") if run.has("embeddings.npz") else {}
        if not set(QUERY_ARRAYS) <= set(arrays):
            problem = f"{self.folder} has no vectors for searches in a shared space"
            remedy = "score it with `jetatag train`, or choose a run with joint embedding"
            raise ValueError(f"{problem}: {remedy}.")
        return {name: arrays[name] for name in QUERY_ARRAYS}

    def identity(self) -> str:
        """Checksum of what determines the predictions: tags, preprocessing, and the weights of the
        heads, which differ between trainings and are not folded."""
        settings = [self.vocabulary.tags, self.peak_normalise]
        settings += [self.config.sample_rate, self.config.crop_samples]
        heads = (self.model.projection, self.model.classifier)
        weights = [w.cpu().numpy().tobytes() for h in heads for w in h.state_dict().values()]
        return checksum(json.dumps(settings).encode(), *weights)

    def _windows(self, path: Path) -> Iterator[tuple[np.ndarray, list[int], int, str]]:
        """Yield what `cut` does for a file, preprocessed like the training data, and in words the
        damage that was skipped. All errors of `audio.stream` are raised before the first window."""
        rate, n_samples = self.config.sample_rate, self.config.crop_samples
        damage: dict[str, None] = {}  # each told once, although a long file is decoded twice
        blocks = stored_blocks(path, rate, self.peak_normalise, damage.setdefault)
        for windows in cut(blocks, n_samples, max(1, HELD_S * rate // n_samples)):
            yield *windows, "; ".join(damage)

    def _predict(self, blocks: Iterable[tuple[np.ndarray, list[int], int, str]]) -> Prediction:
        starts, outputs, rate = [], [], self.config.sample_rate
        batch, apply = (1, self._threads.map) if self.device.type == "cpu" else (GPU_BATCH, map)
        for block in blocks:
            samples, own_starts, end, damage = block
            firsts = range(0, len(samples), batch)
            outputs += apply(self._forward, (samples[i : i + batch] for i in firsts))
            starts += own_starts
        probs, h, z_audio = map(np.concatenate, zip(*outputs, strict=True))
        z_audio = z_audio if self.config.is_joint else None
        return Prediction(np.array(starts) / rate, probs, h, z_audio, end / rate, damage)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        """On a CPU, every core computes its own window, because cores that share a window wait for
        each other at every layer."""
        n_threads = torch.get_num_threads()
        return ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,))

    @torch.inference_mode()
    def _forward(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probabilities, h and z_audio of stored windows (window, n_samples) int16."""
        model = self.model
        allow_tensor_float(in_convolutions=False)
        h = model.extractor(torch.from_numpy(to_float(samples)).to(self.device))
        outputs = model.probabilities(model.classifier(h)), h, model.projection(h)
        return tuple(output.cpu().numpy() for output in outputs)


def load(folder: Path | str, device: str = "auto", folded: bool = True) -> Tagger:
    """Load a finished run or an exported model as a tagger, also from the Hub (`hf://owner/name`).

    It computes in float32 on `device` ("auto": a GPU if there is one). If `folded`, what depends on
    the weights alone is computed only once (`extractors.layers.fold`). Raises `FileNotFoundError`
    if there is no run, `ValueError` if it is unfinished or damaged, and for the Hub as `hub.fetch`.
    """
    if str(folder).startswith(hub.ADDRESS):
        folder = hub.fetch(str(folder), FILES)
    run = Run.open(folder)
    method = METHODS[run.config.method]
    data = {**run.record["data"], "imported": "imported" in run.record}
    weights = Path(WEIGHTS).stem if run.has(WEIGHTS) else method.stages[-1].name
    if not run.has(f"{weights}.safetensors"):
        problem = f"{run.folder} is not fully trained ({weights}.safetensors is missing)"
        raise ValueError(f"{problem}: finish its training.")
    model = build_model(run.config, run.vocabulary, method.head)
    run.load_weights(weights, model)
    target = pick_device(device)
    model = model.eval().requires_grad_(False).to(target)
    if target.type == "cpu":
        keep_freed_memory()
    if folded:  # on the device, where what is computed stays
        fold(model.extractor, onednn=target.type == "cpu")
    loudness = data.get("peak_normalise", True)  # not known of SavedModels imported without a store
    return Tagger(run.folder, run.config, run.vocabulary, model, loudness, data)


def stored_blocks(
    path: Path, sample_rate: int, peak_normalise: bool, on_damage: OnDamage | None = None
) -> Iterator[np.ndarray]:
    """The samples that a store would hold (`store.decode`), in int16 blocks."""
    held, n_samples, peak = [], 0, 0.0
    for block in stream(path, sample_rate, on_damage):
        n_samples, peak = n_samples + len(block), max(peak, absolute_peak(block))
        held = [*held, block] if n_samples <= HELD_S * sample_rate else []
    for block in held or stream(path, sample_rate, on_damage):
        yield to_int16(block, peak, peak_normalise)


def cut(
    blocks: Iterable[np.ndarray], n_samples: int, at_once: int
) -> Iterator[tuple[np.ndarray, list[int], int]]:
    """Windows of a signal that comes in blocks, `at_once` at a time: (window, n_samples) int16, the
    sample at which each starts, and the end of what has been read. The last window ends with the
    signal and overlaps the one before; a signal shorter than a window is padded with zeros."""
    held, first, size = np.empty(0, np.int16), 0, at_once * n_samples
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= size + n_samples:  # the last window may need what is left
            starts = list(range(first, first + size, n_samples))
            yield held[:size].reshape(-1, n_samples), starts, first + size
            held, first = held[size:], first + size
    starts = np.minimum(np.arange(0, len(held), n_samples), max(0, len(held) - n_samples))
    padded = np.pad(held, (0, max(0, n_samples - len(held))))
    samples = np.stack([padded[start : start + n_samples] for start in starts])
    yield samples, (first + starts).tolist(), first + len(held)


def prefetch(streams: Iterable[Iterator[Any]], workers: int | None) -> Iterator[Iterator[Any]]:
    """The same iterators, in order, but `workers` threads (None: one per core) compute one element
    ahead, also of the next iterators; `Executor.map` would hold whole files in memory."""
    workers = os.cpu_count() or 1 if workers is None else workers
    waiting, pool = deque(), ThreadPoolExecutor(workers)

    def one_ahead(elements: Iterator[Any], coming: Future) -> Iterator[Any]:
        while (element := coming.result()) is not None:
            coming = pool.submit(next, elements, None)
            yield element

    try:
        for stream in streams:
            waiting.append(one_ahead(stream, pool.submit(next, stream, None)))
            if len(waiting) > workers:
                yield waiting.popleft()
        yield from waiting
    finally:
        pool.shutdown(cancel_futures=True)
