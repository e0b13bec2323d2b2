"""Finds the audio files to tag and writes their predictions."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jetatag.apps.tagger import Prediction
from jetatag.data import Vocabulary
from jetatag.data.index import audio_under, skipped_sentence
from jetatag.files import as_path, as_text, atomic, check_writable, write_arrays, write_json

IMAGE_SUFFIXES = (".png", ".pdf", ".svg")


def find_audio(given: Sequence[Path | str]) -> tuple[list[Path], list[Path], list[Path]]:
    """Three lists: audio (all files in `given`, and the audio files anywhere under its folders,
    sorted), links to folders, and skipped files, the last two as by `audio_under`. Raises
    `FileNotFoundError` for a folder without audio."""
    lists = [], [], []
    for path in map(Path, given):
        audio, links, skipped = audio_under(path) if path.is_dir() else ([""], [], [])
        if not audio:
            told = f" ({skipped_sentence(skipped)[:-1]})" if skipped else ""
            remedy = "name another folder, or the files themselves"
            raise FileNotFoundError(f"{path} holds no audio files{told}: {remedy}.")
        for listed, names in zip(lists, (audio, links, skipped), strict=True):
            listed += [path / as_path(name) for name in names]
    return lists


@dataclass
class TagWriter(AbstractContextManager):
    """Collects the predictions of `files` and writes the tables that have a path when its block
    ends, also after Ctrl-C or an error. Paths that cannot be written raise `ValueError` at once.
    `taggram` is an image with the `top` tags, or for several files a folder of images."""

    files: Sequence[Path]
    vocabulary: Vocabulary
    top: int = 10
    csv: Path | None = None
    json: Path | None = None
    parquet: Path | None = None
    taggram: Path | None = None
    embeddings: Path | None = None
    rows: list[dict[str, Any]] = field(default_factory=list, init=False)
    predictions: dict[Path, Prediction] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.images = image_paths(self.files, self.taggram) if self.taggram else {}
        if self.embeddings and self.embeddings.suffix.lower() != ".npz":
            raise ValueError(f"{self.embeddings} is not named like an npz file: end it in .npz.")
        self.tables = list(filter(None, (self.csv, self.json, self.parquet, self.embeddings)))
        check_writable(*self.tables, *list(self.images.values())[:1], read=self.files)

    def __exit__(self, *error: object) -> None:
        if not self.rows:
            return
        table = self.table()
        for path, write in ((self.csv, table.to_csv), (self.parquet, table.to_parquet)):
            if path:
                with atomic(path) as temporary:
                    write(temporary, index=False)
        if self.json:
            write_json(self.json, self.rows)
        if self.embeddings:
            write_arrays(self.embeddings, self.window_arrays())

    def __str__(self) -> str:
        paths = ", ".join(map(str, [*self.tables, *filter(None, [self.taggram])]))
        done = f"{len(self.rows):,} of {len(self.files):,} files were tagged"
        return f"{done}, written to {paths}" if paths and self.rows else done

    def add(self, path: Path, prediction: Prediction | str) -> dict[str, Any]:
        """Add an item of `Tagger.predict_files` and draw its taggram; returns its entry: `path`,
        `duration_s`, `error` (why it cannot be read, or what of it is damaged, or empty) and `tags`
        with their probabilities, the highest first."""
        error, duration_s, tags = prediction, None, []
        if isinstance(prediction, Prediction):
            error, duration_s = prediction.damage, prediction.duration_s
            tags = zip(self.vocabulary.tags, prediction.clip_probs.tolist(), strict=True)
            if path in self.images:
                from jetatag import figures  # takes a second to import

                shown = prediction.probs, prediction.edges_s, self.vocabulary.tags, self.top
                with atomic(self.images[path]) as temporary:
                    figures.taggram(*shown).savefig(temporary, dpi=150)
            if self.embeddings:
                self.predictions[path] = prediction
        row = {"path": as_text(path), "duration_s": duration_s, "error": error}
        self.rows.append(row | {"tags": dict(sorted(tags, key=lambda item: -item[1]))})
        return self.rows[-1]

    def table(self) -> pd.DataFrame:
        """One row per file: path, duration_s, error and each tag's probability, in the column of
        its name; "prob: " precedes a name that another column has."""
        about, tags = ["path", "duration_s", "error"], self.vocabulary.tags
        marked = [tag in about or tag.startswith("prob: ") for tag in tags]
        columns = ["prob: " * mark + tag for mark, tag in zip(marked, tags, strict=True)]
        probs = [[row["tags"].get(tag) for tag in tags] for row in self.rows]
        table = pd.DataFrame(self.rows, columns=about).astype({"duration_s": float})
        return table.join(pd.DataFrame(probs, columns=columns, dtype=float))

    def window_arrays(self) -> dict[str, np.ndarray]:
        """Predictions as arrays: `paths` (file,), `tags` (tag,), and for all windows of all files
        `file_index` (window,), `starts_s`, `probs`, `h` and, with joint embedding, `z_audio`."""
        every = list(self.predictions.values())
        arrays = {
            "paths": np.array(list(map(as_text, self.predictions))),
            "tags": np.array(self.vocabulary.tags),
            "file_index": np.repeat(np.arange(len(every)), [len(one.probs) for one in every]),
        }
        for name in ("starts_s", "probs", "h", "z_audio"):
            if every and getattr(every[0], name) is not None:
                arrays[name] = np.concatenate([getattr(one, name) for one in every])
        return arrays


def image_paths(files: Sequence[Path], out: Path) -> dict[Path, Path]:
    """The taggram of each file: `out` for one file; for several, in the folder `out`, at the file's
    path relative to their common folder, with `.png` appended. Raises `ValueError` if `out` is not
    an image for one file, or an image for several."""
    is_image = out.suffix.lower() in IMAGE_SUFFIXES
    if len(files) == 1:
        if not is_image:
            raise ValueError(f"{out} is not an image: end it in {' or '.join(IMAGE_SUFFIXES)}.")
        return {files[0]: out}
    if is_image:
        raise ValueError(f"{len(files)} files need as many images: name a folder, not {out}.")
    places = {path: Path(os.path.normpath(path.absolute())) for path in files}
    common = os.path.commonpath([place.parent for place in places.values()])
    return {path: out / f"{place.relative_to(common)}.png" for path, place in places.items()}
