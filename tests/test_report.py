"""The page tells what the runs hold, needs nothing beside itself, and can be listened to."""

import io
import re
import shutil
from base64 import b64decode
from dataclasses import fields, replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from scored import scored_run
from sklearn.metrics import label_ranking_average_precision_score

from jetatag import cli, figures, metrics
from jetatag.config import RunConfig
from jetatag.data import Vocabulary
from jetatag.evaluation import baselines, results
from jetatag.evaluation.predict import describe
from jetatag.grid import report
from jetatag.grid.report import evaluation, listening, sections
from jetatag.training.runs import Run, finished

VOID = {"meta", "img", "br", "link", "input", "hr"}
NASTY = ("<script>alert(1)</script>", 'high" onload="x', "cash & '$\\oops$'", "{{ never }}")


class Page(HTMLParser):
    """Text by table, ids, targets and sources; refuses tags that do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.refers, self.tables = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.refers += [attributes[name] for name in ("href", "src") if name in attributes]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def table(self, *heads, by=1):
        """The rows, by their first cells (so many as `by`), of the first table of these heads."""
        (head, *rows), *_ = [t for t in self.tables if set(heads) <= set(t[0])]
        keys = [row[0] if by == 1 else tuple(row[:by]) for row in rows]
        return {k: dict(zip(head, row, strict=True)) for k, row in zip(keys, rows, strict=True)}

    def sounds(self):
        """(samples, rate) of every player."""
        sources = [a["src"] for tag, a in self.tags if tag == "audio"]
        assert all(source.startswith("data:audio/mpeg;base64,") for source in sources)
        return [soundfile.read(io.BytesIO(b64decode(s.partition(",")[2]))) for s in sources]


@pytest.fixture(scope="module")
def made(tiny_store, tiny_config, tmp_path_factory):
    """Two methods with two seeds each, a baseline file, and the store that they were tested on;
    tests must not write into it."""
    parent = tmp_path_factory.mktemp("report") / "runs"
    for method, pair_loss, sharpness in (("je", "subset_query", 1.5), ("no_je", "none", 0.3)):
        for seed in (0, 1):
            config = tiny_config.replace(method=method, pair_loss=pair_loss, seed=seed)
            scored_run(parent, config, tiny_store, seed, sharpness)
    rows = tiny_store.rows("test")
    frequency = np.tile(tiny_store.labels.mean(0, dtype=np.float32), (len(rows), 1))
    floor = dict.fromkeys(baselines.NAMES, frequency)
    np.savez(parent / "baselines.npz", **describe(tiny_store, rows), **floor)
    return SimpleNamespace(parent=parent, store=tiny_store, runs=finished(parent))


@pytest.fixture(scope="module")
def text(made):
    """The page of all of these, with sounds."""
    return page(made.runs, made.store)


def page(of_runs, store=None):
    return report.page(of_runs, store, n_resamples=50, layout="pca")


def test_the_page_is_whole_and_needs_nothing_beside_itself(made, text):
    read = Page(text)
    assert len(read.ids) == len(set(read.ids))
    inner = {target[1:] for target in read.refers if target.startswith("#")}
    assert inner and inner <= set(read.ids)
    outer = [target for target in read.refers if not target.startswith(("#", "data:"))]
    assert not outer and "@import" not in text and "url(" not in text
    assert ("html", {"lang": "en"}) in read.tags and "<title>jetatag report: " in text
    images = [attributes for tag, attributes in read.tags if tag == "img"]
    assert len(images) == 7 and all(image["alt"] for image in images)
    for image in images:
        assert b"<svg" in b64decode(image["src"].removeprefix("data:image/svg+xml;base64,"))
    assert str(made.parent) not in text and str(made.store.folder) not in text


def test_the_numbers_are_those_of_the_results_table(made, text):
    read = Page(text)
    table = results.results(made.runs, n_resamples=50, baselines=made.parent / "baselines.npz")
    table = table[(table.tag == "") & (table.minus == "")]
    heads = {"micro_window": ("ROC-AUC", "PR-AUC"), "macro_clip": ("ROC-AUC", "average precision")}
    names = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "average_precision": "average precision"}
    checked = 0
    for protocol, shown in heads.items():
        means = read.table("method", *shown)
        seeds = read.table("method", "seed", *shown, by=2)
        for row in table[(table.protocol == protocol) & table.metric.isin(names)].itertuples():
            name = "je · subset_query" if row.method == "je" else row.method
            told = [seeds[name, row.seed]] if row.seed else []
            told += [means[name]] if row.seed in ("", "mean") else []
            for shown_row in told:
                text = f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]\nby group ["
                assert shown_row[names[row.metric]].startswith(text)
                checked += 1
    assert checked == 2 * 2 * (2 * 2 + 2 * 2 + 2)  # protocols, metrics; seeds, means twice, floor
    assert means["tag_frequency"]["ROC-AUC"].startswith("0.500 [0.500, 0.500]")


def test_intervals_by_group_and_metrics_not_known_here_are_shown():
    rows = {"method": ["a", "a", "b"], "metric": ["roc_auc", "new_one", "roc_auc"], "value": 0.5}
    rows = pd.DataFrame(rows).assign(low=0.4, high=0.6, group_low=[0.3, np.nan, np.nan])
    table = sections.wide(rows.assign(group_high=0.7), ["method"]).set_index("method")
    assert table.loc["a"].tolist() == [
        "0.500 [0.400, 0.600]\nby group [0.300, 0.700]",
        "0.500 [0.400, 0.600]",
    ]
    assert table.loc["b"].isna().tolist() == [False, True]
    assert table.columns.tolist() == ["ROC-AUC", "new one"]


def test_differences_are_paired_over_clips_and_seeds(made, text):
    row = Page(text).table("first", "average precision")["je · subset_query"]
    assert row["minus"] == "no_je"
    scores, labels, _ = results.clip_scores(made.runs)
    je, no_je = np.split(np.stack(list(scores.values())), 2)
    told = metrics.paired_difference(labels, je, no_je, n_resamples=50).set_index("metric")
    value, low, high = told.loc["average_precision", ["difference", "low", "high"]]
    assert low > 0
    by_clip, _, by_group = row["average precision"].partition("\nby group ")
    assert by_clip == f"{value:+.3f} [{low:+.3f}, {high:+.3f}] *" and by_group.endswith("]")


def test_what_differs_in_more_than_the_seed_is_told_apart(made, tiny_config, tmp_path):
    wide = scored_run(tmp_path / "wide", tiny_config.replace(width=5, seed=2), made.store, 5)
    named = evaluation.evaluate([*made.runs, wide], 20).cells
    assert {name: list(seeds) for name, seeds in named.items()} == {
        "je · subset_query, width 4": [0, 1],
        "no_je, width 4": [0, 1],
        "je · subset_query, width 5": [2],
    }
    # A name says nothing of the number of windows: only the folder tells the two apart.
    windows = tiny_config.replace(n_windows=7, seed=2)
    other = scored_run(tmp_path / "windows", windows, made.store, 5)
    one = evaluation.evaluate([*made.runs, other], 20)
    assert {name: list(seeds) for name, seeds in one.cells.items()} == {
        "je · subset_query, report0/runs": [0, 1],
        "no_je, report0/runs": [0, 1],
        f"je · subset_query, {tmp_path.name}/windows": [2],
    }
    differing = sections.differing_settings(one)
    assert differing.columns.tolist() == ["runs", "n_windows"]
    assert differing.n_windows.tolist() == ["3", "3", "7"]


def test_of_many_cells_the_best_of_every_method_is_drawn(made, tiny_config, tmp_path, monkeypatch):
    sharp = tiny_config.replace(method="je", pair_loss="cosine")
    one = evaluation.evaluate([*made.runs, scored_run(tmp_path, sharp, made.store, 3, 9.0)], 20)
    assert list(one.shown) == list(one.cells) and len(one.cells) == 3
    monkeypatch.setattr(evaluation, "MOST_SHOWN", 2)
    fewer = evaluation.Evaluation(**{f.name: getattr(one, f.name) for f in fields(one)})
    assert list(fewer.shown) == ["no_je", "je · cosine"]


def test_each_tag_s_best_is_marked(made, text):
    read = Page(text).table("tag", "clips", "share")
    scores, labels, tags = results.clip_scores(made.runs)
    areas = [metrics.per_tag(labels, s, tags).average_precision.to_numpy() for s in scores.values()]
    je, no_je = np.mean(areas[:2], axis=0), np.mean(areas[2:], axis=0)
    for i, tag in enumerate(tags):
        shown = list(read[tag].values())[1:]
        if not labels[:, i].any():
            assert shown == ["0", "0.000", "–", "–"]
            continue
        marked = [f"{'● ' if a >= b else ''}{a:.3f}" for a, b in ((je[i], no_je[i]),)]
        marked += [f"{'● ' if no_je[i] >= je[i] else ''}{no_je[i]:.3f}"]
        assert shown == [str(labels[:, i].sum()), f"{labels[:, i].mean():.3f}", *marked]
    assert len(read) == len(tags) == 4


def test_names_from_the_disk_cannot_act(made, tiny_config, tmp_path):
    table = made.store.table.assign(clip_id=[f"<b>{i}" for i in made.store.table.clip_id])
    table = table.assign(title="<i>it's</i>")
    store = replace(made.store, vocabulary=Vocabulary(NASTY), table=table, name="<u>set</u>")
    run = scored_run(tmp_path / "nasty", tiny_config, store, 0)
    text = page([run], store)
    read = Page(text)
    assert [tag for tag, _ in read.tags].count("script") == 1
    assert all("onload" not in attributes for _, attributes in read.tags)
    assert set(read.table("tag", "clips", "share")) == set(NASTY)
    for raw in (NASTY[0], f"<b>{made.store.table.clip_id.iloc[0][:1]}", "<i>it's", "<u>set"):
        assert raw not in text


def test_the_clips_that_rank_best_and_worst_are_heard(made):
    run = made.runs[0]
    read = Page(page([run], made.store))
    scores = run.read_arrays("scores.npz")
    probs, tagged = scores["probs"].mean(1), scores["labels"].any(axis=1)
    ranking = listening.ranking_precision(scores["labels"], probs)
    best, worst = [t for t in read.tables if t[0][0] == "clip"]
    precisions = [[float(row[1]) for row in rows[1:]] for rows in (best, worst)]
    n = len(precisions[0])
    ordered = np.sort(ranking[tagged])
    np.testing.assert_allclose(precisions[0], ordered[::-1][:n], atol=6e-4)
    np.testing.assert_allclose(precisions[1], ordered[:n], atol=6e-4)
    ids = [row[0].split()[0] for rows in (best, worst) for row in rows[1:]]
    assert len(ids) == len(set(ids)) == len(read.sounds()) == 2 * min(5, tagged.sum() // 2)
    clips = dict(zip(scores["clip_ids"], range(len(tagged)), strict=True))
    for clip_id, row, (sound, rate) in zip(ids, best[1:] + worst[1:], read.sounds(), strict=True):
        (place,) = np.flatnonzero(made.store.table.clip_id == clip_id)
        length = made.store.lengths[place]
        own = made.store.read([place], [0], length)[0]
        assert rate == made.store.sample_rate and abs(len(sound) - length) < 0.2 * rate
        assert np.corrcoef(sound[:length], own[: len(sound)])[0, 1] > 0.9
        carried = scores["tags"][scores["labels"][clips[clip_id]] == 1]
        assert row[2] == ", ".join(carried)
        likeliest = probs[clips[clip_id]].argmax()
        told = f"{scores['tags'][likeliest]}\xa0{probs[clips[clip_id], likeliest]:.2f}"
        assert row[3].split(", ")[0].removeprefix("● ") == told
        assert row[3].startswith("● ") == (scores["tags"][likeliest] in carried)


def test_the_ranking_precision_is_scikit_learn_s_and_the_hand_s():
    rng = np.random.default_rng(0)
    labels, probs = rng.random((30, 6)) < 0.4, rng.integers(0, 4, (30, 6)) / 4  # with ties
    labels[:, 0] |= ~labels.any(axis=1)
    ours = listening.ranking_precision(labels, probs)
    assert ours.mean() == pytest.approx(label_ranking_average_precision_score(labels, probs))
    hand = listening.ranking_precision(np.array([[1, 0, 1], [0, 0, 0]]), np.array([[9, 5, 2]] * 2))
    assert hand == pytest.approx([(1 / 1 + 2 / 3) / 2, np.nan], nan_ok=True)


@pytest.mark.parametrize(("sample_rate", "coded"), [(16_000, 16_000), (10_000, 11_025)])
def test_an_excerpt_is_the_middle_of_the_clip(made, sample_rate, coded):
    store, seconds = replace(made.store, sample_rate=sample_rate), 30
    time = np.arange(seconds * sample_rate) / sample_rate
    sound = np.sin(2 * np.pi * np.where(abs(time - 15) < 5, 1000, 200) * time)
    table = store.table.iloc[:1].assign(n_samples=len(sound))
    store = replace(store, table=table)
    store.__dict__["_samples"] = (20_000 * sound).astype(np.int16)
    heard, rate = soundfile.read(io.BytesIO(listening.excerpt(store, 0)))
    assert rate == coded and abs(len(heard) / rate - 10) < 0.2
    spectrum = abs(np.fft.rfft(heard))
    assert np.fft.rfftfreq(len(heard), 1 / rate)[spectrum.argmax()] == pytest.approx(1000, abs=2)
    assert spectrum[: int(400 * len(heard) / rate)].max() < 0.02 * spectrum.max()


def test_a_clip_is_coded_once_and_referred_to_after(text):
    read = Page(text)
    players = [a["aria-label"] for tag, a in read.tags if tag == "audio"]
    assert len(players) == len(set(players))
    rows = [row for t in read.tables if t[0][0] == "clip" for row in t[1:]]
    again = [row for row in rows if row[-1] == "see above"]
    assert again and len(rows) == len(players) + len(again)


def test_runs_of_other_clips_get_a_section_of_their_own(made, tiny_config, tmp_path):
    fewer = made.store.table.copy()
    fewer.loc[made.store.rows("test")[:1], "split"] = "valid"
    other = replace(made.store, table=fewer, name="fewer", checksum="other")
    run = scored_run(tmp_path / "fewer", tiny_config, other, 0)
    text = page([*made.runs, run], replace(other, checksum="same clips, prepared anew"))
    n_test = len(made.store.rows("test"))
    heads = re.findall(r'<h2 id="s\d">(.*?)</h2>', text)
    assert heads == [f"mtat: {n_test} test clips, 4 runs", f"fewer: {n_test - 1} test clips, 1 run"]
    # Both were tested on clips that the store holds.
    assert text.count("<audio") > 10 and "To hear them" not in text


def test_one_multiclass_run_is_shown_without_differences_or_tag_correlation(
    made, tiny_config, tmp_path
):
    pitch = Vocabulary(made.store.vocabulary.tags[:2], "multiclass")
    store = replace(made.store, vocabulary=pitch, labels=made.store.labels[:, :2])
    read = Page(page([scored_run(tmp_path, tiny_config, store, 0)]))
    windows, clips = (set(t[0]) for t in read.tables if "accuracy" in t[0])
    assert {"ROC-AUC", "PR-AUC"} <= windows and {"ROC-AUC", "average precision"} <= clips
    assert not any("minus" in t[0] for t in read.tables) and not read.sounds()
    images = [attributes["alt"] for tag, attributes in read.tags if tag == "img"]
    assert len(images) == 4 and not any("correlations" in alt for alt in images)


def test_runs_of_one_name_are_told_apart_by_their_folders(made, tiny_config, tmp_path):
    again = scored_run(tmp_path / "again", tiny_config, made.store, 9)
    one = evaluation.evaluate([*made.runs, again], 20)
    assert [name.rpartition("/")[2] for name in one.cells] == ["runs", "runs", "again"]
    assert len(one.runs) == 5


def test_the_settings_train_the_run_again(made, text):
    blocks = re.findall(r"<pre>(.*?)</pre>", text, flags=re.S)
    told = [RunConfig.from_dict(yaml.safe_load(block)) for block in blocks]
    assert told == [run.config for run in made.runs if run.config.seed == 0]
    assert text.count("with the first of the seeds 0, 1") == 2


def test_the_same_runs_give_the_same_bytes(made, text):
    assert page(finished(made.parent), made.store) == text


def test_the_command_writes_the_page_and_finds_each_run_once(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(figures.LAYOUTS, "umap", figures.LAYOUTS["pca"])
    out = tmp_path / "pages" / "report.html"
    (tmp_path / "figures").mkdir()
    without = [str(tmp_path / "figures"), str(made.parent / "baselines.npz")]
    given = [str(made.parent), *without, str(made.runs[0].folder)]
    assert cli.main(["report", *given, "--out", str(out), "--store", str(made.store.folder)]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"{out}: 4 runs, ")
    assert f"left out, for they hold no finished run: {', '.join(without)}.\n" in told.err
    assert list(out.parent.iterdir()) == [out]
    assert len(Page(out.read_text()).sounds()) > 0


def test_mistakes_are_refused_in_one_sentence(made, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no finished run under .*absent: run `jetatag"):
        report.write([made.parent, tmp_path / "absent"], tmp_path / "page.html")
    with pytest.raises(FileNotFoundError, match=f"no finished run under {tmp_path}: run"):
        report.write([tmp_path], tmp_path / "page.html")
    labels = 1 - made.store.labels
    with pytest.raises(ValueError, match="does not hold the test clips of these runs"):
        page(made.runs, replace(made.store, labels=labels))
    table = made.store.table.assign(clip_id=made.store.table.clip_id + "x")
    with pytest.raises(ValueError, match="give the store that they were tested on"):
        page(made.runs, replace(made.store, table=table))
    torn = Run.open(shutil.copytree(made.runs[0].folder, tmp_path / "torn"))
    (torn.folder / "scores.npz").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"scores\.npz is damaged"):
        page([torn])
    torn.write_arrays("scores.npz", {"probs": np.zeros((2, 3, 4))})
    with pytest.raises(ValueError, match=r"scores\.npz lacks clip_ids, labels, tags"):
        page([torn])
