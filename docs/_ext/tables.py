"""Markdown tables and verdicts, computed from the result files under `notebooks/results`.

Every function without arguments whose name does not begin with an underscore is a table that the
documentation can show (`generated.py`); `readme.py` writes some of them into the README.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import nbformat
import pandas as pd

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
RESULTS = NOTEBOOKS / "results"
EXTRACTORS = {"sample_cnn": "Sample-CNN", "sample_cnn_se": "Sample-CNN with SE"}
REFERENCES = ("no_je", "no_je_linear", "bce_two_stage", "je_shuffled-subset_query")
METHODS = ("no_je", "no_je_early_stop", "no_je_linear", "bce_two_stage", "je", "je_shuffled")
PAIR_LOSSES = (
    *("none", "cosine", "cosine_as_coded", "margin_as_coded", "cosine_stop_grad"),
    *("cosine_variance", "soft_info_nce", "subset_query", "subset_completion"),
)
SEARCHES = ("one tag", "two tags", "tag and not tag")
MARGIN = 0.01
"""Largest loss in average precision at which a method counts as no worse than another."""


# Reading and formatting


@cache
def _read(name: str) -> pd.DataFrame:
    """A result table by its path under `RESULTS`, without suffix."""
    path = RESULTS / name
    if path.with_suffix(".parquet").is_file():
        return pd.read_parquet(path.with_suffix(".parquet"))
    return pd.read_csv(path.with_suffix(".csv"))


def _read_text(name: str) -> pd.DataFrame:
    """A CSV file by its path under `RESULTS`, with the digits that stand in it."""
    return pd.read_csv(RESULTS / f"{name}.csv", dtype=str, keep_default_na=False)


def _summary(preset: str, table: str = "results") -> pd.DataFrame:
    """The means over seeds on all labels, sorted as the methods and pair losses are above."""
    rows = _read(f"{preset}/rendered/{table}")
    rows = rows[rows.seed.isin(["mean", ""]) & (rows.label_share == 1)]
    rows = rows[rows.tag == ""] if "tag" in rows else rows
    order = [
        rows.method.map(_position(METHODS)),
        rows.pair_loss.map(_position(PAIR_LOSSES)),
    ]
    return rows.assign(_method=order[0], _loss=order[1]).sort_values(["_method", "_loss"])


def _position(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _interval(row: pd.Series, digits: int = 3, sign: bool = False) -> str:
    """A value with its 95 % interval, which stays on one line: 0.366 [0.329, 0.408]."""
    value, low, high = (_number(row[name], digits, sign) for name in ("value", "low", "high"))
    return f"{value} [{low},\u00a0{high}]"


def _number(value: float, digits: int = 3, sign: bool = False) -> str:
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def _markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _code(name: str) -> str:
    return "–" if name == "none" else f"`{name}`"


def _method(row: pd.Series) -> str:
    """A method with its pair loss, as code."""
    return f"`{row.method}`" + ("" if row.pair_loss == "none" else f" `{row.pair_loss}`")


def _one(table: pd.DataFrame, **wanted: object) -> pd.Series:
    """The only row with these values; `LookupError` where there is none or more than one."""
    chosen = table[(table[list(wanted)] == list(wanted.values())).all(axis=1)]
    if len(chosen) != 1:
        raise LookupError(f"{len(chosen)} rows with {wanted}")
    return chosen.iloc[0]


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """One row for every method and pair loss, in order."""
    return table[["method", "pair_loss"]].drop_duplicates()


# Notebooks


def notebooks(folder: str = "") -> str:
    """One line for every notebook, from its first cell; `folder` goes before the links."""
    rows = []
    for path in sorted(NOTEBOOKS.glob("0*.ipynb")):
        first = nbformat.read(path, 4).cells[0].source
        title = re.search(r"^# (.*)$", first, re.M)[1]
        question = re.search(r"\*\*Question:?\*\*:?\s*(.*?)(?:\n\*\*|\n\n|$)", first, re.S)[1]
        question = re.split(r"(?<=\?)\s", " ".join(question.split()))[0]
        question = question[0].upper() + question[1:]
        rows.append([f"[{title}]({folder}{path.name})", question])
    return _markdown(["notebook", "question"], rows)


# The demo


def demo_scores() -> str:
    """Both protocols of every method of the demo, and what is reached without a network."""
    table = _summary("demo")
    table = table[table.minus == ""]
    shown = {
        "macro_clip ROC-AUC": ("macro_clip", "roc_auc"),
        "macro_clip AP": ("macro_clip", "average_precision"),
        "micro_window ROC-AUC": ("micro_window", "roc_auc"),
        "micro_window PR-AUC": ("micro_window", "pr_auc"),
    }
    rows = []
    for cell in _cells(table).itertuples():
        own = table[(table.method == cell.method) & (table.pair_loss == cell.pair_loss)]
        scores = [
            _interval(_one(own, protocol=protocol, metric=metric))
            for protocol, metric in shown.values()
        ]
        rows.append([_method(cell), *scores])
    return _markdown(["method", *shown], rows)


def demo_differences() -> str:
    """Paired differences between the methods of the demo, and whether they are resolved."""
    table = _summary("demo")
    table = table[(table.minus != "") & (table.protocol == "macro_clip")]
    table = table[table.method != "no_je"]  # the mirror image of another row
    rows = []
    for _, own in table.groupby(["method", "pair_loss", "minus"], sort=False):
        scores = [_one(own, metric=metric) for metric in ("roc_auc", "average_precision")]
        shown = [_interval(score, sign=True) for score in scores]
        first = own.iloc[0]
        rows.append([_method(first), _code(first.minus), *shown, _direction(scores[1])])
    return _markdown(["method", "minus", "ROC-AUC", "AP", "AP is"], rows)


def _direction(row: pd.Series) -> str:
    """What an interval says of a difference."""
    return "higher" if row.low > 0 else "lower" if row.high < 0 else "not resolved"


def demo_space() -> str:
    """How the shared spaces of the demo separate clips, and how well they are searched."""
    table = _read("demo/rendered/spaces")
    rows = []
    for pair_loss in ("cosine", "subset_query"):
        own = table[(table.pair_loss == pair_loss) & (table.method == "je")]
        single, mean = own[own.seed == "0"], own[own.seed == "mean"]
        facts = [_one(single, metric=metric).value for metric in ("gap", "unmatched")]
        shown = [_number(fact, 2, sign=True) for fact in facts]
        rankings = ("encoded set", "answering clips", "classifier")
        found = [
            _interval(_one(mean, kind="one tag", ranked_by=by, metric="map")) for by in rankings
        ]
        rows.append([f"`{pair_loss}`", *shown, *found])
    header = ["pair loss", "gap", "cosine to other clips' tags", "mAP by encoded tag"]
    return _markdown([*header, "mAP by answering clips", "mAP by classifier"], rows)


def machines() -> str:
    """The demo's scores on machines of different CPU types."""
    table = _read("demo/machines")
    names = list(dict.fromkeys(table.machine))
    rows = []
    for cell in _cells(table).itertuples():
        own = table[(table.method == cell.method) & (table.pair_loss == cell.pair_loss)]
        own = own.set_index("machine").loc[names]
        for metric, name in (("roc_auc", "ROC-AUC"), ("average_precision", "AP")):
            values = own[metric]
            spread = values.max() - values.min()
            rows.append([_method(cell), name, *map(_number, values), _number(spread)])
    return _markdown(["method", "macro_clip", *names, "spread"], rows)


