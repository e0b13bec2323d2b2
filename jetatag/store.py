"""The store: every clip of an `Index` as int16 in one memory-mapped file, built once.

A store is a folder: `audio.i16` (all samples, one clip after another), `clips.csv` (one row a
clip: where it lies and what it is), `labels.npy`, `report.csv` (what was left out and why) and
`store.json` (vocabulary, sample rate, counts, checksum).
"""

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from jetatag.audio import AudioError, load
from jetatag.datasets import SPLITS, Index, Vocabulary
from jetatag.files import checksum, inside, read_json, write_json

FULL_SCALE = 32_767
SHORTEST_S = 0.1
AUDIO_SUFFIXES = {".mp3", ".wav", ".flac", ".ogg"}


@dataclass(frozen=True)
class AudioStore:
    """A prepared data set, read only. Row numbers index `table`, `labels` and the audio alike."""

    folder: Path
    name: str
    vocabulary: Vocabulary
    sample_rate: int
    checksum: str
    table: pd.DataFrame
    labels: np.ndarray
    report: pd.DataFrame

    @classmethod
    def open(cls, folder: Path | str) -> "AudioStore":
        """Open a finished store; a missing or damaged one is refused in one sentence."""
        folder = Path(folder)
        if not (folder / "store.json").is_file():
            raise FileNotFoundError(
                f"{folder} holds no prepared store: run notebook 01_prepare_data (or "
                "jetatag.store.build) first."
            )
        try:
            return cls._open(folder)
        except (OSError, ValueError, KeyError, EOFError) as error:
            problem = str(error).strip("'\"").rstrip(".")
            raise ValueError(
                f"the store {folder} is damaged ({problem}): delete it and prepare it again."
            ) from None

    @classmethod
    def _open(cls, folder: Path) -> "AudioStore":
        facts = read_json(folder / "store.json")
        text = {"clip_id": str, "path": str, "split": str, "group": str, "title": str}
        table = pd.read_csv(folder / "clips.csv", dtype=text, keep_default_na=False)
        labels = np.load(folder / "labels.npy")
        report = pd.read_csv(folder / "report.csv", dtype=str, keep_default_na=False)
        size = (folder / "audio.i16").stat().st_size
        if size != 2 * int(table.n_samples.sum()):
            belong = 2 * int(table.n_samples.sum())
            raise ValueError(f"audio.i16 has {size:,} bytes where {belong:,} belong")
        left_out = int((report.clip_id != "").sum())
        if not len(table) == len(labels) == facts["annotated_clips"] - left_out:
            raise ValueError("its tables do not have the same clips")
        return cls(
            folder=folder,
            name=facts["name"],
            vocabulary=Vocabulary(tuple(facts["tags"]), facts["task"]),
            sample_rate=facts["sample_rate"],
            checksum=facts["checksum"],
            table=table,
            labels=labels,
            report=report,
        )

    def __len__(self) -> int:
        return len(self.table)

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of one split, (n_clips,) int64."""
        return np.flatnonzero((self.table.split == split).to_numpy())

    @cached_property
    def _samples(self) -> np.ndarray:
        return np.asarray(np.memmap(self.folder / "audio.i16", dtype="<i2", mode="r"))

    @cached_property
    def lengths(self) -> np.ndarray:
        """Samples a clip, (n_clips,) int64."""
        return self.table.n_samples.to_numpy(np.int64)

    @cached_property
    def _offsets(self) -> np.ndarray:
        return np.cumsum(self.lengths) - self.lengths

    def read(self, rows: Iterable[int], starts: Iterable[int], n_samples: int) -> np.ndarray:
        """Cut `n_samples` from each clip of `rows` at `starts` (samples).

        Returns (len(rows), n_samples) float32 in [-1, 1]; past a clip's end there is silence.
        """
        rows = np.asarray(rows)
        batch = np.empty((len(rows), n_samples), np.float32)
        for waveform, row, start in zip(batch, rows, starts, strict=True):
            begin = self._offsets[row] + start
            end = min(begin + n_samples, self._offsets[row] + self.lengths[row])
            waveform[: end - begin] = self._samples[begin:end]
            waveform[end - begin :] = 0
        batch *= np.float32(1 / FULL_SCALE)
        return batch


def build(
    index: Index,
    folder: Path | str,
    sample_rate: int = 16_000,
    peak_normalise: bool = True,
    workers: int | None = None,
) -> AudioStore:
    """Decode every clip of `index` to mono int16 at `sample_rate` (Hz) under `folder`.

    `peak_normalise` scales each clip to full scale, as published for MagnaTagATune. Clips that
    cannot be used are left out and counted in the report, as are the index's own and audio
    files without a row. A finished store of the same content is opened at once; one of other
    content is refused (`ValueError`). After an interruption the finished clips are kept.
    """
    folder = Path(folder)
    settings = {"sample_rate": sample_rate, "peak_normalise": peak_normalise}
    identity = _identity(index, settings)
    if (folder / "store.json").is_file():
        if read_json(folder / "store.json")["checksum"] != identity:
            raise ValueError(
                f"{folder} holds a store of other clips, labels or settings: delete it or choose "
                "another folder."
            )
        return AudioStore.open(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds something that is no store: choose another folder.")
    if not index.audio_root.is_dir():
        raise FileNotFoundError(
            f"{index.audio_root} does not exist: put the audio there or correct the data folder."
        )
    partial_folder = folder.with_name(f".{folder.name}.partial")
    outcomes = _decode_all(index, partial_folder, settings, identity, workers)
    stored = np.array([outcome["reason"] == "" for outcome in outcomes], bool)
    if not stored.any():
        raise ValueError(
            f"none of the {len(index)} clips under {index.audio_root} could be read; the first: "
            f"{outcomes[0]['reason'] if outcomes else 'the index is empty'}."
        )
    table = index.table[stored].reset_index(drop=True)
    kept = [outcome for outcome in outcomes if outcome["reason"] == ""]
    table["n_samples"] = [outcome["n_samples"] for outcome in kept]
    table["peak"] = [outcome["peak"] for outcome in kept]
    table.to_csv(partial_folder / "clips.csv", index=False)
    np.save(partial_folder / "labels.npy", index.labels[stored])
    reasons = [outcome["reason"] for outcome in outcomes]
    unused = index.table.loc[~stored, ["clip_id", "path"]].assign(
        reason=[reason for reason in reasons if reason]
    )
    report = pd.concat([index.left_out, unused, audio_without_row(index)], ignore_index=True)
    report.to_csv(partial_folder / "report.csv", index=False)
    facts = {
        "name": index.name,
        **asdict(index.vocabulary),
        **settings,
        "annotated_clips": len(index) + len(index.left_out),
        "stored_clips": int(stored.sum()),
        "clips_by_split": {split: int((table.split == split).sum()) for split in SPLITS},
        "checksum": identity,
    }
    write_json(partial_folder / "store.json", facts)
    (partial_folder / "progress.jsonl").unlink()
    (partial_folder / "identity.json").unlink()
    partial_folder.replace(folder)
    return AudioStore.open(folder)


def audio_without_row(index: Index) -> pd.DataFrame:
    """Audio files under the data set's folder that no annotation row names, as report rows."""
    named = set(index.table.path) | set(index.left_out.path)
    found = (
        path.relative_to(index.audio_root).as_posix()
        for path in sorted(index.audio_root.rglob("*"))
        if path.suffix.lower() in AUDIO_SUFFIXES
    )
    paths = [path for path in found if path not in named]
    return pd.DataFrame({"clip_id": "", "path": paths, "reason": "audio without an annotation row"})


