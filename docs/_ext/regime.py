"""Markdown tables of the study on the paper's schedule, with verdicts on what was expected."""

import numpy as np
import pandas as pd
from study import seeds_table, verdicts_table
from tables import (
    NOTEBOOKS,
    as_interval,
    as_markdown,
    as_number,
    means,
    method_name,
    method_rows,
    of_method,
    one_row,
    read_digits,
    read_table,
)

from jetatag.config import preset
from jetatag.evaluation.results import select

AREAS = {
    "AP": ("macro_clip", "average_precision"),
    "ROC-AUC": ("macro_clip", "roc_auc"),
    "PR-AUC, `micro_window`": ("micro_window", "pr_auc"),
    "ROC-AUC, `micro_window`": ("micro_window", "roc_auc"),
}
LABEL_SHARE = 0.45
SEEDS = {
    "": ["mean"],
    "one_stage": ["mean"],
    "long": ["0", "1", "2"],
    "long_one_stage": ["0", "1"],
}
"""Schedule → the rows of the results that count: means over random seeds, or each seed alone."""
SHUFFLED = "joint_shuffled-subset_query"
ONE_STAGE = {
    "one_stage": [
        ("joint", "no_je_linear"),
        ("joint", SHUFFLED),
        ("joint_shuffled", "no_je_linear"),
    ],
    "long_one_stage": [("no_je_linear", "no_je"), ("joint", "no_je"), ("joint", "no_je_linear")],
}
"""Schedule → the methods that `regime_one_stage` compares."""


def _table(schedule: str, name: str) -> pd.DataFrame:
    return read_table(f"{_results(schedule)}/rendered/{name}")


def _results(schedule: str) -> str:
    return f"study/regime_{schedule}" if schedule else "study/regime"


def _final(schedule: str) -> pd.DataFrame:
    """The rows of all tags together at the end: means over random seeds, or of each seed alone."""
    return means(_results(schedule), label_share=LABEL_SHARE, seeds=SEEDS[schedule])


def regime_design(schedule: str = "") -> str:
    """Runs, random seeds, steps and hours."""
    runs, points = _table(schedule, "runs"), _table(schedule, "points")
    seeds = sorted(_table(schedule, "histories").seed.unique())
    by_stages = points[points.minus == ""].groupby("method").steps.max()
    row = [len(runs), len(seeds), f"{by_stages.no_je:,}", f"{by_stages.je:,}"]
    row.append(f"{runs.wall_s.sum() / 3600:.1f}")
    header = ["runs", "random seeds", "steps, one stage", "steps, two stages"]
    return as_markdown([*header, "hours of training, one core each"], [row])


def _area(table: pd.DataFrame, area: str) -> pd.Series:
    protocol, metric = AREAS[area]
    return one_row(table, protocol=protocol, metric=metric)


def regime_verdicts(schedule: str = "") -> str:
    """Every expectation with the differences that decide it, at the end, on all test clips: of the
    means over random seeds, or of each seed alone."""
    table = _table(schedule, "results")
    table = table[(table.metric == "average_precision") | (table.protocol == "micro_window")]
    seeds = {"seed": sorted(table.seed.unique())} if schedule else {}
    shown = {metric: name for name, (_, metric) in AREAS.items() if name != "ROC-AUC"}
    tables = {"results": select(table, "difference", **seeds)}
    return verdicts_table("regime", tables, "metric", shown)


def _with_seeds(header: list[str], rows: list[list]) -> str:
    """The table without its column `seed` if there is but one."""
    place = header.index("seed")
    if len({row[place] for row in rows if row[place]}) == 1:
        header, *rows = ([*row[:place], *row[place + 1 :]] for row in (header, *rows))
    return as_markdown(header, rows)


def regime_scores(schedule: str = "") -> str:
    """Scores of every method at the end, on all test clips, and of the study's baselines."""
    baselines, rows = means("study"), []
    baselines = baselines[baselines.extractor == ""]
    table = pd.concat([_final(schedule), baselines])
    table = table[table.minus == ""]
    for cell in method_rows(table).itertuples():
        for seed, own in of_method(table, cell).groupby("seed"):
            areas = (as_interval(_area(own, area)) for area in AREAS)
            rows.append([method_name(cell), seed, *areas])
    return _with_seeds(["method", "seed", *AREAS], rows)


def regime_seeds(metric: str = "average_precision") -> str:
    """Average precision, or another metric, of each random seed at the end."""
    return seeds_table(read_table("study/regime/rendered/results"), metric)


def regime_probes(schedule: str = "") -> str:
    """Average precision of the linear probe on validation clips during stage 1."""
    table = _table(schedule, "probes").rename(columns={"epochs": "epoch"})
    return _by_epoch(table if schedule else table.assign(seed="mean"))


def regime_spaces(schedule: str = "") -> str:
    """What the shared spaces separate on validation clips after the last epoch that trains them;
    means over random seeds, or each seed alone."""
    table = _table(schedule, "histories").dropna(subset="valid_gap")
    shown = {
        "gap": "valid_gap",
        "cosine to a clip's own tags": "valid_matched_cosine",
        "to others'": "valid_unmatched_cosine",
    }
    last, rows = table.groupby(["method", "pair_loss", "seed"], as_index=False).last(), []
    last = last if schedule else last.assign(seed="mean")
    for cell in method_rows(last).itertuples():
        for seed, own in of_method(last, cell).groupby("seed"):
            values = own[list(shown.values())].mean()
            rows.append([method_name(cell), seed, *(as_number(value, 3) for value in values)])
    return _with_seeds(["method", "seed", *shown], rows)


