"""The store: every clip of an `Index` as int16 in one memory-mapped file, built once.

A store is a folder: `audio.i16` (all samples, one clip after another), `clips.csv` (one row a
clip: where it lies, what it is, its checksum), `labels.npy`, `report.csv` (what was left out and
why) and `store.json` (vocabulary, sample rate, counts, checksum).
"""

import errno
import json
import os
import shutil
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from jetatag.data import SPLITS, Index, Vocabulary
from jetatag.data.audio import PASSING, extremes, load, one_thread
from jetatag.data.index import audio_files
from jetatag.data.memory import keep_freed_memory
from jetatag.files import (
    atomic,
    check_arguments,
    checksum,
    inside,
    lock_folder,
    read_json,
    write_json,
)

FULL_SCALE = 32_767
OUTCOME = {"n_samples": int, "peak": float, "checksum": str, "reason": str}
"""A line of progress: what became of a clip."""
FLUSH_S = 0.1
"""How much work a killed process may lose, in seconds."""


@dataclass(frozen=True)
class AudioStore:
    """A prepared data set, read only. Row numbers index `table`, `labels` and the audio alike."""

    folder: Path
    name: str
    vocabulary: Vocabulary
    sample_rate: int
    peak_normalise: bool
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
                "jetatag.data.store.build) first."
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
        text = dict.fromkeys(["clip_id", "path", "split", "group", "title", "checksum"], str)
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
            peak_normalise=facts["peak_normalise"],
            checksum=facts["checksum"],
            table=table,
            labels=labels,
            report=report,
        )

    def __len__(self) -> int:
        return len(self.table)

    def rows(self, split: str, share: float = 1.0, seed: int = 0) -> np.ndarray:
        """Row numbers of one split, (n_clips,) int64, or of a `share` of its clips, at least one.

        Which ones follows from `seed` and their ids; a smaller share lies within a larger one.
        """
        rows = np.flatnonzero((self.table.split == split).to_numpy())
        if share == 1:
            return rows
        drawn = [checksum(f"{seed} {clip_id}".encode()) for clip_id in self.table.clip_id[rows]]
        return np.sort(rows[np.argsort(drawn)[: max(1, round(share * len(rows)))]])

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

    def damaged(self) -> list[str]:
        """Ids of the clips whose samples are no longer those that were decoded; reads them all."""
        ends = self._offsets + self.lengths
        clips = zip(self.table.clip_id, self._offsets, ends, self.table.checksum, strict=True)
        return [name for name, a, b, told in clips if crc32(self._samples[a:b]) != told]


def build(
    index: Index,
    folder: Path | str,
    sample_rate: int = 16_000,
    peak_normalise: bool | None = None,
    workers: int | None = None,
) -> AudioStore:
    """Decode every clip of `index` to mono int16 at `sample_rate` (Hz) under `folder`.

    `peak_normalise` scales each clip to full scale; by default as the data set was published.
    Clips that cannot be used are left out and counted in the report, as are the index's own and
    audio files without a row. A finished store of the same content is opened at once; one of
    other content is refused (`ValueError`). After an interruption the finished clips are kept,
    and of several processes that ask for one store the first builds it while the others wait.
    Raises `OSError` where `folder` may not be written to or replaced, and where the machine fails
    (a full disk, no file handles, no memory); the same call then goes on.
    """
    given = {"sample_rate": sample_rate, "peak_normalise": peak_normalise, "workers": workers}
    check_arguments(build, {"folder": folder, **given})
    if sample_rate < 1:
        raise ValueError(f"sample_rate must be at least 1 Hz, not {sample_rate}.")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, or None for every core, not {workers}.")
    folder = Path(folder)
    place = Path(os.path.realpath(folder))  # a link stays, and what is made lies on its disk
    work = place.parent / f".{place.name}.partial"
    if peak_normalise is None:
        peak_normalise = index.peak_normalise
    settings = {"sample_rate": sample_rate, "peak_normalise": peak_normalise}
    identity = _identity(index, settings)
    with _remedies(index, folder, work):
        if finished := _finished(folder, identity):
            return finished
        _check_irreplaceable(place)
        if not index.audio_root.is_dir():
            raise FileNotFoundError(
                f"{index.audio_root} does not exist: put the audio there or correct the data "
                "folder."
            )
        with lock_folder(work, wait=True):
            if not _finished(folder, identity):
                with suppress(FileNotFoundError):
                    place.rmdir()  # where that cannot be done, better to hear it before the work
                _build(index, work, settings, identity, workers)
                (work / "store").replace(place)
            shutil.rmtree(work, ignore_errors=True)  # one that waited finds it gone
        return AudioStore.open(folder)


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MACHINE = {
    **dict.fromkeys(NO_ROOM, "no room left for {}: free some space there and for temporary files"),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE),
        "no file handle left for {}: close programs, or ask for fewer workers",
    ),
    errno.ENOMEM: "no memory left for {}: close programs, or ask for fewer workers",
    errno.EIO: "the disk of {} fails: check it and what connects it",
}
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EBUSY)


