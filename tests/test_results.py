"""Tables of many runs: which runs are compared, where each number comes from, how tables read."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scored import scored_run
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity

from jetatag import metrics
from jetatag.evaluation import results
from jetatag.evaluation.spaces import _without_intervals, shared_map, spaces
from jetatag.metrics.layouts import map_quality
from jetatag.metrics.queries import answers
from jetatag.training import runs

SHARPNESS = {"je": 1.5, "no_je": 0.3, "no_je_linear": 0.9}
COMMITTED = Path(__file__).parents[1] / "notebooks" / "results"


@pytest.fixture(scope="module")
def made(tiny_store, tiny_config, tmp_path_factory):
    """Runs of three methods with seeds 0 to 2 (no_je without 2), one of je with fewer labels; and
    the path of baselines."""
    parent = tmp_path_factory.mktemp("results")
    for method, sharpness in SHARPNESS.items():
        pair_loss = "subset_query" if method == "je" else "none"
        for seed in range(2 if method == "no_je" else 3):
            config = tiny_config.replace(method=method, pair_loss=pair_loss, seed=seed)
            scored_run(parent, config, tiny_store, seed, sharpness)
    scored_run(parent, tiny_config.replace(label_share=0.5), tiny_store, 9, 0.5)
    rows = tiny_store.rows("test")
    frequency = np.tile(tiny_store.labels.mean(0, dtype=np.float32), (len(rows), 1))
    baselines = dict.fromkeys(("tag_frequency", "log_mel_logistic"), frequency)
    np.savez(parent / "baselines.npz", **tiny_store.describe(rows), **baselines)
    return runs.finished(parent), parent / "baselines.npz"


@pytest.fixture(scope="module")
def table(made):
    return results.results(made[0], n_resamples=60, baselines=made[1])


def macro_ap(table, rows="mean", **where):
    where = {"protocol": "macro_clip", "metric": "average_precision", **where}
    return results.select(table, rows, **where)


# Making tables


def test_each_run_has_both_protocols(made, table):
    for run in made[0]:
        own = results.score_table(run, n_resamples=60).set_index(["protocol", "metric"])
        where = {**results.cell_of(run)._asdict(), "seed": str(run.config.seed)}
        rows = results.select(table, "seed", **where).set_index(["protocol", "metric"])
        columns = ["value", "low", "high", "group_low", "group_high", "n_clips", "n_tags"]
        pd.testing.assert_frame_equal(rows[columns], own[columns], check_like=True, atol=1e-12)


def test_the_mean_of_a_cell_is_that_of_its_seeds(table):
    mean = macro_ap(table, method="no_je_linear").value.item()
    seeds = macro_ap(table, "seed", method="no_je_linear").value
    assert len(seeds) == 3 and mean == pytest.approx(seeds.mean())


def test_differences_are_paired_and_go_to_the_references_alike_in_all_else(made, table):
    pairs = table[~table.minus.isin(["", "log_mel_logistic"])]
    pairs = pairs.drop_duplicates(["method", "label_share", "minus"])
    assert set(zip(pairs.method, pairs.label_share, pairs.minus, strict=True)) == {
        ("je", 1.0, "no_je"),
        ("je", 1.0, "no_je_linear"),
        ("no_je", 1.0, "no_je_linear"),
        ("no_je_linear", 1.0, "no_je"),
    }
    scores = {run.config.name: run.read_arrays("scores.npz") for run in made[0]}
    first = next(iter(scores.values()))
    options = {"n_resamples": 60, "groups": first["groups"]}

    def resampled(method):
        probs = (scores[f"{method}-sample_cnn-seed{seed}"]["probs"] for seed in (0, 1))
        return [metrics.resampled(first["labels"], run, **options) for run in probs]

    expected = metrics.difference_table(resampled("je-subset_query"), resampled("no_je"))
    rows = results.select(table, "difference", method="je", minus="no_je")
    key, columns = ["protocol", "metric"], ["difference", "low", "high", "group_low", "group_high"]
    rows = rows.set_index(key).drop(index=("macro_clip", "f1_instance"))  # needs thresholds
    pd.testing.assert_frame_equal(rows[columns], expected.set_index(key)[columns], check_like=True)
    assert rows.low["macro_clip", "average_precision"] > 0


def test_every_tag_has_its_rows(made, table, tiny_store):
    run = made[0][0]
    scores = run.read_arrays("scores.npz")
    expected = metrics.per_tag(scores["labels"], scores["probs"].mean(1), scores["tags"])
    where = {**results.cell_of(run)._asdict(), "seed": str(run.config.seed)}
    rows = results.select(table, "tag", **where)
    assert set(rows.tag) == set(tiny_store.vocabulary.tags)
    for area in ("roc_auc", "average_precision", "pr_auc_trapezoid"):
        values = rows[rows.metric == area].set_index("tag").value
        np.testing.assert_allclose(values[expected.tag], expected[area])


def test_tag_frequency_ranks_no_clip_above_another(table):
    rows = table[(table.method == "tag_frequency") & (table.metric == "roc_auc")]
    by_protocol = rows.set_index("protocol").value
    assert by_protocol["macro_clip"] == 0.5 and by_protocol["micro_window"] > 0.5


def test_networks_are_compared_with_the_logistic_regression(made, table):
    rows = results.select(table, "difference", minus="log_mel_logistic", protocol="macro_clip")
    assert set(rows.method) == {"je", "no_je", "no_je_linear"} and (rows.label_share == 1).all()
    rows = rows[rows.metric == "average_precision"].set_index("method")
    mean = macro_ap(table, method="no_je_linear").value.item()
    floor = macro_ap(table, method="log_mel_logistic").value.item()
    own = rows.loc["no_je_linear"]
    assert own.difference == pytest.approx(mean - floor) and own.low < mean - floor < own.high


def test_gains_compare_every_method_with_the_references(made, table):
    by_tag, trends = results.gains(made[0], n_resamples=20)
    pairs = {
        ("je", "no_je"),
        ("je", "no_je_linear"),
        ("no_je", "no_je_linear"),
        ("no_je_linear", "no_je"),
    }
    for gains in (by_tag, trends):
        assert set(zip(gains.method, gains.minus, strict=True)) == pairs
    for method in ("je", "no_je_linear"):
        own = results.select(by_tag, "difference", method=method, minus="no_je")
        mean = macro_ap(table, "difference", method=method, minus="no_je").difference.item()
        assert own.difference.mean() == pytest.approx(mean)
    assert set(trends.covariate) == {"frequency", "correlation"}
    assert trends.correlation.between(-1, 1).all()
    with pytest.raises(ValueError, match="no two methods to compare"):
        results.gains(made[0][:1], n_resamples=2)


def test_every_pair_loss_is_compared_with_shuffled_tag_sets(tiny_store, tiny_config, tmp_path):
    made = [
        scored_run(tmp_path, tiny_config.replace(method=method, pair_loss=loss), tiny_store, 1, s)
        for method, loss, s in (
            ("je", "subset_query", 1.5),
            ("je", "cosine", 0.3),
            ("je_shuffled", "subset_query", 0.3),
        )
    ]
    rows = macro_ap(results.results(made, 20), "difference", minus="je_shuffled-subset_query")
    gains = rows.set_index("pair_loss").difference
    assert set(gains.index) == {"subset_query", "cosine"}
    assert gains["subset_query"] > 0.05 and gains["cosine"] == pytest.approx(0)


def test_spaces_and_searches(made):
    table = spaces(made[0], n_resamples=30)
    assert set(table[table.method == "no_je"].space) == {"h", "shared"}
    rankings = table[~table.ranked_by.isin(["", "classifier", "random"])]
    assert set(rankings.method) == {"je"} and rankings.ranked_by.nunique() == 6
    run = runs.pick(made[0], method="je", label_share=1.0)
    space, scores = run.read_arrays("embeddings.npz"), run.read_arrays("scores.npz")
    where = {**results.cell_of(run)._asdict(), "seed": str(run.config.seed)}
    own = table[(table[list(where)] == list(where.values())).all(axis=1)]
    own = own[(own.kind == "one tag") & (own.metric == "mean_average_precision")].set_index(
        "ranked_by"
    )
    tags = space["queries"][: len(scores["tags"])]
    relevant = answers(scores["labels"], tags)
    answered = relevant.any(0)
    by = own.value

    def mean_ap(ranking):
        return average_precision_score(relevant[:, answered], ranking[:, answered])

    encoded = cosine_similarity(space["z_audio"], space["z_query"])
    assert by["encoded set"] == pytest.approx(mean_ap(encoded))
    z_other = space["z_other"] - space["z_other_centre"]
    answering = cosine_similarity(space["z_audio"] - space["z_other_centre"], z_other)
    assert by["answering clips"] == pytest.approx(mean_ap(answering))
    assert by["classifier"] == pytest.approx(mean_ap(scores["probs"].mean(1)))
    assert by["random"] == pytest.approx(relevant[:, answered].mean())
    both = scores["probs"].mean(1) / (1 + np.exp(2 - 4 * encoded))  # z_scale is 4, −2
    assert by["combined"] == pytest.approx(mean_ap(both))
    for name in ("encoded set", "answering clips", "combined"):
        assert by[f"{name} − classifier"] == pytest.approx(by[name] - by["classifier"])
    assert (own.low <= own.value).all() and (own.value <= own.high).all()
    shared = {"gap", "matched", "unmatched", "mean_energy", "tag_semantics"}
    assert shared <= set(table[table.space == "shared"].metric)


def test_spaces_judge_the_shared_map_of_every_layout(rng):
    labels = (rng.random((30, 4)) < 0.4).astype(np.uint8)
    space = {name: rng.normal(size=(30, 8)) for name in ("h", "z_audio", "z_tag")}
    space |= {name: rng.normal(size=(4, 8)) for name in ("z_query", "z_single")}
    space |= {"labels": labels, "z_centre": np.zeros(8), "tag_correlation": np.eye(4)}
    own = _without_intervals(space, 0)
    own = own[own.space == "z_audio"].set_index(["kind", "metric"]).value
    for method in ("umap", "tsne"):
        xy, fit = shared_map(space, method)
        ratios = map_quality(xy, labels, fit).ratios()
        assert own[method].to_dict() == pytest.approx(ratios, nan_ok=True)
    few = {name: space[name][:9] for name in ("h", "z_audio", "z_tag", "labels")}
    assert not _without_intervals({**space, **few}, 0).kind.any()


def test_means_of_spaces_are_those_of_their_seeds(made):
    table = spaces(made[0], n_resamples=30)
    key = ["method", "label_share", "space", "kind", "ranked_by", "metric"]
    mean, seeds = (table[own] for own in (table.seed == "mean", table.seed != "mean"))
    assert not mean[["value", "low", "high"]].isna().any(axis=None)
    expected = seeds.groupby(key).value.mean()[pd.MultiIndex.from_frame(mean[key])]
    np.testing.assert_allclose(mean.value, expected)
    selected = results.select(table, label_share=1.0, metric=["gap", "mean_energy"])
    expected = seeds.groupby(key).value.mean()[pd.MultiIndex.from_frame(selected[key])]
    np.testing.assert_allclose(selected.value, expected)  # without intervals, averaged by select
    both = [results.select(table, rows, kind="one tag") for rows in ("mean", "seed")]
    assert len(results.select(table, "score", kind="one tag")) == sum(map(len, both))


# Files, and runs that cannot be compared


def test_tables_are_written_for_people_and_programs_and_gathered(table, tmp_path):
    for name, own in (("one", table), ("two", table.head(2))):
        results.write_table(own, tmp_path / name, "results")
    read = pd.read_parquet(tmp_path / "one" / "results.parquet")
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert len(pd.read_csv(tmp_path / "one" / "results.csv")) == len(table)
    assert len(results.gather_tables(tmp_path, "results")) == len(table) + 2
    with pytest.raises(FileNotFoundError, match="run notebooks 04 and 05"):
        results.gather_tables(tmp_path, "gains")


def test_runs_of_other_clips_are_refused(made, tiny_store, tiny_config, tmp_path):
    other = scored_run(tmp_path, tiny_config.replace(seed=7), tiny_store, 1)
    scores = other.read_arrays("scores.npz")
    other.write_arrays("scores.npz", {**scores, "clip_ids": scores["clip_ids"][::-1]})
    with pytest.raises(ValueError, match="was tested on other clips or tags"):
        results.results([*made[0], other], n_resamples=2)
    np.savez(tmp_path / "baselines.npz", labels=1 - scores["labels"])
    with pytest.raises(ValueError, match="run notebook 01 again"):
        results.results(made[0], 2, baselines=tmp_path / "baselines.npz")
    with pytest.raises(ValueError, match="no run with method = bce"):
        runs.pick(made[0], method="bce_two_stage")


def test_runs_that_differ_in_more_than_the_seed_are_refused(tiny_store, tiny_config, tmp_path):
    others = {"n_windows": 7, "stage2_crops": 3}
    runs_of = [
        scored_run(tmp_path / "a", tiny_config, tiny_store, 0),
        scored_run(tmp_path / "b", tiny_config.replace(seed=1, **others), tiny_store, 1),
        scored_run(tmp_path / "c", tiny_config, tiny_store, 2),
    ]
    with pytest.raises(ValueError, match=r"a/.* and .*b/.* differ in stage2_crops, n_windows:"):
        results.cells(runs_of[:2])
    with pytest.raises(ValueError, match="differ in nothing: keep and compare them in separate"):
        results.cells(runs_of[::2])
    with pytest.raises(ValueError, match="some of the runs share a name"):
        results.clip_scores(runs_of[::2])
    assert [len(seeds) for seeds in results.cells(runs_of[:1]).values()] == [1]


def test_runs_are_grouped_by_their_test_clips(made, tmp_path):
    first, second, *_ = made[0]
    scores = first.read_arrays("scores.npz")
    other = runs.Run(tmp_path, first.config)
    other.write_arrays("scores.npz", {**scores, "labels": 1 - scores["labels"]})
    assert results.by_test([first, other, second]) == [[first, second], [other]]


# Reading tables


@pytest.fixture(scope="module")
def demo():
    return results.gather_tables(COMMITTED / "demo", "results")


@pytest.fixture(scope="module")
def spaces_of_demo():
    return results.gather_tables(COMMITTED / "demo", "spaces")


@pytest.fixture(scope="module")
def wide(demo):
    """The demo's table as of two extractors and two shares of labels."""
    runs = demo[demo.extractor != ""]
    second = runs.assign(extractor="harmonic_cnn")
    few = runs.assign(label_share=0.1)
    return pd.concat([demo, second, few], ignore_index=True)


