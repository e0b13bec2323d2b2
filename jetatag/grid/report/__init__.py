"""Runs → one HTML page that holds everything: tables, figures, settings and sounds.

The page needs no server, no network and no script. Its numbers are those of `results.results`, and
what is compared is a `results.Cell`. Runs that were tested on the same clips share a section. The
same runs give the same bytes, for no clock is read.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib import rc_context

from jetatag.data.store import AudioStore
from jetatag.evaluation import results
from jetatag.files import atomic
from jetatag.grid.report.evaluation import evaluate
from jetatag.grid.report.sections import section
from jetatag.training.runs import Run, finished

__all__ = ["page", "write"]

DRAWING = {"svg.hashsalt": "jetatag", "text.parse_math": False}
"""Equal figures give equal bytes, and a tag with dollar signs is no formula."""


def write(
    places: Iterable[Path | str], out: Path | str, store: Path | str | None = None
) -> tuple[list[Run], list[Path]]:
    """Write the page of all scored runs at or under `places` to `out`; returns the runs, and those
    of the places that hold none and were left out, as a shell's * names them.

    `store` is the prepared data that some of them were tested on; excerpts of its clips are
    embedded as MP3. Raises ValueError or FileNotFoundError, in one sentence, where there is no
    run, a damaged one, or a store of other clips.
    """
    places = [Path(place) for place in places]
    without = [place for place in places if place.exists() and not any(place.glob("**/scores.npz"))]
    named = [place for place in places if place not in without] or places
    found = [run for place in named for run in finished(place, "**")]
    runs = list({run.folder.resolve(): run for run in found}.values())
    text = page(runs, AudioStore.open(store) if store else None)
    with atomic(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return runs, without


def page(
    runs: Sequence[Run],
    store: AudioStore | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    layout: str = "umap",
) -> str:
    """The page as text. `n_resamples` and `seed` are of the bootstrap, `layout` (see
    `figures.layout`) is how shared spaces are drawn. Raises ValueError as `write`."""
    tests = results.by_test(runs)
    rows = [_rows(own[0].read_arrays("scores.npz"), store) for own in tests]
    if store and all(found is None for found in rows):
        raise ValueError(
            f"{store.folder} does not hold the test clips of these runs with their labels: give "
            "the store that they were tested on."
        )
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {"text": _text, "base64": lambda content: b64encode(content).decode()}
    template = environment.from_string(Path(__file__).with_name("page.html").read_text("utf-8"))
    with rc_context(DRAWING):
        sections = [
            section(evaluate(own, n_resamples, seed), store, found, layout, seed)
            for own, found in zip(tests, rows, strict=True)
        ]
    begun = sorted(str(run.record.get("made_by", {}).get("begun") or "")[:10] for run in runs)
    days = " to ".join(dict.fromkeys(filter(None, (begun[0], begun[-1]))))
    told = {"n_runs": len(runs), "days": days, "n_resamples": n_resamples}
    return template.render(sections=sections, references=results.REFERENCES, **told)


def _rows(scores: Mapping[str, np.ndarray], store: AudioStore | None) -> np.ndarray | None:
    """Rows in `store` of the clips scored, (clip,); None where it is of other clips, labels or
    tags."""
    if store is None or not np.array_equal(store.vocabulary.tags, scores["tags"]):
        return None
    rows = pd.Index(store.table.clip_id).get_indexer(scores["clip_ids"].astype(str))
    same = (rows >= 0).all() and np.array_equal(store.labels[rows], scores["labels"])
    return rows if same else None


def _text(value: Any) -> str:
    """A table's cell, a dash for what is missing."""
    if value is None or value == "" or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 and value % 1 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)
