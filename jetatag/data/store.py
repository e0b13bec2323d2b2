"""The store: every clip of an `Index` as int16 in one memory-mapped file, built once.

A store is a folder: `audio.i16` (all samples, clip after clip), `clips.csv` (one row per clip, with
length, peak and checksum), `labels.npy`, `report.csv` (what was left out and why, and what is used
although it is damaged) and `store.json` (vocabulary, sample rate, counts, checksum). Crops are read
without decoding, and all processes share the mapped pages.
"""

import errno
import json
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from jetatag import files
from jetatag.data import SPLITS, Index, Vocabulary
from jetatag.data.audio import CHECK, load
from jetatag.data.ffmpeg import OnDamage
from jetatag.data.index import LEFT_OUT_COLUMNS, audio_under
from jetatag.data.memory import keep_freed_memory
from jetatag.data.workers import in_processes

NO_ROW = "audio without an annotation row"
FULL_SCALE = 32_767
PROGRESS = "progress.jsonl"  # the identity of an unfinished build, and the outcome of each clip
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class AudioStore:
    """A prepared data set, read only. Row numbers index `table`, `labels` and the audio alike."""

    folder: Path
    name: str
    vocabulary: Vocabulary
    sample_rate: int  # Hz
    peak_normalise: bool
    checksum: str
    table: pd.DataFrame
    labels: np.ndarray  # (clip, tag) uint8
    report: pd.DataFrame

    @classmethod
    def open(cls, folder: Path | str) -> "AudioStore":
        """Open a finished store. Raises `FileNotFoundError` or, if it is damaged, `ValueError`."""
        folder = Path(folder)
        if not (folder / "store.json").is_file():
            problem = f"{folder} holds no prepared store"
            raise FileNotFoundError(f"{problem}: run notebook 01 or jetatag.data.store.build.")
        try:
            about = files.read_json(folder / "store.json")
            text = dict.fromkeys(["clip_id", "path", "split", "group", "title", "checksum"], str)
            table = pd.read_csv(folder / "clips.csv", dtype=text, keep_default_na=False)
            labels = np.load(folder / "labels.npy")
            report = pd.read_csv(folder / "report.csv", dtype=str, keep_default_na=False)
            size, expected = (folder / "audio.i16").stat().st_size, 2 * int(table.n_samples.sum())
            if size != expected:
                raise ValueError(f"audio.i16 has {size:,} bytes instead of {expected:,}")
            left_out = int((report.clip_id != "").sum())
            if not len(table) == len(labels) == about["annotated_clips"] - left_out:
                raise ValueError("its tables do not have the same clips")
            vocabulary = Vocabulary(tuple(about["tags"]), about["task"])
            facts = [about[key] for key in ("sample_rate", "peak_normalise", "checksum")]
            return cls(folder, about["name"], vocabulary, *facts, table, labels, report)
        except (OSError, ValueError, KeyError, EOFError) as error:
            problem = f"the store {folder} is damaged ({str(error).rstrip('.')})"
            raise ValueError(f"{problem}: delete it and prepare it again.") from None

    def __len__(self) -> int:
        return len(self.table)

    def rows(self, split: str, share: float = 1.0, seed: int = 0) -> np.ndarray:
        """Row numbers of one split, (n_clips,) int64. A `share` below 1 draws a random part of at
        least one clip by `seed` and the clip ids; smaller shares are subsets of larger ones."""
        rows = np.flatnonzero((self.table.split == split).to_numpy())
        if share == 1:
            return rows
        ids = self.table.clip_id[rows]
        drawn = [files.checksum(f"{seed} {clip_id}".encode()) for clip_id in ids]
        return np.sort(rows[np.argsort(drawn)[: max(1, round(share * len(rows)))]])

    @cached_property
    def samples(self) -> np.ndarray:
        """All clips one after the other, (n_samples,) int16, mapped from the file."""
        return np.asarray(np.memmap(self.folder / "audio.i16", dtype="<i2", mode="r"))

    @cached_property
    def lengths(self) -> np.ndarray:
        """Samples per clip, (n_clips,) int64."""
        return self.table.n_samples.to_numpy(np.int64)

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where each clip begins in `samples`, (n_clips,) int64."""
        return np.cumsum(self.lengths) - self.lengths

    def read(self, rows: Sequence[int], starts: Sequence[int], n_samples: int) -> np.ndarray:
        """`n_samples` of each clip of `rows` from `starts` (samples) on: (len(rows), n_samples)
        float32 in [-1, 1], zero after the end of a clip."""
        return to_float(self.read_into(np.empty((len(rows), n_samples), np.int16), rows, starts))

    def read_into(self, out: np.ndarray, rows: Sequence[int], starts: Sequence[int]) -> np.ndarray:
        """`out` (len(rows), n_samples) int16, filled as by `read`, but as stored."""
        for waveform, row, start in zip(out, rows, starts, strict=True):
            begin = self.offsets[row] + start
            end = min(begin + len(waveform), self.offsets[row] + self.lengths[row])
            waveform[: end - begin] = self.samples[begin:end]
            waveform[end - begin :] = 0
        return out

    def describe(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What is saved with scores of the clips `rows`: labels, clip_ids, groups, tags, task."""
        return {
            "labels": self.labels[rows],
            "clip_ids": self.table.clip_id.iloc[rows].to_numpy(np.str_),
            "groups": self.table.group.iloc[rows].to_numpy(np.str_),
            "tags": np.array(self.vocabulary.tags),
            "task": np.array(self.vocabulary.task),
        }

    def damaged(self) -> list[str]:
        """Ids of the clips whose samples do not match their checksum; reads all audio."""
        found = map(crc32, np.split(self.samples, self.offsets[1:]))
        return self.table.clip_id[[*found] != self.table.checksum].tolist()


