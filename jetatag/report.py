"""Runs → one HTML page that holds everything: tables, figures, settings and sounds.

The page needs no server, no network and no script. Runs that were tested on the same clips are
compared; others get a section of their own. What is the same run apart from its seed is a `Cell`:
differences are paired over clips and over the seeds that both cells have. The same runs give the
same bytes, for no clock is read.
"""

import io
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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

from jetatag import baselines, figures, metrics
from jetatag.audio import resample
from jetatag.files import atomic, read_arrays
from jetatag.results import score_table, task_of
from jetatag.runs import PLACE_SETTINGS, Run
from jetatag.store import AudioStore

PROTOCOLS = {
    "macro_clip": "Window probabilities are averaged per clip, exact areas are taken per tag and "
    "then averaged over tags, as most of the field does (Won et al. 2020); without audio the "
    "ROC area is 0.5.",
    "micro_window": "Every window is scored alone, all (window, tag) cells are pooled and the "
    "areas taken at 200 fixed thresholds, as Lee & Cho 2021 do; frequent tags dominate, and tag "
    "frequency alone scores far above 0.5.",
}
CONTROLS = ("no_je", "no_je_linear")
"""Methods without joint embedding, end to end: what the others are compared with."""
FLOOR = {"tag_frequency": "no audio", "log_mel_logistic": "one score a clip"}
DRAWING = {"svg.hashsalt": "jetatag", "text.parse_math": False}
"""Equal figures give equal bytes, and a tag with dollar signs is no formula."""
MOST_MAPS = 2
MOST_HEARD, EXAMPLES = 4, 5
"""Cells whose clips are played, and how many of their best and of their worst."""
EXCERPT_S = 10
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Hz; MP3 knows no others."""
GUESSES = 6
"""Tags shown of what a model says of a clip, likeliest first."""


def write(
    places: Iterable[Path | str], out: Path | str, store: Path | str | None = None
) -> list[Run]:
    """Write the page of all scored runs at or under `places` to `out`; returns the runs.

    `store` is the prepared data that some of them were tested on; excerpts of its clips are
    embedded as MP3. Raises ValueError or FileNotFoundError, in one sentence, where there is no
    run, a damaged one, or a store of other clips.
    """
    runs = scored_runs(places)
    text = page(runs, AudioStore.open(store) if store else None)
    with atomic(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return runs


def scored_runs(places: Iterable[Path | str]) -> list[Run]:
    """Every run with scores at or anywhere under each of `places`, each run once, by folder."""
    folders: dict[Path, Path] = {}
    for place in places:
        found = [path.parent for path in sorted(Path(place).rglob("scores.npz"))]
        found = [folder for folder in found if (folder / "config.json").is_file()]
        if not found:
            raise FileNotFoundError(
                f"no run with scores under {place}: train one with `jetatag train`, or give the "
                "folder that holds runs."
            )
        folders |= {folder.resolve(): folder for folder in found}
    return [Run.open(folder) for folder in folders.values()]


def page(
    runs: Sequence[Run],
    store: AudioStore | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    layout: str = "umap",
) -> str:
    """The page as text. `n_resamples` and `seed` are of the bootstrap, `layout` (see
    `figures.layout`) is how shared spaces are drawn. Raises ValueError as `write`."""
    compared = comparisons(runs)
    if store and not any(one.rows(store) is not None for one in compared):
        raise ValueError(
            f"{store.folder} does not hold the test clips of these runs with their labels: give "
            "the store that they were tested on."
        )
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    template = environment.from_string(Path(__file__).with_name("report.html").read_text("utf-8"))
    with rc_context(DRAWING):
        sections = [_section(one, store, n_resamples, seed, layout) for one in compared]
    begun = sorted(str(_made_by(s).get("begun") or "")[:10] for c in compared for s in c.scored)
    days = " to ".join(dict.fromkeys(filter(None, (begun[0], begun[-1]))))
    return template.render(sections=sections, n_runs=len(runs), days=days, n_resamples=n_resamples)


# What is compared with what


@dataclass(frozen=True)
class Scored:
    """A run and its mean probability over each clip's windows, `probs` (clip, tag) float32."""

    label: str
    run: Run
    probs: np.ndarray

    @cached_property
    def record(self) -> dict[str, Any]:
        """As `Run.record`, read once."""
        return self.run.record

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What decides the weights besides the seed: settings and training data."""
        apart = {"seed", *PLACE_SETTINGS}
        settings = {k: v for k, v in self.run.config.to_dict().items() if k not in apart}
        return settings | {"data": self.record["data"].get("checksum")}


@dataclass(frozen=True)
class Cell:
    """Runs that differ in nothing but their seed, by seed."""

    label: str
    of_seed: Mapping[int, Scored]

    @property
    def first(self) -> Scored:
        """The run that stands for the cell where one must."""
        return next(iter(self.of_seed.values()))

    @property
    def method(self) -> str:
        """The method of all of them."""
        return self.first.run.config.method


@dataclass(frozen=True)
class Comparison:
    """Runs tested on the same clips, with these tags: `labels` (clip, tag) 0/1."""

    clip_ids: np.ndarray
    labels: np.ndarray
    tags: list[str]
    task: str
    scored: list[Scored] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The data set or, where that was kept under several names, all of them."""
        names = dict.fromkeys(one.record["data"]["name"] for one in self.scored)
        return ", ".join(map(str, names))

    def holds(self, scores: Mapping[str, np.ndarray]) -> bool:
        """Whether `scores` are of these clips, labels and tags."""
        own = {"clip_ids": self.clip_ids, "labels": self.labels, "tags": self.tags}
        return all(np.array_equal(scores[key], value) for key, value in own.items())

    def rows(self, store: AudioStore) -> np.ndarray | None:
        """The clips' rows in `store` (clip,), None where it is of other clips, labels or tags."""
        rows = pd.Index(store.table.clip_id).get_indexer(self.clip_ids.astype(str))
        same = list(store.vocabulary.tags) == self.tags and (rows >= 0).all()
        return rows if same and np.array_equal(store.labels[rows], self.labels) else None

    @cached_property
    def cells(self) -> list[Cell]:
        """The runs by what they were told apart from the seed, in the order of their folders."""
        cells: list[dict[int, Scored]] = []
        for one in self.scored:
            seed = one.run.config.seed
            for cell in cells:
                if seed not in cell and next(iter(cell.values())).settings == one.settings:
                    cell[seed] = one
                    break
            else:
                cells.append({seed: one})
        labels = [_without_seed(next(iter(cell.values()))) for cell in cells]
        return [
            Cell(label if labels.count(label) == 1 else next(iter(cell.values())).label, cell)
            for label, cell in zip(labels, cells, strict=True)
        ]

    @cached_property
    def groups(self) -> np.ndarray | None:
        """The clips' groups (clip,), where the scores name them."""
        return self.scored[0].run.read_arrays("scores.npz").get("groups")

    @cached_property
    def per_tag(self) -> dict[str, pd.DataFrame]:
        """`metrics.per_tag` of every cell by its label, the areas averaged over its seeds."""
        tables = {}
        for cell in self.cells:
            own = [metrics.per_tag(self.labels, s.probs, self.tags) for s in cell.of_seed.values()]
            areas = {
                name: np.mean([table[name] for table in own], axis=0)
                for name in ("roc_auc", "average_precision")
            }
            tables[cell.label] = own[0].assign(**areas)
        return tables

    @cached_property
    def floor(self) -> dict[str, np.ndarray]:
        """Scores (clip, tag) of the baselines whose file lies beside a run, by name."""
        for folder in dict.fromkeys(one.run.folder.parent for one in self.scored):
            path = folder / "baselines.npz"
            arrays = read_arrays(path) if path.is_file() else None
            if arrays and self.holds(arrays):
                return {name: arrays[name] for name in baselines.NAMES if name in arrays}
        return {}


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """The runs by what they were tested on, in the order given."""
    compared: list[Comparison] = []
    for label, run in zip(_labels(runs), runs, strict=True):
        scores = run.read_arrays("scores.npz")
        if absent := {"clip_ids", "labels", "tags", "probs"} - scores.keys():
            raise ValueError(
                f"{run.folder}/scores.npz lacks {', '.join(sorted(absent))}: score the run again."
            )
        fitting = [one for one in compared if one.holds(scores)]
        if not fitting:
            tags = [str(tag) for tag in scores["tags"]]
            told = Comparison(scores["clip_ids"], scores["labels"], tags, task_of(scores))
            compared.append(told)
            fitting = [told]
        fitting[0].scored.append(Scored(label, run, scores["probs"].mean(1)))
    return compared


