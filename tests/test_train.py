import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from jetatag import methods, metrics, runs, train
from jetatag import predict as prediction
from jetatag.compute import launch
from jetatag.config import PRESETS, Phase, RunConfig
from jetatag.datasets import Vocabulary
from jetatag.extractors import EXTRACTORS
from jetatag.predict import predict
from jetatag.runs import Run

CELLS = [("je", "subset_query"), ("je", "cosine"), ("no_je", "none"), ("no_je_linear", "none")]


@pytest.fixture
def pitch_store(tiny_store):
    """The tiny clips as a multiclass task: low, high, or neither said of them."""
    low, high = (tiny_store.labels[:, c] for c in tiny_store.vocabulary.columns(["low", "high"]))
    labels = np.stack([low, high, 1 - low - high], axis=1).astype(np.uint8)
    vocabulary = Vocabulary(("low", "high", "neither"), "multiclass")
    table = tiny_store.table.copy()
    table.loc[tiny_store.rows("train")[:6], "split"] = "valid"  # or it would lack a class
    return replace(tiny_store, vocabulary=vocabulary, labels=labels, table=table, checksum="pitch")


class Loudness(nn.Module):
    """The least that keeps an extractor's contract."""

    n_features, min_samples = 2, 1

    def forward(self, audio):
        return torch.stack([audio.mean(1), audio.std(1)], 1)


def state_of(run, stage):
    return run.read_tensors(f"{stage}.safetensors")[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("method", "pair_loss"), CELLS)
def test_every_method_goes_all_the_way(tiny_store, tiny_config, tmp_path, method, pair_loss):
    config = tiny_config.replace(method=method, pair_loss=pair_loss)
    run = Run.start(tmp_path, config, tiny_store)
    model = train.train(run, tiny_store)
    predict(run, model, tiny_store)
    scores, embeddings = run.read_arrays("scores.npz"), run.read_arrays("embeddings.npz")
    n_test = len(tiny_store.rows("test"))
    assert scores["probs"].shape == (n_test, 3, 4) and scores["probs"].dtype == np.float32
    assert ((scores["probs"] > 0) & (scores["probs"] < 1)).all()
    assert embeddings["h"].shape == (n_test, 32)
    assert ("z_audio" in embeddings) == (method == "je")
    if method == "je":
        assert embeddings["z_query"].shape == (4, 8)
        assert embeddings["z_centre"].any() == (pair_loss == "cosine")
    stages = [stage.name for stage in methods.METHODS[method].stages]
    assert run.history.groupby("stage").size().to_dict() == dict.fromkeys(stages, 3)
    assert list(run.record["stages"]) == stages
    data = run.record["data"]  # clips of 2 s, crops of 3.7 s
    assert (
        data["padded_clips"] == data["clips_by_split"] and sum(data["padded_clips"].values()) == 40
    )
    assert not run.has("checkpoint.safetensors")
    assert np.isfinite(run.history.loss).all()


@pytest.mark.parametrize(("method", "pair_loss"), CELLS[:3])
def test_a_multiclass_task_goes_all_the_way(pitch_store, tiny_config, tmp_path, method, pair_loss):
    phases = (Phase("adam", 1e-3, 1),)
    config = tiny_config.replace(method=method, pair_loss=pair_loss, stage1=phases, stage2=phases)
    run = Run.start(tmp_path, config, pitch_store)
    predict(run, train.train(run, pitch_store), pitch_store)
    scores, last = run.read_arrays("scores.npz"), run.history.iloc[-1]
    assert scores["task"] == "multiclass" and scores["tags"].tolist() == ["low", "high", "neither"]
    np.testing.assert_allclose(scores["probs"].sum(-1), 1, atol=1e-6)
    assert 0 <= last.valid_accuracy <= 1
    if method == "je":
        assert np.isfinite(run.history[["valid_gap", "valid_autoencoder_ap"]].iloc[0]).all()
    assert runs.thresholds(run) is None
    table = runs.results([run], n_resamples=20)
    assert table.groupby("protocol").metric.apply(set).to_dict() == {
        "macro_clip": {"roc_auc", "average_precision", "accuracy"},
        "micro_window": {"roc_auc", "pr_auc", "accuracy"},
    }
    probs, labels, _ = runs.clip_scores([run])
    against_itself = runs.differences(probs, labels, [(config.name, config.name)], "multiclass")
    assert against_itself.metric.tolist() == ["roc_auc", "average_precision", "accuracy"]