@contextmanager
def _remedies(index: Index, folder: Path, work: Path) -> Iterator[None]:
    """A machine that fails, or a folder that may not be written to, in one sentence with its
    remedy."""
    try:
        yield
    except OSError as error:
        if told := MACHINE.get(error.errno):
            no_room = error.errno in NO_ROOM
            what = f"{folder}{_wanted(index, work)}" if no_room else error.filename or folder
            raise OSError(
                f"{told.format(what)}, and run this again; the clips done so far are kept."
            ) from None
        if error.errno in CLOSED:
            raise type(error)(
                f"the store {folder} cannot be written ({error.strerror}): choose a folder that "
                "you may write to."
            ) from None
        raise


def _finished(folder: Path, identity: str) -> AudioStore | None:
    """The store of that content under `folder`, if it is done; anything else there is refused."""
    try:
        # One look: another process may put the store there at any moment.
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        names = [folder.name] if folder.is_file() else []
    if "store.json" in names:
        if read_json(folder / "store.json")["checksum"] != identity:
            raise ValueError(
                f"{folder} holds a store of other clips, labels or settings: delete it or choose "
                "another folder."
            )
        return AudioStore.open(folder)
    if names:
        raise ValueError(f"{folder} holds something that is no store: choose another folder.")
    return None


def _check_irreplaceable(place: Path) -> None:
    with suppress(FileNotFoundError):
        if place.is_mount() or place.samefile("."):
            raise ValueError(
                f"{place} is a mount point or the working folder, which no store can replace: "
                "choose a folder in it."
            )


def _build(index: Index, work: Path, settings: dict, identity: str, workers: int | None) -> None:
    """Make the whole store in the folder `store` under `work`."""
    outcomes = pd.DataFrame(_decode_all(index, work, settings, identity, workers))
    stored = outcomes.reason.to_numpy() == "" if len(outcomes) else np.zeros(0, bool)
    if not stored.any():
        raise ValueError(
            f"none of the {len(index)} clips under {index.audio_root} could be read; the first: "
            f"{outcomes.reason[0] if len(outcomes) else 'the index is empty'}."
        )
    facts = ["n_samples", "peak", "checksum"]
    table = pd.concat([index.table, outcomes[facts]], axis=1)[stored].reset_index(drop=True)
    table.to_csv(work / "store" / "clips.csv", index=False)
    np.save(work / "store" / "labels.npy", index.labels[stored])
    unused = index.table[["clip_id", "path"]].assign(reason=outcomes.reason)[~stored]
    report = pd.concat([index.left_out, unused, audio_without_row(index)], ignore_index=True)
    report.to_csv(work / "store" / "report.csv", index=False)
    about = {
        "name": index.name,
        **asdict(index.vocabulary),
        **settings,
        "annotated_clips": len(index) + len(index.left_out),
        "stored_clips": int(stored.sum()),
        "clips_by_split": {split: int((table.split == split).sum()) for split in SPLITS},
        "checksum": identity,
    }
    write_json(work / "store" / "store.json", about)