def _labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its settings' or, where two share that, its folder below the common
    one."""
    names = [run.config.name for run in runs]
    if len(set(names)) == len(names):
        return names
    folders = [run.folder.resolve() for run in runs]
    return [folder.relative_to(commonpath(folders)).as_posix() for folder in folders]


def _without_seed(one: Scored) -> str:
    return one.label.removesuffix(f"-seed{one.run.config.seed}")


def pairs(cells: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Which cells to subtract: each, and of every control the one whose settings are nearest;
    where there is no control, the first cell is it."""
    controls = [cell for cell in cells if cell.method in CONTROLS] or list(cells[:1])
    found: list[tuple[Cell, Cell]] = []
    for cell in cells:
        for method in dict.fromkeys(control.method for control in controls):
            others = [c for c in controls if c.method == method and c is not cell]
            nearest = max(others, key=lambda other, cell=cell: _alike(other, cell), default=None)
            if nearest and (nearest, cell) not in found:
                found.append((cell, nearest))
    return found


def _alike(a: Cell, b: Cell) -> int:
    """In how many settings two cells agree."""
    return sum(value == b.first.settings[name] for name, value in a.first.settings.items())


# Sections


def _section(
    one: Comparison, store: AudioStore | None, n_resamples: int, seed: int, layout: str
) -> dict[str, Any]:
    """All that the template tells of one comparison."""
    scores = score_rows(one, n_resamples, seed)
    return {
        "name": one.name,
        "n_clips": len(one.labels),
        "tags": one.tags,
        "task": one.task,
        "labels": [scored.label for scored in one.scored],
        "data": data_table(one),
        "about": about_table(one),
        "protocols": [
            (f"{_named(name)} ({name})", PROTOCOLS.get(name, ""), protocol_table(rows))
            for name, rows in scores.groupby("protocol", sort=False)
        ],
        "scores_figure": _picture(figures.scores_with_intervals(scores)),
        "has_floor": bool(one.floor),
        "differences": difference_table(one, n_resamples, seed),
        "cells": [cell.label for cell in one.cells],
        "per_tag": per_tag_rows(one),
        "per_tag_figure": _picture(figures.per_tag(one.per_tag)),
        "correlation": _correlation(one),
        "maps": _maps(one, layout, seed),
        "curves": [
            (scored.label, _picture(figures.loss_curves(scored.run.history)))
            for scored in one.scored
            if len(scored.run.history)
        ],
        "stages": stage_table(one),
        "differing": differing_settings(one),
        "settings": [(scored.label, settings_text(scored.run)) for scored in one.scored],
        "versions": [(s.label, _made_by(s)) for s in one.scored],
        "has_audio": store is not None and one.rows(store) is not None,
        "examples": listening(one, store),
    }


