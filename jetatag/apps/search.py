"""An index of anybody's music, made by a run and asked by tags or by example.

An index is a folder: `index.json` (the model, the music's folder, the tags, what the last building
did), `space.npz` (z_query of every tag and z_centre, of a run with joint embedding), `report.csv`
(what was left out and why), and a folder named by its generation that holds, one row a file in the
order of the paths, `files.parquet`, `vectors.npy` (file, dim) float32, unit vectors, and
`probs.npy` (file, tag) float32. A search maps the arrays into memory and needs no model.
"""

import base64
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from jetatag.data.audio import read_header
from jetatag.data.index import files_under, warn_about_other_files
from jetatag.files import (
    NOT_TEXT,
    NOT_UTF8,
    as_text,
    atomic,
    check_known,
    check_type,
    checksum,
    is_audio,
    lock_folder,
    read_arrays,
    write_arrays,
    write_json,
)
from jetatag.metrics.queries import classifier_scores, weighted_query

if TYPE_CHECKING:  # it brings torch with it, for which no search has to wait
    from jetatag.apps.tagger import Reading, Tagger

By = Literal["space", "classifier"]
STAMP = ["path", "size", "mtime_ns"]
"""What says that a file is still the one that was read."""
COLUMNS = {"path": str, "size": int, "mtime_ns": int, "duration_s": float, "title": str}
FACTS = {
    **dict.fromkeys(("model", "run", "identity", "music"), str),
    **{"tags": Sequence[str], "vectors": Literal["z_audio", "h"]},
    **{"dim": int, "generation": int, "last": dict},
}
"""What `index.json` says: the model in words, its folder and checksum; the music's folder; the tags
in their order; what the vectors are (z_audio or h) and their size; which generation is the index,
0 for none yet; and how many files the last building read, kept, dropped and left out."""
JOURNAL = "journal.jsonl"
BLOCK = 16_384
"""Files whose probabilities are looked at together: what is made of them fits a cache."""
TAGS_SHOWN = 5
"""Most probable tags of a file that stand beside it in a list."""


class Rows(NamedTuple):
    """Files that were read, in one order: `files` (STAMP, duration_s, title), `vectors` (file, dim)
    and `probs` (file, tag), float32."""

    files: pd.DataFrame
    vectors: np.ndarray
    probs: np.ndarray