# The study


def study_scores() -> str:
    """Average precision and ROC-AUC of every method, for both extractors."""
    table = _summary("study")
    table = table[(table.minus == "") & (table.protocol == "macro_clip")]
    rows = []
    for cell in _cells(table).itertuples():
        own = table[(table.method == cell.method) & (table.pair_loss == cell.pair_loss)]
        scores = [
            _interval(_one(own[own.extractor.isin([extractor, ""])], metric=metric))
            for extractor in EXTRACTORS
            for metric in ("average_precision", "roc_auc")
        ]
        rows.append([_method(cell), *scores])
    header = [f"{name}, {metric}" for name in EXTRACTORS.values() for metric in ("AP", "ROC-AUC")]
    return _markdown(["method", *header], rows)


def _study_differences(extractor: str) -> str:
    """Paired differences in average precision to every reference."""
    table = _summary("study")
    chosen = (table.protocol == "macro_clip") & (table.metric == "average_precision")
    table = table[chosen & (table.minus != "") & (table.extractor == extractor)]
    rows = []
    for cell in _cells(table).itertuples():
        own = table[(table.method == cell.method) & (table.pair_loss == cell.pair_loss)]
        own = own.set_index("minus")
        shown = [
            _interval(own.loc[minus], sign=True) if minus in own.index else ""
            for minus in REFERENCES
        ]
        rows.append([_method(cell), *shown])
    return _markdown(["method", *(f"− {_reference(minus)}" for minus in REFERENCES)], rows)


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
    table = _summary("study", "spaces")
    table = table[(table.metric == "map") & (table.extractor == "sample_cnn")]
    rankings = {
        "encoded set": "encoded tags",
        "answering clips": "answering clips",
        "classifier": "classifier",
    }
    rows = []
    joint = table[table.method.isin(["je", "je_shuffled"])]
    for cell in _cells(joint).itertuples():
        own = joint[(joint.method == cell.method) & (joint.pair_loss == cell.pair_loss)]
        for ranked_by, name in rankings.items():
            found = [_interval(_one(own, kind=kind, ranked_by=ranked_by)) for kind in SEARCHES]
            rows.append([_method(cell), name, *found])
    chance = table[(table.ranked_by == "random") & (table.pair_loss == "subset_query")]
    chance = chance[chance.method == "je"]
    rows.append(["chance", "", *(_number(_one(chance, kind=kind).value) for kind in SEARCHES)])
    return _markdown(["method", "ranked by", *SEARCHES], rows)


