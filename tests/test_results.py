"""Many runs become one table: who is compared with whom, and where each number comes from."""

import numpy as np
import pandas as pd
import pytest
from scored import scored_run

from jetatag import metrics
from jetatag.evaluation import results
from jetatag.evaluation.predict import describe
from jetatag.metrics.queries import answers
from jetatag.training import runs

SHARPNESS = {"je": 1.5, "no_je": 0.3, "no_je_linear": 0.9}


@pytest.fixture(scope="module")
def made(tiny_store, tiny_config, tmp_path_factory):
    """Three methods, seeds 0 to 2 (no_je without 2), with fewer labels je alone; and a floor."""
    parent = tmp_path_factory.mktemp("results")
    for method, sharpness in SHARPNESS.items():
        pair_loss = "subset_query" if method == "je" else "none"
        for seed in range(2 if method == "no_je" else 3):
            config = tiny_config.replace(method=method, pair_loss=pair_loss, seed=seed)
            scored_run(parent, config, tiny_store, seed, sharpness)
    scored_run(parent, tiny_config.replace(label_share=0.5), tiny_store, 9, 0.5)
    rows = tiny_store.rows("test")
    frequency = np.tile(tiny_store.labels.mean(0, dtype=np.float32), (len(rows), 1))
    floor = dict.fromkeys(("tag_frequency", "log_mel_logistic"), frequency)
    np.savez(parent / "baselines.npz", **describe(tiny_store, rows), **floor)
    return runs.finished(parent), parent / "baselines.npz"


@pytest.fixture(scope="module")
def table(made):
    return results.results(made[0], n_resamples=60, floor=made[1])


def macro_ap(table, **where):
    for name, value in {"tag": "", "minus": "", "metric": "average_precision", **where}.items():
        table = table[table[name] == value]
    return table[table.protocol == "macro_clip"]


def test_each_run_has_both_protocols(made, table):
    for run in made[0]:
        own = results.score_table(run, n_resamples=60).set_index(["protocol", "metric"])
        cell = results.cell_of(run)._asdict()
        told = table[(table.seed == str(run.config.seed)) & (table.tag == "")]
        for name, value in cell.items():
            told = told[told[name] == value]
        told = told.set_index(["protocol", "metric"])
        columns = ["value", "low", "high", "group_low", "group_high"]
        pd.testing.assert_frame_equal(told[columns], own[columns], check_like=True, atol=1e-12)


def test_the_mean_of_a_cell_is_that_of_its_seeds(table):
    (mean,) = macro_ap(table, method="no_je_linear", seed="mean").value
    seeds = [macro_ap(table, method="no_je_linear", seed=str(n)).value.item() for n in range(3)]
    assert mean == pytest.approx(np.mean(seeds))


def test_differences_go_to_the_references_alike_in_all_else(made, table):
    pairs = table[table.minus != ""].drop_duplicates(["method", "label_share", "minus"])
    assert set(zip(pairs.method, pairs.label_share, pairs.minus, strict=True)) == {
        ("je", 1.0, "no_je"),
        ("je", 1.0, "no_je_linear"),
        ("no_je", 1.0, "no_je_linear"),
        ("no_je_linear", 1.0, "no_je"),
    }
    probs = {run.config.name: run.read_arrays("scores.npz") for run in made[0]}
    labels = next(iter(probs.values()))["labels"]
    je, no_je = (
        np.stack([probs[f"{name}-sample_cnn-seed{n}"]["probs"] for n in (0, 1)])
        for name in ("je-subset_query", "no_je")
    )
    groups = next(iter(probs.values()))["groups"]
    wanted = metrics.paired_difference(labels, je, no_je, 60, groups=groups)
    told = table[(table.method == "je") & (table.minus == "no_je")]
    both = ["roc_auc", "average_precision", "pr_auc"]
    for metric in both:
        (a,), (b,) = (
            (t[t.metric == metric].protocol.unique() for t in (told, wanted))
            if (metric != "roc_auc")
            else (("micro_window",), ("micro_window",))
        )
        assert a == b
        columns = ["low", "high", "group_low", "group_high"]
        mine = told[(told.metric == metric) & (told.protocol == a)].iloc[0]
        theirs = wanted[(wanted.metric == metric) & (wanted.protocol == a)].iloc[0]
        assert mine.value == pytest.approx(theirs.difference)
        np.testing.assert_allclose(mine[columns].astype(float), theirs[columns].astype(float))
    assert told[told.metric == "average_precision"].low.item() > 0


