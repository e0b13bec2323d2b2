import json
import re
import shutil
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from jetatag import cli, metrics
from jetatag.config import PRESETS, Phase, RunConfig
from jetatag.data import Vocabulary
from jetatag.evaluation import predict as prediction
from jetatag.evaluation import results
from jetatag.evaluation.predict import predict
from jetatag.extractors import EXTRACTORS
from jetatag.joint import methods
from jetatag.metrics.queries import answers
from jetatag.training import checkpoint as train_standing
from jetatag.training import runs, train
from jetatag.training.device import launch
from jetatag.training.runs import Run

CELLS = [("je", "subset_query"), ("je", "cosine"), ("no_je", "none"), ("no_je_linear", "none")]
CONTROLS = [
    *(("je", "cosine_stop_grad"), ("je", "cosine_variance"), ("je", "soft_info_nce")),
    ("je", "subset_completion"),
    *(("bce_two_stage", "none"), ("no_je_early_stop", "none"), ("je_shuffled", "cosine")),
]


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


@pytest.mark.parametrize(("method", "pair_loss"), CELLS + CONTROLS)
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
    assert ("z_audio" in embeddings) == (pair_loss != "none")
    if pair_loss != "none":
        n_queries, n_tags = embeddings["queries"].shape
        assert embeddings["z_query"].shape == (n_queries, 8) and n_queries > n_tags == 4
        assert (embeddings["queries"][:4] == np.eye(4)).all()
        assert embeddings["z_single"].shape == (4, 8)
        assert embeddings["tag_correlation"].shape == (4, 4)
        assert embeddings["z_centre"].any() == (not pair_loss.startswith("subset"))
        assert embeddings["z_other"].shape == embeddings["z_query"].shape
        assert embeddings["z_other_centre"].any() == pair_loss.startswith("subset")
        of_clips = "z_other" if pair_loss.startswith("subset") else "z_query"
        train_labels = tiny_store.labels[tiny_store.rows("train")]
        z_tag = model.tag_encoder(torch.from_numpy(train_labels).float()).detach().numpy()
        answer = answers(train_labels, embeddings["queries"]).astype(bool)
        found = answer.any(axis=0)
        means = np.stack([z_tag[own].mean(axis=0) for own in answer.T[found]])
        np.testing.assert_allclose(embeddings[of_clips][found], means, atol=1e-5)
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
    assert results.thresholds(run) is None
    table = results.results([run], n_resamples=20)
    assert table.groupby("protocol").metric.apply(set).to_dict() == {
        "macro_clip": {"roc_auc", "average_precision", "pr_auc_trapezoid", "accuracy"},
        "micro_window": {"roc_auc", "pr_auc", "accuracy"},
    }


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


def test_two_stage_bce_is_je_with_another_stage_1(tiny_store, tiny_config, tmp_path):
    config = tiny_config.replace(method="bce_two_stage", pair_loss="none")
    run = Run.start(tmp_path, config, tiny_store)
    train.train(run, tiny_store)
    fresh = train.build_model(config, tiny_store.vocabulary).state_dict()
    one, two = state_of(run, "stage1"), state_of(run, "stage2")
    moved = [
        {name.split(".")[0] for name in a if not torch.equal(a[name], b[name])}
        for a, b in ((fresh, one), (one, two))
    ]
    assert moved == [{"extractor", "linear_head"}, {"classifier"}]
    assert run.history.valid_average_precision.notna().all()


def test_shuffled_tags_are_other_clips_tags_in_stage_1_alone(tiny_store, tiny_config):
    config = tiny_config.replace(method="je_shuffled")
    fabric, labels = launch(config), tiny_store.labels[tiny_store.rows("train")]
    model = train.build_model(config, tiny_store.vocabulary)
    shuffled, right = (
        train.StageData(model, stage, tiny_store, config, fabric).labels
        for stage in methods.METHODS["je_shuffled"].stages
    )
    np.testing.assert_array_equal(right, labels)
    assert (shuffled != labels).any()
    np.testing.assert_array_equal(shuffled.sum(0), labels.sum(0))
    again = train.StageData(
        model, methods.METHODS["je_shuffled"].stages[0], tiny_store, config, fabric
    )
    np.testing.assert_array_equal(again.labels, shuffled)