@dataclass(frozen=True)
class Index:
    """A finished index, read only. Made by `build`."""

    folder: Path
    facts: dict[str, Any]
    rows: Rows
    z_query: np.ndarray | None
    """Vectors of the single tags, (tag, dim); None for a run without joint embedding."""
    z_centre: np.ndarray | None

    @classmethod
    def open(cls, folder: Path | str) -> "Index":
        """Open an index; a missing, unfinished or damaged one is refused in one sentence."""
        folder = Path(folder)
        if not (folder / "index.json").is_file():
            raise FileNotFoundError(f"{folder} is no index: make one with `jetatag index`.")
        facts = _facts(folder)
        if not facts["generation"]:
            raise FileNotFoundError(
                f"the index {folder} is unfinished: run its `jetatag index` again, which goes on."
            )
        space, rows = _space(folder, facts), _open_rows(folder, facts)
        return cls(folder, facts, rows, space.get("z_query"), space.get("z_centre"))

    def __len__(self) -> int:
        return len(self.rows.files)

    def __str__(self) -> str:
        """What is in it and what the last building did, in one line."""
        did = ", ".join(f"{n:,} {what}" for what, n in self.facts["last"].items() if n)
        return f"{len(self):,} files by {self.facts['model']} ({did})"

    @property
    def report(self) -> pd.DataFrame:
        """What was left out: `path` (relative to the music's folder) and `reason`."""
        return pd.read_csv(self.folder / "report.csv", dtype=str, keep_default_na=False)

    def tags(
        self, weights: Mapping[str, float], top: int = 20, by: By | None = None
    ) -> pd.DataFrame:
        """The `top` files for tags that are wanted (weight above 0, usually 1) or not (below 0).

        By "space" (the default where there is one) `score` is the cosine with
        `queries.weighted_query`; by "classifier" it is the geometric mean, by the weights, of the
        probabilities (1 − p of a tag not wanted), which ranks as `queries.classifier_scores`.
        Returns the table of `hits`. Raises `ValueError` for unknown tags, for weights that are not
        numbers or all 0, and for a search by the space of a run that has none.
        """
        row = self._weights(weights)
        if self._by(by) == "space":
            asked = weighted_query(self.z_query, self.z_centre, row)
            if not asked.any():
                raise ValueError("these tags cancel out, or no training clip has them: add others.")
            return self.hits(*nearest(self.rows.vectors, asked, top))
        blocks = np.array_split(self.rows.probs, max(1, len(self) // BLOCK))
        scores = np.concatenate([classifier_scores(block, row[None])[:, 0] for block in blocks])
        rows = best(scores, top)
        return self.hits(rows, np.exp(scores[rows] / np.abs(row).sum()))

    def like(
        self, path: Path | str, top: int = 20, tagger: "Tagger | Path | str | None" = None
    ) -> pd.DataFrame:
        """The `top` other files that sound most like the file `path`, by the cosine of z_audio
        (less the centre), or of h where the run has no joint embedding; the table of `hits`.

        A file that the index holds is not read; any other is, by `tagger` (or what `load` takes),
        or by the run that made the index. Raises `ValueError` for another run and for what is no
        use as audio, `FileNotFoundError` where that run is gone.
        """
        row = self._row(Path(path))
        if row is not None:
            return self.hits(*nearest(self.rows.vectors, self.rows.vectors[row], top, row))
        from jetatag.apps.tagger import Tagger, load

        if not isinstance(tagger, Tagger):
            tagger = load(tagger or self._run())
        check_other_run(self.folder, self.facts, tagger)
        try:
            reading = tagger.read(path)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return self.hits(*nearest(self.rows.vectors, vector_of(reading, self.z_centre), top))

    def hits(self, rows: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
        """`rows` as a table: `rank` from 1, `score`, `path`, `title` (empty where the file states
        none), `duration_s`, and `tags`, the five most probable with their probabilities."""
        files, probs = self.rows.files.iloc[rows], self.rows.probs[rows]
        order = np.argsort(-probs, axis=1, kind="stable")[:, :TAGS_SHOWN]
        names = self.facts["tags"]
        return pd.DataFrame(
            {
                "rank": np.arange(1, len(rows) + 1),
                "score": scores,
                "path": [str(Path(self.facts["music"], path)) for path in files.path],
                "title": files.title.to_list(),
                "duration_s": files.duration_s.to_list(),
                "tags": [
                    {names[tag]: round(float(p[tag]), 4) for tag in first}
                    for p, first in zip(probs, order, strict=True)
                ],
            }
        )

    def _weights(self, weights: Mapping[str, float]) -> np.ndarray:
        """Weights by name as a row (tag,) float64, the largest ±1."""
        names = self.facts["tags"]
        check_known(weights, names, "tag")
        given = {tag: check_type(w, float, f"the weight of {tag!r}") for tag, w in weights.items()}
        if not any(given.values()):
            raise ValueError("no tag has a weight: ask for at least one.")
        row = np.array([given.get(name, 0.0) for name in names])
        return row / np.abs(row).max()  # ranks alike, and no weight is too large to count with

    def _by(self, by: By | None) -> By:
        by = by or ("classifier" if self.z_query is None else "space")
        check_type(by, By, "by")
        if by == "space" and self.z_query is None:
            raise ValueError(
                f"{self.facts['model']} has no shared space of tags and music: rank by the "
                "classifier."
            )
        return by

    def _run(self) -> str:
        if not Path(self.facts["run"]).is_dir():
            raise FileNotFoundError(
                f"the run that made {self.folder} is no longer at {self.facts['run']}: name it "
                "with --run."
            )
        return self.facts["run"]

    def _row(self, path: Path) -> int | None:
        """The row of a file, if the index holds it as it is now."""
        place = Path(os.path.realpath(path.parent), path.name)
        name = as_text(os.path.relpath(place, self.facts["music"]))
        rows = np.flatnonzero(self.rows.files.path == name)
        unchanged = len(rows) and _stamp(path) == tuple(self.rows.files[STAMP[1:]].iloc[rows[0]])
        return int(rows[0]) if unchanged else None


def _facts(folder: Path) -> dict[str, Any]:
    """The facts of an index; `ValueError` where its `index.json` does not hold them."""
    try:
        facts = json.loads((folder / "index.json").read_text())
        for name, kind in FACTS.items():
            check_type(facts[name], kind, name)
    except (ValueError, KeyError, TypeError):
        raise _damaged(folder, "its index.json is not one") from None
    return facts


def _damaged(folder: Path, problem: str) -> ValueError:
    return ValueError(
        f"the index {folder} is damaged ({problem}): delete it and run `jetatag index` again."
    )


def _space(folder: Path, facts: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """z_query (tag, dim) and z_centre (dim,) of an index; nothing for a run without joint
    embedding."""
    if facts["vectors"] != "z_audio":
        return {}
    expected = {"z_query": (len(facts["tags"]), facts["dim"]), "z_centre": (facts["dim"],)}
    with suppress(OSError, ValueError):
        space = read_arrays(folder / "space.npz")
        if {name: array.shape for name, array in space.items()} == expected:
            return space
    raise _damaged(folder, "its space.npz is missing or not one")


def _open_rows(folder: Path, facts: Mapping[str, Any]) -> Rows:
    """The rows of an index, arrays mapped into memory."""
    generation = folder / str(facts["generation"])
    with suppress(OSError, ValueError, EOFError):
        files = pd.read_parquet(generation / "files.parquet", columns=list(COLUMNS))
        arrays = [np.load(generation / f"{name}.npy", mmap_mode="r") for name in _widths(facts)]
        expected = [(len(files), width) for width in _widths(facts).values()]
        if [array.shape for array in arrays] == expected:
            return Rows(files, *map(np.asarray, arrays))
    raise _damaged(folder, f"its folder {generation.name} is not whole")


# Exact search


def nearest(
    vectors: np.ndarray, query: np.ndarray, top: int, without: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the `top` unit vectors (row, dim) float32 with the largest cosine to `query` (dim,),
    and the cosines, float64; but for the row `without`. Exact: equal cosines by order of rows.

    One product in float32 finds them, at the speed of memory: what it can err by is bounded, and
    all rows within that are ranked anew in float64, each by itself, so that equal vectors tie.
    """
    query = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    rough = vectors @ query.astype(np.float32)
    if without is not None:
        rough[without] = -np.inf
    top = min(top, len(rough) - (without is not None))
    if top < 1:
        return np.empty(0, np.int64), np.empty(0)
    least = np.partition(rough, -top)[-top]
    # |fl(x·y) − x·y| ≤ γ(dim) |x| |y|, with γ(n) = n u / (1 − n u) (Higham 2002, 3.1); 2 for the
    # rounding of the query, and a hundredth for lengths that are not quite 1.
    error = 1.01 * (len(query) + 2) * np.finfo(np.float32).eps / 2
    near = np.flatnonzero(rough >= least - 2 * error)
    exact = np.vecdot(vectors[near].astype(np.float64), query)
    first = best(exact, top)
    return near[first], exact[first]


def best(scores: np.ndarray, top: int) -> np.ndarray:
    """Positions of the `top` largest of `scores`, the largest first, equal ones by position."""
    top = min(top, len(scores))
    least = np.partition(scores, -top)[-top] if top > 0 else np.inf
    near = np.flatnonzero(scores >= least)
    return near[np.argsort(-scores[near], kind="stable")[: max(top, 0)]]


# Building


def build(
    tagger: "Tagger", music: Path | str, out: Path | str | None = None, workers: int | None = None
) -> Index:
    """Index all audio under the folder `music` by `tagger`, into `out` (default: beside the folder,
    named as it with `.index` behind); returns the index, opened.

    Files that the index holds are not read again unless their size or time of change differ; what
    is gone is dropped; what cannot be read is left out, named in the report, and tried anew next
    time. Killed at any moment, the same call goes on; one that fails before it has read a file
    leaves nothing. While it works, searches find what was there before; at its end it takes a few
    times the index's size of memory. Raises `FileNotFoundError` without audio, `ValueError` where
    no file can be read and for an `out` that holds another run's or other music's index.
    """
    music = Path(os.path.realpath(music))
    out = Path(out) if out else music.with_name(f"{music.name}.index")
    found, links = _found(music)
    _check_other_things(out)
    with lock_folder(out), _no_trace(out):
        facts = _begin(out, tagger, music)
        old = Index.open(out).rows if facts["generation"] else _nothing(facts)
        missing = found[_rows_of(found, _stacked([old, _read_journal(out, facts)])) < 0]
        done = {"total": len(found), "initial": len(found) - len(missing)}
        with tqdm(desc="indexing", unit="file", **done) as bar:
            reasons = _read(tagger, music, missing, out, bar, workers)
        if len(reasons) == len(found):
            first, reason = next(iter(reasons.items()))
            raise ValueError(
                f"none of the {len(found):,} audio files under {music} can be read; the first, "
                f"{first}: {reason}."
            )
        _write_report(out, reasons, links)
        _commit(out, facts, old, _stacked([old, _read_journal(out, facts)]), found)
    return Index.open(out)


def _check_other_things(out: Path) -> None:
    """Refuse (`ValueError`) a folder that holds more than an index or what a kill left of one."""
    there = {path.name for path in out.glob("[!.]*")}
    if "index.json" not in there and there - {"space.npz"}:
        raise ValueError(f"{out} holds something that is no index: choose another folder.")


@contextmanager
def _no_trace(out: Path) -> Iterator[None]:
    """Remove the folder `out`, if nothing was in it, where the block fails before it has read a
    file."""
    is_new = {path.name for path in out.iterdir()} == {".lock"}
    try:
        yield
    except BaseException:
        journal = out / JOURNAL
        if is_new and not (journal.is_file() and journal.stat().st_size):
            shutil.rmtree(out, ignore_errors=True)
        raise


def identity_of(tagger: "Tagger") -> str:
    """Checksum of what decides what a model says of a file: tags, how it hears, and the weights of
    its heads, which tell trainings apart and are the same however its extractor is computed."""
    config, model = tagger.config, tagger.model
    told = [tagger.vocabulary.tags, tagger.peak_normalise, config.sample_rate, config.crop_samples]
    weights = [*model.projection.state_dict().values(), *model.classifier.state_dict().values()]
    return checksum(json.dumps(told).encode(), *(w.cpu().numpy().tobytes() for w in weights))


def check_other_run(out: Path, facts: Mapping[str, Any], tagger: "Tagger") -> None:
    """Refuse (`ValueError`) to mix what two models say."""
    if facts["identity"] != identity_of(tagger):
        raise ValueError(
            f"{out} was made by another run ({facts['model']}, {facts['run']}): use that one, or "
            "make an index of its own with --out."
        )


def vector_of(reading: "Reading", z_centre: np.ndarray | None) -> np.ndarray:
    """A file's unit vector (dim,) float32: z_audio of its windows, weighted by the audio that each
    adds, less the centre; h where there is no space."""
    points = reading.h if z_centre is None else reading.z_audio
    vector = np.average(points, axis=0, weights=np.diff(reading.edges_s))
    vector = vector if z_centre is None else vector - z_centre
    return (vector / max(np.linalg.norm(vector), 1e-12)).astype(np.float32)


def _begin(out: Path, tagger: "Tagger", music: Path) -> dict[str, Any]:
    """The facts of the index `out`, which is begun if it is not there."""
    if (out / "index.json").is_file():
        facts = _facts(out)
        check_other_run(out, facts, tagger)
        if facts["music"] != str(music) and Path(facts["music"]).is_dir():  # else it was moved
            raise ValueError(f"{out} is the index of {facts['music']}: choose another with --out.")
        return facts | {"music": str(music)}
    joint, n_tags = tagger.config.pair_loss != "none", len(tagger.vocabulary.tags)
    if joint:
        z_query, z_centre = tagger.space()
        write_arrays(out / "space.npz", {"z_query": z_query[:n_tags], "z_centre": z_centre})
    facts = {
        "model": str(tagger),
        "run": os.path.realpath(tagger.folder),
        "identity": identity_of(tagger),
        "music": str(music),
        "tags": list(tagger.vocabulary.tags),
        "vectors": "z_audio" if joint else "h",
        "dim": tagger.config.embedding_dim if joint else tagger.model.extractor.n_features,
        "generation": 0,
        "last": {},
    }
    write_json(out / "index.json", facts)
    return facts


def _found(music: Path) -> tuple[pd.DataFrame, list[str]]:
    """The audio files under `music` as a table of STAMP, in order, and the links to folders."""
    if not music.is_dir():
        raise FileNotFoundError(f"{music} is no folder: name the one that holds the music.")
    if NOT_TEXT in as_text(music):
        raise ValueError(f"{music}: {NOT_UTF8}.")
    files, links = files_under(music)
    stamps = [(path, *_stamp(music / path)) for path in files if is_audio(path)]
    if not stamps:
        raise FileNotFoundError(f"{music} holds no audio files: name another folder.")
    warn_about_other_files(music, files)
    return pd.DataFrame(stamps, columns=STAMP), links


def _stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in ns; of what is not there, numbers that no file has."""
    try:
        about = path.stat()
    except OSError:
        return -1, -1
    return about.st_size, about.st_mtime_ns


def _nothing(facts: Mapping[str, Any]) -> Rows:
    """No rows yet."""
    files = pd.DataFrame([], columns=list(COLUMNS)).astype(COLUMNS)
    return Rows(files, *(np.empty((0, width), np.float32) for width in _widths(facts).values()))


def _rows_of(found: pd.DataFrame, held: Rows) -> np.ndarray:
    """Where each found file stands in the rows held, (file,) int64; −1 where it does not."""
    numbered = held.files[STAMP].assign(row=np.arange(len(held.files)))
    numbered = numbered.drop_duplicates(STAMP, keep="last")
    return found.merge(numbered, "left", on=STAMP).row.fillna(-1).to_numpy(np.int64)


def _read(
    tagger: "Tagger", music: Path, missing: pd.DataFrame, out: Path, bar: tqdm, workers: int | None
) -> dict[str, str]:
    """Read the files that are `missing` into the journal; returns the reasons of those that cannot
    be read, by path."""
    z_centre, reasons = _space(out, _facts(out)).get("z_centre"), {}
    readings = tagger.read_files([music / path for path in missing.path], workers)
    with (out / JOURNAL).open("a", buffering=1) as journal:  # a line leaves this process at its end
        for stamp, (path, reading) in zip(missing.to_dict("records"), readings, strict=True):
            if isinstance(reading, str):
                reasons[stamp["path"]] = reading
            else:
                journal.write(json.dumps(stamp | _entry(path, reading, z_centre)) + "\n")
            bar.update()
    return reasons


def _entry(path: Path, reading: "Reading", z_centre: np.ndarray | None) -> dict[str, Any]:
    values = {"vectors": vector_of(reading, z_centre), "probs": reading.clip_probs}
    told = {name: base64.b64encode(value).decode() for name, value in values.items()}
    return {"duration_s": reading.duration_s, "title": title(path), **told}


def _read_journal(out: Path, facts: Mapping[str, Any]) -> Rows:
    """What was read since the last generation; the journal ends where a kill tore it."""
    path, entries, end = out / JOURNAL, [], 0
    path.touch()
    for line in path.read_bytes().splitlines(keepends=True):
        entry = _decoded(line, facts)
        if entry is None:
            os.truncate(path, end)
            break
        entries.append(entry)
        end += len(line)
    files = pd.DataFrame(entries, columns=list(COLUMNS)).astype(COLUMNS)
    arrays = (
        np.array([entry[name] for entry in entries], np.float32).reshape(-1, width)
        for name, width in _widths(facts).items()
    )
    return Rows(files, *arrays)


def _decoded(line: bytes, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """A line of the journal, its vectors as arrays; None for what is no whole entry."""
    try:
        told = json.loads(line) if line.endswith(b"\n") else {}
        entry = {name: check_type(told[name], kind, name) for name, kind in COLUMNS.items()}
        for name, width in _widths(facts).items():
            values = base64.b64decode(told[name], validate=True)
            entry[name] = np.frombuffer(values, np.float32).reshape(width)
    except (ValueError, KeyError, TypeError):
        return None
    return entry


def _widths(facts: Mapping[str, Any]) -> dict[str, int]:
    return {"vectors": facts["dim"], "probs": len(facts["tags"])}


def _stacked(parts: Sequence[Rows]) -> Rows:
    """Rows under each other."""
    files, *arrays = zip(*parts, strict=True)
    return Rows(pd.concat(files, ignore_index=True), *map(np.concatenate, arrays))


def _write_report(out: Path, reasons: Mapping[str, str], links: Sequence[str]) -> None:
    told = [*reasons.items(), *((link, "a link to a folder is not followed") for link in links)]
    with atomic(out / "report.csv") as temporary:
        pd.DataFrame(told, columns=["path", "reason"]).to_csv(temporary, index=False)


def _commit(out: Path, facts: dict[str, Any], old: Rows, held: Rows, found: pd.DataFrame) -> None:
    """Make what is held of the files found the index's next generation, at one stroke: its
    `index.json` names it; then drop the last one and the journal."""
    rows = _rows_of(found, held)
    n_left_out, rows = int((rows < 0).sum()), rows[rows >= 0]
    n_kept = int((rows < len(old.files)).sum())
    n_gone = int((~old.files.path.isin(found.path)).sum())
    last = {"read": len(rows) - n_kept, "kept": n_kept, "gone": n_gone, "left out": n_left_out}
    if len(rows) > n_kept or n_kept < len(old.files) or not facts["generation"]:
        facts = facts | {"generation": facts["generation"] + 1}
        write_rows(out / str(facts["generation"]), Rows(*(_take(part, rows) for part in held)))
    write_json(out / "index.json", facts | {"last": last})
    (out / JOURNAL).unlink()
    for folder in (path for path in out.iterdir() if path.name.isdigit()):
        if folder.name != str(facts["generation"]):
            shutil.rmtree(folder)


def _take(part: pd.DataFrame | np.ndarray, rows: np.ndarray) -> pd.DataFrame | np.ndarray:
    return part.iloc[rows] if isinstance(part, pd.DataFrame) else part[rows]


def write_rows(folder: Path, rows: Rows) -> None:
    """Write a generation, in place of what a kill may have left of one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    rows.files.to_parquet(folder / "files.parquet", index=False)
    np.save(folder / "vectors.npy", rows.vectors)
    np.save(folder / "probs.npy", np.asfortranarray(rows.probs))  # a search asks for few tags


def title(path: Path) -> str:
    """Artist and title as the file states them, on one line; empty where it does not."""
    header = read_header(path)
    told = [" ".join(text.split()) for text in (header.artist, header.title)]
    return " – ".join(filter(None, told))


# What a command takes and gives


def parse_tags(text: str, known: Sequence[str]) -> dict[str, float]:
    """Weights by tag of "piano, slow:0.5, -vocal": 1 where none is given, − for what is not wanted.

    `known` tags may themselves hold a colon or begin with a minus, and their case need not be
    theirs. Raises `ValueError` for a weight that is no number and for a tag given twice; unknown
    tags are refused where they are asked.
    """
    spelt = {tag.casefold(): tag for tag in known} | {tag: tag for tag in known}

    def as_known(name: str) -> str:
        return spelt.get(name) or spelt.get(name.casefold(), name)

    weights = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        barred = part[0] in "-−" and as_known(part) not in known
        rest = as_known(part[1:].strip() if barred else part)
        tag, colon, weight = (rest, "", "1") if rest in known else rest.rpartition(":")
        name = as_known(tag.strip()) if colon else rest
        if not name:
            raise ValueError(f"{part!r} names no tag: write one, like piano, piano:0.5 or -piano.")
        if name in weights:
            raise ValueError(f"{name!r} is asked twice: give each tag once, with one weight.")
        try:
            weights[name] = float(weight if colon else 1) * (-1) ** barred
        except ValueError:
            raise ValueError(
                f"{part!r}: {weight!r} is no number: write a tag's weight like {tag}:0.5."
            ) from None
    return weights


def write_m3u(hits: pd.DataFrame, path: Path | str) -> None:
    """Write `hits` as an extended M3U playlist in UTF-8. A path that does not fit on a line is
    written as a file:// address."""
    lines = ["#EXTM3U"]
    for hit in hits.itertuples():
        name = hit.title or " ".join(Path(hit.path).stem.split())
        plain = hit.path.isprintable() and hit.path == hit.path.strip()
        lines.append(f"#EXTINF:{round(hit.duration_s)},{name}")
        lines.append(hit.path if plain else Path(hit.path).as_uri())
    with atomic(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_hits(hits: pd.DataFrame, path: Path | str) -> None:
    """Write `hits` as a JSON list of objects with the columns' names."""
    write_json(path, hits.to_dict("records"))
