"""Search an index of music by tags or by example, without a model or torch.

An index is a folder made by `indexing.build`. `index.arrow` has one row per file: path, size,
mtime_ns, duration_s, title, damage, a unit vector, and one column `prob: TAG` per tag; its metadata
are `Facts`. Arrow files are mapped into memory, so a million files open in milliseconds.
`report.csv` lists the files that were left out or are damaged.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from jetatag.apps import By
from jetatag.files import as_text, atomic, check_known, check_type, composed, reading
from jetatag.metrics.queries import directions, query_scores, space_probs

if TYPE_CHECKING:  # it imports torch, which a search does not need
    from jetatag.apps.tagger import Prediction, Tagger

INDEX, PARTS, METADATA = "index.arrow", "part-*.arrow", b"jetatag"
BLOCK = 4_096  # files scored at a time, within the cache
STAMP = ["path", "size", "mtime_ns"]  # a file with the same stamp has not changed


class Facts(BaseModel):
    """Metadata of an index: the model in words, its folder `run` and checksum `identity`, the
    indexed folder `music`, the tags, and the size `dim` of the vectors (z_audio, or h without joint
    embedding). With joint embedding also `z_query` (tag, dim), `z_centre` (dim,) and `z_scale` (2,)
    of `predict`. If `mirrored`, clips lie farther from their own tags than from others'. `by`
    is the default ranking."""

    model: str
    run: str
    identity: str
    music: str
    tags: list[str]
    dim: int
    z_query: list[list[float]] | None = None
    z_centre: list[float] | None = None
    z_scale: list[float] | None = None
    mirrored: bool = False
    by: By = "classifier"

    def schema(self) -> pa.Schema:
        """The schema of an index with these facts."""
        columns = {"path": pa.string(), "size": pa.int64(), "mtime_ns": pa.int64()}
        columns |= {"duration_s": pa.float64(), "title": pa.string(), "damage": pa.string()}
        columns["vector"] = pa.list_(pa.float32(), self.dim)
        columns |= dict.fromkeys(prob_columns(self.tags), pa.float32())
        return pa.schema(columns, {METADATA: self.model_dump_json()})


def prob_columns(tags: Sequence[str]) -> list[str]:
    return [f"prob: {tag}" for tag in tags]


def top_tags(tags: Sequence[str], probs: np.ndarray) -> list[tuple[str, float]]:
    """The five most probable tags with their probabilities `probs` (tag,), the highest first."""
    return [(tags[i], float(probs[i])) for i in np.argsort(-probs, kind="stable")[:5]]


@dataclass(frozen=True)
class Index:
    """A finished index; `counts` tells what the build that returned it did."""

    folder: Path
    facts: Facts
    table: pa.Table
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path | str) -> "Index":
        """Open an index; raises `FileNotFoundError` for a missing or unfinished one and
        `ValueError` for a damaged one."""
        folder = Path(folder)
        if (folder / INDEX).is_file():
            return cls(folder, *read_table(folder / INDEX))
        if any(folder.glob(PARTS)):
            remedy = "run its `jetatag index` again to continue"
            raise FileNotFoundError(f"the index {folder} is unfinished: {remedy}.")
        raise FileNotFoundError(f"{folder} is not an index: make one with `jetatag index`.")

    def __len__(self) -> int:
        return len(self.table)

    def __str__(self) -> str:
        counts = ", ".join(f"{n:,} {what}" for what, n in self.counts.items() if n)
        return f"{len(self):,} files by {self.facts.model}" + (f" ({counts})" if counts else "")

    @property
    def report(self) -> pd.DataFrame:
        """`path` (in the music folder) and `reason` of files that are left out or damaged."""
        return pd.read_csv(self.folder / "report.csv", dtype=str, keep_default_na=False)

    @cached_property
    def vectors(self) -> np.ndarray:
        """Unit vectors, (file, dim) float32, mapped into memory."""
        return pc.list_flatten(self.table["vector"]).to_numpy().reshape(-1, self.facts.dim)

    def tags(self, weights: dict[str, float], top: int = 20, by: By | None = None) -> pd.DataFrame:
        """The `top` files for tags that are wanted (weight above 0) or unwanted (below 0).

        Files are ranked by probabilities of the tags: the classifier's, those of the shared space
        (`queries.space_probs`), or both, "combined"; by default as `Facts.by` says. `score` is
        their weighted geometric mean (of 1 − p for an unwanted tag), which ranks like
        `queries.query_scores`. Returns the table of `hits`. Raises `ValueError` for unknown tags,
        for weights that are not finite or all 0, and for a missing shared space.
        """
        facts = self.facts
        by = check_type(by or facts.by, By, "by")
        used, query = as_query(weights, facts.tags)
        if by != "classifier":
            if not facts.z_query:
                what = "a mirrored and never scored" if facts.mirrored else "no"
                problem = f"{facts.model} has {what} shared space of tags and music"
                raise ValueError(f"{problem}: rank by the classifier.")
            z_tags = directions(np.array(facts.z_query)[used], np.array(facts.z_centre))
        names = prob_columns([facts.tags[tag] for tag in used])
        scores = []
        for start in range(0, len(self), BLOCK):
            block, sources = slice(start, start + BLOCK), []
            if by != "space":
                columns = [self.table[name].to_numpy()[block] for name in names]
                sources.append(np.stack(columns, axis=1))
            if by != "classifier":
                sources.append(space_probs(self.vectors[block], z_tags, facts.z_scale))
            scores.append(log_scores(sources, query))
        best = pd.Series(np.concatenate(scores)).nlargest(top)  # equal ones by row
        return self.hits(np.exp(best))

    def like(
        self, path: Path | str, top: int = 20, tagger: "Tagger | Path | str | None" = None
    ) -> pd.DataFrame:
        """The `top` other files that sound most like the file `path`, by the cosine of z_audio
        (minus the centre), or of h without joint embedding, as the table of `hits`.

        A file that is not in the index is read by `tagger` (a `Tagger`, or what `tagger.load`
        takes), by default the run that made the index. Raises `ValueError` for another run and for
        audio that cannot be used, `FileNotFoundError` if the run is missing.
        """
        path, music = Path(path), self.facts.music
        place = Path(os.path.realpath(path.parent), path.name)
        name = as_text(place.relative_to(music).as_posix()) if place.is_relative_to(music) else ""
        row = pc.index(self.table["path"], name).as_py()
        held = tuple(self.table[column][row].as_py() for column in STAMP[1:]) if row >= 0 else None
        if held == stamp(path):  # it is in the index and has not changed since
            found = nearest(self.vectors, self.vectors[row], top + 1)
            return self.hits(found.drop(row, errors="ignore").head(top))
        from jetatag.apps.tagger import Tagger, load

        if tagger is None and not Path(self.facts.run).is_dir():
            problem = f"the run that made {self.folder} is no longer at {self.facts.run}"
            raise FileNotFoundError(f"{problem}: name it with --run.")
        tagger = tagger if isinstance(tagger, Tagger) else load(tagger or self.facts.run)
        check_same_run(self.folder, self.facts, tagger)
        try:
            prediction = tagger.predict(path)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return self.hits(nearest(self.vectors, vector_of(prediction, self.facts), top))

    def hits(self, scores: pd.Series) -> pd.DataFrame:
        """Files as a table, from `scores` by row: `rank` from 1, `score`, `path`, `title` (empty if
        the file has none), `duration_s`, and `tags`, the five most probable with probabilities."""
        found = self.table.drop_columns("vector").take(scores.index.to_numpy()).to_pandas()
        names = self.facts.tags
        probs = found[prob_columns(names)].to_numpy()
        tags = [{tag: round(prob, 4) for tag, prob in top_tags(names, row)} for row in probs]
        path = [str(Path(self.facts.music, path)) for path in found.path]
        table = found.assign(rank=found.index + 1, score=scores.to_numpy(), path=path, tags=tags)
        return table[["rank", "score", "path", "title", "duration_s", "tags"]]


def as_query(weights: Mapping[str, float], tags: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The positions in `tags` of those that have a weight, and their exponents (1, tag) in a
    weighted geometric mean. Raises `ValueError` as `Index.tags`."""
    for tag, weight in weights.items():
        check_type(weight, float, f"the weight of {tag!r}")
    if not any(weights.values()):
        raise ValueError("no tag has a weight: name at least one tag.")
    check_known(weights, tags, "tag")
    row = np.array([weights.get(tag, 0.0) for tag in tags])
    row /= np.abs(row).max()  # only their ratio counts
    used = np.flatnonzero(row)
    return used, row[None, used] / np.abs(row).sum()


