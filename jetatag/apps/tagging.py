"""Many files tagged by one run: how far it is, and what is written of them, whatever ends it.

A bad file costs its own row; a stop or a failing machine costs the files that were not read yet.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from jetatag.apps.tagger import Reading
from jetatag.data import Vocabulary
from jetatag.data.audio import read_header
from jetatag.data.index import files_under, warn_about_other_files
from jetatag.files import (
    as_text,
    atomic,
    check_writable,
    is_audio,
    write_arrays,
    write_json,
)

PICTURES = (".png", ".pdf", ".svg")
BAR = (
    "{desc}: {percentage:.0f} %|{bar}| {n:.0f} of {total:.0f} s of audio, {elapsed} gone, "
    "{remaining} to go, {rate_noinv_fmt}{postfix}"
)


def audio_paths(given: Sequence[Path | str]) -> tuple[list[Path], list[Path]]:
    """The files of `given`, and in folders those that are audio by name, sorted; and the links to
    folders in there, which are not followed. A folder without audio is refused
    (`FileNotFoundError`)."""
    found, links = [], []
    for path in map(Path, given):
        files, linked = files_under(path) if path.is_dir() else ([], [])
        inside = [path / name for name in files if is_audio(name)] if path.is_dir() else [path]
        warn_about_other_files(path, files)
        links += [path / name for name in linked]
        if not inside:
            raise FileNotFoundError(f"{path} holds no audio files: name another folder.")
        found += inside
    return found, links


class Progress(tqdm):
    """Seconds of audio heard, of those that the headers of `files` state; on a terminal only.

    What a file turned out to hold takes the place of what it states.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__(desc="tagging", total=0, unit=" s", bar_format=BAR, disable=None)
        self.stated = {} if self.disable else {path: read_header(path).duration_s for path in files}
        self.total = sum(self.stated.get(path, 0) for path in files)

    def update(self, n: float = 1) -> bool | None:
        self.total = max(self.total, self.n + n)  # a header may state too little
        return super().update(n)

    def close_file(self, path: Path, reading: Reading | str) -> None:
        """Count a file by what it holds, nothing where it cannot be read."""
        seconds = 0 if isinstance(reading, str) else reading.duration_s
        self.total = max(self.n, self.total + seconds - self.stated.get(path, seconds))


@dataclass
class Tagged:
    """The files tagged so far, written where there is a path when the block that it manages ends,
    also by Ctrl-C or an error. What could not be written there is refused (`ValueError`) at once.
    """

    files: Sequence[Path]
    vocabulary: Vocabulary
    top: int = 10
    """Tags in a taggram."""
    csv: Path | None = None
    json: Path | None = None
    parquet: Path | None = None
    taggram: Path | None = None
    """A picture, or for several files a folder of them."""
    embeddings: Path | None = None
    rows: list[dict[str, Any]] = field(default_factory=list, init=False)
    readings: dict[Path, Reading] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.pictures = picture_paths(self.files, self.taggram) if self.taggram else {}
        if self.embeddings and self.embeddings.suffix.lower() != ".npz":
            raise ValueError(f"{self.embeddings} names no npz: end it in .npz.")
        written = [*self._written, *list(self.pictures.values())[:1]]
        check_writable(*written, read=self.files)

    def __enter__(self) -> "Tagged":
        return self

    def __exit__(self, *error: object) -> None:
        if self.rows:
            write_rows(self.rows, self.csv, self.json, self.parquet)
            if self.embeddings:
                write_readings(self.readings, self.vocabulary, self.embeddings)

    def __str__(self) -> str:
        """How many are done and where they are, as a clause."""
        places = ", ".join(map(str, [*self._written, *filter(None, [self.taggram])]))
        told = f"{len(self.rows):,} of {len(self.files):,} files were tagged"
        return f"{told} and are in {places}" if places and self.rows else told

    @property
    def _written(self) -> list[Path]:
        return [path for path in (self.csv, self.json, self.parquet, self.embeddings) if path]

    def add(self, path: Path, reading: Reading | str) -> dict[str, Any]:
        """Take in what `Tagger.read_files` says of a file and draw it; returns its row."""
        if not isinstance(reading, str):
            if path in self.pictures:
                draw_taggram(reading, self.vocabulary.tags, self.top, self.pictures[path])
            if self.embeddings:
                self.readings[path] = reading
        self.rows.append(row_of(path, reading, self.vocabulary))  # last: it counts as done
        return self.rows[-1]


