"""Runs → one HTML page that holds everything: tables, figures, settings and sounds.

The page needs no server, no network and no script. Its numbers are those of `results.results`, and
what is compared is a `results.Cell`. Runs that were tested on the same clips share a section. The
same runs give the same bytes, for no clock is read.
"""

import io
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import commonpath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import yaml
from jinja2 import Environment, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure
from sklearn.metrics import label_ranking_average_precision_score

from jetatag import figures, metrics, results
from jetatag.audio import resample
from jetatag.files import atomic, read_arrays
from jetatag.results import Cell
from jetatag.runs import Run, finished
from jetatag.store import AudioStore

DRAWING = {"svg.hashsalt": "jetatag", "text.parse_math": False}
"""Equal figures give equal bytes, and a tag with dollar signs is no formula."""
MOST_SHOWN, EXAMPLES = 6, 5
"""Cells that are drawn and played, and how many of their best and of their worst clips."""
EXCERPT_S = 10
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Hz; MP3 knows no others."""
GUESSES = 6
"""Tags shown of what a model says of a clip, likeliest first."""
VALIDATION = "valid_average_precision"


def write(
    places: Iterable[Path | str], out: Path | str, store: Path | str | None = None
) -> list[Run]:
    """Write the page of all scored runs at or under `places` to `out`; returns the runs.

    `store` is the prepared data that some of them were tested on; excerpts of its clips are
    embedded as MP3. Raises ValueError or FileNotFoundError, in one sentence, where there is no
    run, a damaged one, or a store of other clips.
    """
    found = [run for place in places for run in finished(place, "**")]
    runs = list({run.folder.resolve(): run for run in found}.values())
    text = page(runs, AudioStore.open(store) if store else None)
    with atomic(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return runs


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
    template = environment.from_string(Path(__file__).with_name("report.html").read_text("utf-8"))
    with rc_context(DRAWING):
        sections = [
            _section(evaluate(own, n_resamples, seed), store, found, layout, seed)
            for own, found in zip(tests, rows, strict=True)
        ]
    begun = sorted(str(_made_by(run).get("begun") or "")[:10] for run in runs)
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


# What is compared


@dataclass(frozen=True)
class Evaluation:
    """Runs of the same clips: `labels` (clip, tag) 0/1, the runs of every cell by its name and
    their seed, and the table of `results.results` with that name as column `cell`."""

    clip_ids: np.ndarray
    labels: np.ndarray
    tags: list[str]
    task: str
    cells: Mapping[str, Mapping[int, Run]]
    table: pd.DataFrame

    @property
    def runs(self) -> list[tuple[str, Run]]:
        """Every run with its cell's name."""
        return [(name, run) for name, seeds in self.cells.items() for run in seeds.values()]

    @property
    def firsts(self) -> dict[str, Run]:
        """The run of every cell that stands for it where one must."""
        return {name: next(iter(seeds.values())) for name, seeds in self.cells.items()}

    @cached_property
    def shown(self) -> dict[str, Run]:
        """What is drawn and played: the first run of every cell or, of many cells, of every
        method's best."""
        if len(self.cells) <= MOST_SHOWN:
            return self.firsts
        best = {self.firsts[n].config.method: n for n in self.per_tag.mean().sort_values().index}
        return {name: run for name, run in self.firsts.items() if name in best.values()}

    @cached_property
    def per_tag(self) -> pd.DataFrame:
        """Average precision of every tag (row) and cell (column), the mean over seeds."""
        rows = self.table[(self.table.tag != "") & (self.table.metric == "average_precision")]
        means = rows.groupby(["tag", "cell"]).value.mean().unstack()
        return means.reindex(index=self.tags, columns=list(self.cells))