def study_spaces() -> str:
    """Neighbours, tag semantics, energy in the mean and gap of every method (Sample-CNN)."""
    table = _read("study/rendered/spaces")
    table = table[(table.extractor == "sample_cnn") & (table.label_share == 1)]
    mean = _summary("study", "spaces")
    mean = mean[(mean.extractor == "sample_cnn") & (mean.metric == "neighbour_agreement")]
    rows = []
    for cell in _cells(mean).itertuples():
        same = {"method": cell.method, "pair_loss": cell.pair_loss}
        own = mean[(mean.method == cell.method) & (mean.pair_loss == cell.pair_loss)]
        shown = [
            _interval(own[own.space == space].iloc[0]) if (own.space == space).any() else ""
            for space in ("h", "z_audio")
        ]
        for metric, sign in (("tag_semantics", True), ("mean_energy", False), ("gap", True)):
            values = table[(table[list(same)] == list(same.values())).all(axis=1)]
            values = values[values.metric == metric].value
            shown.append(_number(values.mean(), 2, sign) if len(values) else "")
        rows.append([_method(cell), *shown])
    header = ["method", "neighbours by h", "neighbours by z_audio", "tag semantics"]
    return _markdown([*header, "energy in the mean", "gap"], rows)


def study_labels() -> str:
    """Average precision with fewer labelled clips (Sample-CNN)."""
    table = _read("study/rendered/results")
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
            _interval(_one(own, method=method, pair_loss=pair_loss, minus=""))
            for method, pair_loss in methods.items()
        ]
        differences = [
            _interval(_one(own, method="je", pair_loss="subset_query", minus=minus), sign=True)
            for minus in ("bce_two_stage", "no_je_linear")
        ]
        rows.append([f"{share:.0%}".replace("%", " %"), *scores, *differences])
    header = ["labelled clips", "`je` `subset_query`", "`bce_two_stage`", "`no_je_linear`"]
    return _markdown([*header, "`je` − `bce_two_stage`", "`je` − `no_je_linear`"], rows)