def width(table):
    return max(map(len, table.to_string().splitlines()))


def test_a_summary_has_one_row_a_cell_and_one_column_a_metric(demo):
    shown = results.summary(demo)
    assert shown.index.names == ["method", "pair_loss"]  # the rest is the same in all runs
    assert shown.columns.tolist() == ["average_precision", "roc_auc"]
    assert shown.loc[("joint", "subset_query"), "average_precision"] == "0.456 [0.431, 0.480]"
    assert shown.index[-1] == ("tag_frequency", "none")
    both = results.summary(demo, protocol=["macro_clip", "micro_window"], method=["je", "joint"])
    assert both.index.names == ["method", "pair_loss", "protocol"] and both.shape == (4, 3)
    micro = results.summary(demo, protocol="micro_window", digits=2)
    assert micro.loc[("no_je_linear", "none"), "pr_auc"] == "0.54 [0.51, 0.56]"
    chosen = results.summary(demo, metric="f1_instance", method=["no_je_linear", "je"])
    assert chosen.index.get_level_values("method").tolist() == ["no_je_linear", "je"]


def test_differences_are_signed_and_name_their_reference(demo):
    shown = results.differences(demo, minus="no_je")
    assert shown.loc[("joint", "subset_query"), "average_precision"] == "+0.213 [+0.187, +0.241]"
    assert "no_je" not in shown.index.get_level_values("method")
    both = results.differences(demo)
    assert both.index.names == ["method", "pair_loss", "minus"]
    wide = results.differences(demo, columns="minus", metric="average_precision")
    assert wide["no_je"].drop("no_je").tolist() == shown["average_precision"].tolist()
    assert wide.loc[("no_je", "none"), "no_je"] == ""


