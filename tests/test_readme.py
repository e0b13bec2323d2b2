"""The numbers that the README tells are those of the committed tables."""

import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "notebooks" / "results"
DEMO = ["micro_window roc_auc", "micro_window pr_auc", "micro_window f1_as_coded"]
DEMO += ["macro_clip roc_auc", "macro_clip average_precision", "macro_clip f1_instance"]
MINUS = ["no_je", "no_je_linear", "bce_two_stage", "je_shuffled-subset_query"]


def rows_after(text: str) -> list[list[str]]:
    """The cells of the first table after a text, without its two lines of head."""
    table = re.search(r"(?:^\|.*\n)+", README[README.index(text) :], re.MULTILINE)[0]
    return [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def whole(preset: str) -> pd.DataFrame:
    """What a preset's runs reach on all labels, the mean over seeds, by what a row is of."""
    table = pd.read_parquet(RESULTS / preset / "rendered" / "results.parquet")
    table = table[(table.tag == "") & table.seed.isin(["mean", ""]) & (table.label_share == 1)]
    of = ["extractor", "method", "pair_loss", "minus", "protocol", "metric"]
    return table.set_index(of).sort_index()


def told(row: pd.Series, sign: str = "") -> str:
    text = f"{row.value:{sign}.3f} [{row.low:{sign}.3f}, {row.high:{sign}.3f}]"
    return text.replace("-", "−") if sign else text


def test_the_demos_scores():
    table = whole("demo")
    for method, pair_loss, *scores in rows_after("## What the demo shows"):
        run = ("sample_cnn", method, pair_loss.replace("–", "none"), "")
        assert scores == [told(table.loc[(*run, *column.split())]) for column in DEMO]


@pytest.mark.parametrize(
    ("head", "extractor"),
    [("\nSample-CNN:\n", "sample_cnn"), ("\nSample-CNN with SE:\n", "sample_cnn_se")],
)
def test_the_studys_scores_and_differences(head, extractor):
    table, rows = whole("study"), rows_after(head)
    assert len(rows) == 15
    for method, pair_loss, score, area, *differences in rows:
        floor = method in ("log_mel_logistic", "tag_frequency")
        run = ("" if floor else extractor, method, pair_loss.replace("–", "none") or "none")
        own = table.loc[(*run, "", "macro_clip")]
        assert (score, area) == (told(own.loc["average_precision"]), f"{own.value['roc_auc']:.3f}")
        for minus, difference in zip(MINUS, differences, strict=True):
            other = (*run, minus, "macro_clip", "average_precision")
            assert difference == (told(table.loc[other], "+") if other in table.index else "")