def test_early_stop_keeps_the_best_validation_epoch(pitch_store, tiny_config, tmp_path):
    """Training that goes astray after two epochs: the weights are those of before."""
    astray = (Phase("adam", 3e-3, 2), Phase("sgd", 30.0, 2))
    config = tiny_config.replace(method="no_je_early_stop", pair_loss="none", stage2=astray)
    run = Run.start(tmp_path, config, pitch_store)
    model = train.train(run, pitch_store)
    scores = run.history[methods.BEST].tolist()
    best = run.record["stages"]["end_to_end"]["best_epoch"]
    assert best == 1 + int(np.argmax(scores)) and best <= 2

    until_then = config.replace(method="no_je", stage2=(Phase("adam", 3e-3, best),))
    other = Run.start(tmp_path, until_then, pitch_store)
    train.train(other, pitch_store)
    assert same(state_of(run, "end_to_end"), state_of(other, "end_to_end"))
    assert same(state_of(run, "end_to_end"), model.state_dict())

    table = pitch_store.table.replace({"split": {"valid": "train"}})
    with pytest.raises(ValueError, match="chooses its epoch by validation clips"):
        train.train(run, replace(pitch_store, table=table))


def test_a_loss_that_is_no_number_stops_at_once_and_says_where(tiny_store, tiny_config, tmp_path):
    config = tiny_config.replace(
        method="no_je", pair_loss="none", stage2=(Phase("sgd", 1e-3, 2), Phase("sgd", 1e36, 1))
    )
    run = Run.start(tmp_path, config, tiny_store)
    with pytest.raises(FloatingPointError) as stopped:
        train.train(run, tiny_store)
    told = str(stopped.value)
    assert re.search(r"loss (nan|inf) in end_to_end, epoch 3, step \d of 4, on the clips ", told)
    assert "\n" not in told
    order = train.batches(30, config.batch_size, config.seed, 2, True)
    step = int(re.search(r"step (\d)", told)[1])
    clips = tiny_store.table.clip_id.iloc[tiny_store.rows("train")[order[step - 1]]]
    assert ", ".join(clips) in told
    assert len(run.history) == 2 and run.has(runs.CHECKPOINT)  # what was good is kept


@pytest.mark.parametrize(
    ("step", "sentence"),
    [(6, "epoch 2, step 3 of 4"), (12, "no numbers in end_to_end after epoch 3")],
)
def test_weights_that_are_no_numbers_are_neither_kept_nor_a_result(
    tiny_store, tiny_config, tmp_path, monkeypatch, step, sentence
):
    """A gradient may be infinite where its loss is not yet, even in the very last step."""
    config = tiny_config.replace(method="no_je", pair_loss="none", checkpoint_minutes=0)
    run, seen = Run.start(tmp_path, config, tiny_store), []

    def spoil(gradient):
        seen.append(1)
        return gradient * (torch.inf if len(seen) == step else 1)

    model = train.build_model(config, tiny_store.vocabulary)
    monkeypatch.setattr(train, "build_model", lambda *_: model)
    model.classifier[-1].bias.register_hook(spoil)
    with pytest.raises(FloatingPointError, match=sentence):
        train.train(run, tiny_store)
    tensors, notes = run.read_checkpoint()
    assert 4 * notes["epoch"] + notes["step"] == step - 1
    assert all(value.isfinite().all() for value in tensors.values())
    assert not run.has("end_to_end.safetensors") and len(run.history) == (step - 1) // 4