def evaluate(runs: Sequence[Run], n_resamples: int = 1000, seed: int = 0) -> Evaluation:
    """`results.results` of runs that were tested on the same clips, and of the baselines whose
    file lies beside one of them."""
    scores = runs[0].read_arrays("scores.npz")
    floor, tables, cells = _floor(runs, scores["labels"]), [], {}
    names = _names(grids := _grids(runs))
    for grid, own in grids.items():
        table = results.results(own, n_resamples, seed, None if tables else floor)
        whose = table[list(Cell._fields)].itertuples(index=False, name=None)
        tables.append(table.assign(cell=[names.get((grid, of), of[3]) for of in whose]))
        cells |= {names[grid, cell]: seeds for cell, seeds in results.cells(own).items()}
    tags, task = [str(tag) for tag in scores["tags"]], results.task_of(scores)
    table = pd.concat(tables, ignore_index=True)
    return Evaluation(scores["clip_ids"], scores["labels"], tags, task, cells, table)


def _floor(runs: Sequence[Run], labels: np.ndarray) -> Path | None:
    """The first file of baselines beside a run that is of these clips."""
    paths = dict.fromkeys(run.folder.parent / "baselines.npz" for run in runs)
    held = (path for path in paths if path.is_file())
    return next((p for p in held if np.array_equal(read_arrays(p).get("labels"), labels)), None)


