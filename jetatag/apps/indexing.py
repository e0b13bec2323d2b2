"""Build the index of a folder of music that `search` reads.

What has been read is saved every few seconds as a part (`part-000000.arrow`), so that a killed
build can continue. At the end, the parts and the rows kept from the old index become the new
`index.arrow`, which replaces the old one in one step.
"""

import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from jetatag.apps import search
from jetatag.apps.search import INDEX, PARTS, STAMP, Facts, Index
from jetatag.apps.tagger import Prediction, Tagger
from jetatag.apps.tagging import find_audio
from jetatag.data.audio import read_header
from jetatag.data.index import NOT_AUDIO
from jetatag.files import NOT_TEXT, NOT_UTF8, as_path, as_text, atomic, check_writable, lock_folder
from jetatag.joint.losses import PAIR_LOSSES

PART_S = 5.0  # seconds between parts: what a kill loses at most
LINK = "a link to a folder is not followed"


def build(
    tagger: Tagger, music: Path | str, out: Path | str | None = None, workers: int | None = None
) -> Index:
    """Index all audio under the folder `music` with `tagger` into the folder `out` (default:
    `music` with `.index` appended); returns the opened index.

    Only files that are new, or whose size or modification time differs, are read. Deleted files are
    dropped. Files that cannot be read are reported and tried again next time. A killed build
    continues; one that fails before it has read a file leaves nothing behind. Searches see the old
    index until the build is done. Raises `FileNotFoundError` without audio, `ValueError` if no file
    can be read and if `out` is the index of another run or other music.
    """
    music = Path(os.path.realpath(music))
    out = Path(out) if out else music.with_name(f"{music.name}.index")
    if not music.is_dir():
        raise FileNotFoundError(f"{music} is not a folder: name the one that holds the music.")
    if NOT_TEXT in as_text(music):
        raise ValueError(f"{music}: {NOT_UTF8}.")
    found = ([path.relative_to(music).as_posix() for path in own] for own in find_audio([music]))
    audio, links, skipped = ([*map(as_text, names)] for names in found)
    found = pd.DataFrame([(p, *search.stamp(music / as_path(p))) for p in audio], columns=STAMP)
    if any(out.glob("[!.]*")) and not tables_in(out):
        raise ValueError(f"{out} holds something other than an index: choose another folder.")
    check_writable(out / INDEX, remedy="name another folder with --out")
    with lock_folder(out):
        try:
            facts, rows = _begin(out, tagger, music)
            missing = found[_rows_of(found, rows) < 0]
            done = {"total": len(found), "initial": len(found) - len(missing)}
            predictions = tagger.predict_files([music / as_path(p) for p in missing.path], workers)
            with tqdm(predictions, "indexing", unit="file", **done) as progress:
                reasons = _read(progress, missing, out, facts)
            if len(reasons) == len(found):
                problem = f"none of the {len(found):,} audio files under {music} can be read"
                first, reason = next(iter(reasons.items()))
                raise ValueError(f"{problem}; the first, {first}: {reason}.")
        finally:
            if [path.name for path in out.iterdir()] == [".lock"]:  # nothing has been read
                shutil.rmtree(out, ignore_errors=True)
        reasons |= dict.fromkeys(links, LINK) | dict.fromkeys(skipped, NOT_AUDIO)
        counts = _commit(out, facts, found)
        made = replace(Index.open(out), counts=counts)
        damaged = made.table.filter(pc.field("damage") != "").select(["path", "damage"]).to_pandas()
        reasons |= dict(damaged.to_numpy())
        with atomic(out / "report.csv") as temporary:
            pd.Series(reasons, name="reason").to_csv(temporary, index_label="path")
    return made


def tables_in(out: Path) -> list[Path]:
    """The index in the folder `out` and the parts of an unfinished build, as far as they exist."""
    return [*out.glob(INDEX), *sorted(out.glob(PARTS))]


def _begin(out: Path, tagger: Tagger, music: Path) -> tuple[Facts, pa.Table]:
    """Facts of the index in `out`, and the rows of it and of its parts."""
    held = [search.read_table(path, mapped=False) for path in tables_in(out)]  # to be replaced
    for facts, _ in held:
        search.check_same_run(out, facts, tagger)
    facts = held[0][0] if held else facts_of(tagger, music)
    if facts.music != str(music) and Path(facts.music).is_dir():  # otherwise the music was moved
        raise ValueError(f"{out} is the index of {facts.music}: choose another with --out.")
    rows = pa.concat_tables([facts.schema().empty_table(), *(table for _, table in held)])
    return facts.model_copy(update={"music": str(music)}), rows