def test_several_extractors_and_label_shares_become_rows(wide):
    shown = results.summary(wide)
    assert shown.index.names == ["extractor", "method", "pair_loss", "labels"]
    extractors = shown.index.get_level_values("extractor").unique().tolist()
    assert extractors == ["harmonic_cnn", "short_chunk_cnn", "–"]
    few = shown.loc[("short_chunk_cnn", "joint", "subset_query", "10 %"), "average_precision"]
    assert few == "0.456 [0.431, 0.480]"
    behind = results.differences(wide, "label_share", minus="no_je", metric="roc_auc")
    assert behind.columns.tolist() == ["100 %", "10 %"]


def test_printed_tables_are_at_most_100_columns_wide(demo, wide):
    study = results.gather_tables(COMMITTED / "study", "results")
    of_each = [study[study.extractor.isin([name, ""])] for name in study.extractor.unique() if name]
    for table in (demo, wide, *of_each):
        for protocol in ("macro_clip", "micro_window"):
            assert width(results.summary(table, protocol=protocol)) <= 100
        for minus in table.minus.unique()[1:]:
            assert width(results.differences(table, minus=minus, label_share=1)) <= 100


def test_spaces_and_trends_read_the_same_way(spaces_of_demo):
    by = ["encoded set", "answering clips", "classifier"]
    where = {"metric": "mean_average_precision", "method": "joint"}
    shown = results.summary(spaces_of_demo, "ranked_by", kind="one tag", ranked_by=by, **where)
    assert shown.columns.tolist() == by
    assert shown.loc["joint", "classifier"] == "0.456 [0.431, 0.480]"
    apart = results.differences(spaces_of_demo, "kind", **where)
    assert apart.loc[("joint", "combined − classifier"), "one tag"] == "+0.005 [-0.004, +0.013]"
    energy = results.summary(spaces_of_demo, metric="mean_energy", digits=2)
    assert energy.loc[("je", "cosine"), "mean_energy"] == "1.00"
    trends = results.gather_tables(COMMITTED / "study", "trends")
    shown = results.differences(trends, digits=2, minus="no_je", extractor="short_chunk_cnn")
    assert shown.columns.tolist() == ["frequency", "correlation"]
    assert re.fullmatch(r"[+-]0.\d\d \[[+-]0.\d\d, [+-]0.\d\d\]", shown.iloc[0, 0])