def test_what_a_checkpoint_goes_on_from_must_be_there(tiny_store, tiny_config, tmp_path):
    class Interrupted(Exception):
        pass

    def stop(history):
        if len(history) == 2:
            raise Interrupted

    def own(*layers):
        module = Loudness()
        module.extra = nn.Sequential(*layers)
        return module

    config = tiny_config.replace(extractor="own", crop_samples=16_000)
    run = Run.start(tmp_path, config, tiny_store)
    with pytest.raises(Interrupted):
        train.train(run, tiny_store, on_epoch=stop, extractor=own(nn.Linear(2, 2)))
    for other in (own(), own(nn.Linear(2, 2), nn.Linear(2, 2)), own(nn.Linear(3, 2))):
        with pytest.raises(ValueError, match="holds other layers than the model"):
            train.train(run, tiny_store, extractor=other)
    history = (run.folder / "history.csv").read_text()
    for content, sentence in (("", "is damaged"), ("stage,epoch\n", "lacks epochs of stage1")):
        (run.folder / "history.csv").write_text(content)
        with pytest.raises(ValueError, match=sentence):
            train.train(run, tiny_store, extractor=own(nn.Linear(2, 2)))
    (run.folder / "history.csv").write_text(history)
    train.train(run, tiny_store, until="stage1", extractor=own(nn.Linear(2, 2)))


def test_weights_that_layers_share_can_be_kept(tiny_store, tiny_config, tmp_path):
    tied = Loudness()
    tied.one, tied.other = nn.Linear(2, 2), nn.Linear(2, 2)
    tied.other.weight = tied.one.weight
    config = tiny_config.replace(extractor="own", crop_samples=16_000, checkpoint_minutes=0)
    run = Run.start(tmp_path, config, tiny_store)
    train.train(run, tiny_store, extractor=tied)
    assert run.has("stage2.safetensors")