def test_stage_2_leaves_the_extractor_as_it_is(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    train.train(run, tiny_store)
    one, two = state_of(run, "stage1"), state_of(run, "stage2")
    moved = {name.split(".")[0] for name in one if not torch.equal(one[name], two[name])}
    assert moved == {"classifier"}


def test_stage_1_moves_every_part_but_the_classifier(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    model = train.train(run, tiny_store, until="stage1")
    fresh = train.build_model(tiny_config, tiny_store.vocabulary).state_dict()
    moved = {n.split(".")[0] for n, v in model.state_dict().items() if not torch.equal(v, fresh[n])}
    assert moved == set(methods.JOINT)
    assert not run.has("stage2.safetensors")


def test_the_loss_falls(tiny_store, tiny_config, tmp_path):
    phases = (Phase("adam", 3e-3, 12),)
    config = tiny_config.replace(method="no_je_linear", pair_loss="none", stage2=phases)
    run = Run.start(tmp_path, config, tiny_store)
    train.train(run, tiny_store)
    loss = run.history.loss
    assert loss.iloc[-1] < 0.6 * loss.iloc[0]


def test_same_seed_same_bytes_and_an_interruption_changes_nothing(
    tiny_store, tiny_config, tmp_path
):
    whole = Run.start(tmp_path / "whole", tiny_config, tiny_store)
    train.train(whole, tiny_store)

    class Interrupted(Exception):
        pass

    def stop(history):
        if len(history) in (2, 4, 5):  # within a phase, at a phase's start, in stage 2
            raise Interrupted

    broken = Run.start(tmp_path / "broken", tiny_config, tiny_store)
    for _ in range(3):
        with pytest.raises(Interrupted):
            train.train(broken, tiny_store, on_epoch=stop)
        broken = Run.start(tmp_path / "broken", tiny_config, tiny_store)
    train.train(broken, tiny_store)
    for stage in ("stage1", "stage2"):
        assert same(state_of(whole, stage), state_of(broken, stage))
    pd.testing.assert_frame_equal(whole.history, broken.history)


def test_training_stage_1_anew_forgets_what_came_of_it(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    predict(run, train.train(run, tiny_store), tiny_store)
    before = state_of(run, "stage2")
    (run.folder / "stage1.safetensors").unlink()
    train.train(run, tiny_store, until="stage1")
    assert not run.has("stage2.safetensors")
    assert not any(run.has(file) for file in runs.PREDICTIONS)
    train.train(run, tiny_store)
    assert same(before, state_of(run, "stage2"))
    assert run.history.stage.tolist() == ["stage1"] * 3 + ["stage2"] * 3


def test_kept_features_equal_fresh_ones_while_the_crops_are_the_same(
    tiny_store, tiny_config, tmp_path
):
    ends = {}
    for n_kept in (0, 3):  # three epochs: with three kept crops nothing is reused
        config = tiny_config.replace(stage2_crops=n_kept)
        run = Run.start(tmp_path / str(n_kept), config, tiny_store)
        train.train(run, tiny_store)
        ends[n_kept] = state_of(run, "stage2")
    assert same(ends[0], ends[3])


def test_kept_features_pass_the_extractor_once_a_crop(
    tiny_store, tiny_config, tmp_path, monkeypatch
):
    config = tiny_config.replace(stage2=(Phase("adam", 1e-3, 20),), stage2_crops=16)
    run = Run.start(tmp_path, config, tiny_store)
    train.train(run, tiny_store, until="stage1")
    heard = {"train": 0, "valid": 0}
    frozen_features = train.frozen_features

    def counted(model, store, rows, *others):
        heard[store.table.split.iloc[rows[0]]] += 1
        return frozen_features(model, store, rows, *others)

    monkeypatch.setattr(train, "frozen_features", counted)
    train.train(run, tiny_store)
    assert heard == {"train": 16, "valid": 1}
    crops = {name: stage["crops_a_clip"] for name, stage in run.record["stages"].items()}
    assert crops == {"stage1": 3, "stage2": 16}


def test_presets_say_how_many_crops_stage_2_takes():
    crops = {n: len(set(methods.kept_epochs(methods.STAGE2, c))) for n, c in PRESETS.items()}
    assert crops == {"smoke": 2, "demo": 16, "fast": 16, "paper": 200}


def test_scores_do_not_depend_on_the_batch_size(tiny_store, tiny_config, tmp_path):
    probs = []
    for batch_size in (1, 8):
        run = Run.start(tmp_path / str(batch_size), tiny_config, tiny_store)
        config = tiny_config.replace(batch_size=batch_size)
        model = train.build_model(config, tiny_store.vocabulary)
        predict(Run(run.folder, config), model, tiny_store)
        probs.append(run.read_arrays("scores.npz")["probs"])
    np.testing.assert_array_equal(*probs)


def test_thresholds_come_from_saved_validation_scores(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    model = train.build_model(tiny_config, tiny_store.vocabulary)
    predict(run, model, tiny_store)
    valid = run.read_arrays("scores.valid.npz")
    rows = tiny_store.rows("valid")
    assert valid.keys() == run.read_arrays("scores.npz").keys()
    assert valid["clip_ids"].tolist() == tiny_store.table.clip_id.iloc[rows].tolist()
    chosen = metrics.choose_thresholds(tiny_store.labels[rows], valid["probs"].mean(1))
    np.testing.assert_array_equal(runs.thresholds(run), chosen)
    assert "f1_instance" in set(runs.score_table(run, n_resamples=20).metric)

    predict(run, model, tiny_store, split="valid")  # no threshold on what it is judged by
    assert runs.thresholds(run) is None
    predict(run, model, tiny_store)
    table = tiny_store.table.replace({"split": {"valid": "train"}})
    predict(run, model, replace(tiny_store, table=table))
    assert not run.has("scores.valid.npz")
    assert "f1_instance" not in set(runs.score_table(run, n_resamples=20).metric)


def test_score_files_of_before_the_task_are_multilabel(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    predict(run, train.build_model(tiny_config, tiny_store.vocabulary), tiny_store)
    scores = run.read_arrays("scores.npz")
    before = runs.score_table(run, n_resamples=20)
    assert scores.pop("task") == "multilabel"
    run.write_arrays("scores.npz", scores)
    pd.testing.assert_frame_equal(runs.score_table(run, n_resamples=20), before)


@pytest.mark.parametrize(
    ("crop_samples", "distinct"),
    [(40_000, 1), (32_000, 1), (31_999, 2), (16_000, 5)],  # of clips of 32,000 samples
)
def test_windows_that_coincide_are_heard_once(
    tiny_store, tiny_config, tmp_path, monkeypatch, crop_samples, distinct
):
    config = tiny_config.replace(extractor="own", crop_samples=crop_samples, n_windows=5)
    rows, heard = tiny_store.rows("test")[:2], []
    assert (tiny_store.lengths[rows] == 32_000).all()
    extract = prediction.extract

    def counted(model, audio, fabric):
        heard.append(len(audio))
        return extract(model, audio, fabric)

    monkeypatch.setattr(prediction, "extract", counted)
    model = train.build_model(config, tiny_store.vocabulary, own_extractor=Loudness()).eval()
    fabric = launch(config)
    with torch.no_grad():
        probs, h = prediction.score_clips(model, tiny_store, rows, config, fabric, "test")
        starts = prediction.window_starts(32_000, crop_samples, 5)
        for row, clip_probs, middle in zip(rows, probs, h, strict=True):
            audio = torch.from_numpy(tiny_store.read([row] * 5, starts, crop_samples))
            every = extract(model, audio, fabric)
            torch.testing.assert_close(middle, every[2])
            expected = model.probabilities(model.classifier(every))
            torch.testing.assert_close(torch.from_numpy(clip_probs), expected)
    assert heard == [distinct, distinct]


needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")


@needs_compiler
def test_bfloat16_runs(tiny_store, tiny_config, tmp_path):
    config = tiny_config.replace(
        precision="bf16-mixed", extractor="harmonic_cnn", crop_samples=73_728
    )
    config = config.replace(stage1=[Phase("adam", 1e-3, 1)], stage2=[Phase("adam", 1e-3, 1)])
    run = Run.start(tmp_path, config, tiny_store)
    with torch.compiler.set_stance("force_eager"):  # compiling it takes minutes; see below
        predict(run, train.train(run, tiny_store), tiny_store)
    assert np.isfinite(run.history.loss).all()


def readme_example(names):
    """Run the README's example of an own extractor with `names`, which its own join."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (example,) = re.findall(r"```python\n(class Loudness.*?)```", readme, flags=re.DOTALL)
    names |= {"nn": nn, "Run": Run, "train": train.train, "predict": predict}
    exec(example, names)


@pytest.mark.parametrize(
    "precision",
    ["32-true", pytest.param("bf16-mixed", marks=needs_compiler)],  # the latter compiled
)
def test_the_readmes_own_extractor_joins_by_passing_the_object(
    tiny_store, tiny_config, tmp_path, monkeypatch, precision
):
    def settings(preset, extractor):
        return tiny_config.replace(extractor=extractor, crop_samples=16_000, precision=precision)

    monkeypatch.chdir(tmp_path)
    example = {"store": tiny_store, "preset": settings}
    readme_example(example)
    run = example["run"]
    assert run.config.name == "je-subset_query-own-seed0"
    assert run.read_arrays("embeddings.npz")["h"].shape == (len(tiny_store.rows("test")), 16)
    fresh = example["Loudness"]()
    before = fresh.dense.weight.clone()
    again = train.train(run, tiny_store, extractor=fresh)  # loads what is finished
    assert again.extractor is fresh and not torch.equal(fresh.dense.weight, before)
    assert torch.equal(fresh.dense.weight, state_of(run, "stage2")["extractor.dense.weight"])


def test_an_own_extractor_must_be_named_given_and_whole(tiny_store, tiny_config):
    build = partial(train.build_model, vocabulary=tiny_store.vocabulary)
    own = tiny_config.replace(extractor="own")
    for config, module in ((own, None), (tiny_config, nn.Identity())):
        with pytest.raises(ValueError, match="extractor of your own needs both"):
            build(config, own_extractor=module)
    for module in (nn.Linear(1, 1), nn.Linear):
        with pytest.raises(ValueError, match=r"Linear.* must be a module that carries n_features"):
            build(own, own_extractor=module)
    other = nn.Linear(own.crop_samples, 3)
    other.n_features, other.min_samples = 4, 1
    with pytest.raises(ValueError, match=r"Linear made .*\[2, 3\].* of two crops.*here \(2, 4\)"):
        build(own, own_extractor=other)


def test_forms_of_the_code_fit_every_extractor(tiny_store):
    for name in EXTRACTORS:
        config = RunConfig(extractor=name, form="as_coded", width=2)
        assert config.crop_samples == (80_000 if name == "harmonic_cnn" else 59_049)
        train.build_model(config, tiny_store.vocabulary)


def test_as_coded_training_goes_on_to_the_same_bytes(tiny_store, tiny_config, tmp_path):
    phases = (Phase("adam", 1e-3, 1), Phase("sgd", 1e-2, 2), Phase("sgd", 1e-3, 1))
    config = tiny_config.replace(
        optimizer_form="as_coded", pair_loss="margin_as_coded", stage1=phases, stage2=phases
    )
    whole = Run.start(tmp_path / "whole", config, tiny_store)
    train.train(whole, tiny_store)

    class Interrupted(Exception):
        pass

    def stop(history):
        raise Interrupted  # after every epoch

    broken = Run.start(tmp_path / "broken", config, tiny_store)
    for _ in range(8):
        with pytest.raises(Interrupted):
            train.train(broken, tiny_store, on_epoch=stop)
    train.train(broken, tiny_store)
    assert same(state_of(whole, "stage2"), state_of(broken, "stage2"))
    assert methods.adam_epochs_before(methods.STAGE2, config) == 1


def test_misfits_are_refused(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    with pytest.raises(ValueError, match="has no stage 'stage3'"):
        train.train(run, tiny_store, until="stage3")
    with pytest.raises(ValueError, match="width = 4, not 8"):
        Run.start(tmp_path, tiny_config.replace(width=8), tiny_store)
    slow = Run.start(tmp_path / "slow", tiny_config.replace(sample_rate=8_000), tiny_store)
    with pytest.raises(ValueError, match="prepare a store at that rate"):
        train.train(slow, tiny_store)
    record = run.record
    record["data"]["tags"].reverse()
    (run.folder / "record.json").write_text(json.dumps(record))
    for use in (partial(train.train, run), partial(predict, run, None)):
        with pytest.raises(ValueError, match="the store's tags are not those of"):
            use(tiny_store)
    with pytest.raises(ValueError, match="device 'tpu' cannot be used"):
        short = tiny_config.replace(device="tpu")
        train.train(Run.start(tmp_path / "tpu", short, tiny_store), tiny_store)
    alone = tiny_config.replace(batch_size=1)
    with pytest.raises(ValueError, match=r"batch_size 1 makes a batch of 1 of 30 clips.*needs 2"):
        train.train(Run.start(tmp_path / "alone", alone, tiny_store), tiny_store)
    short = tiny_config.replace(crop_samples=59_048)
    with pytest.raises(ValueError, match="needs at least 59,049 samples, and crop_samples is"):
        train.train(Run.start(tmp_path / "short", short, tiny_store), tiny_store)


def test_damaged_runs_give_one_sentence(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        Run.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="no finished run"):
        runs.finished(tmp_path)
    (run.folder / "stage1.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="damaged"):
        train.train(run, tiny_store)
    run.write_tensors("stage1.safetensors", {"foreign": torch.zeros(2)})
    with pytest.raises(ValueError, match="does not fit the model"):
        train.train(run, tiny_store)
    (run.folder / "config.json").write_text(json.dumps({"widht": 4}))
    with pytest.raises(ValueError, match="unknown RunConfig setting"):
        Run.open(run.folder)


def test_results_and_differences(tiny_store, tiny_config, tmp_path):
    for method, pair_loss in CELLS[2:]:
        config = tiny_config.replace(method=method, pair_loss=pair_loss)
        run = Run.start(tmp_path, config, tiny_store)
        predict(run, train.build_model(config, tiny_store.vocabulary, "paper"), tiny_store)
    found = runs.finished(tmp_path)
    table = runs.results(found, n_resamples=20)
    assert set(table.method) == {"no_je", "no_je_linear"}
    assert set(table.protocol) == {"micro_window", "macro_clip"}
    assert ((table.low <= table.value) & (table.value <= table.high)).mean() > 0.5
    assert runs.pick(found, method="no_je").config.method == "no_je"
    with pytest.raises(ValueError, match="no run with method = je among 2"):
        runs.pick(found, method="je")
    scores, labels, tags = runs.clip_scores(found)
    name = found[0].config.name
    against_itself = runs.differences(scores, labels, [(name, name)])
    assert (against_itself.difference == 0).all() and list(tags) == list(tiny_store.vocabulary.tags)
