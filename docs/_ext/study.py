"""Markdown tables of the study and of the schedules, with verdicts on what was expected."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from tables import (
    LOSSES,
    NOTEBOOKS,
    RESULTS,
    as_interval,
    as_markdown,
    as_number,
    means,
    method_name,
    method_rows,
    of_method,
    one_row,
    read_table,
)

from jetatag.data.mtat import SYNONYMS
from jetatag.evaluation.results import clip_scores, select, verdicts
from jetatag.evaluation.spaces import ANSWERING, ENCODED
from jetatag.metrics import difference_table, macro_clip, resampled
from jetatag.training.runs import finished

EXTRACTORS = {"short_chunk_cnn": "short-chunk CNN", "harmonic_cnn": "Harmonic-CNN"}
MAIN = "short_chunk_cnn"
REFERENCES = ("no_je", "no_je_linear", "bce_two_stage", "joint_shuffled-subset_query")
SEARCHES = ("one tag", "two tags", "tag and not tag")
AREAS = {"average_precision": "AP", "roc_auc": "ROC-AUC"}
JOINT = ("joint", "subset_query")
MAP_METRICS = ("map_mixing", "map_precision_at_10")
"""The measures of a map of clips and tags."""


def study_scores(extractor: str = MAIN) -> str:
    """Average precision and ROC-AUC of every method with an extractor, and of the baselines."""
    table = means("study")
    table = table[(table.minus == "") & (table.protocol == "macro_clip")]
    table = table[table.extractor.isin([extractor, ""])]
    rows = [
        [
            method_name(cell),
            *(as_interval(one_row(of_method(table, cell), metric=area)) for area in AREAS),
        ]
        for cell in method_rows(table).itertuples()
    ]
    return as_markdown(["method", *AREAS.values()], rows)


def study_differences(extractor: str = MAIN) -> str:
    """Paired differences in average precision to every reference."""
    table = means("study")
    chosen = (table.protocol == "macro_clip") & (table.metric == "average_precision")
    table = table[chosen & table.minus.isin(REFERENCES) & (table.extractor == extractor)]
    references, rows = [name for name in REFERENCES if name in set(table.minus)], []
    for cell in method_rows(table).itertuples():
        own = of_method(table, cell).set_index("minus")
        shown = [
            as_interval(own.loc[minus], sign=True) if minus in own.index else ""
            for minus in references
        ]
        rows.append([method_name(cell), *shown])
    return as_markdown(["method", *(f"− `{minus.split('-')[0]}`" for minus in references)], rows)


def study_weights() -> str:
    """Differences from `no_je_linear` with the weight of the main comparison and the default."""
    weights = {"1": means("study"), "0.5, the default": means("study/weights")}
    rows = []
    for pair_loss in ("cosine_stop_grad", "soft_info_nce"):
        where = {"method": "joint", "pair_loss": pair_loss, "minus": "no_je_linear"}
        where |= {"protocol": "macro_clip", "extractor": MAIN}
        for weight, table in weights.items():
            found = [one_row(table, **where, metric=area) for area in AREAS]
            rows.append([f"`{pair_loss}`", weight, *(as_interval(row, sign=True) for row in found)])
    return as_markdown(["pair loss", "weight", *AREAS.values()], rows)


def study_seeds(extractor: str = MAIN, label_share: str = "1") -> str:
    """Average precision of each random seed with an extractor and a share of the labels."""
    table = read_table("study/rendered/results")
    chosen = (table.label_share == float(label_share)) & (table.extractor == extractor)
    return seeds_table(table[chosen])


def seeds_table(table: pd.DataFrame, metric: str = "average_precision") -> str:
    """A metric that one protocol has, by method and random seed."""
    chosen = (table.metric == metric) & (table.tag == "") & (table.minus == "")
    table = table[chosen & table.seed.str.isdigit()]
    seeds = sorted(table.seed.unique())
    rows = []
    for cell in method_rows(table).itertuples():
        own = of_method(table, cell).set_index("seed").value.reindex(seeds)
        rows.append([method_name(cell), *("" if np.isnan(ap) else as_number(ap) for ap in own)])
    return as_markdown(["method", *(f"seed {seed}" for seed in seeds)], rows)


def study_synonyms() -> str:
    """Differences of `joint` from `no_je_linear` on tags with and without synonyms, from the kept
    clip scores."""
    scores, labels, tags = clip_scores(finished(RESULTS / "study/rendered"))
    both = [
        [own for run, own in scores.items() if run.startswith(f"{name}-{MAIN}")]
        for name in ("-".join(JOINT), "no_je_linear")
    ]
    words = [{name, *same} & {*tags} for name, same in SYNONYMS.items()]
    several = np.isin(tags, [tag for group in words if len(group) > 1 for tag in group])
    rows = []
    for name, chosen in {"tags with synonyms": several, "other tags": ~several}.items():
        joint, control = (
            [resampled(labels[:, chosen], own[:, chosen], n_resamples=300) for own in runs]
            for runs in both
        )
        apart = difference_table(joint, control)
        row = one_row(apart.rename(columns={"difference": "value"}), metric="average_precision")
        rows.append([name, int(chosen.sum()), as_interval(row, sign=True)])
    return as_markdown(["", "tags", "AP, `joint` − `no_je_linear`"], rows)


def study_search() -> str:
    """Mean average precision of searches with `joint`, by what ranks, and with the classifier of
    `no_je_linear`, short-chunk CNN."""
    joint = dict(zip(LOSSES, (*JOINT, "bce"), strict=True))
    rankings = ("encoded set", "answering clips", "classifier", "combined", "random")
    rows = [[ranking, *_searches(joint, ranking)] for ranking in rankings]
    control = dict(zip(LOSSES, ("no_je_linear", "none", "bce"), strict=True))
    rows.append(["classifier of `no_je_linear`", *_searches(control, "classifier")])
    return as_markdown(["ranked by", *SEARCHES], rows)


def _searches(method: dict[str, str], ranking: str) -> list[str]:
    """Mean average precision of a method's searches, by kind of query."""
    table = means("study", "spaces")
    where = {**method, "extractor": MAIN, "ranked_by": ranking, "metric": "mean_average_precision"}
    return [as_interval(one_row(table, **where, kind=kind)) for kind in SEARCHES]