def test_every_tag_has_its_rows(made, table, tiny_store):
    run = made[0][0]
    scores = run.read_arrays("scores.npz")
    wanted = metrics.per_tag(scores["labels"], scores["probs"].mean(1), scores["tags"])
    told = table[(table.tag != "") & (table.seed == str(run.config.seed))]
    for name, value in results.cell_of(run)._asdict().items():
        told = told[told[name] == value]
    assert set(told.tag) == set(tiny_store.vocabulary.tags)
    for area in ("roc_auc", "average_precision", "pr_auc_trapezoid"):
        values = told[told.metric == area].set_index("tag").value
        np.testing.assert_allclose(values[wanted.tag], wanted[area])


def test_the_floor_knows_no_clip(table):
    floor = table[(table.method == "tag_frequency") & (table.metric == "roc_auc")]
    by_protocol = floor.set_index("protocol").value
    assert by_protocol["macro_clip"] == 0.5 and by_protocol["micro_window"] > 0.5


def test_gains_are_of_every_method(made):
    by_tag, trends = results.gains(made[0], n_resamples=20)
    pairs = {
        ("je", "no_je"),
        ("je", "no_je_linear"),
        ("no_je", "no_je_linear"),
        ("no_je_linear", "no_je"),
    }
    assert set(zip(by_tag.method, by_tag.minus, strict=True)) == pairs
    rows = results.results(made[0], n_resamples=2)
    for method in ("je", "no_je_linear"):
        own = by_tag[(by_tag.method == method) & (by_tag.minus == "no_je")]
        told = macro_ap(rows, method=method, minus="no_je", seed="mean").value.item()
        assert own.difference.mean() == pytest.approx(told)
    assert set(zip(trends.method, trends.minus, strict=True)) == pairs
    assert set(trends.covariate) == {"frequency", "correlation"}
    assert trends.correlation.between(-1, 1).all()


def test_every_pair_loss_is_compared_with_shuffled_music(tiny_store, tiny_config, tmp_path):
    """What the right pairing earns is found where it was planted, and nothing where it was not."""
    made = [
        scored_run(tmp_path, tiny_config.replace(method=method, pair_loss=loss), tiny_store, 1, s)
        for method, loss, s in (
            ("je", "subset_query", 1.5),
            ("je", "cosine", 0.3),
            ("je_shuffled", "subset_query", 0.3),
        )
    ]
    told = macro_ap(results.results(made, 20), minus="je_shuffled-subset_query")
    told = told.set_index("pair_loss").value
    assert set(told.index) == {"subset_query", "cosine"}
    assert told["subset_query"] > 0.05 and told["cosine"] == pytest.approx(0)


def test_spaces_and_searches(made):
    table = results.spaces(made[0], n_resamples=30)
    assert set(table[table.method == "no_je"].space) == {"h", "shared"}
    ways = table[~table.ranked_by.isin(["", "classifier", "random"])]
    assert set(ways.method) == {"je"} and ways.ranked_by.nunique() == 4
    run = runs.pick(made[0], method="je", label_share=1.0)
    space, scores = run.read_arrays("embeddings.npz"), run.read_arrays("scores.npz")
    own = table[(table.method == "je") & (table.seed == str(run.config.seed))]
    own = own[(own.label_share == 1) & (own.kind == "one tag") & (own.metric == "map")]
    own = own.set_index("ranked_by")
    tags = space["queries"][: len(scores["tags"])]
    relevant = answers(scores["labels"], tags)
    asked = relevant.any(0)
    z_query, z_other = (space[z][: len(tags)][asked] for z in ("z_query", "z_other"))
    by = own.value
    wanted = metrics.query_map(z_query, space["z_audio"], relevant[:, asked])
    assert by["encoded set"] == pytest.approx(wanted)
    centred = (z - space["z_other_centre"] for z in (z_other, space["z_audio"]))
    assert by["answering clips"] == pytest.approx(metrics.query_map(*centred, relevant[:, asked]))
    macro = metrics.macro_clip(scores["labels"][:, asked], scores["probs"].mean(1)[:, asked])
    assert by["classifier"] == pytest.approx(macro["average_precision"])
    assert by["random"] == pytest.approx(relevant[:, asked].mean())
    apart = by["encoded set"] - by["classifier"]
    assert by["encoded set − classifier"] == pytest.approx(apart)
    assert (own.low <= own.value).all() and (own.value <= own.high).all()
    shared = {"gap", "matched", "unmatched", "mean_energy", "tag_semantics"}
    assert shared <= set(table[table.space == "shared"].metric)