def _grids(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """All runs as one grid or, where they cannot be told apart as one, each folder's by its
    name."""
    try:
        results.clip_scores(runs)
        results.cells(runs)
        return {"": list(runs)}
    except ValueError:
        grids: dict[str, list[Run]] = {}
        for run in runs:
            folder = run.folder.resolve().parent
            name = folder.relative_to(_top(runs)).as_posix()
            grids.setdefault(folder.name if name == "." else name, []).append(run)
        return grids


def _top(runs: Sequence[Run]) -> str:
    """The deepest folder that holds the folders of all of them."""
    return commonpath([run.folder.resolve().parent for run in runs])


def _names(grids: Mapping[str, Sequence[Run]]) -> dict[tuple[str, Cell], str]:
    """What the cells of every grid are called: method and pair loss, and of the rest what differs
    between any."""
    whose = [(grid, cell) for grid, own in grids.items() for cell in results.cells(own)]
    besides = pd.DataFrame(
        [
            {
                "data": cell.dataset,
                "extractor": cell.extractor,
                "width": f"width {cell.width}",
                "labels": f"{100 * cell.label_share:g} % of labels",
                "grid": grid,
            }
            for grid, cell in whose
        ]
    )
    besides = besides.loc[:, besides.nunique() > 1].to_numpy(str)
    methods = [figures.line_name(cell.method, cell.pair_loss) for _, cell in whose]
    names = [", ".join([method, *own]) for method, own in zip(methods, besides, strict=True)]
    return dict(zip(whose, names, strict=True))


# Sections


def _section(
    one: Evaluation, store: AudioStore | None, rows: np.ndarray | None, layout: str, seed: int
) -> dict[str, Any]:
    """All that the template tells of one evaluation."""
    scores = one.table[(one.table.tag == "") & (one.table.minus == "")]
    scores = scores.assign(method=scores.cell, pair_loss="")
    means = scores[scores.seed.isin(["mean", ""])]
    differences = one.table[one.table.minus != ""].rename(columns={"cell": "first"})
    several = len(one.runs) > len(one.cells)
    return {
        "name": ", ".join(dict.fromkeys(run.record["data"]["name"] for _, run in one.runs)),
        "n_clips": len(one.labels),
        "n_runs": len(one.runs),
        "tags": one.tags,
        "task": one.task,
        "data": data_table(one),
        "about": about_table(one),
        "protocols": [
            {
                "key": protocol,
                "name": figures.named(protocol),
                "scores": wide(_of(means, protocol), ["method"]),
                "by_seed": wide(_of(scores, protocol), ["method", "seed"]),
                "differences": wide(_of(differences, protocol), ["first", "minus"], "+.3f"),
            }
            for protocol in means.protocol.unique()
        ],
        "scores_figure": _picture(figures.scores_with_intervals(means)),
        "ablation": _ablation(differences),
        "has_floor": not set(means.cell) <= one.cells.keys(),
        "cells": list(one.cells),
        "n_shown": len(one.shown),
        "several_seeds": several,
        "per_tag": per_tag_rows(one),
        "per_tag_figure": _per_tag(one),
        "correlation": _correlation(one),
        "maps": _maps(one, layout, seed),
        "compared_curves": _compared_curves(one),
        "curves": [
            (name, _picture(figures.loss_curves(run.history)))
            for name, run in one.shown.items()
            if len(run.history)
        ],
        "stages": stage_table(one),
        "differing": differing_settings(one),
        "settings": [
            (name, list(one.cells[name]), settings_text(run), _made_by(run))
            for name, run in one.firsts.items()
        ],
        "has_audio": rows is not None,
        "examples": listening(one, store, rows),
    }


def _of(table: pd.DataFrame, protocol: str) -> pd.DataFrame:
    return table[table.protocol == protocol]


def data_table(one: Evaluation) -> pd.DataFrame:
    """One row for every data that the runs were trained on: name, checksums, clips a split."""
    told = []
    for _, run in one.runs:
        data = run.record["data"]
        sums = {"checksum": data.get("checksum"), "of the split": data.get("split_checksum")}
        clips = {f"{split} clips": n for split, n in (data.get("clips_by_split") or {}).items()}
        told.append({"data set": data["name"], **sums, **clips})
    return _texts(pd.DataFrame(told)).value_counts(sort=False).rename("runs").reset_index()


def about_table(one: Evaluation) -> pd.DataFrame:
    """One row a run: what it is, when it was begun, of which commits its stages are, and where."""
    rows, top = [], _top([run for _, run in one.runs])
    for name, run in one.runs:
        made_by, stages = _made_by(run), run.record["stages"].values()
        commits = [made_by.get("commit"), *(stage.get("commit") for stage in stages)]
        rows.append(
            {
                "method": name,
                **{key: getattr(run.config, key) for key in ("extractor", "width", "seed")},
                "begun": str(made_by.get("begun") or "").replace("T", " ").removesuffix("+00:00"),
                "commit": ", ".join(dict.fromkeys(filter(None, commits))),
                "folder": run.folder.resolve().relative_to(top).as_posix(),
            }
        )
    return _texts(pd.DataFrame(rows))


def wide(rows: pd.DataFrame, index: list[str], form: str = ".3f") -> pd.DataFrame:
    """One protocol's rows of a results table with a column a metric: the value and its intervals
    in the format `form`, and for a signed one a star where the interval by clip leaves out 0."""
    texts = [_with_intervals(row, form) for row in rows.to_dict("records")]
    table = rows.assign(text=texts).set_index([*index, "metric"]).text.unstack(sort=False)
    return _texts(table.rename(columns=figures.named).reset_index())


def _with_intervals(row: Mapping[str, Any], form: str) -> str:
    value, low, high = (format(row[name], form) for name in ("value", "low", "high"))
    text = f"{value} [{low}, {high}]"
    if form.startswith("+") and (row["low"] > 0 or row["high"] < 0):
        text += " *"
    if pd.notna(row["group_low"]):
        text += f"\nby group [{row['group_low']:{form}}, {row['group_high']:{form}}]"
    return text.replace("-", "−")


def _ablation(differences: pd.DataFrame) -> tuple[str, str] | None:
    """The first reference there is, and what the others gain over it per clip."""
    reference = next((name for name in results.REFERENCES if name in set(differences.minus)), None)
    if reference is None:
        return None
    rows = _of(differences[differences.minus == reference], "macro_clip")
    besides = rows["first"].str.partition(", ")[2]
    rows = rows.assign(extractor=besides.where(besides != "", rows.extractor))
    drawn = figures.ablation(rows.rename(columns={"value": "difference"}), reference=reference)
    return reference, _picture(drawn)


def per_tag_rows(one: Evaluation) -> list[dict[str, Any]]:
    """One row a tag, commonest first: `tag`, `n` and `share` of the test clips that carry it, and
    `values`, for every cell (average precision, whether it is the best of the row)."""
    counts, values = one.labels.sum(axis=0), one.per_tag.to_numpy()
    return [
        {
            "tag": one.tags[i],
            "n": int(counts[i]),
            "share": f"{counts[i] / len(one.labels):.3f}",
            "values": [(f"{v:.3f}", v == values[i].max()) for v in values[i] if counts[i]],
        }
        for i in np.argsort(-counts, kind="stable")
    ]


def _per_tag(one: Evaluation) -> str:
    table = pd.DataFrame({"tag": one.tags, "n_positive": one.labels.sum(axis=0)})
    areas = {name: one.per_tag[name].to_numpy() for name in one.shown}
    tables = {name: table.assign(average_precision=own) for name, own in areas.items()}
    return _picture(figures.per_tag(tables))


def _correlation(one: Evaluation) -> tuple[str, str] | None:
    """The commonest tag and the heat map of those nearest to it; classes exclude each other."""
    if one.task == "multiclass" or len(one.tags) < 2:
        return None
    tag = one.tags[int(one.labels.sum(axis=0).argmax())]
    return tag, _picture(figures.tag_correlation(one.labels, one.tags, tag))


def _maps(one: Evaluation, layout: str, seed: int) -> list[tuple[str, str]]:
    """Name and shared space of the cells shown that have one."""
    maps = []
    enough = len(one.labels) >= figures.FEWEST_POINTS
    for name, run in one.shown.items():
        space = run.read_arrays("embeddings.npz") if enough and run.has("embeddings.npz") else {}
        if "z_audio" not in space:
            continue
        points = np.concatenate([space["z_audio"], space["z_query"][: len(one.tags)]])
        xy, n, note = figures.layout(points, layout, seed), len(space["z_audio"]), ""
        if len(np.unique(one.labels, axis=0)) > 1:
            gap = metrics.gap(space["z_audio"], space["z_tag"], one.labels)["gap"]
            note = f"gap between own and other clips' tags: {gap:.2f} standard deviations"
        maps.append((name, _picture(figures.shared_space(xy[:n], xy[n:], one.tags, note=note))))
    return maps


def _compared_curves(one: Evaluation) -> str | None:
    """Validation of the cells shown, over their seeds, where it was measured."""
    history = pd.concat(
        results.all_histories(list(one.cells[name].values())).assign(method=name, pair_loss="")
        for name in one.shown
    )
    known = VALIDATION in history and history[VALIDATION].notna().any()
    return _picture(figures.curves_by_method(history, VALIDATION)) if known else None


def stage_table(one: Evaluation) -> pd.DataFrame:
    """One row a run and finished stage, a column for everything that was noted of any."""
    table = pd.DataFrame(
        {"method": name, "seed": run.config.seed, "stage": stage, **facts}
        for name, run in one.runs
        for stage, facts in run.record["stages"].items()
    )
    units = {"wall_time_s": "wall time (s)", "peak_memory_mib": "peak memory (MiB)"}
    return _texts(table.rename(columns=units).rename(columns=figures.named))


def differing_settings(one: Evaluation) -> pd.DataFrame:
    """The settings (and the data's checksum) in which the cells differ, a column each."""
    told = {name: results.decisive(run) for name, run in one.firsts.items()}
    table = pd.DataFrame(told).T.map(_flat)
    return table.loc[:, table.nunique() > 1].rename_axis("runs").reset_index()


def _flat(value: Any) -> str:
    """A setting as text, phases in one breath: adam 0.002 × 16."""
    if not isinstance(value, list | tuple):
        return str(value)
    return ", ".join(
        f"{p['optimizer']} {p['learning_rate']:g} × {p['epochs']}"
        + ("" if p["shape"] == "constant" else f" {p['shape']}")
        for p in value
    )


def settings_text(run: Run) -> str:
    """All settings as YAML, which `jetatag train --config` reads."""
    return yaml.safe_dump(run.config.to_dict(), sort_keys=False, allow_unicode=True)


def _made_by(run: Run) -> dict[str, Any]:
    return run.record.get("made_by", {})


# Listening


def listening(
    one: Evaluation, store: AudioStore | None, rows: np.ndarray | None
) -> list[dict[str, Any]]:
    """The best and the worst clips of the runs shown: `run`, `best` and `worst`.

    For each clip `row` (among the test clips), `clip_id`, `title`, `ranking`, `tags`, `guesses`
    (tag, probability, whether it is right), `heard` (whether a place before this one plays it) and
    `audio`, a data URI, None without the store's `rows` (clip,) and where the clip was heard.
    """
    heard: set[int] = set()
    told = []
    for name, run in one.shown.items():
        probs = run.read_arrays("scores.npz")["probs"].mean(1)
        ranking = ranking_precision(one.labels, probs)
        kinds: dict[str, Any] = {"run": f"{name}, seed {run.config.seed}"}
        best, worst = _extremes(ranking, one.labels, probs)
        for kind, clips in {"best": best, "worst": worst}.items():
            kinds[kind] = []
            for clip in clips:
                audio, row = None, None if rows is None else rows[clip]
                if row is not None and clip not in heard:
                    audio = excerpt(store, row)
                title = "" if row is None else store.table.title.iloc[row]
                about = {"title": title, "heard": clip in heard, "audio": audio}
                about |= {"ranking": f"{ranking[clip]:.3f}"}
                kinds[kind].append(_described(one, probs[clip], clip) | about)
                heard.add(clip)
        told.append(kinds)
    return told


def _described(one: Evaluation, probs: np.ndarray, clip: int) -> dict[str, Any]:
    """A clip's tags, and what `probs` (tag,) say of it."""
    carried = one.labels[clip] == 1
    likeliest = np.argsort(-probs, kind="stable")[:GUESSES]
    return {
        "row": clip,
        "clip_id": str(one.clip_ids[clip]),
        "tags": [tag for tag, own in zip(one.tags, carried, strict=True) if own],
        "guesses": [(one.tags[i], f"{probs[i]:.2f}", bool(carried[i])) for i in likeliest],
    }


def ranking_precision(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """How well each clip's own tags rank before the others: label ranking average precision
    (Schapire & Singer 2000, "BoosTexter") of every clip alone, (clip,) float64 in (0, 1]; NaN for
    clips without tags. `labels` and `probs` are (clip, tag)."""
    precision = np.full(len(labels), np.nan)
    for clip in np.flatnonzero(np.any(labels, axis=1)):
        precision[clip] = label_ranking_average_precision_score(labels[[clip]], probs[[clip]])
    return precision


def _extremes(
    ranking: np.ndarray, labels: np.ndarray, probs: np.ndarray
) -> tuple[list[int], list[int]]:
    """The clips that rank best, best first, and worst, worst first; of equal ones those come first
    whose tags are given the highest (worst: lowest) probability. No clip is in both."""
    sure = (probs * labels).sum(axis=1) / np.maximum(labels.sum(axis=1), 1)
    order = [int(i) for i in np.lexsort((-sure, -ranking)) if not np.isnan(ranking[i])]
    n = min(EXAMPLES, len(order) // 2)
    return order[:n], order[::-1][:n]


def excerpt(store: AudioStore, row: int) -> str:
    """`EXCERPT_S` seconds from the middle of a clip, or all of a shorter one, as an MP3 data
    URI."""
    n_samples = min(int(store.lengths[row]), EXCERPT_S * store.sample_rate)
    start = (int(store.lengths[row]) - n_samples) // 2
    rate = next((rate for rate in MP3_RATES if rate >= store.sample_rate), MP3_RATES[-1])
    sound = resample(store.read([row], [start], n_samples)[0], store.sample_rate, rate)
    coded = io.BytesIO()
    soundfile.write(coded, sound, rate, format="MP3")
    return _data_uri("audio/mpeg", coded.getvalue())


# Shared pieces


def _picture(figure: Figure) -> str:
    """A figure as an SVG data URI: in an image its ids cannot meet another figure's."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return _data_uri("image/svg+xml", drawn.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    """Cells as text, a dash for what is missing."""
    return table.astype(object).map(_text)


def _text(value: Any) -> str:
    if value is None or value == "" or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)
