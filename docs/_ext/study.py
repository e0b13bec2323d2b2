"""Markdown tables of the study and of the schedules, with verdicts on what was expected."""

import numpy as np
import pandas as pd
from tables import (
    LOSSES,
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
from jetatag.evaluation.reading import verdict
from jetatag.evaluation.results import clip_scores
from jetatag.metrics import macro_clip, paired_difference
from jetatag.training.runs import finished

EXTRACTORS = {"short_chunk_cnn": "short-chunk CNN", "harmonic_cnn": "Harmonic-CNN"}
MAIN = "short_chunk_cnn"
REFERENCES = ("no_je", "no_je_linear", "bce_two_stage", "joint_shuffled-subset_query")
SEARCHES = ("one tag", "two tags", "tag and not tag")
AREAS = {"average_precision": "AP", "roc_auc": "ROC-AUC"}
JOINT = ("joint", "subset_query")
BARS = {"map_mixing": 0.85, "map_precision_at_10": 0.8}
"""The least that is wanted of a map of clips and tags."""
MARGIN = 0.01
"""Largest loss in average precision at which a method counts as no worse than another."""


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


def study_seeds(extractor: str = MAIN) -> str:
    """Average precision of each random seed with an extractor, all labels."""
    table = read_table("study/rendered/results")
    return seeds_table(table[(table.label_share == 1) & (table.extractor == extractor)])


def seeds_table(table: pd.DataFrame) -> str:
    """Average precision by method and random seed."""
    chosen = (table.metric == "average_precision") & (table.protocol == "macro_clip")
    chosen &= (table.tag == "") & (table.minus == "") & table.seed.str.isdigit()
    table = table[chosen]
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
        np.stack([own for run, own in scores.items() if run.startswith(f"{name}-{MAIN}")])
        for name in ("-".join(JOINT), "no_je_linear")
    ]
    words = [{name, *same} & {*tags} for name, same in SYNONYMS.items()]
    several = np.isin(tags, [tag for group in words if len(group) > 1 for tag in group])
    rows = []
    for name, chosen in {"tags with synonyms": several, "other tags": ~several}.items():
        apart = paired_difference(labels[:, chosen], *(own[..., chosen] for own in both), 300)
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
    """The worst map of every method, over seeds and layouts, and whether it is good enough."""
    table = _single_spaces()
    table = table[table.metric.isin(BARS)].fillna({"value": 0})  # no search finds a clip
    rows = []
    for cell in method_rows(table).itertuples():
        worst = of_method(table, cell).groupby("metric").value.min()
        shown = [as_number(worst[metric], 2) for metric in BARS]
        reached = all(worst[metric] >= bar for metric, bar in BARS.items())
        rows.append([method_name(cell), *shown, "yes" if reached else "no"])
    bars = " and ".join(f"{bar:g}" for bar in BARS.values())
    return as_markdown(["method", "lowest mixing", "lowest precision", f"at least {bars}"], rows)


def study_spaces() -> str:
    """What the shared spaces know and how far their maps can be trusted, means over seeds."""
    table = _single_spaces()
    shown = {
        "gap": ("gap", ""),
        "tag semantics": ("tag_semantics", ""),
        "energy in the mean": ("mean_energy", ""),
        "mixing, UMAP": ("map_mixing", "umap"),
        "mixing, t-SNE": ("map_mixing", "tsne"),
        "precision, UMAP": ("map_precision_at_10", "umap"),
        "precision, t-SNE": ("map_precision_at_10", "tsne"),
    }
    rows = []
    for cell in method_rows(table[table.metric == "gap"]).itertuples():
        own = of_method(table, cell)
        values = [
            own[(own.metric == metric) & (own.kind == kind)].value.mean()
            for metric, kind in shown.values()
        ]
        shown_values = ["–" if np.isnan(value) else as_number(value, 2) for value in values]
        rows.append([method_name(cell), *shown_values])
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


# Verdicts on the study's expectations