def build(
    index: Index,
    folder: Path | str,
    sample_rate: files.Count = 16_000,
    peak_normalise: bool | None = None,
    workers: files.Count | None = None,
) -> AudioStore:
    """Decode every clip of `index` to mono int16 at `sample_rate` (Hz) into the store `folder`.

    `peak_normalise` scales each clip to full scale; None: as the data set is published. `workers`
    are processes (`in_processes`). Clips that cannot be used are left out and reported. A finished
    store of the same content is opened; an interrupted build continues; while another process
    builds it, this one waits. Raises `ValueError` if `folder` holds anything else, and `OSError` if
    it cannot be written or the machine fails (disk full, no memory, …).
    """
    settings = {"sample_rate": sample_rate, "peak_normalise": peak_normalise}
    files.check_arguments(build, {"folder": folder, "workers": workers, **settings})
    folder = Path(folder)
    target = Path(os.path.realpath(folder))  # a link stays one: its target becomes the store
    work = target.with_name(f".{target.name}.partial")
    if peak_normalise is None:
        settings["peak_normalise"] = index.peak_normalise
    words = json.dumps([index.name, asdict(index.vocabulary), settings])
    table, left_out = (rows.to_csv(index=False).encode() for rows in (index.table, index.left_out))
    # Checksum of all that determines the content but the audio.
    identity = files.checksum(words.encode(), table, index.labels.tobytes(), left_out)
    try:
        if finished := _finished(folder, identity):
            return finished
        if target == Path.cwd():
            raise ValueError(f"{target} is the working folder: choose a folder in it.")
        if not index.audio_root.is_dir():
            raise FileNotFoundError(f"{index.audio_root} does not exist: put the audio there.")
        with files.lock_folder(work, wait=True):
            if not _finished(folder, identity):
                with suppress(FileNotFoundError):
                    target.rmdir()  # now rather than after the work, in case it is impossible
                _build(index, work, settings, identity, workers)
                (work / "store").replace(target)
            shutil.rmtree(work, ignore_errors=True)
        return AudioStore.open(folder)
    except OSError as error:
        if error.errno is None:  # already a sentence
            raise
        problem = f"{os.strerror(error.errno)}: {error.filename or folder}"
        if error.errno in NO_ROOM and (done := _progress(work)):
            megabytes = 2e-6 * np.mean([outcome["n_samples"] for outcome in done]) * len(index)
            problem += f", about {max(megabytes, 1):,.0f} MB are needed"
        raise OSError(
            f"preparing {folder} stopped ({problem}): free disk space, memory or file handles, or "
            "choose a folder you may write to, and run this again; the clips done so far are kept."
        ) from None