def regime_points(schedule: str) -> str:
    """Average precision on the fixed test clips, by epochs of the stage that trains the classifier;
    every second point, the last one included."""
    points, histories = _table(schedule, "points"), _table(schedule, "histories")
    protocol, metric = AREAS["AP"]
    points = points[(points.protocol == protocol) & (points.metric == metric)]
    points = points[points.minus == ""]
    number = points.groupby(["method", "pair_loss", "seed"]).steps.rank().astype(int)
    points = points.assign(epoch=number * (histories.epoch.max() // number.max()))
    points = points[(number.max() - number) % 2 == 0]
    return _by_epoch(points.rename(columns={"value": "average_precision"}))


def _by_epoch(table: pd.DataFrame) -> str:
    """Average precision, a row per method (and random seed, if each is trained alone) and a column
    per epoch."""
    table, rows = table.assign(classification_loss="bce"), []
    for cell in method_rows(table).itertuples():
        for seed, own in of_method(table, cell).groupby("seed"):
            values = own.groupby("epoch").average_precision.mean()
            rows.append([method_name(cell), seed, *map(as_number, values)])
    epochs = [f"epoch {epoch}" for epoch in sorted(table.epoch.unique())]
    return _with_seeds(["method", "seed", *epochs], rows)


def regime_one_stage(schedule: str = "one_stage") -> str:
    """Paired differences between methods with one stage, trained on one machine: of the means over
    random seeds, or of each seed alone."""
    table, rows = _final(schedule), []
    for method, minus in ONE_STAGE[schedule]:
        own = table[(table.method == method) & (table.minus == minus)]
        for seed, differences in own.groupby("seed"):
            areas = (as_interval(_area(differences, area), sign=True) for area in AREAS)
            rows.append([f"`{method}` − `{minus.partition('-')[0]}`", seed, *areas])
    return _with_seeds(["difference", "seed", *AREAS], rows)


def rates() -> str:
    """The study's `no_je` and `je` with the learning rates that suit them, their paired difference,
    and controls with the rate of the main comparison."""
    own, main = means("study/rates"), means("study").query("extractor == 'short_chunk_cnn'")
    main = main[main.method.isin(["no_je_linear", "bce_two_stage"])]
    main, rows = main[main.classification_loss == "bce"], []
    tried = read_digits("choices/rates").query("method == 'je'")
    best = tried.learning_rate[tried.valid_average_precision.astype(float).idxmax()]
    for rate, table in {best: own, str(preset("study").stage2[0].learning_rate): main}.items():
        scores = table[(table.minus == "") & (table.extractor != "")]
        for cell in method_rows(scores).itertuples():
            areas = (as_interval(_area(of_method(scores, cell), area)) for area in AREAS)
            rows.append([method_name(cell), rate, *areas])
    paired = own[(own.method == "je") & (own.minus == "no_je")]
    areas = (as_interval(_area(paired, area), sign=True) for area in AREAS)
    rows.append(["`je` − `no_je`", best, *areas])
    return as_markdown(["method", "learning rate", *AREAS], rows)


def regime_measured() -> str:
    """Gains over no_je at the end, on every schedule: of controls without a shared space, and of
    joint embedding."""
    rows, wanted = [], [f"{area}, `micro_window`" for area in ("PR-AUC", "ROC-AUC")]
    keys = ["method", "pair_loss", "minus", "seed", "protocol", "metric"]
    longer = pd.concat([_final("long"), _final("long_one_stage")])
    for name, table in {
        "main comparison": means("study").query("extractor == 'short_chunk_cnn'"),
        "main comparison, rate 0.05": means("study/rates"),
        "the paper's": _final(""),
        "fifteen times the epochs with Adam": longer.drop_duplicates(keys),
    }.items():
        gains = table[(table.minus == "no_je") & (table.classification_loss == "bce")]
        gains = gains[gains.method.isin(["no_je_linear", "bce_two_stage", "je", "joint"])]
        gains = gains[(gains.method != "joint") | (gains.pair_loss == "subset_query")]
        for cell in method_rows(gains).itertuples():
            areas = {
                "mean of 3" if seed == "mean" else seed: [_area(own, area) for area in wanted]
                for seed, own in of_method(gains, cell).groupby("seed")
            }
            for seed, found in areas.items():
                shown = (as_interval(area, sign=True) for area in found)
                rows.append([name, method_name(cell), seed, *shown])
            if len(areas) > 1:
                values = np.array([[area.value for area in found] for found in areas.values()])
                mean = f"mean of {len(areas)}"
                rows.append([name, method_name(cell), mean, *map(_spread, values.T)])
    return as_markdown(
        ["schedule", "method", "random seed", "gain in PR-AUC", "gain in ROC-AUC"], rows
    )


def regime_published() -> str:
    """Published gains of joint embedding over no_je, means over the extractors."""
    table = pd.read_csv(NOTEBOOKS / "published.csv")
    wide = table.pivot(index=["source", "extractor"], columns="method").sort_index()
    rows = []
    for source, own in wide.groupby("source", sort=False):
        gains = {area: own[area].je - own[area].no_je for area in ("pr_auc", "roc_auc")}
        rows.append([source, len(own), *map(_spread, gains.values())])
    return as_markdown(["published", "extractors", "PR-AUC, `je` − `no_je`", "ROC-AUC"], rows)


def _spread(values: np.ndarray | pd.Series) -> str:
    """The mean, and the lowest and highest value."""
    mean, low, high = (as_number(f(values), 3, True) for f in (np.mean, np.min, np.max))
    return f"{mean} ({low} to {high})"
