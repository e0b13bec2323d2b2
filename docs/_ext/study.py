"""Markdown tables of the study and of the schedules, with verdicts on what was expected."""

import numpy as np
import pandas as pd
from tables import (
    RESULTS,
    as_interval,
    as_markdown,
    as_number,
    means,
    method_name,
    method_rows,
    one_row,
    read_table,
)

from jetatag.evaluation.reading import verdict
from jetatag.metrics import macro_clip, paired_difference

EXTRACTORS = {"sample_cnn": "Sample-CNN", "sample_cnn_se": "Sample-CNN with SE"}
REFERENCES = ("no_je", "no_je_linear", "bce_two_stage", "je_shuffled-subset_query")
SEARCHES = ("one tag", "two tags", "tag and not tag")
MARGIN = 0.01
"""Largest loss in average precision at which a method counts as no worse than another."""


def study_scores() -> str:
    """Average precision and ROC-AUC of every method, for both extractors."""
    table = means("study")
    table = table[(table.minus == "") & (table.protocol == "macro_clip")]
    rows = []
    for cell in method_rows(table).itertuples():
        own = table[(table.method == cell.method) & (table.pair_loss == cell.pair_loss)]
        scores = [
            as_interval(one_row(own[own.extractor.isin([extractor, ""])], metric=metric))
            for extractor in EXTRACTORS
            for metric in ("average_precision", "roc_auc")
        ]
        rows.append([method_name(cell), *scores])
    header = [f"{name}, {metric}" for name in EXTRACTORS.values() for metric in ("AP", "ROC-AUC")]
    return as_markdown(["method", *header], rows)


def _study_differences(extractor: str) -> str:
    """Paired differences in average precision to every reference."""
    table = means("study")
    chosen = (table.protocol == "macro_clip") & (table.metric == "average_precision")
    table = table[chosen & (table.minus != "") & (table.extractor == extractor)]
    rows = []
    for cell in method_rows(table).itertuples():
        own = table[(table.method == cell.method) & (table.pair_loss == cell.pair_loss)]
        own = own.set_index("minus")
        shown = [
            as_interval(own.loc[minus], sign=True) if minus in own.index else ""
            for minus in REFERENCES
        ]
        rows.append([method_name(cell), *shown])
    return as_markdown(["method", *(f"− {_reference(minus)}" for minus in REFERENCES)], rows)


def _reference(minus: str) -> str:
    return f"`{minus.split('-')[0]}`"


def study_differences() -> str:
    """Sample-CNN."""
    return _study_differences("sample_cnn")


def study_differences_se() -> str:
    """Sample-CNN with SE."""
    return _study_differences("sample_cnn_se")


def study_search() -> str:
    """Mean average precision of searches, by pair loss and kind of ranking (Sample-CNN)."""
    table = means("study", "spaces")
    table = table[(table.metric == "mean_average_precision") & (table.extractor == "sample_cnn")]
    rankings = {
        "encoded set": "encoded tags",
        "answering clips": "answering clips",
        "classifier": "classifier",
    }
    rows = []
    joint = table[table.method.isin(["je", "je_shuffled"])]
    for cell in method_rows(joint).itertuples():
        own = joint[(joint.method == cell.method) & (joint.pair_loss == cell.pair_loss)]
        for ranked_by, name in rankings.items():
            found = [as_interval(one_row(own, kind=kind, ranked_by=ranked_by)) for kind in SEARCHES]
            rows.append([method_name(cell), name, *found])
    chance = table[(table.ranked_by == "random") & (table.pair_loss == "subset_query")]
    chance = chance[chance.method == "je"]
    rows.append(["chance", "", *(as_number(one_row(chance, kind=kind).value) for kind in SEARCHES)])
    return as_markdown(["method", "ranked by", *SEARCHES], rows)