LIMITS = {
    "above": {"at_least": 0},
    "below": {"at_most": 0},
    "no worse": {"at_least": -MARGIN},
    "clearly above": {"at_least": MARGIN},
}
"""What `results.verdict` is asked about each difference."""
CLAIMS = (
    (
        "`no_je_linear` tags better than a logistic regression without a network",
        "AP",
        ("no_je_linear", "none", "log_mel_logistic"),
        "above",
    ),
    ("`joint` tags better than `no_je_linear`", "AP", (*JOINT, "no_je_linear"), "above"),
    ("`joint` tags no worse than `no_je_linear`", "AP", (*JOINT, "no_je_linear"), "no worse"),
    (
        "`joint` learns from the tag sets: it tags better than `joint_shuffled`",
        "AP",
        (*JOINT, "joint_shuffled-subset_query"),
        "above",
    ),
    (
        "`je` with `cosine`, as published, tags better than `no_je`",
        "AP",
        ("je", "cosine", "no_je"),
        "above",
    ),
    (
        "`je` with `margin_as_coded` tags better than `no_je`",
        "AP",
        ("je", "margin_as_coded", "no_je"),
        "above",
    ),
    (
        "`je` with `subset_query` tags better than `no_je`",
        "AP",
        ("je", "subset_query", "no_je"),
        "above",
    ),
    (
        "… but worse than `no_je_linear`",
        "AP",
        ("je", "subset_query", "no_je_linear"),
        "below",
    ),
    (
        "a linear head in stage 2 (`je_linear`) still tags worse than `no_je_linear`",
        "AP",
        ("je_linear", "subset_query", "no_je_linear"),
        "below",
    ),
    (
        "a linear head (`no_je_linear`) tags better than the paper's (`no_je`)",
        "AP",
        ("no_je_linear", "none", "no_je"),
        "above",
    ),
    (
        "two stages without a shared space (`bce_two_stage`) tag better than `no_je`",
        "AP",
        ("bce_two_stage", "none", "no_je"),
        "above",
    ),
    ("early stopping improves `no_je`", "AP", ("no_je_early_stop", "none", "no_je"), "above"),
    (
        "with 10 % of the labelled clips, `joint` tags better than `no_je_linear`",
        "10 %",
        (*JOINT, "no_je_linear"),
        "above",
    ),
    (
        "`joint` gains more over `no_je_linear` on correlated tags",
        "trend",
        (*JOINT, "no_je_linear"),
        "above",
    ),
    *(
        (
            f"combined searches with `joint` are no worse than by its classifier: {kind}",
            kind,
            (*JOINT, "combined − classifier"),
            "no worse",
        )
        for kind in SEARCHES
    ),
)
"""What was expected, what it is measured by, which comparison, and on which side of 0 it lies."""


def _measured(extractor: str, by: str, what: tuple[str, str, str]) -> pd.Series | None:
    """The difference that a claim is about; None where the study has no such runs."""
    method, pair_loss, minus = what
    same = {"extractor": extractor, "method": method, "pair_loss": pair_loss}
    same["classification_loss"] = "bce"
    try:
        if by in SEARCHES:
            table = means("study", "spaces")
            return one_row(table, **same, ranked_by=minus, kind=by, metric="mean_average_precision")
        if by == "trend":
            table = means("study", "trends").rename(columns={"correlation": "value"})
            return one_row(table, **same, minus=minus, covariate="correlation")
        table = read_table("study/rendered/results")
        table = table[(table.tag == "") & (table.label_share == (0.1 if by == "10 %" else 1))]
        metric = {"protocol": "macro_clip", "metric": "average_precision"}
        return one_row(table, **same, **metric, seed="mean", minus=minus)
    except LookupError:
        return None


def judged(row: pd.Series, expected: str, digits: int = 3) -> str:
    """A difference and whether it lies where it was expected."""
    found = verdict(row.to_frame().T.infer_objects(), **LIMITS[expected]).partition(":")[0]
    return f"**{found}**: {as_interval(row, digits, sign=True)}"


def study_verdicts() -> str:
    """Every expectation with the difference that decides it, for each extractor."""
    held = set(means("study").extractor)
    extractors = {name: title for name, title in EXTRACTORS.items() if name in held}
    rows = []
    for sentence, by, what, expected in CLAIMS:
        cells = []
        for extractor in extractors:
            row = _measured(extractor, by, what)
            if row is None:
                cells += ["–"]
                continue
            cells += [judged(row, expected, 2 if by == "trend" else 3)]
        rows.append([sentence, *cells])
    return as_markdown(["expected", *extractors.values()], rows)


def study_cost() -> str:
    """Runs and hours of the study."""
    runs = read_table("study/rendered/runs")
    row = [len(runs), f"{runs.wall_s.sum() / 3600:.1f}"]
    return as_markdown(["runs", "hours of training, one core each"], [row])


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