def study_trends() -> str:
    """Rank correlation of the tags' gains with their strongest correlation with another tag."""
    table = _summary("study", "trends")
    table = table[table.covariate == "correlation"].rename(columns={"correlation": "value"})
    rows = []
    shown = [("no_je_linear", "none"), ("bce_two_stage", "none"), ("je", "subset_query")]
    shown += [("je", "subset_completion"), ("je", "cosine"), ("je_shuffled", "subset_query")]
    for method, pair_loss in shown:
        own = table[(table.method == method) & (table.pair_loss == pair_loss)]
        cells = [
            _interval(_one(own, extractor=extractor, minus="no_je"), 2, sign=True)
            for extractor in EXTRACTORS
        ]
        rows.append([_method(own.iloc[0]), *cells])
    return _markdown(["gain over `no_je` of", *EXTRACTORS.values()], rows)


# Verdicts on the study's expectations


def verdict(low: float, high: float, expected: str) -> str:
    """Whether a 95 % interval of a difference confirms what was expected of it.

    `expected` is "above" (the difference is above 0), "below", or "no worse" (the difference is
    above −`MARGIN`). Returns "confirmed", "refuted" (the interval lies on the other side) or
    "open" (it lies on both sides).
    """
    limit, sign = {"above": (0, 1), "below": (0, -1), "no worse": (-MARGIN, 1)}[expected]
    least, most = sorted((sign * (low - limit), sign * (high - limit)))
    return "confirmed" if least > 0 else "refuted" if most < 0 else "open"


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
        table = _summary("study", "spaces")
        return _one(table, **same, ranked_by=minus, kind="one tag", metric="map")
    if by == "trend":
        table = _summary("study", "trends").rename(columns={"correlation": "value"})
        return _one(table, **same, minus=minus, covariate="correlation")
    table = _read("study/rendered/results")
    table = table[(table.tag == "") & (table.label_share == (0.1 if by == "10 %" else 1))]
    try:
        metric = {"protocol": "macro_clip", "metric": "average_precision"}
        return _one(table, **same, **metric, seed="mean", minus=minus)
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
            shown = _interval(row, 2 if by == "trend" else 3, sign=True)
            cells += [f"**{verdict(row.low, row.high, expected)}**: {shown}"]
        rows.append([sentence, *cells])
    return _markdown(["expected", *EXTRACTORS.values()], rows)


def study_cost() -> str:
    """Runs, hours and memory of the study."""
    runs = _read("study/rendered/runs")
    hours = runs.wall_s.sum() / 3600
    row = [len(runs), f"{hours:.1f}", f"{runs.peak_mib.max():,} MiB"]
    return _markdown(["runs", "hours of training, one core each", "largest peak memory"], [row])


def schedules() -> str:
    """Average precision of the schedules `paper` and `fast` on the demo's data, by seed."""
    import numpy as np

    from jetatag.metrics import macro_clip, paired_difference

    scores = {}
    for name in ("paper", "fast"):
        folders = sorted((RESULTS / "schedules" / name).glob("*/scores.npz"))
        scores[name] = [np.load(path) for path in folders]
    labels = scores["fast"][0]["labels"]
    mean = {name: [run["probs"].mean(axis=1) for run in runs] for name, runs in scores.items()}
    rows = []
    for name, runs in mean.items():
        values = [macro_clip(labels, probs)["average_precision"] for probs in runs]
        rows.append([f"`{name}`", *map(_number, values), _number(float(np.mean(values)))])
    apart = paired_difference(labels, np.stack(mean["fast"]), np.stack(mean["paper"]))
    apart = apart.rename(columns={"difference": "value"})
    difference = _interval(_one(apart, metric="average_precision"), sign=True)
    rows.append(["`fast` − `paper`", "", "", "", difference])
    return _markdown(["schedule", "seed 0", "seed 1", "seed 2", "mean"], rows)