def test_tags_become_rows_sorted_by_their_mean(table, demo):
    shown = results.by_tag(table, label_share=1.0)
    rows = macro_ap(table, "tag", method="no_je", tag=shown.index[0])
    assert shown.loc[shown.index[0], ("no_je", "none")] == pytest.approx(rows.value.mean())
    assert (shown.mean(axis=1).diff().dropna() <= 0).all()
    gains = results.gather_tables(COMMITTED / "study", "gains")
    gains = results.by_tag(gains, method="no_je_linear", minus="no_je", label_share=1.0)
    assert len(gains) == 50 and (gains.mean(axis=1).diff().dropna() <= 0).all()
    assert "no_je" not in results.by_tag(demo, metric="roc_auc", method="je")


def test_verdicts_follow_from_the_interval(demo):
    """Missing limits are none, and an empty column of the expectations chooses nothing."""
    cosine = {"method": "je", "minus": "no_je", "table": "results"}
    expected = pd.DataFrame(
        [
            {"expectation": "below", "at_most": 0, **cosine},
            {"expectation": "above", "at_least": 0, **cosine},
            {"expectation": "near", "at_least": -0.15, "kind": np.nan, **cosine},
            {"expectation": "level", "at_least": -0.03, "at_most": 0.03, "table": "results"}
            | {"method": "joint", "minus": "no_je_linear"},
            {"expectation": "not measured", **cosine, "method": "je_linear"},
        ]
    )
    rows = macro_ap(demo, "difference")
    held = results.verdicts(expected, {"results": rows}, "metric")
    assert held["average_precision"].to_dict() == {
        "below": "confirmed: -0.149 [-0.172, -0.130]",
        "above": "refuted: -0.149 [-0.172, -0.130]",
        "near": "open: -0.149 [-0.172, -0.130]",
        "level": "confirmed: -0.015 [-0.030, -0.001]",
    }
    seeds = pd.concat([rows.assign(seed=seed) for seed in "01"])
    held = results.verdicts(expected, {"results": seeds}, "metric")
    assert held.index.names == ["expectation", "seed"] and len(held) == 8
    certain = rows.assign(low=np.nan, high=np.nan)
    held = results.verdicts(expected, {"results": certain}, "metric")["average_precision"]
    assert held["near"] == "confirmed: -0.149" and held["above"] == "refuted: -0.149"
    with pytest.raises(ValueError, match="several rows measure 'below': choose one"):
        results.verdicts(expected.drop(columns="minus"), {"results": rows}, "metric")


