"""A finished run on anybody's files: audio in, tags out.

The run says all that decides a score (sample rate, loudness, window, tags and their order), so that
nothing has to be set. A file is read in consecutive windows of the run's crop; the last one ends
with the file and counts in the mean by the audio that it adds, so that every second counts once.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from jetatag.apps import hub
from jetatag.apps.windows import Stretch, ahead, windows
from jetatag.config import RunConfig
from jetatag.data import DATASETS, Vocabulary
from jetatag.data.memory import keep_freed_memory
from jetatag.data.store import to_float
from jetatag.extractors.fast_inference import optimise_for_inference
from jetatag.joint.heads import JointModel, build_model
from jetatag.joint.methods import METHODS
from jetatag.training.device import pick_device
from jetatag.training.runs import Run

WEIGHTS = "model.safetensors"
"""The weights of a model that was exported; a run has those of its last stage."""
FILES = ("config.json", "record.json", WEIGHTS, "embeddings.npz")
"""All that `load` reads of a model that was exported."""
AS_RECORDED = ("dcase2017", "speech_commands")
"""Data sets whose clips are not scaled to full scale, for runs begun before their record told."""
AT_ONCE = 64
"""Windows that go through a GPU together. On a CPU each goes alone: a cache holds no more."""


@dataclass(frozen=True)
class Reading:
    """What a model says of one file, window by window; float32 arrays."""

    starts_s: np.ndarray
    """Where each window begins, (window,) seconds."""
    probs: np.ndarray
    """Probabilities, (window, tag)."""
    h: np.ndarray
    """Features, (window, n_features)."""
    z_audio: np.ndarray | None
    """Unit vectors in the shared space, (window, dim); None for a run without joint embedding."""
    duration_s: float

    @property
    def edges_s(self) -> np.ndarray:
        """What each window adds to those before it, as edges (window + 1,) in seconds."""
        window_s = self.duration_s - self.starts_s[-1]
        return np.minimum(np.arange(len(self.starts_s) + 1) * window_s, self.duration_s)

    @property
    def clip_probs(self) -> np.ndarray:
        """Probabilities of the whole file, (tag,): the mean over windows, each weighted by the
        audio that it adds."""
        return np.average(self.probs, axis=0, weights=np.diff(self.edges_s)).astype(np.float32)


@dataclass(frozen=True)
class Tagger:
    """A finished model that reads files. Made by `load`."""

    folder: Path
    config: RunConfig
    vocabulary: Vocabulary
    model: JointModel
    peak_normalise: bool
    data: dict[str, Any]

    def __str__(self) -> str:
        """What model this is, in one line."""
        name, n_train = self.data["name"], self.data["clips_by_split"].get("train")
        clips = f" ({n_train:,} training clips)" if n_train else ""
        title = DATASETS[name].title if name in DATASETS else name
        return f"{self.config.name}, trained on {title}{clips}, {len(self.vocabulary.tags)} tags"

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def tag(self, path: Path | str) -> pd.DataFrame:
        """Table of `tag` and `prob`, the most probable first. Raises as `read`."""
        return ranked(self.read(path), self.vocabulary)

    def read(self, path: Path | str) -> Reading:
        """All windows of a file, of any sample rate, number of channels and length from 0.1 s; one
        shorter than a window is followed by silence.

        Raises `AudioError` (a `ValueError`) for what is no use as audio, such as a file that is
        shorter or silent all through; `OSError` where the machine fails.
        """
        return self._read(self._stretches(Path(path)))

    def read_files(
        self,
        paths: Iterable[Path | str],
        workers: int | None = None,
        heard: Callable[[float], object] = lambda seconds: None,
    ) -> Iterator[tuple[Path, Reading | str]]:
        """Every path with its reading, or the reason why there is none, in the order given.

        `workers` files (None: one a core) are decoded while the model runs. `heard` is called with
        the seconds of audio of every step. Raises `ValueError` for less than one worker.
        """
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, or None for every core, not {workers}.")
        for path, stretches in ahead(map(Path, paths), self._stretches, workers):
            try:
                yield path, self._read(stretches, heard)
            except (OSError, ValueError) as error:  # `AudioError` is one of the latter
                yield path, getattr(error, "strerror", None) or str(error)

    def space(self) -> tuple[np.ndarray, np.ndarray]:
        """What to search the shared space by: z_query (query, dim), the single tags first, and
        z_centre (dim,), what to subtract before (`jetatag.metrics.queries.weighted_query`).

        Raises `ValueError` for a run without joint embedding or not yet scored.
        """
        if self.config.pair_loss == "none":
            raise ValueError(f"{self.folder} has no shared space: choose a run of method 'je'.")
        run = Run(self.folder, self.config)
        if not run.has("embeddings.npz"):
            raise ValueError(
                f"{self.folder} was not scored, and that tells what to search its space by: run "
                "notebook 03 or `jetatag train`."
            )
        arrays = run.read_arrays("embeddings.npz")
        return arrays["z_query"], arrays["z_centre"]

    def _stretches(self, path: Path) -> Iterator[Stretch]:
        config = self.config
        return windows(path, config.sample_rate, config.crop_samples, self.peak_normalise)

    def _read(
        self,
        stretches: Iterable[Stretch],
        heard: Callable[[float], object] = lambda seconds: None,
    ) -> Reading:
        starts, parts, end, rate = [], [], 0, self.config.sample_rate
        on_cpu = self.device.type == "cpu"
        at_once, each = (1, self._threads.map) if on_cpu else (AT_ONCE, map)
        for stretch in stretches:
            firsts = range(0, len(stretch.starts), at_once)
            parts += each(self._hear, (stretch.samples[i : i + at_once] for i in firsts))
            starts += stretch.starts
            heard((stretch.end - end) / rate)
            end = stretch.end
        probs, h, z_audio = zip(*parts, strict=True)
        return Reading(
            np.array(starts) / rate,
            np.concatenate(probs),
            np.concatenate(h),
            np.concatenate(z_audio) if self.config.pair_loss != "none" else None,
            end / rate,
        )

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        """On a CPU every core hears a window of its own: cores that share one wait for each other
        at every layer."""
        n_threads = torch.get_num_threads()
        return ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,))

    @torch.inference_mode()
    def _hear(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probabilities, h and z_audio of stored windows (window, n_samples)."""
        model = self.model
        h = model.extractor(torch.from_numpy(to_float(samples)).to(self.device))
        told = model.probabilities(model.classifier(h)), h, model.projection(h)
        return tuple(each.cpu().numpy() for each in told)


