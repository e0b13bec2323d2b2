"""Saved scores and embeddings of many runs → the tables of an evaluation; no model is needed.

A *cell* is what is compared: extractor, method, pair loss and share of labels on one data set; its
runs differ in their seed. Rows of one table say what they are by `seed` (a number, or "mean" for
the mean over a cell's seeds), `tag` (empty for the mean over tags) and `minus` (the method that was
subtracted, empty for scores).
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics.pairwise import cosine_similarity
from tqdm import tqdm

from jetatag import metrics
from jetatag.evaluation import baselines
from jetatag.files import atomic, read_arrays
from jetatag.metrics.gains import FEWEST_TAGS
from jetatag.metrics.queries import answers, classifier_scores, kinds
from jetatag.metrics.tables import BOUNDS
from jetatag.training.run import PLACE_SETTINGS, Run


class Cell(NamedTuple):
    """What is compared; the names are those of the tables' columns."""

    dataset: str
    extractor: str
    width: int
    method: str
    pair_loss: str
    label_share: float


REFERENCES = ("no_je", "no_je_linear", "bce_two_stage", "je_shuffled")
"""Methods that the others are compared with: the paper's baseline; the same network with one linear
layer; the same two stages as joint embedding without a space of tags; and joint embedding of music
with the tags of other music."""
TESTED = ("clip_ids", "labels", "tags")
"""The arrays of scores.npz that say what a run was tested on."""
ENCODED, ANSWERING, CLASSIFIER = "encoded set", "answering clips", "classifier"
"""What ranks clips for a query: its tags embedded as one set, the mean tag vector of the training
clips that answer it, or the classifier's probabilities (`predict.query_vectors`)."""
MINUS = " − "
NEIGHBOURS = 10
"""Nearest clips whose tags are compared, and first places of a search that are counted."""


# One run


