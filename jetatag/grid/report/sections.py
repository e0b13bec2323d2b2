"""What the page's template tells of one evaluation: tables, and figures as SVG."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure

from jetatag import figures, metrics
from jetatag.data.store import AudioStore
from jetatag.evaluation import results
from jetatag.evaluation.results import Cell
from jetatag.grid.report.evaluation import Evaluation, top_folder
from jetatag.grid.report.listening import listening
from jetatag.training.runs import Run, listed

VALIDATION = "valid_average_precision"
HEADS = {
    "valid_ap": "validation AP",
    **dict.fromkeys(("wall_s", "wall_time_s"), "wall time (s)"),
    **dict.fromkeys(("peak_mib", "peak_memory_mib"), "peak memory (MiB)"),
}


def section(
    one: Evaluation, store: AudioStore | None, rows: np.ndarray | None, layout: str, seed: int
) -> dict[str, Any]:
    """All that the template tells of one evaluation."""
    scores = one.table[(one.table.tag == "") & (one.table.minus == "")]
    scores = scores.assign(method=scores.cell, pair_loss="")
    means = scores[scores.seed.isin(["mean", ""])]
    differences = one.table[one.table.minus != ""].rename(columns={"cell": "first"})
    several = len(one.runs) > len(one.cells)
    tag_columns = sorted(one.cells, key=lambda name: name not in one.shown)  # these in front
    return {
        "of": one,
        "name": ", ".join(dict.fromkeys(run.record["data"]["name"] for _, run in one.runs)),
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
        "several_seeds": several,
        "tag_columns": tag_columns,
        "per_tag": per_tag_rows(one, tag_columns),
        "per_tag_figure": _picture(figures.per_tag(_counted(one))),
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
            (n, settings_text(run), run.record.get("made_by", {})) for n, run in one.firsts.items()
        ],
        "has_audio": rows is not None,
        "examples": listening(one, store, rows),
    }


def _of(table: pd.DataFrame, protocol: str) -> pd.DataFrame:
    return table[table.protocol == protocol]


def data_table(one: Evaluation) -> pd.DataFrame:
    """One row for every data that the runs were trained on: name, checksums, clips a split."""
    told = [run.record["data"] for _, run in one.runs]
    rows = [
        {name: data.get(name) for name in ("name", "checksum", "split_checksum")}
        | {f"{split} clips": n for split, n in (data.get("clips_by_split") or {}).items()}
        for data in told
    ]
    table = pd.DataFrame(rows).rename(columns=figures.named)
    return table.value_counts(sort=False, dropna=False).rename("runs").reset_index()


def about_table(one: Evaluation) -> pd.DataFrame:
    """One row a run: what `runs.listing` tells of it."""
    top = top_folder([run for _, run in one.runs])
    rows = []
    for name, run in one.runs:
        told = listed(run)
        place = run.folder.resolve().relative_to(top).as_posix()
        begun = told["begun"].replace("T", " ").removesuffix("+00:00")
        rows.append({**told, "run": place, "method": name, "begun": begun})
    table = pd.DataFrame(rows).drop(columns=["dataset", "pair_loss", "state"])
    return table.rename(columns=HEADS)


def wide(rows: pd.DataFrame, index: list[str], form: str = ".3f") -> pd.DataFrame:
    """One protocol's rows of a results table with a column a metric: the value and its intervals
    in the format `form`, and for a signed one a star where the interval by clip leaves out 0."""
    texts = [_with_intervals(row, form) for row in rows.to_dict("records")]
    table = rows.assign(text=texts).set_index([*index, "metric"]).text.unstack(sort=False)
    return table.rename(columns=figures.named).reset_index()


def _with_intervals(row: Mapping[str, Any], form: str) -> str:
    value, low, high = (format(row[name], form) for name in ("value", "low", "high"))
    text = f"{value} [{low}, {high}]"
    if form.startswith("+") and (row["low"] > 0 or row["high"] < 0):
        text += " *"
    if pd.notna(row["group_low"]):
        text += f"\nby group [{row['group_low']:{form}}, {row['group_high']:{form}}]"
    return text.replace("-", "−")


def _ablation(differences: pd.DataFrame) -> tuple[str, bytes] | None:
    """The first reference there is, and what the others gain over it per clip."""
    reference = next((name for name in results.REFERENCES if name in set(differences.minus)), None)
    if reference is None:
        return None
    rows = _of(differences[differences.minus == reference], "macro_clip")
    besides = rows["first"].str.partition(", ")[2]
    rows = rows.assign(extractor=besides.where(besides != "", rows.extractor))
    drawn = figures.ablation(rows.rename(columns={"value": "difference"}), reference=reference)
    return reference, _picture(drawn)


def per_tag_rows(one: Evaluation, columns: list[str]) -> list[dict[str, Any]]:
    """One row a tag, commonest first: `tag`, `n` and `share` of the test clips that carry it, and
    `values`, for every cell of `columns` (average precision, whether it is the best of the row)."""
    counts, values = one.labels.sum(axis=0), one.per_tag[columns].to_numpy()
    return [
        {
            "tag": one.tags[i],
            "n": int(counts[i]),
            "share": f"{counts[i] / len(one.labels):.3f}",
            "values": [(f"{v:.3f}", v == values[i].max()) for v in values[i] if counts[i]],
        }
        for i in np.argsort(-counts, kind="stable")
    ]


def _counted(one: Evaluation) -> dict[str, pd.DataFrame]:
    """Average precision of every tag and the clips that carry it, of the cells shown."""
    areas = one.per_tag.assign(n_positive=one.labels.sum(axis=0)).reset_index()
    return {name: areas.rename(columns={name: "average_precision"}) for name in one.shown}


def _correlation(one: Evaluation) -> tuple[str, bytes] | None:
    """The commonest tag and the heat map of those nearest to it; classes exclude each other."""
    if one.task == "multiclass" or len(one.tags) < 2:
        return None
    tag = one.tags[int(one.labels.sum(axis=0).argmax())]
    return tag, _picture(figures.tag_correlation(one.labels, one.tags, tag))


def _maps(one: Evaluation, layout: str, seed: int) -> list[tuple[str, bytes]]:
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


def _compared_curves(one: Evaluation) -> bytes | None:
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
    return table.rename(columns=HEADS).rename(columns=figures.named)


def differing_settings(one: Evaluation) -> pd.DataFrame:
    """The settings (and the data's checksum) in which cells differ beyond their names, a
    column each."""
    told = {name: results.decisive(run) for name, run in one.firsts.items()}
    table = pd.DataFrame(told).T.drop(columns=list(Cell._fields[1:])).map(_flat)
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


def _picture(figure: Figure) -> bytes:
    """A figure as SVG; in an image, as which the page holds it, its ids cannot meet another's."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()
