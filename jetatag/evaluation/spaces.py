"""The table of what the spaces of many runs know about the tags, from their saved embeddings."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics.pairwise import cosine_similarity
from tqdm import tqdm

from jetatag import metrics
from jetatag.evaluation.reading import MINUS
from jetatag.evaluation.results import Cell, cell_of, with_cell, within_bounds
from jetatag.metrics.layouts import NEIGHBOURS, map_quality, shared_layout
from jetatag.metrics.queries import answers, directions, kinds, query_scores, space_probs
from jetatag.training.run import Run

VECTORS = ("h", "z_audio", "z_tag")  # of a clip, the last two only with joint embedding
ENCODED, ANSWERING = "encoded set", "answering clips"
CLASSIFIER, COMBINED = "classifier", "combined"
"""What ranks clips for a query: in the shared space, the vector of the set of this tag alone
(`ENCODED`) or the mean over the training clips that carry it (`ANSWERING`), or the product of the
probabilities of classifier and space, by the vector that suits the pair loss (`COMBINED`)."""
MAPS = ("umap", "tsne")  # the layouts whose shared map of clips and tags is judged
Space = Mapping[str, np.ndarray]  # the arrays of embeddings.npz, as `predict` saves them


def spaces(runs: Sequence[Run], n_resamples: int = 500, seed: int = 0) -> pd.DataFrame:
    """Return what the vectors of each run know about the tags.

    A long table with the columns of `Cell`, `seed`, `space`, `metric`, `value`, 95 % intervals as
    in `results`, and for searches `kind` (of query) and `ranked_by`. For h, z_audio and z_tag: the
    agreement of nearest neighbours and the effective rank. For the shared space: `metrics.gap`,
    `mean_energy` and `tag_semantics`. For its maps, with the layout as `kind`: `MapQuality.ratios`,
    unless there are fewer clips than `NEIGHBOURS`. For every kind of query: the mean average
    precision and the precision at 10 of `rankings` and at random, and the differences from the
    classifier's. Agreement and searches have intervals, and rows for the mean over a cell's seeds.
    """
    saved = (run.read_arrays("embeddings.npz") for run in runs)
    queries = next((space["queries"] for space in saved if "queries" in space), None)
    resampled: dict[Cell, list[pd.DataFrame]] = {}
    tables = []
    for run in tqdm(runs, "spaces", unit="run"):
        space, cell = run.read_arrays("embeddings.npz"), cell_of(run)
        options = {"n_resamples": n_resamples, "seed": seed, "groups": space.get("groups")}
        own = _resampled(run, space, queries, options)
        resampled.setdefault(cell, []).append(own)
        for table in (_without_intervals(space, seed), metrics.mean_table([own])):
            tables.append(with_cell(table, cell, run.config.seed))
    tables += [with_cell(metrics.mean_table(own, seed), cell) for cell, own in resampled.items()]
    columns = [*Cell._fields, "seed", "space", "kind", "ranked_by", "metric", "value"]
    table = pd.concat(tables, ignore_index=True).reindex(columns=[*columns, *metrics.BOUNDS])
    table = table.fillna({"space": "", "kind": "", "ranked_by": ""})
    return within_bounds(table, ~table["ranked_by"].str.contains(MINUS))


def _without_intervals(space: Space, seed: int) -> pd.DataFrame:
    """Effective ranks, and how audio and tags lie in the shared space and on its maps."""
    held = [name for name in VECTORS if name in space]
    rows = [(name, "", "effective_rank", metrics.effective_rank(space[name])) for name in held]
    if "z_tag" in space:
        values = metrics.gap(space["z_audio"], space["z_tag"], space["labels"])
        values["mean_energy"] = metrics.mean_energy(space["z_tag"])
        values["tag_semantics"] = metrics.tag_semantics(space["z_single"], space["tag_correlation"])
        rows += [("shared", "", metric, value) for metric, value in values.items()]
        if len(space["labels"]) >= NEIGHBOURS:
            rows += [("z_audio", *named) for named in map_ratios(space, seed)]
    return pd.DataFrame(rows, columns=["space", "kind", "metric", "value"])


def map_ratios(space: Space, seed: int = 0) -> Iterator[tuple[str, str, float]]:
    """Yield layout, metric and value of `MapQuality.ratios` for the shared maps by `MAPS`."""
    for method in MAPS:
        xy, fit = shared_map(space, method, seed)
        ratios = map_quality(xy, space["labels"], fit).ratios()
        yield from ((method, metric, value) for metric, value in ratios.items())


def shared_map(space: Space, method: str = "umap", seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the map of a run's clips and single tags, (clip + tag, 2) by `shared_layout`, and the
    cosines (clip, tag) by which a search for each tag ranks the clips in the full space."""
    clips, tags = (space[name] - space["z_centre"] for name in ("z_audio", "z_query"))
    return shared_layout(clips, tags, method, seed), cosine_similarity(clips, tags)


def _resampled(run: Run, space: Space, queries: np.ndarray | None, options: dict) -> pd.DataFrame:
    """Agreement of neighbours, searches by all of `rankings` and at random, and differences from
    the classifier, as a resampled table with columns (space, kind, ranked_by, metric)."""
    labels, by_clip = space["labels"], {}
    k = min(NEIGHBOURS, int(labels.any(axis=1).sum()) - 1)
    for name in VECTORS:
        if name in space:
            near = metrics.neighbour_agreement(space[name], labels, k)
            by_clip[name, "", "", "neighbour_agreement"] = near["agreement"]
            by_clip[name, "", "", "chance_agreement"] = near["chance"]
    table = metrics.resampled_means(by_clip, **options)
    if queries is not None:
        ranked = rankings(space, run.read_arrays("scores.npz")["probs"].mean(1), queries)
        relevant, k = answers(labels, queries), min(NEIGHBOURS, len(labels))
        found = metrics.resampled_searches(relevant, ranked, kinds(queries), k, **options)
        for kind, by, metric in found:
            if by in (ENCODED, ANSWERING, COMBINED):
                difference = found[kind, by, metric] - found[kind, CLASSIFIER, metric]
                found[kind, f"{by}{MINUS}{CLASSIFIER}", metric] = difference
        table = table.join(pd.concat({"shared": found}, axis=1))
    return table.rename_axis(columns=["space", "kind", "ranked_by", "metric"])


def rankings(space: Space, probs: np.ndarray, queries: np.ndarray) -> dict[str, np.ndarray]:
    """Return `query_scores` (clip, query) by the name of what ranks: the classifier's probabilities
    (clip, tag), and those of the space, if there is one, by both kinds of tag vector and combined;
    without a centre, vectors are encoded tags."""
    scores = {CLASSIFIER: query_scores(probs, queries)}
    for z_query, centre in (("z_query", "z_centre"), ("z_other", "z_other_centre")):
        if z_query in space:
            by = ANSWERING if space[centre].any() else ENCODED
            vectors = (directions(space[name], space[centre]) for name in ("z_audio", z_query))
            scores[by] = query_scores(space_probs(*vectors, space["z_scale"]), queries)
            scores.setdefault(COMBINED, scores[CLASSIFIER] + scores[by])  # by what suits the loss
    return scores