def data_table(one: Comparison) -> pd.DataFrame:
    """One row for every data that the runs were trained on: name, checksums, clips a split."""
    rows: dict[str, dict[str, Any]] = {}
    for scored in one.scored:
        data = scored.record["data"]
        told = {
            "data set": data["name"],
            "checksum": data.get("checksum"),
            "checksum of the split": data.get("split_checksum"),
            **{f"{split} clips": n for split, n in (data.get("clips_by_split") or {}).items()},
        }
        rows.setdefault(str(told), told | {"runs": 0})["runs"] += 1
    return _texts(pd.DataFrame(list(rows.values())))


def about_table(one: Comparison) -> pd.DataFrame:
    """One row a run: what it is, when it was begun and of which commits its stages are."""
    rows = []
    for scored in one.scored:
        config, made_by = scored.run.config, _made_by(scored)
        commits = [made_by.get("commit"), *(s.get("commit") for s in _stages(scored).values())]
        rows.append(
            {
                "run": scored.label,
                **{name: getattr(config, name) for name in ("method", "pair_loss", "extractor")},
                "width": config.width,
                "seed": config.seed,
                "begun": str(made_by.get("begun") or "").replace("T", " ").removesuffix("+00:00"),
                "commit": ", ".join(dict.fromkeys(filter(None, commits))),
            }
        )
    return _texts(pd.DataFrame(rows))