def row_of(path: Path, reading: Reading | str, vocabulary: Vocabulary) -> dict[str, Any]:
    """A file's row of a table: `path`, `duration_s`, `error` (empty where there is none), and a
    column a tag with its probability."""
    failed = isinstance(reading, str)
    probs = [np.nan] * len(vocabulary.tags) if failed else reading.clip_probs.tolist()
    return {
        "path": as_text(path),
        "duration_s": np.nan if failed else reading.duration_s,
        "error": reading if failed else "",
        **dict(zip(vocabulary.tags, probs, strict=True)),
    }


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    """A row for JSON: the tags under `tags`, the most probable first; null for what is missing."""
    own = {name: row[name] for name in ("path", "duration_s", "error")}
    if row["error"]:
        return own | {"duration_s": None, "tags": {}}
    probs = sorted(((p, tag) for tag, p in row.items() if tag not in own), key=lambda t: -t[0])
    return own | {"tags": {tag: p for p, tag in probs}}


def write_rows(
    rows: Sequence[dict[str, Any]],
    csv: Path | None = None,
    json: Path | None = None,
    parquet: Path | None = None,
) -> None:
    """Write rows of `row_of` in the formats for which there is a path, each atomically."""
    if csv:
        with atomic(csv) as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)
    if parquet:
        with atomic(parquet) as temporary:
            pd.DataFrame(rows).to_parquet(temporary, index=False)
    if json:
        write_json(json, [as_json(row) for row in rows])


def write_readings(
    readings: Mapping[Path, Reading], vocabulary: Vocabulary, path: Path | str
) -> None:
    """Write readings as one npz: `paths` (file,) and `tags` (tag,), and of all windows under each
    other `file_index` (window,), the file's row in `paths`, `starts_s`, `probs`, `h` and, with
    joint embedding, `z_audio`."""
    told = list(readings.values())
    arrays = {
        "paths": np.array([as_text(path) for path in readings]),
        "tags": np.array(vocabulary.tags),
        "file_index": np.repeat(np.arange(len(told)), [len(reading.probs) for reading in told]),
    }
    for name in ("starts_s", "probs", "h", "z_audio"):
        if told and getattr(told[0], name) is not None:
            arrays[name] = np.concatenate([getattr(reading, name) for reading in told])
    write_arrays(path, arrays)


def picture_paths(files: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Where each file's picture goes: `out` for a single file, else the folder `out`, in which they
    lie as the files do below what they have in common, `.png` behind their whole names. Refuses
    (`ValueError`) several files for one picture, and for one file another name than a picture's.
    """
    if len(files) == 1:
        if out.suffix.lower() not in PICTURES:
            raise ValueError(f"{out} names no picture: end it in {' or '.join(PICTURES)}.")
        return {files[0]: out}
    if out.suffix.lower() in PICTURES:
        raise ValueError(f"{len(files)} files make as many pictures: give a folder, not {out}.")
    places = {path: Path(os.path.normpath(path.absolute())) for path in files}
    common = os.path.commonpath([place.parent for place in places.values()])
    return {path: out / f"{place.relative_to(common)}.png" for path, place in places.items()}


def draw_taggram(reading: Reading, tags: Sequence[str], top: int, path: Path) -> None:
    """Write a file's tag probabilities over time as a picture."""
    from jetatag import figures  # takes a second to import

    figure = figures.taggram(reading.probs, reading.edges_s, tags, top)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)