def log_scores(sources: Sequence[np.ndarray], query: np.ndarray) -> np.ndarray:
    """Logarithm (clip,) of the geometric mean over several `sources`, probabilities (clip, tag), to
    rank clips for a query of `as_query`."""
    return np.mean([query_scores(probs, query)[:, 0] for probs in sources], axis=0)


def read_table(path: Path, mapped: bool = True) -> tuple[Facts, pa.Table]:
    """Facts and rows of an index or a part of one, by default mapped into memory; raises
    `ValueError` if it is damaged."""
    with reading(path, "delete the index and run `jetatag index` again"):
        open_file = pa.memory_map if mapped else pa.OSFile
        with open_file(os.fsencode(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        facts = Facts.model_validate_json(table.schema.metadata[METADATA], strict=True)
        table.select(["path", "title"]).validate(full=True)
        shapes = [np.shape(z) for z in (facts.z_query, facts.z_centre, facts.z_scale)]
        joint = [(len(facts.tags), facts.dim), (facts.dim,), (2,)]
        expected = joint if facts.z_query else [()] * 3
        if table.schema != facts.schema() or shapes != expected:
            raise ValueError("it is not a complete index")
    return facts, table


def stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns; (−1, −1) for a missing file."""
    try:
        about = path.stat()
    except OSError:
        return -1, -1
    return about.st_size, about.st_mtime_ns


def check_same_run(out: Path, facts: Facts, tagger: "Tagger") -> None:
    """Raise `ValueError` if an index was made by another model."""
    if facts.identity != tagger.identity():
        problem = f"{out} was made by another run ({facts.model}, {facts.run})"
        raise ValueError(f"{problem}: use that one, or make another index with --out.")


def vector_of(prediction: "Prediction", facts: Facts) -> np.ndarray:
    """A file's unit vector (dim,) float32: the mean of z_audio (h without joint embedding) over its
    windows, weighted by the audio that each adds, minus the centre."""
    points = prediction.z_audio if facts.z_centre else prediction.h
    vector = np.average(points, axis=0, weights=np.diff(prediction.edges_s))
    vector = vector - np.array(facts.z_centre or 0.0)
    return (vector / max(np.linalg.norm(vector), 1e-12)).astype(np.float32)


def nearest(vectors: np.ndarray, query: np.ndarray, top: int) -> pd.Series:
    """Cosines, float64, of the `top` unit vectors (row, dim) float32 nearest to `query` (dim,), by
    row. Exact; equal cosines in order of rows.

    One float32 product finds the candidates at memory speed. All rows within its error bound are
    ranked again in float64, each by itself, so that equal vectors tie.
    """
    query = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    rough = vectors @ query.astype(np.float32)
    top = min(top, len(rough))
    least = np.partition(rough, -top)[-top]
    # |fl(x·y) − x·y| ≤ γ(dim) |x| |y|, with γ(n) = n u / (1 − n u) (Higham 2002, 3.1); dim + 2 for
    # the rounding of the query, and 1 % for lengths that are not quite 1.
    error = 1.01 * (len(query) + 2) * np.finfo(np.float32).eps / 2
    near = np.flatnonzero(rough >= least - 2 * error)
    return pd.Series(np.vecdot(vectors[near].astype(np.float64), query), near).nlargest(top)


def parse_tags(text: str, known: Sequence[str]) -> dict[str, float]:
    """Weights by tag for text like "piano, slow:0.5, -vocal": 1 by default, negative if unwanted.

    Known tags may contain commas and colons or begin with a minus, and any tag may be in double
    quotes; case does not matter. Raises `ValueError` for a weight that is not a number and for a
    tag that is given twice.
    """
    text, forms = composed(text), {composed(tag): tag for tag in known}
    spelt = {tag.casefold(): own for tag, own in forms.items()} | forms
    listed = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
    name = rf'(?:({listed})|([-−]?)\s*("[^"]*"|{listed}|[^,]*?))'
    weights = {}
    for term in re.finditer(rf"\s*{name}\s*(?::([^,:]*))?(?:,|\Z)", text, re.IGNORECASE):
        part = term[0].removesuffix(",").strip()
        if not part:
            continue
        tag, minus, signed = (term[number] or "" for number in (1, 2, 3))
        weight = "1" if term[4] is None else term[4]
        tag = tag or (signed if signed.casefold() in spelt else signed.strip('"'))
        tag = spelt.get(tag) or spelt.get(tag.casefold(), tag)
        if not tag:
            raise ValueError(f"{part!r} names no tag: write one, like piano, piano:0.5 or -piano.")
        if tag in weights:
            raise ValueError(f"{tag!r} is given twice: give each tag once, with one weight.")
        try:
            weights[tag] = -float(weight) if minus else float(weight)
        except ValueError:
            problem = f"{part!r}: {weight!r} is not a number"
            raise ValueError(f"{problem}: write a weight like {tag}:0.5.") from None
    return weights


def write_m3u(hits: pd.DataFrame, path: Path | str) -> None:
    """Write `hits` as an extended M3U playlist in UTF-8; a path that would break a line is written
    as a file:// address."""
    lines = ["#EXTM3U"]
    for hit in hits.itertuples():
        name = hit.title or " ".join(Path(hit.path).stem.split())
        plain = hit.path.isprintable() and hit.path == hit.path.strip()
        lines.append(f"#EXTINF:{round(hit.duration_s)},{name}")
        lines.append(hit.path if plain else Path(hit.path).as_uri())
    with atomic(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