def _finished(folder: Path, identity: str) -> AudioStore | None:
    """The finished store of that content in `folder`, or None if there is nothing in it. Raises
    `ValueError` for anything else."""
    names = []
    with suppress(FileNotFoundError):
        # Listed once: another process may put the store there at any moment.
        names = [path.name for path in folder.iterdir()]
    if not names:
        return None
    if "store.json" not in names:
        raise ValueError(f"{folder} holds something other than a store: choose another folder.")
    if files.read_json(folder / "store.json")["checksum"] != identity:
        problem = f"{folder} holds a store of other clips, labels or settings"
        raise ValueError(f"{problem}: delete it or choose another folder.")
    return AudioStore.open(folder)


def _build(index: Index, work: Path, settings: dict, identity: str, workers: int | None) -> None:
    """Write the whole store to the folder `store` in `work`."""
    if not len(index):
        raise ValueError(f"the index of {index.audio_root} is empty: give one with clips.")
    outcomes = pd.DataFrame(_decode_all(index, work, settings, identity, workers))
    stored = (outcomes.n_samples > 0).to_numpy()
    if not stored.any():
        problem = f"none of the {len(index)} clips under {index.audio_root} could be read"
        raise ValueError(f"{problem}; the first: {outcomes.reason[0]}.")
    clips = pd.concat([index.table, outcomes], axis=1)
    table = clips[stored].drop(columns="reason")
    table.to_csv(work / "store" / "clips.csv", index=False)
    np.save(work / "store" / "labels.npy", index.labels[stored])
    clips["clip_id"] = clips.clip_id.where(~stored, "")  # only clips that are left out have one
    told = clips.loc[clips.reason != "", LEFT_OUT_COLUMNS]
    others = set(audio_under(index.audio_root)[0]) - {*index.table.path, *index.left_out.path}
    others = pd.DataFrame({"clip_id": "", "path": sorted(others), "reason": NO_ROW})
    pd.concat([index.left_out, told, others]).to_csv(work / "store" / "report.csv", index=False)
    about = {
        "name": index.name,
        **asdict(index.vocabulary),
        **settings,
        "annotated_clips": len(index) + len(index.left_out),
        "stored_clips": int(stored.sum()),
        "clips_by_split": {split: int((table.split == split).sum()) for split in SPLITS},
        "checksum": identity,
    }
    files.write_json(work / "store" / "store.json", about)


def _decode_all(
    index: Index, work: Path, settings: dict, identity: str, workers: int | None
) -> list[dict[str, Any]]:
    """Append every clip's samples to audio.i16, in order, and return the outcome of each clip."""
    keep_freed_memory()
    decode_one = partial(_outcome, index.audio_root, **settings)
    paths = index.table.path.tolist()
    outcomes = _resume(work, identity, paths, decode_one)
    decoded = in_processes(decode_one, paths[len(outcomes) :], workers)
    bar = {"desc": "preparing", "total": len(paths), "initial": len(outcomes), "unit": "clip"}
    with (
        (work / "store" / "audio.i16").open("ab") as audio,
        (work / PROGRESS).open("a", buffering=1, encoding="utf-8") as progress,
    ):
        try:
            for samples, outcome in tqdm(decoded, **bar):
                audio.write(samples)
                audio.flush()  # before the line that says so
                progress.write(json.dumps(outcome) + "\n")
                outcomes.append(outcome)
        except ChildProcessError as error:
            place = f"{error}, at {paths[len(outcomes)]} or one of the next clips"
            remedy = "run this again, with one worker to see which file it is"
            raise OSError(f"preparing stopped, because {place}: {remedy}.") from None
    return outcomes