def study_spaces() -> str:
    """Neighbours, tag semantics, energy in the mean and gap of every method (Sample-CNN)."""
    table = read_table("study/rendered/spaces")
    table = table[(table.extractor == "sample_cnn") & (table.label_share == 1)]
    mean = means("study", "spaces")
    mean = mean[(mean.extractor == "sample_cnn") & (mean.metric == "neighbour_agreement")]
    rows = []
    for cell in method_rows(mean).itertuples():
        same = {"method": cell.method, "pair_loss": cell.pair_loss}
        own = mean[(mean.method == cell.method) & (mean.pair_loss == cell.pair_loss)]
        shown = [
            as_interval(own[own.space == space].iloc[0]) if (own.space == space).any() else ""
            for space in ("h", "z_audio")
        ]
        for metric, sign in (("tag_semantics", True), ("mean_energy", False), ("gap", True)):
            values = table[(table[list(same)] == list(same.values())).all(axis=1)]
            values = values[values.metric == metric].value
            shown.append(as_number(values.mean(), 2, sign) if len(values) else "")
        rows.append([method_name(cell), *shown])
    header = ["method", "neighbours by h", "neighbours by z_audio", "tag semantics"]
    return as_markdown([*header, "energy in the mean", "gap"], rows)


def study_labels() -> str:
    """Average precision with fewer labelled clips (Sample-CNN)."""
    table = read_table("study/rendered/results")
    chosen = (table.protocol == "macro_clip") & (table.metric == "average_precision")
    chosen &= (table.seed == "mean") & (table.tag == "") & (table.extractor == "sample_cnn")
    table = table[chosen]
    methods = {
        "je": "subset_query",
        "bce_two_stage": "none",
        "no_je_linear": "none",
    }
    rows = []
    for share in sorted(table.label_share.unique()):
        own = table[table.label_share == share]
        scores = [
            as_interval(one_row(own, method=method, pair_loss=pair_loss, minus=""))
            for method, pair_loss in methods.items()
        ]
        differences = [
            as_interval(one_row(own, method="je", pair_loss="subset_query", minus=minus), sign=True)
            for minus in ("bce_two_stage", "no_je_linear")
        ]
        rows.append([f"{share:.0%}".replace("%", " %"), *scores, *differences])
    header = ["labelled clips", "`je` `subset_query`", "`bce_two_stage`", "`no_je_linear`"]
    return as_markdown([*header, "`je` − `bce_two_stage`", "`je` − `no_je_linear`"], rows)


def study_trends() -> str:
    """Rank correlation of the tags' gains with their strongest correlation with another tag."""
    table = means("study", "trends")
    table = table[table.covariate == "correlation"].rename(columns={"correlation": "value"})
    rows = []
    shown = [("no_je_linear", "none"), ("bce_two_stage", "none"), ("je", "subset_query")]
    shown += [("je", "subset_completion"), ("je", "cosine"), ("je_shuffled", "subset_query")]
    for method, pair_loss in shown:
        own = table[(table.method == method) & (table.pair_loss == pair_loss)]
        cells = [
            as_interval(one_row(own, extractor=extractor, minus="no_je"), 2, sign=True)
            for extractor in EXTRACTORS
        ]
        rows.append([method_name(own.iloc[0]), *cells])
    return as_markdown(["gain over `no_je` of", *EXTRACTORS.values()], rows)


# Verdicts on the study's expectations


