"""Saved scores and embeddings of many runs → the tables of an evaluation; no model is needed.

A *cell* is what is compared: extractor, method, pair loss and share of labels on one data set; its
runs differ in their seed. Rows of one table say what they are by `seed` (a number, or "mean" for
the mean over a cell's seeds), `tag` (empty for the mean over tags) and `minus` (the method that was
subtracted, empty for scores).
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics.pairwise import cosine_similarity
from tqdm import tqdm

from jetatag import baselines, metrics
from jetatag.files import read_arrays
from jetatag.queries import KINDS, answers, classifier_scores, kinds
from jetatag.runs import Run

CELL = ("dataset", "extractor", "width", "method", "pair_loss", "label_share")
REFERENCES = ("no_je", "no_je_linear")
"""Methods that the others are compared with: the paper's baseline, and the fair control."""
INTERVALS = ("low", "high", "group_low", "group_high")
NEIGHBOURS = 10


# One run


def score_table(run: Run, n_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """`metrics.score_table` of the run's saved scores, by the task and groups they carry."""
    scores = run.read_arrays("scores.npz")
    return metrics.score_table(
        scores["labels"],
        scores["probs"],
        n_resamples,
        seed,
        groups_of(scores),
        task_of(scores),
        thresholds(run),
    )


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


def groups_of(scores: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The group of each clip, such as its artist; clips of no group stand for themselves."""
    if "groups" not in scores:
        return None
    groups, clips = scores["groups"], scores["clip_ids"]
    return np.where(groups == "", np.char.add("clip ", clips), groups)


# Many runs of the same clips


def clip_scores(runs: Sequence[Run]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Mean probability over windows by run name, each (clip, tag), with the labels and tags.

    Runs of different test clips or tags cannot be compared and are refused (`ValueError`).
    """
    arrays = {run.config.name: run.read_arrays("scores.npz") for run in runs}
    first = next(iter(arrays.values()))
    for name, own in arrays.items():
        if any(not np.array_equal(own[key], first[key]) for key in ("clip_ids", "labels", "tags")):
            raise ValueError(f"{name} was tested on other clips or tags than the runs beside it.")
    return (
        {name: own["probs"].mean(1) for name, own in arrays.items()},
        first["labels"],
        first["tags"],
    )


def cell_of(run: Run) -> tuple[Any, ...]:
    """Which cell the run belongs to, in the order of `CELL`."""
    config = run.config
    return (run.record["data"]["name"], *(getattr(config, name) for name in CELL[1:]))


def cells(runs: Iterable[Run]) -> dict[tuple[Any, ...], dict[int, Run]]:
    """The runs of every cell by their seeds."""
    found: dict[tuple[Any, ...], dict[int, Run]] = {}
    for run in runs:
        found.setdefault(cell_of(run), {})[run.config.seed] = run
    return {cell: dict(sorted(of_seeds.items())) for cell, of_seeds in found.items()}


def results(
    runs: Sequence[Run], n_resamples: int = 1000, seed: int = 0, floor: Path | str | None = None
) -> pd.DataFrame:
    """The one table of an evaluation, long: every run, the mean of every cell over its seeds, its
    differences to `REFERENCES`, every tag, and with a `floor` what is reached without a network.

    Columns: those of `CELL`, `seed`, `tag`, `minus`, `protocol`, `metric`, `value`, 95 % intervals
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
    rows += differences(drawn, seed)
    rows += [
        about(cell_of(run), run.config.seed, tag_rows(labels, probs[run.config.name], tags))
        for run in runs
    ]
    if floor is not None:
        rows += floor_rows(runs[0], floor, n_resamples, seed)
    table = pd.concat(rows, ignore_index=True)
    return table.assign(n_clips=len(labels), n_tags=int(labels.any(axis=0).sum()))


def resampled(run: Run, n_resamples: int, seed: int) -> pd.DataFrame:
    """`metrics.resampled` of the run's window scores, with groups and thresholds."""
    scores = run.read_arrays("scores.npz")
    return metrics.resampled(
        scores["labels"],
        scores["probs"],
        n_resamples,
        seed,
        groups_of(scores),
        task_of(scores),
        thresholds(run),
    )


def differences(
    drawn: Mapping[tuple[Any, ...], Mapping[int, pd.DataFrame]], seed: int
) -> list[pd.DataFrame]:
    """Rows of every cell minus the `REFERENCES` of its data, extractor and labels, paired over
    clips and over the seeds that both have. `drawn`: the runs of each cell, `resampled`."""
    rows = []
    for (cell, own), (other_cell, other) in itertools.product(drawn.items(), repeat=2):
        method, reference = (dict(zip(CELL, c, strict=True)).pop("method") for c in (cell, other_cell))
        alike = all(
            a == b
            for name, a, b in zip(CELL, cell, other_cell, strict=True)
            if name not in ("method", "pair_loss")
        )
        seeds = sorted(own.keys() & other.keys())
        if alike and seeds and method != reference and reference in REFERENCES:
            pairs = ([frames[number] for number in seeds] for frames in (own, other))
            table = metrics.difference_table(*pairs, seed).rename(columns={"difference": "value"})
            rows.append(about(cell, "mean", table, minus=reference))
    return rows


def about(
    cell: tuple[Any, ...], seed: int | str, table: pd.DataFrame, minus: str = ""
) -> pd.DataFrame:
    """`table` with the columns that say whose its rows are in front."""
    told = {**dict(zip(CELL, cell, strict=True)), "seed": str(seed), "tag": "", "minus": minus}
    front = pd.DataFrame([told] * len(table), index=table.index)
    return pd.concat([front.drop(columns=front.columns.intersection(table.columns)), table], axis=1)


def tag_rows(labels: np.ndarray, scores: np.ndarray, tags: Sequence[str]) -> pd.DataFrame:
    """Every tag's areas, long; those that cannot be scored are missing."""
    table = metrics.per_tag(labels, scores, tags).drop(columns="n_positive")
    return table.melt("tag", var_name="metric").assign(protocol="macro_clip")


def floor_rows(
    run: Run, floor: Path | str, n_resamples: int, seed: int
) -> list[pd.DataFrame]:
    """Rows of the baselines beside `run`, tested on the same clips."""
    scores, tested = read_arrays(floor), run.read_arrays("scores.npz")
    if not np.array_equal(scores["labels"], tested["labels"]):
        raise ValueError(f"{floor} is of other test clips than the runs: run notebook 01 again.")
    groups, task, data = groups_of(tested), task_of(tested), run.record["data"]["name"]
    rows = []
    for name in baselines.NAMES:
        drawn = metrics.resampled(
            scores["labels"], scores[name][:, None], n_resamples, seed, groups, task
        )
        rows.append(about((data, "", 0, name, "none", 1.0), "", metrics.mean_table([drawn], seed)))
    return rows


# Spaces


def spaces(runs: Sequence[Run]) -> pd.DataFrame:
    """What each run's vectors know of the tags, long: the columns of `CELL`, `seed`, `space`,
    `metric`, `value`, and for searches `kind` (of query) and `ranked_by`.

    Of h, z_audio and z_tag the agreement of nearest neighbours and the effective rank; of the
    shared space its gap, the share of z_tag's energy in its mean, and the tags' own space
    (`metrics.tag_semantics`); and for every kind of query the mean average precision and the
    precision at 10 of ranking by cosine and by the classifier, and what chance would give.
    """
    queries = next((e["queries"] for e in map(embeddings, runs) if "queries" in e), None)
    tables = []
    for run in tqdm(runs, "spaces", unit="run"):
        space = embeddings(run)
        rows = space_rows(space) + shared_rows(space)
        if queries is not None:
            rows += search_rows(space, run.read_arrays("scores.npz")["probs"].mean(1), queries)
        tables.append(about(cell_of(run), run.config.seed, pd.DataFrame(rows)))
    front = [*CELL, "seed", "space", "kind", "ranked_by", "metric", "value"]
    return pd.concat(tables, ignore_index=True).reindex(columns=front).fillna({"space": "", "kind": "", "ranked_by": ""})


def embeddings(run: Run) -> dict[str, np.ndarray]:
    """The run's saved embeddings."""
    return run.read_arrays("embeddings.npz")


def space_rows(space: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Neighbour agreement and effective rank of every kind of vector that clips have."""
    labels, rows = space["labels"], []
    k = min(NEIGHBOURS, int(labels.any(axis=1).sum()) - 1)
    for name in ("h", "z_audio", "z_tag"):
        if name in space:
            near = metrics.neighbour_agreement(space[name], labels, k)
            values = {
                "neighbour_agreement": near["agreement"],
                "chance_agreement": near["chance"],
                "effective_rank": metrics.effective_rank(space[name]),
            }
            rows += [{"space": name, "metric": m, "value": v} for m, v in values.items()]
    return rows


def shared_rows(space: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """How music and tags lie together, and how the tags lie among themselves."""
    if "z_tag" not in space:
        return []
    values = metrics.gap(space["z_audio"], space["z_tag"], space["labels"])
    values["mean_energy"] = metrics.mean_energy(space["z_tag"])
    values["tag_semantics"] = metrics.tag_semantics(space["z_single"], space["tag_correlation"])
    return [{"space": "shared", "metric": name, "value": value} for name, value in values.items()]


def search_rows(
    space: Mapping[str, np.ndarray], probs: np.ndarray, queries: np.ndarray
) -> list[dict[str, Any]]:
    """Searches of every kind, ranked by the shared space (where there is one), by the classifier's
    probabilities (clip, tag), and by chance; queries that no clip answers are left out."""
    relevant = answers(space["labels"], queries)
    ranked = {"classifier": metrics.rank_table(classifier_scores(probs, queries), relevant)}
    if "z_query" in space:
        clips, asked = (space[name] - space["z_centre"] for name in ("z_audio", "z_query"))
        ranked["space"] = metrics.rank_table(cosine_similarity(clips, asked), relevant)
    share = relevant.mean(axis=0)
    names = {"average_precision": "map", "precision_at_10": "precision_at_10"}
    answered, kind_of = relevant.any(axis=0), kinds(queries)
    rows = []
    for kind in (kind for kind in KINDS if (answered & (kind_of == kind)).any()):
        asked = answered & (kind_of == kind)
        means = {by: table.loc[asked, list(names)].mean() for by, table in ranked.items()}
        means["chance"] = pd.Series(share[asked].mean(), list(names))
        rows += [
            {"space": "shared", "kind": kind, "ranked_by": by, "metric": names[m], "value": v}
            for by, mean in means.items()
            for m, v in mean.items()
        ]
    return rows