def test_means_of_spaces_are_those_of_their_seeds(made):
    table = results.spaces(made[0], n_resamples=30)
    key = ["method", "label_share", "space", "kind", "ranked_by", "metric"]
    mean, seeds = (table[own] for own in (table.seed == "mean", table.seed != "mean"))
    assert not mean[["value", "low", "high"]].isna().any(axis=None)
    wanted = seeds.groupby(key).value.mean()[pd.MultiIndex.from_frame(mean[key])]
    np.testing.assert_allclose(mean.value, wanted)


def test_tables_are_written_for_eyes_and_programs(table, tmp_path):
    results.write_table(table, tmp_path, "results")
    read = pd.read_parquet(tmp_path / "results.parquet")
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert len(pd.read_csv(tmp_path / "results.csv")) == len(table)


def test_tables_of_all_data_sets_are_gathered_from_either_kind_of_file(table, tmp_path):
    results.write_table(table.head(3), tmp_path / "one", "results")
    results.write_table(table.head(2), tmp_path / "two", "results")
    (tmp_path / "two" / "results.parquet").unlink()
    assert len(results.gather_tables(tmp_path, "results")) == 5
    with pytest.raises(FileNotFoundError, match="run notebooks 04 and 05"):
        results.gather_tables(tmp_path, "gains")


def test_runs_of_other_clips_are_refused(made, tiny_store, tiny_config, tmp_path):
    other = scored_run(tmp_path, tiny_config.replace(seed=7), tiny_store, 1)
    scores = other.read_arrays("scores.npz")
    other.write_arrays("scores.npz", {**scores, "clip_ids": scores["clip_ids"][::-1]})
    with pytest.raises(ValueError, match="was tested on other clips or tags"):
        results.results([*made[0], other], n_resamples=2)
    np.savez(tmp_path / "floor.npz", labels=1 - scores["labels"])
    with pytest.raises(ValueError, match="run notebook 01 again"):
        results.results(made[0], 2, floor=tmp_path / "floor.npz")
    with pytest.raises(ValueError, match="no run with method = bce"):
        runs.pick(made[0], method="bce_two_stage")


def test_runs_that_are_no_seeds_of_one_method_are_refused(tiny_store, tiny_config, tmp_path):
    told = {"n_windows": 7, "stage2_crops": 3}
    runs_of = [
        scored_run(tmp_path / "a", tiny_config, tiny_store, 0),
        scored_run(tmp_path / "b", tiny_config.replace(seed=1, **told), tiny_store, 1),
        scored_run(tmp_path / "c", tiny_config, tiny_store, 2),
    ]
    with pytest.raises(ValueError, match=r"a/.* and .*b/.* differ in stage2_crops, n_windows:"):
        results.cells(runs_of[:2])
    with pytest.raises(ValueError, match="differ in nothing: keep and compare them in folders"):
        results.cells(runs_of[::2])
    with pytest.raises(ValueError, match="some of the runs share a name"):
        results.clip_scores(runs_of[::2])
    assert [len(seeds) for seeds in results.cells(runs_of[:1]).values()] == [1]


def test_runs_are_sorted_by_what_they_were_tested_on(made, tmp_path):
    first, second, *_ = made[0]
    scores = first.read_arrays("scores.npz")
    other = runs.Run(tmp_path, first.config)
    other.write_arrays("scores.npz", {**scores, "labels": 1 - scores["labels"]})
    assert results.by_test([first, other, second]) == [[first, second], [other]]