LIMITS = {"above": {"at_least": 0}, "below": {"at_most": 0}, "no worse": {"at_least": -MARGIN}}
"""What `results.verdict` is asked about each difference."""
CLAIMS = (
    ("`cosine`, as published, tags worse than `no_je`", "AP", ("je", "cosine", "no_je"), "below"),
    (
        "`cosine_as_coded` tags worse than `no_je`",
        "AP",
        ("je", "cosine_as_coded", "no_je"),
        "below",
    ),
    (
        "`margin_as_coded` tags worse than `no_je`",
        "AP",
        ("je", "margin_as_coded", "no_je"),
        "below",
    ),
    (
        "a linear head (`no_je_linear`) tags better than the paper's (`no_je`)",
        "AP",
        ("no_je_linear", "none", "no_je"),
        "above",
    ),
    (
        "two stages without a tag space (`bce_two_stage`) tag better than `no_je`",
        "AP",
        ("bce_two_stage", "none", "no_je"),
        "above",
    ),
    ("early stopping improves `no_je`", "AP", ("no_je_early_stop", "none", "no_je"), "above"),
    ("`subset_query` tags better than `no_je`", "AP", ("je", "subset_query", "no_je"), "above"),
    (
        "`subset_query` tags no worse than `bce_two_stage`",
        "AP",
        ("je", "subset_query", "bce_two_stage"),
        "no worse",
    ),
    (
        "`subset_query` tags no worse than `no_je_linear`",
        "AP",
        ("je", "subset_query", "no_je_linear"),
        "no worse",
    ),
    (
        "`subset_query` learns from the tags: it beats `je_shuffled`",
        "AP",
        ("je", "subset_query", "je_shuffled-subset_query"),
        "above",
    ),
    (
        "`subset_query`, searched by one encoded tag, ranks no worse than its classifier",
        "search",
        ("je", "subset_query", "encoded set − classifier"),
        "no worse",
    ),
    (
        "with 10 % of the labels, `subset_query` tags better than `no_je_linear`",
        "10 %",
        ("je", "subset_query", "no_je_linear"),
        "above",
    ),
    (
        "correlated tags gain more by `cosine` over `no_je` (the paper's claim)",
        "trend",
        ("je", "cosine", "no_je"),
        "above",
    ),
    (
        "correlated tags gain more by `no_je_linear` over `no_je`, without a tag space",
        "trend",
        ("no_je_linear", "none", "no_je"),
        "above",
    ),
)
"""What was expected, what it is measured by, which comparison, and on which side of 0 it lies."""


def _measured(extractor: str, by: str, what: tuple[str, str, str]) -> pd.Series | None:
    """The difference that a claim is about; None where the study has no such runs."""
    method, pair_loss, minus = what
    same = {"extractor": extractor, "method": method, "pair_loss": pair_loss}
    if by == "search":
        table = means("study", "spaces")
        return one_row(
            table, **same, ranked_by=minus, kind="one tag", metric="mean_average_precision"
        )
    if by == "trend":
        table = means("study", "trends").rename(columns={"correlation": "value"})
        return one_row(table, **same, minus=minus, covariate="correlation")
    table = read_table("study/rendered/results")
    table = table[(table.tag == "") & (table.label_share == (0.1 if by == "10 %" else 1))]
    try:
        metric = {"protocol": "macro_clip", "metric": "average_precision"}
        return one_row(table, **same, **metric, seed="mean", minus=minus)
    except LookupError:
        return None


def study_verdicts() -> str:
    """Every expectation with the difference that decides it, for both extractors."""
    rows = []
    for sentence, by, what, expected in CLAIMS:
        cells = []
        for extractor in EXTRACTORS:
            row = _measured(extractor, by, what)
            if row is None:
                cells += ["–"]
                continue
            shown = as_interval(row, 2 if by == "trend" else 3, sign=True)
            found = verdict(row.to_frame().T.infer_objects(), **LIMITS[expected]).partition(":")[0]
            cells += [f"**{found}**: {shown}"]
        rows.append([sentence, *cells])
    return as_markdown(["expected", *EXTRACTORS.values()], rows)


def study_cost() -> str:
    """Runs, hours and memory of the study."""
    runs = read_table("study/rendered/runs")
    hours = runs.wall_s.sum() / 3600
    row = [len(runs), f"{hours:.1f}", f"{runs.peak_mib.max():,} MiB"]
    return as_markdown(["runs", "hours of training, one core each", "largest peak memory"], [row])


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
    apart = paired_difference(labels, np.stack(mean["fast"]), np.stack(mean["paper"]))
    apart = apart.rename(columns={"difference": "value"})
    difference = as_interval(one_row(apart, metric="average_precision"), sign=True)
    rows.append(["`fast` − `paper`", "", "", "", difference])
    return as_markdown(["schedule", "seed 0", "seed 1", "seed 2", "mean"], rows)