@pytest.mark.parametrize(("name", "folder"), {"study": "study", "regime": "study/regime"}.items())
def test_every_committed_expectation_was_measured(name, folder):
    expected = pd.read_csv(COMMITTED.parent / "expected.csv").query("study == @name")
    tables = {
        table: results.gather_tables(COMMITTED / folder, table) for table in set(expected.table)
    }
    tables["results"] = tables["results"].query("metric == 'average_precision'")
    apart = {name: results.select(table, "difference") for name, table in tables.items()}
    held = results.verdicts(expected, apart)
    assert held.index.tolist() == expected.expectation.tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: results.select(t, "means"), "did you mean 'mean'"),
        (lambda t: results.select(t, labels=1), "unknown column 'labels' .did you mean 'label_sh"),
        (lambda t: results.select(t, label_share=0.3), "unknown label_share '0.3': choose from 1"),
        (lambda t: results.differences(t[t.minus == ""]), "no two methods to compare: train a"),
        (lambda t: results.differences(t, minus="je_shuffled"), "choose from no_je, no_je_linear"),
        (lambda t: results.summary(t, protocol="macro"), "unknown protocol 'macro'"),
        (lambda t: results.summary(t, "kind"), "unknown column 'kind'"),
    ],
)
def test_bad_choices_raise_one_sentence(demo, call, message):
    with pytest.raises(ValueError, match=message):
        call(demo)