def audio_without_row(index: Index) -> pd.DataFrame:
    """Audio files under the data set's folder that no annotation row names, as report rows."""
    named = set(index.table.path) | set(index.left_out.path)
    paths = [path for path in audio_files(index.audio_root) if path not in named]
    return pd.DataFrame({"clip_id": "", "path": paths, "reason": "audio without an annotation row"})


def decode(path: Path, sample_rate: int, peak_normalise: bool) -> tuple[np.ndarray, float]:
    """One file as (n_samples,) int16 and its peak before scaling; unusable clips raise
    `AudioError` with the reason. Audio beyond full scale is scaled to it, never clipped."""
    audio = load(path, sample_rate)
    peak = peak_of(audio)
    return as_stored(audio, peak, peak_normalise), peak


def peak_of(audio: np.ndarray) -> float:
    """Largest absolute value."""
    low, high = extremes(audio)
    return max(high, -low)


def as_stored(audio: np.ndarray, peak: float, peak_normalise: bool) -> np.ndarray:
    """Audio, or a block of a recording of that peak, as int16 (n_samples,); scaled in place."""
    audio *= np.float32(FULL_SCALE / (peak if peak_normalise else max(peak, 1)))
    return np.rint(audio, out=audio).astype("<i2")


def as_heard(samples: np.ndarray) -> np.ndarray:
    """Stored samples as an extractor takes them, float32 in [-1, 1]."""
    return samples * np.float32(1 / FULL_SCALE)


@one_thread()  # a clip: the workers share the cores already
def _decode_all(
    index: Index, work: Path, settings: dict, identity: str, workers: int | None
) -> list[dict[str, Any]]:
    """Append every clip's samples to `audio.i16` and its outcome to `progress.jsonl`, in order."""
    keep_freed_memory()
    places, decode_one = _places(index), partial(_outcome, settings=settings)
    outcomes = _resume(work, identity, lambda row: not decode_one(places[row])[1]["reason"])
    rest = places[len(outcomes) :]
    workers, flushed = workers or os.cpu_count() or 1, time.monotonic()
    with (
        (work / "store" / "audio.i16").open("ab") as audio,
        (work / "progress.jsonl").open("a") as progress,
        # Threads do: decoding and transforms work outside Python's lock.
        ThreadPoolExecutor(workers) as pool,
        tqdm(desc="preparing", total=len(index), initial=len(outcomes), unit="clip") as bar,
    ):
        decoded = _in_order(pool, decode_one, rest, ahead=4 * workers)
        for samples, outcome in map(decode_one, rest) if workers == 1 else decoded:
            audio.write(samples)
            progress.write(json.dumps(outcome) + "\n")
            if time.monotonic() - flushed > FLUSH_S:
                audio.flush()  # first, so that no line speaks of samples that a crash could lose
                progress.flush()
                flushed = time.monotonic()
            outcomes.append(outcome)
            bar.update()
    return outcomes


def _places(index: Index) -> list[tuple[Path, str, bool]]:
    """Root and path of every clip, and whether no link can lead it outside; that is asked once a
    folder, for where disks are far away each question takes its time."""
    root = Path(os.path.realpath(index.audio_root))
    plain = {
        folder + name
        for folder in {path[: path.rfind("/") + 1] for path in index.table.path}
        if os.path.realpath(root / folder) == f"{root}/{folder}".rstrip("/")
        for name in _names_without_links(root / folder)
    }
    return [(root, path, path in plain) for path in index.table.path]