def score_table(run: Run, n_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """`metrics.score_table` of the run's saved scores, by the task and groups they carry."""
    return metrics.score_table(**_saved(run), n_resamples=n_resamples, seed=seed)


def resampled(run: Run, n_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """`metrics.resampled` of the run's saved window scores, from which all intervals come."""
    saved = _saved(run)
    scores = saved.pop("window_scores")
    return metrics.resampled(scores=scores, **saved, n_resamples=n_resamples, seed=seed)


def _saved(run: Run) -> dict[str, Any]:
    """The run's window scores and what they are judged by, as `metrics` names them."""
    scores = run.read_arrays("scores.npz")
    return {
        "labels": scores["labels"],
        "window_scores": scores["probs"],
        "groups": scores.get("groups"),
        "task": task_of(scores),
        "thresholds": thresholds(run),
    }


def thresholds(run: Run) -> np.ndarray | None:
    """Each tag's threshold (tag,) by `metrics.choose_thresholds` on the saved validation scores;
    None for a run without them or of a multiclass task, where the highest score decides."""
    if not run.has("scores.valid.npz"):
        return None
    scores = run.read_arrays("scores.valid.npz")
    if task_of(scores) == "multiclass":
        return None
    return metrics.choose_thresholds(scores["labels"], scores["probs"].mean(1))


def task_of(scores: Mapping[str, np.ndarray]) -> str:
    """The task that saved scores are of; files written before they said it are multilabel."""
    return str(scores.get("task", "multilabel"))


# Many runs of the same clips


def by_test(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs in lists of the same test clips, labels and tags, in the order given; scores that do
    not say theirs are refused (`ValueError`)."""
    found: list[tuple[list[np.ndarray], list[Run]]] = []
    for run in runs:
        scores = run.read_arrays("scores.npz")
        if absent := {*TESTED, "probs"} - scores.keys():
            raise ValueError(
                f"{run.folder}/scores.npz lacks {', '.join(sorted(absent))}: score the run again."
            )
        tested = [scores[name] for name in TESTED]
        alike = (own for other, own in found if all(map(np.array_equal, tested, other)))
        if (own := next(alike, None)) is None:
            found.append((tested, own := []))
        own.append(run)
    return [own for _, own in found]


def clip_scores(runs: Sequence[Run]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Mean probability over windows by run name, each (clip, tag), with the labels and tags.

    Runs of different test clips or tags cannot be compared and are refused (`ValueError`).
    """
    _, *others = by_test(runs)
    if others:
        name = others[0][0].config.name
        raise ValueError(f"{name} was tested on other clips or tags than the runs beside it.")
    arrays = {run.config.name: run.read_arrays("scores.npz") for run in runs}
    if len(arrays) < len(runs):
        raise ValueError("some of the runs share a name: compare the runs of one folder.")
    first = next(iter(arrays.values()))
    return (
        {name: own["probs"].mean(1) for name, own in arrays.items()},
        first["labels"],
        first["tags"],
    )


def cell_of(run: Run) -> Cell:
    """Which cell the run belongs to."""
    return Cell(
        run.record["data"]["name"], *(getattr(run.config, name) for name in Cell._fields[1:])
    )


def cells(runs: Iterable[Run]) -> dict[Cell, dict[int, Run]]:
    """The runs of every cell by their seeds; two of one seed, and runs of a cell that differ in
    more than the seed, are refused (`ValueError`)."""
    found: dict[Cell, dict[int, Run]] = {}
    for run in runs:
        of_seeds = found.setdefault(cell_of(run), {})
        other = next(iter(of_seeds.values()), run)
        own, theirs = decisive(run), decisive(other)
        differing = [name for name, value in own.items() if value != theirs[name]]
        if differing or run.config.seed in of_seeds:
            raise ValueError(
                f"{other.folder} and {run.folder} count as seeds of one method but differ in "
                f"{', '.join(differing) or 'nothing'}: keep and compare them in folders apart."
            )
        of_seeds[run.config.seed] = run
    return {cell: dict(sorted(of_seeds.items())) for cell, of_seeds in found.items()}


def decisive(run: Run) -> dict[str, Any]:
    """What decides a run's weights besides the seed: settings, and the checksum of its data."""
    apart = ("seed", *PLACE_SETTINGS)
    settings = {name: v for name, v in run.config.to_dict().items() if name not in apart}
    return {**settings, "data": run.record["data"].get("checksum")}


def results(
    runs: Sequence[Run], n_resamples: int = 1000, seed: int = 0, floor: Path | str | None = None
) -> pd.DataFrame:
    """The one table of an evaluation, long: every run, the mean of every cell over its seeds, its
    differences to `REFERENCES`, every tag, and with a `floor` what is reached without a network.

    Columns: those of `Cell`, `seed`, `tag`, `minus`, `protocol`, `metric`, `value`, 95 % intervals
    by clip (`low`, `high`) and by group (`group_low`, `group_high`; missing where every clip is a
    group), `n_clips` and `n_tags` tested, the latter those that a clip carries. Means and
    differences also draw the seeds anew; differences are paired over clips and seeds. `floor` is
    notebook 01's baselines.npz, of the same test clips; its scores have no windows, so that in
    `micro_window` a clip counts as one. Single tags have no intervals here: see
    `metrics.gain_by_tag`. Raises `ValueError` for runs of other test clips.
    """
    probs, labels, tags = clip_scores(runs)
    drawn = {
        cell: {number: resampled(run, n_resamples, seed) for number, run in of_seeds.items()}
        for cell, of_seeds in tqdm(cells(runs).items(), "resample", unit="cell")
    }
    rows = [
        about(cell, number, metrics.mean_table([frame], seed))
        for cell, of_seeds in drawn.items()
        for number, frame in of_seeds.items()
    ]
    rows += [
        about(cell, "mean", metrics.mean_table(list(of_seeds.values()), seed))
        for cell, of_seeds in drawn.items()
    ]
    rows += [
        about(cell, "mean", metrics.difference_table(own, theirs, seed), minus=reference).rename(
            columns={"difference": "value"}
        )
        for cell, reference, own, theirs in compared(drawn)
    ]
    rows += [
        about(cell_of(run), run.config.seed, tag_rows(labels, probs[run.config.name], tags))
        for run in runs
    ]
    if floor is not None:
        rows += floor_rows(runs[0], floor, n_resamples, seed)
    table = pd.concat(rows, ignore_index=True)
    table = _within_bounds(table, table.minus == "")
    return table.assign(n_clips=len(labels), n_tags=int(labels.any(axis=0).sum()))


def _within_bounds(table: pd.DataFrame, is_score: pd.Series) -> pd.DataFrame:
    """The table with no score's interval leaving [0, 1]."""
    table.loc[is_score, BOUNDS] = table.loc[is_score, BOUNDS].clip(0, 1)
    return table


def rows_of(table: pd.DataFrame, run: Run, **others: str) -> pd.DataFrame:
    """Those rows of a long table that are of the run's cell and, say, `minus="no_je"`."""
    wanted = cell_of(run)._asdict() | others
    return table[(table[list(wanted)] == list(wanted.values())).all(axis=1)]


def compared(
    by_cell: Mapping[Cell, Mapping[int, Any]],
) -> Iterator[tuple[Cell, str, list[Any], list[Any]]]:
    """What is to be compared: for every cell and each of the `REFERENCES` on the same data,
    extractor and labels, the cell, the reference's method (with its pair loss, if it has one, as in
    the names of runs), and what both have of the seeds that are in both."""
    for (cell, own), (other, theirs) in itertools.product(by_cell.items(), repeat=2):
        seeds = sorted(own.keys() & theirs.keys())
        alike = cell._replace(method="", pair_loss="") == other._replace(method="", pair_loss="")
        if alike and seeds and cell != other and other.method in REFERENCES:
            yield cell, method_name(other), [own[n] for n in seeds], [theirs[n] for n in seeds]


def method_name(cell: Cell) -> str:
    """Method and pair loss as the names of runs begin: je-cosine, no_je."""
    return cell.method if cell.pair_loss == "none" else f"{cell.method}-{cell.pair_loss}"


def about(cell: Cell, seed: int | str, table: pd.DataFrame, minus: str = "") -> pd.DataFrame:
    """`table` with the columns that say whose its rows are in front."""
    told = {**cell._asdict(), "seed": str(seed), "tag": "", "minus": minus}
    front = pd.DataFrame([told] * len(table), index=table.index)
    return pd.concat([front.drop(columns=front.columns.intersection(table.columns)), table], axis=1)


def tag_rows(labels: np.ndarray, scores: np.ndarray, tags: Sequence[str]) -> pd.DataFrame:
    """Every tag's areas, long; those that cannot be scored are missing."""
    table = metrics.per_tag(labels, scores, tags).drop(columns="n_positive")
    return table.melt("tag", var_name="metric").assign(protocol="macro_clip")


def floor_rows(run: Run, floor: Path | str, n_resamples: int, seed: int) -> list[pd.DataFrame]:
    """Rows of the baselines beside `run`, tested on the same clips."""
    scores, tested = read_arrays(floor), run.read_arrays("scores.npz")
    if not np.array_equal(scores["labels"], tested["labels"]):
        raise ValueError(f"{floor} is of other test clips than the runs: run notebook 01 again.")
    groups, task, data = tested.get("groups"), task_of(tested), run.record["data"]["name"]
    rows = []
    for name in baselines.NAMES:
        chosen = scores.get(f"{name}.thresholds")
        drawn = metrics.resampled(
            scores["labels"], scores[name][:, None], n_resamples, seed, groups, task, chosen
        )
        rows.append(
            about(Cell(data, "", 0, name, "none", 1.0), "", metrics.mean_table([drawn], seed))
        )
    return rows


def all_histories(runs: Sequence[Run]) -> pd.DataFrame:
    """The runs' histories under each other, with the columns of `Cell` and `seed` in front."""
    tables = [about(cell_of(run), run.config.seed, run.history) for run in runs]
    return pd.concat(tables, ignore_index=True).drop(columns=["tag", "minus"])


def gains(
    runs: Sequence[Run], n_resamples: int = 1000, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Which tags gain by a method, and whether it is frequent or correlated ones.

    Of every method, so that what joint embedding does can be told from what any second stage or
    linear head does. Two long tables with the columns of `Cell` and `minus`: for every tag the
    `difference` in average precision to the reference with its interval, its `frequency` and its
    strongest `correlation` with another tag, both of the clips tested (`metrics.gain_by_tag`); and
    for these two the rank correlation with the tags' gains (`metrics.gain_trend`). The paper (Lee &
    Cho 2021) holds that correlated tags gain.
    """
    probs, labels, tags = clip_scores(runs)
    strongest = (metrics.tag_correlation(labels) - np.eye(len(tags))).max(axis=0)
    known = {"frequency": labels.mean(axis=0), "correlation": strongest}
    drawn = {
        cell: {
            number: metrics.resampled_per_tag(labels, probs[run.config.name], n_resamples, seed)
            for number, run in of_seeds.items()
        }
        for cell, of_seeds in tqdm(cells(runs).items(), "resample tags", unit="cell")
    }
    by_tag, trends = [], []
    for cell, reference, own, theirs in compared(drawn):
        gain = metrics.resampled_gains(own, theirs, seed)
        table = metrics.gain_by_tag(labels, gain, tags).assign(**known)
        by_tag.append(about(cell, "mean", table, minus=reference))
        trend = _trend(labels, gain, known, seed)
        trends.append(about(cell, "mean", trend, minus=reference))
    if not by_tag:
        raise ValueError("no gain to tell: train two methods, alike in all else; one a reference.")
    return pd.concat(by_tag, ignore_index=True), pd.concat(trends, ignore_index=True)


def _trend(
    labels: np.ndarray, gain: np.ndarray, known: Mapping[str, np.ndarray], seed: int
) -> pd.DataFrame:
    """`metrics.gain_trend`; missing where there are too few tags, or all alike, to have one."""
    scored = labels.any(axis=0)
    if scored.sum() >= FEWEST_TAGS and all(np.ptp(what[scored]) > 0 for what in known.values()):
        return metrics.gain_trend(labels, gain, known, seed)
    missing = dict.fromkeys(("correlation", "low", "high"), np.nan)
    return pd.DataFrame({"covariate": list(known), **missing, "n_tags": scored.sum()})


# Spaces


def spaces(runs: Sequence[Run], n_resamples: int = 500, seed: int = 0) -> pd.DataFrame:
    """What each run's vectors know of the tags, long: the columns of `Cell`, `seed`, `space`,
    `metric`, `value`, 95 % intervals as in `results`, and for searches `kind` (of query) and
    `ranked_by`.

    Of h, z_audio and z_tag the agreement of nearest neighbours and the effective rank; of the
    shared space its gap, the share of z_tag's energy in its mean, and the tags' own space
    (`metrics.tag_semantics`); and for every kind of query the mean average precision and the
    precision at 10 of ranking by both kinds of query vector and by the classifier, the first two
    minus the last, and what chance would give. Agreement and searches have intervals, and rows of
    the mean over a cell's seeds, whose intervals draw the seeds as well.
    """
    saved = (run.read_arrays("embeddings.npz") for run in runs)
    queries = next((space["queries"] for space in saved if "queries" in space), None)
    drawn: dict[Cell, list[pd.DataFrame]] = {}
    tables = []
    for run in tqdm(runs, "spaces", unit="run"):
        space, cell = run.read_arrays("embeddings.npz"), cell_of(run)
        frame = resampled_space(run, space, queries, n_resamples, seed)
        drawn.setdefault(cell, []).append(frame)
        rows = pd.DataFrame(space_rows(space) + shared_rows(space))
        tables += [about(cell, run.config.seed, t) for t in (rows, metrics.mean_table([frame]))]
    means = {cell: metrics.mean_table(frames, seed) for cell, frames in drawn.items()}
    tables += [about(cell, "mean", table) for cell, table in means.items()]
    front = [*Cell._fields, "seed", "space", "kind", "ranked_by", "metric", "value", *BOUNDS]
    table = pd.concat(tables, ignore_index=True).reindex(columns=front)
    table = table.fillna({"space": "", "kind": "", "ranked_by": ""})
    return _within_bounds(table, ~table.ranked_by.str.contains(MINUS))


def resampled_space(
    run: Run,
    space: Mapping[str, np.ndarray],
    queries: np.ndarray | None,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Agreement of neighbours and searches of a run on every resample of its test clips, as
    `metrics.resampled`; columns (space, kind, ranked_by, metric)."""
    draws = {"n_resamples": n_resamples, "seed": seed, "groups": space.get("groups")}
    frame = metrics.resampled_means(agreements(space), **draws)
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    if queries is not None:
        probs = run.read_arrays("scores.npz")["probs"].mean(1)
        found = searches(space, probs, queries, draws)
        frame = frame.join(pd.concat({"shared": found}, axis=1))
    return frame.rename_axis(columns=["space", "kind", "ranked_by", "metric"])


def agreements(space: Mapping[str, np.ndarray]) -> dict[tuple[str, ...], np.ndarray]:
    """`metrics.agreement_by_clip` of every kind of vector that clips have, (clip,) each."""
    labels, found = space["labels"], {}
    k = min(NEIGHBOURS, int(labels.any(axis=1).sum()) - 1)
    for name in _vectors(space):
        near = metrics.agreement_by_clip(space[name], labels, k)
        found[name, "", "", "neighbour_agreement"] = near["agreement"]
        found[name, "", "", "chance_agreement"] = near["chance"]
    return found


def space_rows(space: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Effective rank of every kind of vector that clips have."""
    ranks = {name: metrics.effective_rank(space[name]) for name in _vectors(space)}
    return [{"space": n, "metric": "effective_rank", "value": rank} for n, rank in ranks.items()]


def _vectors(space: Mapping[str, np.ndarray]) -> list[str]:
    return [name for name in ("h", "z_audio", "z_tag") if name in space]


def shared_rows(space: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """How music and tags lie together, and how the tags lie among themselves."""
    if "z_tag" not in space:
        return []
    values = metrics.gap(space["z_audio"], space["z_tag"], space["labels"])
    values["mean_energy"] = metrics.mean_energy(space["z_tag"])
    few = len(space["z_single"]) < FEWEST_TAGS
    among = np.nan if few else metrics.tag_semantics(space["z_single"], space["tag_correlation"])
    values["tag_semantics"] = among
    return [{"space": "shared", "metric": name, "value": value} for name, value in values.items()]


def searches(
    space: Mapping[str, np.ndarray],
    probs: np.ndarray,
    queries: np.ndarray,
    draws: Mapping[str, Any],
) -> pd.DataFrame:
    """`metrics.resampled_searches` of every kind, ranked in the shared space (where there is one)
    by each kind of query vector, by the classifier's probabilities (clip, tag), and by chance; then
    the first minus the second. Queries that no clip answers are left out."""
    relevant = answers(space["labels"], queries)
    rankings = {CLASSIFIER: classifier_scores(probs, queries), **cosines(space)}
    found = metrics.resampled_searches(
        relevant, rankings, kinds(queries), **draws, k=min(NEIGHBOURS, len(relevant))
    )
    for kind, by, metric in found:
        if by in (ENCODED, ANSWERING):
            apart = found[kind, by, metric] - found[kind, CLASSIFIER, metric]
            found[kind, f"{by}{MINUS}{CLASSIFIER}", metric] = apart
    return found


def cosines(space: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Kind of query vector → cosine of every clip with every query, (clip, query), about the
    kind's centre; none without a shared space. Vectors of clips that answer have a centre, encoded
    sets are about the origin."""
    found = {}
    for asked, centre in (("z_query", "z_centre"), ("z_other", "z_other_centre")):
        if asked in space:
            kind = ANSWERING if space[centre].any() else ENCODED
            about_centre = (space[name] - space[centre] for name in ("z_audio", asked))
            found[kind] = cosine_similarity(*about_centre)
    return found


def gather_tables(parent: Path | str, name: str) -> pd.DataFrame:
    """The tables `name` of every data set under `parent`, under each other, read from Parquet or,
    where there is none, from CSV; no table is refused in one sentence (`FileNotFoundError`)."""
    kinds = {"csv": pd.read_csv, "parquet": pd.read_parquet}
    paths = {
        path.parent: path
        for kind in kinds  # the last that there is
        for path in sorted(Path(parent).glob(f"*/{name}.{kind}"))
    }
    if not paths:
        raise FileNotFoundError(f"no {name}.parquet under {parent}: run notebooks 04 and 05 first.")
    tables = [kinds[path.suffix[1:]](path) for path in paths.values()]
    return pd.concat(tables, ignore_index=True)


def write_table(table: pd.DataFrame, folder: Path | str, name: str) -> None:
    """Write `table` as `name`.csv for eyes and `name`.parquet for programs, each atomically."""
    with atomic(Path(folder) / f"{name}.csv") as temporary:
        table.to_csv(temporary, index=False)
    with atomic(Path(folder) / f"{name}.parquet") as temporary:
        table.to_parquet(temporary, index=False)