def ranked(reading: Reading, vocabulary: Vocabulary) -> pd.DataFrame:
    """The tags of a file and their probabilities, the most probable first."""
    table = pd.DataFrame({"tag": vocabulary.tags, "prob": reading.clip_probs})
    return table.sort_values("prob", ascending=False, kind="stable", ignore_index=True)


# From a run


def load(
    folder: Path | str,
    device: str = "auto",
    extractor: nn.Module | None = None,
    quick: bool = True,
) -> Tagger:
    """The tagger of a finished run or of what `jetatag export` wrote; `hf://owner/name` is fetched
    from the Hugging Face Hub.

    It computes in float32 on `device` ("auto": the GPU where there is one). `extractor` is the
    module of a run whose extractor is "own". With `quick` the extractor is rearranged on a CPU
    (`extractors.fast_inference`) and its parameters are no longer those that were trained. Raises
    `FileNotFoundError` where there is no run, `ValueError` for one that is unfinished or damaged,
    `ImportError` for a Hub address without its library.
    """
    on_the_hub = str(folder).startswith(hub.ADDRESS)
    run = Run.open(hub.fetch(str(folder), FILES) if on_the_hub else folder)
    method, data = METHODS[run.config.method], run.record["data"]
    last = method.stages[-1].name
    weights = next((s for s in (Path(WEIGHTS).stem, last) if run.has(f"{s}.safetensors")), None)
    if weights is None:
        raise ValueError(
            f"{run.folder} is not trained to its end ({last}.safetensors is missing): train it on."
        )
    model = build_model(run.config, run.vocabulary, method.head, extractor)
    run.load_weights(weights, model)
    where = pick_device(device)
    if where.type == "cpu":
        keep_freed_memory()
        if quick:
            optimise_for_inference(model.extractor)
    return Tagger(
        run.folder,
        run.config,
        run.vocabulary,
        model.eval().requires_grad_(False).to(where),
        _peak_normalise(run.folder, data),
        data,
    )


def _peak_normalise(folder: Path, data: dict[str, Any]) -> bool:
    """Whether the run heard every clip at full scale; records of older runs do not say it."""
    if "peak_normalise" in data:
        return data["peak_normalise"]
    told = data["name"] not in AS_RECORDED
    if data["name"] not in ("mtat", "rendered", *AS_RECORDED):
        warnings.warn(
            f"{folder} does not record how loud its clips were: taken as scaled to full scale, as "
            "is the default.",
            stacklevel=3,
        )
    return told