def _names_without_links(folder: Path) -> list[str]:
    """What a folder holds beside links; nothing where it cannot be read, or cannot be at all."""
    try:
        return [entry.name for entry in os.scandir(folder) if not entry.is_symlink()]
    except OSError:
        return []


def _outcome(place: tuple[Path, str, bool], settings: dict) -> tuple[np.ndarray, dict[str, Any]]:
    """Samples of one clip and its row of progress; `reason` is empty where it can be used."""
    root, path, plain = place
    try:
        samples, peak = decode(root / path if plain else inside(root, path), **settings)
    except MemoryError:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path)) from None
    except (ValueError, OSError) as error:  # `AudioError` is a `ValueError`
        if isinstance(error, OSError) and error.errno in PASSING:
            error.filename = error.filename or path
            raise
        told = error.strerror if isinstance(error, OSError) else str(error)
        reason = told.removeprefix(f"{path!r} ").rstrip(".")
        nothing = {"n_samples": 0, "peak": 0.0, "checksum": "", "reason": reason}
        return np.empty(0, "<i2"), nothing
    facts = {"n_samples": len(samples), "peak": peak, "checksum": crc32(samples)}
    return samples, {**facts, "reason": ""}


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


def _resume(work: Path, identity: str, usable: Callable[[int], bool]) -> list[dict[str, Any]]:
    """Outcomes of an interrupted build of the same content, as far as no clip that was left out
    has become `usable` meanwhile; anything else is cleared away."""
    marker = work / "identity.json"
    if not marker.is_file() or read_json(marker) != identity:
        shutil.rmtree(work / "store", ignore_errors=True)
        (work / "progress.jsonl").unlink(missing_ok=True)
        write_json(marker, identity)
    outcomes = _progress(work)
    repaired = (row for row, o in enumerate(outcomes) if o["reason"] and usable(row))
    outcomes = outcomes[: next(repaired, None)]
    audio = work / "store" / "audio.i16"
    audio.parent.mkdir(exist_ok=True)
    audio.touch()
    ends = 2 * np.cumsum([0] + [outcome["n_samples"] for outcome in outcomes])
    n_whole = np.searchsorted(ends, audio.stat().st_size, side="right") - 1
    outcomes = outcomes[:n_whole]  # the samples of the others never reached the disk
    if audio.stat().st_size > ends[n_whole]:  # ext4 writes what was emptied to disk when closed
        os.truncate(audio, ends[n_whole])
    with atomic(work / "progress.jsonl") as progress:
        progress.write_text("".join(json.dumps(outcome) + "\n" for outcome in outcomes))
    return outcomes


def crc32(samples: np.ndarray) -> str:
    """Checksum of one clip's samples, 8 hexadecimal digits."""
    return f"{zlib.crc32(samples):08x}"


def _progress(work: Path) -> list[dict[str, Any]]:
    """Outcomes of the clips done so far; a killed process may tear the last line, a power cut
    several, and nothing counts from the first of them on."""
    path, outcomes = work / "progress.jsonl", []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            outcome = json.loads(line)
        except ValueError:
            break
        if not isinstance(outcome, dict) or {k: type(v) for k, v in outcome.items()} != OUTCOME:
            break
        outcomes.append(outcome)
    return outcomes


def _wanted(index: Index, work: Path) -> str:
    """What the whole store will take, as far as clips done tell."""
    clips = [outcome["n_samples"] for outcome in _progress(work)]
    if not clips:
        return ""
    megabytes = 2e-6 * np.mean(clips) * len(index)
    told = f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{max(megabytes, 1):.0f} MB"
    return f", which wants about {told}"


def _identity(index: Index, settings: dict) -> str:
    """Checksum of everything that decides a store's content, the audio itself apart."""
    table = index.table.to_csv(index=False).encode()
    words = json.dumps([index.name, asdict(index.vocabulary), settings]).encode()
    left_out = index.left_out.to_csv(index=False).encode()
    return checksum(words, table, index.labels.tobytes(), left_out)