def score_rows(one: Comparison, n_resamples: int, seed: int) -> pd.DataFrame:
    """`score_table` of every run and baseline in one long table, whose `run` names the row and
    `method` the cell, for the figure."""
    tables = [
        score_table(scored.run, n_resamples, seed).assign(
            run=scored.label, method=cell.label, pair_loss=""
        )
        for cell in one.cells
        for scored in cell.of_seed.values()
    ]
    for name, scores in one.floor.items():
        label = f"{name} ({FLOOR[name]})"
        table = metrics.score_table(
            one.labels, scores[:, None], n_resamples, seed, one.groups, one.task
        )
        tables.append(table.assign(run=label, method=label, pair_loss=""))
    return pd.concat(tables, ignore_index=True)


def protocol_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One protocol's rows of `score_rows` with a row a run and a column a metric."""
    text = rows.assign(text=[_with_interval(row) for row in rows.to_dict("records")])
    wide = text.pivot_table(index="run", columns="metric", values="text", aggfunc="first")
    wide = wide.loc[list(dict.fromkeys(rows["run"])), list(dict.fromkeys(rows["metric"]))]
    return _texts(wide.rename(columns=_named).reset_index())


def _with_interval(row: Mapping[str, Any], form: str = ".3f") -> str:
    """A value with its interval by clip and, where clips share artists, by group."""
    value, low, high = (format(row[name], form) for name in ("value", "low", "high"))
    text = f"{value} [{low}, {high}]"
    if pd.notna(row.get("group_low")):
        text += f", by group [{row['group_low']:{form}}, {row['group_high']:{form}}]"
    return text


def difference_table(one: Comparison, n_resamples: int, seed: int) -> pd.DataFrame:
    """`metrics.paired_difference` of `pairs`, over the seeds that both have; where they have none
    in common, seed by seed in order."""
    rows = []
    for a, b in pairs(one.cells):
        shared = [s for s in a.of_seed if s in b.of_seed]
        n = min(len(a.of_seed), len(b.of_seed))
        seeds = (shared, shared) if shared else (list(a.of_seed)[:n], list(b.of_seed)[:n])
        probs = [
            np.stack([cell.of_seed[s].probs for s in own])
            for cell, own in zip((a, b), seeds, strict=True)
        ]
        told = metrics.paired_difference(
            one.labels, *probs, n_resamples, seed, one.groups, task=one.task
        )
        row = {"first": a.label, "second": b.label, "seeds": _seeds(*seeds)}
        for figure in told.rename(columns={"difference": "value"}).to_dict("records"):
            apart = " *" if figure["low"] > 0 or figure["high"] < 0 else ""
            text = _with_interval(figure, "+.3f").replace("-", "−")
            row[_named(figure["metric"])] = text + apart
        rows.append(row)
    return _texts(pd.DataFrame(rows))


def _seeds(first: list[int], second: list[int]) -> str:
    told = [", ".join(map(str, seeds)) for seeds in (first, second)]
    return told[0] if first == second else " against ".join(told)


def per_tag_rows(one: Comparison) -> list[dict[str, Any]]:
    """One row a tag, commonest first: `tag`, `n` and `share` of the test clips that carry it, and
    `values`, for every cell (average precision, whether it is the best of the row)."""
    values = np.stack([table["average_precision"] for table in one.per_tag.values()], axis=1)
    counts = one.labels.sum(axis=0)
    return [
        {
            "tag": one.tags[i],
            "n": int(counts[i]),
            "share": f"{counts[i] / len(one.labels):.3f}",
            "values": [(f"{v:.3f}", v == values[i].max()) for v in values[i] if counts[i]],
        }
        for i in np.argsort(-counts, kind="stable")
    ]


def _correlation(one: Comparison) -> tuple[str, str] | None:
    """The commonest tag and the heat map of those nearest to it; classes exclude each other."""
    if one.task == "multiclass" or len(one.tags) < 2:
        return None
    tag = one.tags[int(one.labels.sum(axis=0).argmax())]
    n = min(10, len(one.tags) - 1)
    return tag, _picture(figures.tag_correlation(one.labels, one.tags, tag, n))


def _maps(one: Comparison, layout: str, seed: int) -> list[tuple[str, str]]:
    """Label and shared space of the first cells that have one."""
    maps = []
    for scored in (cell.first for cell in one.cells):
        if len(maps) == MOST_MAPS or not scored.run.has("embeddings.npz"):
            continue
        space = scored.run.read_arrays("embeddings.npz")
        if "z_audio" in space and len(one.labels) >= figures.FEWEST_POINTS:
            points = np.concatenate([space["z_audio"], space["z_query"][: len(one.tags)]])
            xy, n = figures.layout(points, layout, seed), len(space["z_audio"])
            note = ""
            if len(np.unique(one.labels, axis=0)) > 1:
                gap = metrics.gap(space["z_audio"], space["z_tag"], one.labels)["gap"]
                note = f"gap between own and other clips' tags: {gap:.2f} standard deviations"
            figure = figures.shared_space(xy[:n], xy[n:], one.tags, note=note)
            maps.append((scored.label, _picture(figure)))
    return maps