def study_losses_search() -> str:
    """Mean average precision of searches by the classifier, by classification loss."""
    rows = []
    for method, pair_loss in (("no_je_linear", "none"), JOINT):
        for loss in ("bce", "asymmetric", "hill"):
            cell = dict(zip(LOSSES, (method, pair_loss, loss), strict=True))
            rows.append([f"`{method}`, `{loss}`", *_searches(cell, "classifier")])
    return as_markdown(["method, loss", *SEARCHES], rows)


def study_combined() -> str:
    """Searches by both minus those by the classifier, short-chunk CNN."""
    table = means("study", "spaces")
    chosen = (table.metric == "mean_average_precision") & (table.extractor == MAIN)
    table = table[chosen & (table.ranked_by == "combined − classifier")]
    rows = []
    for cell in method_rows(table).itertuples():
        found = [one_row(of_method(table, cell), kind=kind) for kind in SEARCHES]
        rows.append([method_name(cell), *(as_interval(row, sign=True) for row in found)])
    return as_markdown(["method", *SEARCHES], rows)


def _single_spaces() -> pd.DataFrame:
    """What single runs with all labels know, short-chunk CNN."""
    table = read_table("study/rendered/spaces")
    chosen = (table.extractor == MAIN) & (table.label_share == 1) & (table.seed != "mean")
    return table[chosen & (table.classification_loss == "bce")]


def study_maps() -> str:
    """The precision of searches for one tag in the spaces, and the worst map of every method, over
    seeds and layouts."""
    table = read_table("study/rendered/spaces")
    table = table[table.seed != "mean"].sort_values("label_share", ascending=False, kind="stable")
    rows = []
    for (extractor, share), every in table.groupby(["extractor", "label_share"], sort=False):
        of_searches = every[(every.metric == "precision_at_10") & (every.kind == "one tag")]
        own = every[every.metric.isin(MAP_METRICS)]
        for cell in method_rows(own).itertuples():
            found = of_method(of_searches, cell).groupby("ranked_by").value.mean()
            worst = of_method(own, cell).groupby("metric").value.min()[list(MAP_METRICS)]
            shown = [found[[ENCODED, ANSWERING]].max(), *worst]
            shown = [as_number(value, 2) for value in shown]
            rows.append([f"`{extractor}`", method_name(cell), f"{100 * share:g} %", *shown])
    columns = ["precision of searches", "lowest mixing", "lowest precision"]
    return as_markdown(["extractor", "method", "labels", *columns], rows)


def study_spaces() -> str:
    """What the shared spaces know, means over seeds."""
    table = _single_spaces()
    shown = {"gap": "gap", "tag semantics": "tag_semantics", "energy in the mean": "mean_energy"}
    rows = []
    for cell in method_rows(table[table.metric == "gap"]).itertuples():
        values = of_method(table, cell).groupby("metric").value.mean()
        rows.append([method_name(cell), *(as_number(values[name], 2) for name in shown.values())])
    return as_markdown(["method", *shown], rows)


def study_trends() -> str:
    """Rank correlation of the tags' gains with their frequency and correlation with other tags."""
    table = means("study", "trends").rename(columns={"correlation": "value"})
    rows = []
    for method, pair_loss, minus in (
        ("joint", "subset_query", "no_je_linear"),
        ("joint", "subset_query", "joint_shuffled-subset_query"),
        ("joint", "subset_query", "no_je"),
        ("no_je_linear", "none", "no_je"),
    ):
        where = {"method": method, "pair_loss": pair_loss, "minus": minus, "extractor": MAIN}
        where["classification_loss"] = "bce"
        found = [one_row(table, covariate=by, **where) for by in ("frequency", "correlation")]
        name = f"`{method}` − `{minus.split('-')[0]}`"
        rows.append([name, *(as_interval(row, 2, sign=True) for row in found)])
    return as_markdown(["gain", "with frequency", "with correlation"], rows)