def facts_of(tagger: Tagger, music: Path) -> Facts:
    """Facts of a new index."""
    pair_loss = PAIR_LOSSES.get(tagger.config.pair_loss)
    facts = {"model": str(tagger), "run": os.path.realpath(tagger.folder), "music": str(music)}
    facts |= {"identity": tagger.identity(), "tags": list(tagger.vocabulary.tags)}
    facts |= {"dim": tagger.model.extractor.n_features}
    if pair_loss:
        facts |= {"mirrored": pair_loss.mirrored}
        if (tagger.folder / "embeddings.npz").is_file() or not tagger.data.get("imported"):
            facts |= {name: vectors.tolist() for name, vectors in tagger.query_vectors().items()}
            facts["dim"] = len(facts["z_centre"])
            facts["by"] = "combined" if pair_loss.searchable_by_tags else "classifier"
    return Facts(**facts)


def _rows_of(found: pd.DataFrame, rows: pa.Table) -> np.ndarray:
    """The position of each found file in `rows`, (file,) int64; −1 if it is missing or changed."""
    numbered = rows.select(STAMP).to_pandas().assign(row=np.arange(len(rows)))
    numbered = numbered.drop_duplicates(STAMP, keep="last")
    return found.merge(numbered, "left", on=STAMP).row.fillna(-1).to_numpy(np.int64)


def _read(
    predictions: Iterable[tuple[Path, Prediction | str]],
    missing: pd.DataFrame,
    out: Path,
    facts: Facts,
) -> dict[str, str]:
    """Save the predictions of the `missing` files as parts; returns why files cannot be read."""
    rows, reasons, saved = [], {}, time.monotonic()
    try:
        for stamp, (path, prediction) in zip(missing.to_dict("records"), predictions, strict=True):
            if isinstance(prediction, str):
                reasons[stamp["path"]] = prediction
            else:
                rows.append(stamp | _row(path, prediction, facts))
            if time.monotonic() - saved > PART_S:
                _write_part(rows, out, facts)
                rows, saved = [], time.monotonic()
    finally:
        _write_part(rows, out, facts)
    return reasons


def _row(path: Path, prediction: Prediction, facts: Facts) -> dict[str, object]:
    """A file's row without its stamp; its title is artist and title from the metadata."""
    header = read_header(path)
    texts = (" ".join(text.split()) for text in (header.artist, header.title))  # on one line
    row = {"duration_s": prediction.duration_s, "title": " – ".join(filter(None, texts))}
    row |= {"damage": prediction.damage, "vector": search.vector_of(prediction, facts)}
    return row | dict(zip(search.prob_columns(facts.tags), prediction.clip_probs, strict=True))


def _write_part(rows: list[dict], out: Path, facts: Facts) -> None:
    if rows:
        name = PARTS.replace("*", f"{len(list(out.glob(PARTS))):06}")
        write_table(pa.Table.from_pylist(rows, facts.schema()), out / name)


def write_table(table: pa.Table, path: Path) -> None:
    """Write an Arrow file, atomically."""
    with atomic(path) as new, new.open("wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _commit(out: Path, facts: Facts, found: pd.DataFrame) -> dict[str, int]:
    """Make the rows of the found files the new index and remove the parts; returns the counts."""
    tables = {path: search.read_table(path, mapped=False)[1] for path in tables_in(out)}
    rows = pa.concat_tables(tables.values())
    old = tables.pop(out / INDEX, rows[:0])
    order = _rows_of(found, rows)
    n_left_out, order = int((order < 0).sum()), order[order >= 0]
    n_kept = int((order < len(old)).sum())
    n_gone = int((~old["path"].to_pandas().isin(found.path)).sum())
    table = rows.take(order).combine_chunks()
    write_table(table.replace_schema_metadata(facts.schema().metadata), out / INDEX)
    for path in tables:
        path.unlink()
    return {"read": len(order) - n_kept, "kept": n_kept, "gone": n_gone, "left out": n_left_out}