def decode(path: Path, sample_rate: int, peak_normalise: bool) -> tuple[np.ndarray, float]:
    """One file as (n_samples,) int16 and its peak before scaling; unusable clips raise
    `AudioError` with the reason."""
    audio = load(path, sample_rate)
    if len(audio) < SHORTEST_S * sample_rate:
        raise AudioError(f"shorter than {SHORTEST_S} s ({len(audio)} samples)")
    peak = float(np.abs(audio).max())
    if peak < 1 / FULL_SCALE:
        raise AudioError("silent: no sample reaches one 16-bit step")
    scale = FULL_SCALE / peak if peak_normalise else FULL_SCALE
    return np.clip(np.round(audio * scale), -FULL_SCALE, FULL_SCALE).astype("<i2"), peak


def _decode_all(
    index: Index, folder: Path, settings: dict, identity: str, workers: int | None
) -> list[dict[str, Any]]:
    """Append every clip's samples to `audio.i16` and its outcome to `progress.jsonl`, in order."""
    outcomes = _resume(folder, identity)
    rest = [(index.audio_root, path) for path in index.table.path[len(outcomes) :]]
    decode_one = partial(_outcome, settings=settings)
    workers = workers or os.cpu_count() or 1
    with (
        (folder / "audio.i16").open("ab") as audio,
        (folder / "progress.jsonl").open("a") as progress,
        # Threads do: soundfile and torchaudio work outside Python's lock.
        ThreadPoolExecutor(workers) as pool,
        tqdm(desc="preparing", total=len(index), initial=len(outcomes), unit="clip") as bar,
    ):
        for samples, outcome in _in_order(pool, decode_one, rest, ahead=4 * workers):
            samples.tofile(audio)
            audio.flush()  # so that no line below speaks of samples that a crash could lose
            progress.write(json.dumps(outcome) + "\n")
            progress.flush()
            outcomes.append(outcome)
            bar.update()
    return outcomes


def _outcome(place: tuple[Path, str], settings: dict) -> tuple[np.ndarray, dict[str, Any]]:
    """Samples of one clip and its row of progress; `reason` is empty where it can be used."""
    try:
        samples, peak = decode(inside(*place), **settings)
        return samples, {"n_samples": len(samples), "peak": peak, "reason": ""}
    except (AudioError, ValueError) as error:
        return np.empty(0, "<i2"), {"n_samples": 0, "peak": 0.0, "reason": str(error)}


def _in_order(
    pool: ThreadPoolExecutor, function: Callable, items: Iterable, ahead: int
) -> Iterator[Any]:
    """`pool.map` that never runs more than `ahead` items in front, so that memory stays flat."""
    waiting: deque = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _resume(folder: Path, identity: str) -> list[dict[str, Any]]:
    """Outcomes of an interrupted build of the same content; anything else is cleared away."""
    marker = folder / "identity.json"
    if not marker.is_file() or read_json(marker) != identity:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(marker, identity)
        return []
    outcomes = []
    for line in _lines(folder / "progress.jsonl"):
        try:
            outcomes.append(json.loads(line))
        except ValueError:
            break  # the last line of a killed process may be torn
    audio = folder / "audio.i16"
    audio.touch()
    while outcomes and 2 * sum(o["n_samples"] for o in outcomes) > audio.stat().st_size:
        outcomes.pop()  # its samples never reached the disk
    os.truncate(audio, 2 * sum(outcome["n_samples"] for outcome in outcomes))
    with (folder / "progress.jsonl").open("w") as progress:
        progress.writelines(json.dumps(outcome) + "\n" for outcome in outcomes)
    return outcomes


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _identity(index: Index, settings: dict) -> str:
    """Checksum of everything that decides a store's content, the audio itself apart."""
    table = index.table.to_csv(index=False).encode()
    words = json.dumps([index.name, asdict(index.vocabulary), settings]).encode()
    return checksum(words, table, index.labels.tobytes())