# Speed


def speed_preparing() -> str:
    """How fast audio is prepared."""
    table = _read_text("speed/preparing")
    return _markdown(["step", "clips of 29 s per second"], table.to_numpy().tolist())


def speed_steps() -> str:
    """Training and inference of every extractor at the paper's width."""
    table = _read_text("speed/steps").drop(columns=["training_peak_mib", "inference_peak_mib"])
    rows = [[f"`{name}`", *numbers] for name, *numbers in table.to_numpy().tolist()]
    header = ["extractor", "training step, s", "clips/s", "share of peak", "inference, s"]
    return _markdown([*header, "clips/s", "share of peak"], rows)


def speed_cost() -> str:
    """Operations of one run on MagnaTagATune, and days on two CPU cores."""
    rows = []
    for row in _read_text("speed/cost").itertuples():
        operations = [row.paper_je, row.paper_no_je, row.fast_je, row.fast_no_je]
        rows.append([f"`{row.extractor}`", *operations, row.days_paper_je, row.days_fast_je])
    header = ["extractor", "`paper` je", "`paper` no_je", "`fast` je", "`fast` no_je"]
    return _markdown([*header, "days, `paper` je", "days, `fast` je"], rows)


def speed_tagging() -> str:
    """Seconds of audio tagged per second, and how that compares with musicnn."""
    table = _read_text("speed/tagging")
    names = {"sample_cnn": "`sample_cnn`, width 128", "harmonic_cnn": "`harmonic_cnn`, width 128"}
    names |= {"demo": "the demo's `sample_cnn`, width 16", "musicnn": "musicnn"}
    peers = table[table.model == "musicnn"].set_index("cores")
    rows = []
    for row in table.itertuples():
        shown = []
        for column in ("clips_29_s", "song_4_min", "song_10_min"):
            value, peer = getattr(row, column), peers.loc[row.cores, column]
            times = "" if row.model == "musicnn" else f" ({float(value) / float(peer):.1f} ×)"
            shown.append(value + times)
        rows.append([names[row.model], row.cores, *shown])
    return _markdown(["model", "cores", "clips of 29 s", "song of 4 min", "10 min"], rows)


def speed_searching() -> str:
    """Milliseconds of a search among a million files."""
    return _markdown(["step", "ms"], _read_text("speed/searching").to_numpy().tolist())


def speed_original() -> str:
    """One step of the authors' TensorFlow code and of this package, in seconds."""
    table = _read_text("speed/original")
    rows = [[f"`{row[0]}`", *row[1:]] for row in table.to_numpy().tolist()]
    header = ["extractor", "training step, original", "jetatag", "inference, original", "jetatag"]
    return _markdown(header, rows)


# The paper


def published() -> str:
    """The published scores on MagnaTagATune (micro_window), without and with joint embedding."""
    table = pd.read_csv(NOTEBOOKS / "published.csv")
    rows = []
    for extractor in dict.fromkeys(table.extractor):
        cells = []
        for source in dict.fromkeys(table.source):
            for method in ("no_je", "je"):
                row = _one(table, extractor=extractor, source=source, method=method)
                cells.append(f"{row.roc_auc:.4f} / {row.pr_auc:.4f}")
        rows.append([f"`{extractor}`", *cells])
    header = ["extractor"]
    header += [
        f"{source}, `{method}`"
        for source in dict.fromkeys(table.source)
        for method in ("no_je", "je")
    ]
    return _markdown(header, rows)