def _outcome(root: Path, path: str, **settings: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """One clip's samples and its outcome; `reason` is why it has none, or what it lacks."""
    samples, peak, lacks = np.empty(0, "<i2"), 0.0, []
    try:
        samples, peak = decode(files.inside(root, path), **settings, on_damage=lacks.append)
    except MemoryError:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), path) from None
    except OSError as error:
        if error.errno in files.SYSTEM_ERRORS:
            error.filename = error.filename or path
            raise
        lacks = [f"{error.strerror}; {CHECK}"]
    except ValueError as error:  # such as `AudioError`
        lacks = [str(error).removeprefix(f"{path!r} ").rstrip(".")]
    facts = {"n_samples": len(samples), "peak": peak, "checksum": crc32(samples)}
    return samples, {**facts, "reason": "; ".join(lacks)}


def decode(
    path: Path, sample_rate: int, peak_normalise: bool, on_damage: OnDamage | None = None
) -> tuple[np.ndarray, float]:
    """One file as (n_samples,) int16 and its peak before scaling; raises as `audio.load`."""
    audio = load(path, sample_rate, on_damage)
    peak = absolute_peak(audio)
    return to_int16(audio, peak, peak_normalise), peak


def absolute_peak(audio: np.ndarray) -> float:
    return max(float(audio.max()), -float(audio.min()))


def to_int16(audio: np.ndarray, peak: float, peak_normalise: bool) -> np.ndarray:
    """A waveform with this `peak`, or a block of one, as (n_samples,) int16; scaled, in place, to
    full scale with `peak_normalise`, otherwise only if it exceeds full scale."""
    audio *= np.float32(FULL_SCALE / (peak if peak_normalise else max(peak, 1)))
    return np.rint(audio, out=audio).astype("<i2")


def to_float(samples: np.ndarray) -> np.ndarray:
    """int16 samples as float32 in [-1, 1], the input of extractors."""
    return samples * np.float32(1 / FULL_SCALE)


def _resume(work: Path, identity: str, paths: list[str], decode_one: Callable) -> list[dict]:
    """Outcomes of an interrupted build, up to the first clip left out that can be decoded now."""
    outcomes = _progress(work, identity)
    told = (row for row, outcome in enumerate(outcomes) if outcome["reason"])
    repaired = (row for row in told if not decode_one(paths[row])[1]["reason"])
    outcomes = outcomes[: next(repaired, None)]
    audio = work / "store" / "audio.i16"
    audio.parent.mkdir(exist_ok=True)
    ends = 2 * np.cumsum([0] + [outcome["n_samples"] for outcome in outcomes])
    with audio.open("ab") as file:
        n_whole = np.searchsorted(ends, file.tell(), side="right") - 1
        file.truncate(ends[n_whole])
    outcomes = outcomes[:n_whole]  # the samples of the others were not written
    lines = [json.dumps(line) + "\n" for line in (identity, *outcomes)]
    (work / PROGRESS).write_text("".join(lines), "utf-8")
    return outcomes


def _progress(work: Path, identity: str = "") -> list[dict[str, Any]]:
    """Outcomes of the clips done so far, empty for a build of other content."""
    outcomes = []
    with suppress(OSError, ValueError):  # the last line may be torn
        first, *lines = (work / PROGRESS).read_text("utf-8").splitlines()
        for line in lines if identity in ("", json.loads(first)) else ():
            outcomes.append(json.loads(line))
    return outcomes


def crc32(samples: np.ndarray) -> str:
    return f"{zlib.crc32(samples):08x}"