def study_losses() -> str:
    """Differences that the losses for missing labels make, short-chunk CNN."""
    table = means("study")
    chosen = (table.protocol == "macro_clip") & (table.minus == "no_je_linear")
    table = table[chosen & (table.extractor == MAIN) & table.method.isin(["joint", "no_je_linear"])]
    table = table[table.pair_loss.isin(["subset_query", "none"])]
    rows = []
    for cell in method_rows(table).itertuples():
        own = of_method(table, cell)
        if cell.classification_loss != "bce":
            found = [one_row(own, metric=area) for area in AREAS]
            rows.append([method_name(cell), *(as_interval(row, sign=True) for row in found)])
    return as_markdown(["method", *AREAS.values()], rows)


def study_labels() -> str:
    """Average precision with fewer labelled clips, short-chunk CNN."""
    table = read_table("study/rendered/results")
    chosen = (table.protocol == "macro_clip") & (table.metric == "average_precision")
    chosen &= (table.seed == "mean") & (table.tag == "") & (table.extractor == MAIN)
    table = table[chosen & (table.classification_loss == "bce")]
    methods = {"joint": "subset_query", "no_je_linear": "none", "bce_two_stage": "none"}
    rows = []
    for share in sorted(table.label_share.unique()):
        own = table[table.label_share == share]
        scores = [
            as_interval(one_row(own, method=method, pair_loss=pair_loss, minus=""))
            for method, pair_loss in methods.items()
        ]
        both = {"method": "joint", "pair_loss": "subset_query", "minus": "no_je_linear"}
        rows.append([f"{100 * share:g} %", *scores, as_interval(one_row(own, **both), sign=True)])
    header = ["labelled clips", *(f"`{method}`" for method in methods)]
    return as_markdown([*header, "`joint` − `no_je_linear`"], rows)


# Verdicts on what was expected


def study_verdicts() -> str:
    """Every expectation with the difference that decides it, for each extractor."""
    apart = {
        name: select(read_table(f"study/rendered/{name}"), "difference")
        for name in ("results", "trends", "spaces")
    }
    return verdicts_table("study", apart, "extractor", EXTRACTORS)


def verdicts_table(
    study: str, tables: Mapping[str, pd.DataFrame], columns: str, names: Mapping[str, str]
) -> str:
    """The verdicts on what was expected of `study`; `names` are the headers of the `columns`."""
    expected = pd.read_csv(NOTEBOOKS / "expected.csv").query("study == @study")
    found = verdicts(expected, tables, columns)[list(names)].fillna("–")
    found = found.replace({"-": "−", ", ": ",\u00a0", r"^(\w+)": r"**\1**"}, regex=True)
    rows = found.reset_index().to_numpy().tolist()
    return as_markdown(["expected", *found.index.names[1:], *names.values()], rows)


def study_cost() -> str:
    """Runs and hours of the parts of the study."""
    parts = {
        "main comparison": "study",
        "default weights of two pair losses": "study/weights",
        "the paper's schedule": "study/regime",
        "the same, one stage": "study/regime_one_stage",
        "with more steps": "study/regime_long",
    }
    runs = {part: read_table(f"{folder}/rendered/runs") for part, folder in parts.items()}
    runs["all"] = pd.concat(runs.values())
    rows = [[part, len(own), f"{own.wall_s.sum() / 3600:.1f}"] for part, own in runs.items()]
    return as_markdown(["", "runs", "hours of training, one core each"], rows)


def schedules() -> str:
    """Average precision of the schedules `paper` and `fast` on the demo's data, by seed."""
    scores = {}
    for name in ("paper", "fast"):
        folders = sorted((RESULTS / "schedules" / name).glob("*/scores.npz"))
        scores[name] = [np.load(path) for path in folders]
    labels = scores["fast"][0]["labels"]
    mean = {name: [run["probs"].mean(axis=1) for run in runs] for name, runs in scores.items()}
    rows = []
    for name, runs in mean.items():
        values = [macro_clip(labels, probs)["average_precision"] for probs in runs]
        rows.append([f"`{name}`", *map(as_number, values), as_number(float(np.mean(values)))])
    fast, paper = ([resampled(labels, probs) for probs in mean[name]] for name in ("fast", "paper"))
    apart = difference_table(fast, paper).rename(columns={"difference": "value"})
    difference = as_interval(one_row(apart, metric="average_precision"), sign=True)
    rows.append(["`fast` − `paper`", "", "", "", difference])
    return as_markdown(["schedule", "seed 0", "seed 1", "seed 2", "mean"], rows)