def stage_table(one: Comparison) -> pd.DataFrame:
    """One row a run and finished stage, a column for everything that was noted of any."""
    rows = [
        {"run": scored.label, "stage": stage, **facts}
        for scored in one.scored
        for stage, facts in _stages(scored).items()
    ]
    table = pd.DataFrame(rows)
    units = {"wall_time_s": "wall time (s)", "peak_memory_mib": "peak memory (MiB)"}
    return _texts(table.rename(columns=units).rename(columns=_named))


def differing_settings(one: Comparison) -> pd.DataFrame:
    """The settings (and the data's checksum) in which the runs differ, a row a setting and a
    column a run."""
    told = {
        s.label: _flat({**s.run.config.to_dict(), "data": s.settings["data"]}) for s in one.scored
    }
    table = pd.DataFrame(told)
    differ = table[[len(set(row)) > 1 for row in table.to_numpy()]]
    return _texts(differ.rename_axis("setting").reset_index())


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as text, a phase in one breath: adam 0.002 × 16."""
    flat = {}
    for name, value in settings.items():
        if isinstance(value, list | tuple):
            value = ", ".join(
                f"{p['optimizer']} {p['learning_rate']:g} × {p['epochs']}"
                + ("" if p["shape"] == "constant" else f" {p['shape']}")
                for p in value
            )
        flat[name] = str(value)
    return flat


def settings_text(run: Run) -> str:
    """All settings as YAML, which `jetatag train --config` reads."""
    return yaml.safe_dump(run.config.to_dict(), sort_keys=False, allow_unicode=True)


def _made_by(scored: Scored) -> dict[str, Any]:
    return scored.record.get("made_by", {})


def _stages(scored: Scored) -> dict[str, dict[str, Any]]:
    return scored.record["stages"]


# Listening


def listening(one: Comparison, store: AudioStore | None) -> list[dict[str, Any]]:
    """The best and the worst clips of the first cells' first runs: `run`, `best` and `worst`.

    For each clip `row` (among the test clips), `clip_id`, `title`, `ranking`, `tags`, `guesses`
    (tag, probability, whether it is right), `heard` (whether a place before this one plays it) and
    `audio`, a data URI, None without the store and where the clip was heard.
    """
    rows = one.rows(store) if store else None
    heard: set[int] = set()
    told = []
    for scored in (cell.first for cell in one.cells[:MOST_HEARD]):
        ranking = ranking_precision(one.labels, scored.probs)
        kinds: dict[str, Any] = {"run": scored.label, "best": [], "worst": []}
        best, worst = _extremes(ranking, one.labels, scored.probs)
        for kind, clip in [("best", clip) for clip in best] + [("worst", clip) for clip in worst]:
            example = _described(one, scored.probs[clip], clip) | {
                "ranking": f"{ranking[clip]:.3f}",
                "heard": clip in heard,
                "title": "" if rows is None else store.table.title.iloc[rows[clip]],
                "audio": None if rows is None or clip in heard else excerpt(store, rows[clip]),
            }
            heard.add(clip)
            kinds[kind].append(example)
        told.append(kinds)
    return told


def _described(one: Comparison, probs: np.ndarray, clip: int) -> dict[str, Any]:
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
    """How well each clip's own tags rank before the others: (clip,) float64 in (0, 1].

    Label ranking average precision (Schapire & Singer 2000, "BoosTexter") of every clip alone: the
    mean over its tags of the share of its own among the tags that score at least as high. NaN for
    clips without tags. `labels` and `probs` are (clip, tag).
    """
    precision = np.full(len(labels), np.nan)
    for clip in np.flatnonzero(np.any(labels, axis=1)):
        own = labels[clip] == 1
        as_high = probs[clip] >= probs[clip, own, None]  # (own tag, tag)
        precision[clip] = (as_high[:, own].sum(axis=1) / as_high.sum(axis=1)).mean()
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


def _named(name: str) -> str:
    return figures.NAMES.get(name, name.replace("_", " "))