def test_a_torn_or_foreign_checkpoint_is_refused(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    for content, sentence in (
        (lambda: (run.folder / runs.CHECKPOINT).write_bytes(b"torn"), "is damaged"),
        (lambda: run.write_tensors(runs.CHECKPOINT, {"a": torch.zeros(1)}), "is not of this run's"),
    ):
        content()
        with pytest.raises(ValueError, match=sentence) as refusal:
            train.train(run, tiny_store)
        assert "\n" not in str(refusal.value)

    class Interrupted(Exception):
        pass

    def stop(history):
        raise Interrupted

    (run.folder / runs.CHECKPOINT).unlink()
    every_step = tiny_config.replace(checkpoint_minutes=0)  # how often it is written may change
    other = Run.start(tmp_path, every_step.replace(seed=1), tiny_store)
    for one in (Run(run.folder, every_step), other):
        with pytest.raises(Interrupted):
            train.train(one, tiny_store, on_epoch=stop)
    shutil.copy(other.folder / runs.CHECKPOINT, run.folder)
    with pytest.raises(ValueError, match="is not of this run's settings and data: delete it"):
        train.train(run, tiny_store)


def test_a_run_is_trained_by_one_at_a_time(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    with run.lock(), pytest.raises(ValueError, match="another process is at work on"):
        train.train(run, tiny_store)


def test_tensorboard_sees_what_the_history_holds(tiny_store, tiny_config, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny_config.replace(tensorboard=True)
    run = Run.start(tmp_path, config, tiny_store)
    train.train(run, tiny_store)
    for stage, names in {"stage1": ["loss", "valid_gap"], "stage2": ["loss", methods.BEST]}.items():
        events = EventAccumulator(str(run.folder / "tensorboard" / stage)).Reload()
        history = run.history[run.history.stage == stage]
        for name in names:
            told = events.Scalars(name)
            assert [event.step for event in told] == history.epoch.tolist()
            np.testing.assert_allclose([event.value for event in told], history[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("gap", "unmatched", "told"),
    [(1.5, 0.1, None), (-0.8, 0.3, "mirrored"), (0.1, 0.3, "collapsed"), (0.5, 0.995, "collapsed")],
)
def test_a_space_that_collapsed_or_is_mirrored_is_warned_of(gap, unmatched, told):
    scores = {"valid_gap": gap, "valid_matched_cosine": 0.5, "valid_unmatched_cosine": unmatched}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        methods.warn_of_space(scores, "a run")
        methods.warn_of_space({"valid_average_precision": 0.3}, "a run without a shared space")
    assert [told in str(warning.message) for warning in caught] == ([True] if told else [])


def test_training_warns_once_of_a_space_that_is_still_collapsed(tiny_store, tiny_config, tmp_path):
    phases = (Phase("adam", 1e-5, 7),)  # rates at which nothing is learned
    run = Run.start(tmp_path, tiny_config.replace(stage1=phases), tiny_store)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train.train(run, tiny_store, until="stage1")
    told = [str(w.message) for w in caught if issubclass(w.category, methods.SpaceWarning)]
    states = run.history.apply(lambda row: methods.state_of_space(row), axis=1).tolist()[4:]
    changes = [now for now, before in zip(states, ["", *states], strict=False) if now != before]
    assert [any(state in text for text in told) for state in changes if state] == [True] * len(told)
    assert len(told) >= 1 and "epoch 5:" in told[0]


def test_records_say_what_a_reviewer_asks(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    predict(run, train.train(run, tiny_store), tiny_store)
    record = run.record
    assert {"checksum", "split_checksum", "clips_by_split", "tags"} <= record["data"].keys()
    assert {"begun", "commit", "machine", "gpu", *runs.LIBRARIES} <= record["made_by"].keys()
    for stage in record["stages"].values():
        assert stage["wall_time_s"] > 0 and stage["peak_memory_mib"] > 0
        assert stage["processes"] == 1
    other = replace(tiny_store, table=tiny_store.table.replace({"split": {"valid": "test"}}))
    assert runs.split_checksum(other) != record["data"]["split_checksum"]
    Run.start(tmp_path, tiny_config.replace(seed=7), tiny_store)
    torn = Run.start(tmp_path / "torn", tiny_config, tiny_store)
    (torn.folder / "record.json").write_text("{}")
    imported = Run.start(tmp_path / "imported", tiny_config, tiny_store)
    told = imported.record | {"stages": {"s": {"wall_time_s": None, "peak_memory_mib": None}}}
    (imported.folder / "record.json").write_text(json.dumps(told))
    with pytest.warns(UserWarning, match="left out: .*is not a run's record"):
        table = runs.listing(tmp_path)
    assert table.pop("run").str.contains("imported").tolist() == [True, False, False]
    table = table[1:]
    assert table.state.tolist() == ["scored", "begun"] and table.seed.tolist() == [0, 7]
    assert table.epochs.tolist() == [6, 0] and table.valid_ap.notna().tolist() == [True, False]
    with pytest.raises(FileNotFoundError, match="no run under"):
        runs.listing(tmp_path / "nowhere")


def test_the_command_trains_what_the_yaml_says(tiny_store, tiny_config, tmp_path, capsys):
    path = tmp_path / "run.yaml"
    settings = {k: v for k, v in tiny_config.to_dict().items() if k not in ("method", "seed")}
    settings |= {"stage1": list(settings["stage1"]), "stage2": list(settings["stage2"])}
    places = {"store": str(tiny_store.folder), "runs": str(tmp_path / "runs")}
    path.write_text(yaml.safe_dump({**places, "method": "je", "settings": settings}))
    assert cli.main(["train", "--config", str(path), "--set", "seed=3"]) == 0
    told = capsys.readouterr()
    assert "macro_clip" in told.out and "clip/s" in told.err and "valid_gap" in told.err
    run = Run.open(tmp_path / "runs" / "je-subset_query-sample_cnn-seed3")
    assert run.has("scores.npz") and run.config == tiny_config.replace(seed=3)
    by_hand = Run.start(tmp_path / "by_hand", run.config, tiny_store)
    train.train(by_hand, tiny_store)  # what notebooks 02 and 03 call
    assert same(state_of(run, "stage2"), state_of(by_hand, "stage2"))
    assert cli.main(["runs", str(tmp_path / "runs")]) == 0
    assert "je-subset_query-sample_cnn-seed3" in capsys.readouterr().out
    for change, sentence in (
        ("sed=3", "unknown training parameter 'sed'"),
        ("store=/nowhere", "holds no prepared store"),
        ("seed=x", "seed must be of type int"),
        ("settings=null", "settings must be"),
        ("store=5", "store must be"),
        ("runs=[a]", "runs must be"),
        ("checkpoint_minutes=.nan", "must be a finite number"),
    ):
        assert cli.main(["train", "--config", str(path), "--set", change]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1


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
    assert not run.has("stage2.safetensors") and list(run.record["stages"]) == ["stage1"]
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
    heard, extract = [], train.extract
    monkeypatch.setattr(
        train, "extract", lambda m, a, f: (heard.append(len(a)), extract(m, a, f))[1]
    )
    valid, frozen_features = [], train.frozen_features
    monkeypatch.setattr(
        train, "frozen_features", lambda *given: (valid.append(1), frozen_features(*given))[1]
    )
    train.train(run, tiny_store)
    assert sum(heard) == 16 * 30 and valid == [1]
    crops = {name: stage["crops_a_clip"] for name, stage in run.record["stages"].items()}
    assert crops == {"stage1": 3, "stage2": 16}


def test_fewer_labels_are_a_share_of_the_clips_and_of_the_smaller_shares(tiny_store, tiny_config):
    every = tiny_store.rows("train")
    half, tenth = (tiny_store.rows("train", share, seed=3) for share in (0.5, 0.1))
    assert len(half) == round(len(every) / 2) and len(tenth) == round(len(every) / 10)
    assert set(tenth) <= set(half) <= set(every) and (np.diff(half) > 0).all()
    assert len(tiny_store.rows("train", 1e-6)) == 1
    assert set(half) != set(tiny_store.rows("train", 0.5, seed=4))
    config = tiny_config.replace(label_share=0.5, seed=3)
    assert config.name == "je-subset_query-sample_cnn-labels50-seed3"
    model, fabric = train.build_model(config, tiny_store.vocabulary), launch(config)
    data = train.StageData(model, methods.STAGE1, tiny_store, config, fabric)
    seen = np.concatenate([rows for _, _, rows in data.steps(0, 0)])
    assert sorted(seen) == half.tolist()
    with pytest.raises(ValueError, match="label_share must be above 0"):
        tiny_config.replace(label_share=0.0)


def test_curves_are_drawn_seldom(monkeypatch):
    clock, drawn = [0.0], []
    monkeypatch.setattr(train_standing.time, "monotonic", lambda: clock[0])

    def draw(history):
        drawn.append(history)
        clock[0] += 1.0

    curves = train_standing.seldom(draw, share=0.05)
    for epoch in range(400):
        clock[0] += 0.1
        curves(epoch)
    assert drawn[0] == 0 and 2 <= len(drawn) <= 1 + 0.05 * clock[0]


def test_presets_say_how_many_crops_stage_2_takes():
    crops = {n: len(set(methods.kept_epochs(methods.STAGE2, c))) for n, c in PRESETS.items()}
    assert crops == {"smoke": 2, "demo": 16, "study": 4, "fast": 16, "paper": 200}


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
    np.testing.assert_array_equal(results.thresholds(run), chosen)
    assert "f1_instance" in set(results.score_table(run, n_resamples=20).metric)

    predict(run, model, tiny_store, split="valid")  # no threshold on what it is judged by
    assert results.thresholds(run) is None
    predict(run, model, tiny_store)
    table = tiny_store.table.replace({"split": {"valid": "train"}})
    predict(run, model, replace(tiny_store, table=table))
    assert not run.has("scores.valid.npz")
    assert "f1_instance" not in set(results.score_table(run, n_resamples=20).metric)


def test_score_files_of_before_the_task_are_multilabel(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    predict(run, train.build_model(tiny_config, tiny_store.vocabulary), tiny_store)
    scores = run.read_arrays("scores.npz")
    before = results.score_table(run, n_resamples=20)
    assert scores.pop("task") == "multilabel"
    run.write_arrays("scores.npz", scores)
    pd.testing.assert_frame_equal(results.score_table(run, n_resamples=20), before)


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
    begun = Run.start(tmp_path / "begun", tiny_config.replace(width=2), tiny_store)
    begun = Run.start(tmp_path / "begun", tiny_config, tiny_store)  # nothing is lost by that
    train.train(begun, tiny_store, until="stage1")
    with pytest.raises(ValueError, match="width = 4, not 8"):
        Run.start(tmp_path / "begun", tiny_config.replace(width=8), tiny_store)
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
