import io
import json
import os
import pickle
import re
import shutil
import warnings
from dataclasses import replace
from functools import partial, partialmethod
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score
from torch import nn
from torch._dynamo.utils import counters

from jetatag import cli, metrics
from jetatag.config import PRESETS, Phase, RunConfig
from jetatag.data import Vocabulary, crops
from jetatag.data.store import AudioStore
from jetatag.evaluation import predict as prediction
from jetatag.evaluation import results
from jetatag.evaluation.predict import predict
from jetatag.evaluation.spaces import spaces
from jetatag.extractors import EXTRACTORS, build_extractor, min_samples, sample_cnn
from jetatag.joint import methods
from jetatag.joint.heads import build_model
from jetatag.joint.losses import PAIR_LOSSES
from jetatag.training import data as training_data
from jetatag.training import device, progress, runs, train
from jetatag.training.data import Audio, StageData
from jetatag.training.device import prepare
from jetatag.training.optimizers import build_optimizer
from jetatag.training.processes import launch
from jetatag.training.run import CHECKPOINT, PREDICTIONS, Run

CELLS = [("je", "subset_query"), ("je", "cosine"), ("no_je", "none"), ("no_je_linear", "none")]
CONTROLS = [
    *(("je", "cosine_stop_grad"), ("je", "soft_info_nce")),
    *(("je", "subset_completion"), ("je_linear", "cosine"), ("joint", "subset_query")),
    ("joint_shuffled", "soft_info_nce"),
    *(("bce_two_stage", "none"), ("no_je_early_stop", "none"), ("je_shuffled", "cosine")),
]


@pytest.fixture
def pitch_store(tiny_store):
    """The tiny clips as a multiclass task: low, high or neither."""
    low, high = (tiny_store.labels[:, c] for c in tiny_store.vocabulary.columns(["low", "high"]))
    labels = np.stack([low, high, 1 - low - high], axis=1).astype(np.uint8)
    vocabulary = Vocabulary(("low", "high", "neither"), "multiclass")
    table = tiny_store.table.copy()
    table.loc[tiny_store.rows("train")[:6], "split"] = "valid"  # which would lack a class
    return replace(tiny_store, vocabulary=vocabulary, labels=labels, table=table, checksum="pitch")


class Loudness(nn.Module):
    """A minimal extractor."""

    n_features, min_samples = 2, 1

    def forward(self, audio):
        return torch.stack([audio.mean(1), audio.std(1)], 1)


def state_of(run, stage):
    return run.read_tensors(f"{stage}.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def changed(before, after):
    """The parts of the model whose weights differ."""
    return {n.split(".")[0] for n in before if not torch.equal(before[n], after[n])}


class Interrupted(Exception):
    pass


def interrupt_after(*n_epochs):
    """Stops training after that many epochs of history."""

    def stop(history, model):
        if len(history) in n_epochs:
            raise Interrupted

    return stop


@pytest.mark.parametrize(("method", "pair_loss"), CELLS + CONTROLS)
def test_every_method_trains_and_predicts(tiny_store, tiny_config, tmp_path, method, pair_loss):
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
        assert (embeddings["queries"][:4] == np.eye(4)).all() and len(embeddings["queries"]) > 4
        for name in ("z_single", "z_query", "z_other"):
            assert embeddings[name].shape == (4, 8)
        scale = model.query_scale
        expected = [scale.log_scale.exp().item(), scale.offset.item()]
        np.testing.assert_allclose(embeddings["z_scale"], expected, rtol=1e-6)
        assert embeddings["tag_correlation"].shape == (4, 4)
        assert embeddings["z_centre"].any() == (not pair_loss.startswith("subset"))
        assert embeddings["z_other_centre"].any() == pair_loss.startswith("subset")
        of_clips = "z_other" if pair_loss.startswith("subset") else "z_query"
        train_labels = tiny_store.labels[tiny_store.rows("train")]
        z_tag = model.tag_encoder(torch.from_numpy(train_labels).float()).detach().numpy()
        own = train_labels.T == 1
        means = [z_tag[rows if rows.any() else slice(None)].mean(axis=0) for rows in own]
        np.testing.assert_allclose(embeddings[of_clips], means, atol=1e-5)
    stages = [stage.name for stage in methods.METHODS[method].stages]
    assert run.history.groupby("stage").size().to_dict() == dict.fromkeys(stages, 3)
    assert list(run.record["stages"]) == stages
    data = run.record["data"]  # clips of 2 s, crops of 3.7 s
    assert (
        data["padded_clips"] == data["clips_by_split"] and sum(data["padded_clips"].values()) == 40
    )
    assert not run.has(CHECKPOINT)
    assert np.isfinite(run.history.loss).all()


@pytest.mark.parametrize(("method", "pair_loss"), CELLS[:3])
def test_a_multiclass_task_trains_and_predicts(
    pitch_store, tiny_config, tmp_path, method, pair_loss
):
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
    assert results.saved_scores(run)["thresholds"] is None
    table = results.results([run], n_resamples=20)
    assert table.groupby("protocol").metric.apply(set).to_dict() == {
        "macro_clip": {"roc_auc", "average_precision", "pr_auc_trapezoid", "accuracy"},
        "micro_window": {"roc_auc", "pr_auc", "accuracy"},
    }


@pytest.mark.parametrize(
    ("method", "stage1"),
    [("je", set(methods.JOINT)), ("bce_two_stage", {"extractor", "linear_head"})],
)
def test_each_stage_moves_its_own_parts(tiny_store, tiny_config, tmp_path, method, stage1):
    pair_loss = "subset_query" if method == "je" else "none"
    config = tiny_config.replace(method=method, pair_loss=pair_loss)
    run = Run.start(tmp_path, config, tiny_store)
    model = train.train(run, tiny_store, until="stage1")
    fresh = build_model(config, tiny_store.vocabulary).state_dict()
    assert changed(fresh, model.state_dict()) == stage1 and not run.has("stage2.safetensors")
    train.train(run, tiny_store)
    assert changed(state_of(run, "stage1"), state_of(run, "stage2")) == {"classifier"}
    assert run.history.valid_average_precision[run.history.stage == "stage2"].notna().all()


def test_shuffled_tags_are_other_clips_tags_in_stage_1_alone(tiny_store, tiny_config):
    config = tiny_config.replace(method="je_shuffled")
    fabric, labels = launch(config), tiny_store.labels[tiny_store.rows("train")]
    model = build_model(config, tiny_store.vocabulary)
    stage1, stage2 = methods.METHODS["je_shuffled"].stages
    shuffled, again, right = (
        StageData(model, stage, Audio(tiny_store, fabric.device), config, fabric).tag_sets
        for stage in (stage1, stage1, stage2)
    )
    np.testing.assert_array_equal(right, labels)
    assert (shuffled != labels).any()
    np.testing.assert_array_equal(shuffled.sum(0), labels.sum(0))
    np.testing.assert_array_equal(again, shuffled)


def test_early_stop_keeps_the_best_validation_epoch(pitch_store, tiny_config, tmp_path):
    """Training that diverges after two epochs keeps the weights from before."""
    diverging = (Phase("adam", 3e-3, 2), Phase("sgd", 30.0, 2))
    config = tiny_config.replace(method="no_je_early_stop", pair_loss="none", stage2=diverging)
    run = Run.start(tmp_path, config, pitch_store)
    model = train.train(run, pitch_store)
    scores = run.history[methods.SELECTION_METRIC].tolist()
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


def test_a_loss_that_is_not_finite_stops_at_once_and_says_where(tiny_store, tiny_config, tmp_path):
    config = tiny_config.replace(
        method="no_je", pair_loss="none", stage2=(Phase("sgd", 1e-3, 2), Phase("sgd", 1e36, 1))
    )
    run = Run.start(tmp_path, config, tiny_store)
    with pytest.raises(FloatingPointError) as stopped:
        train.train(run, tiny_store)
    message = str(stopped.value)
    assert re.search(r"loss (nan|inf) in end_to_end, epoch 3, step \d of 4, on the clips ", message)
    assert "\n" not in message
    order = crops.batches(30, config.batch_size, config.seed, 2, True)
    step = int(re.search(r"step (\d)", message)[1])
    clips = tiny_store.table.clip_id.iloc[tiny_store.rows("train")[order[step - 1]]]
    assert ", ".join(clips) in message
    assert len(run.history) == 2 and run.has(CHECKPOINT)


def test_a_loss_that_is_read_later_has_changed_no_weight(
    tiny_store, tiny_config, tmp_path, monkeypatch
):
    """As on a GPU: the place is that of the loss, and the steps after it count for nothing."""
    monkeypatch.setattr(train, "READ_EVERY", {"cpu": 32})
    config = tiny_config.replace(method="no_je", pair_loss="none", checkpoint_minutes=1e6)
    for form in ("as_published", "as_coded"):
        run = Run.start(tmp_path / form, config.replace(optimizer_form=form), tiny_store)
        step, seen = train.train_step, []

        def spoilt(losses, inputs, *rest, step=step, seen=seen):
            result = step(losses, inputs * (torch.nan if len(seen) == 5 else 1), *rest)
            weights = losses.module.model.classifier.state_dict()
            seen.append({name: value.clone() for name, value in weights.items()})
            return result

        monkeypatch.setattr(train, "train_step", spoilt)
        with pytest.raises(FloatingPointError, match="loss nan in end_to_end, epoch 2, step 2 of"):
            train.train(run, tiny_store)
        monkeypatch.setattr(train, "train_step", step)
        assert len(seen) == 8 and same(seen[4], seen[5]) and not same(seen[3], seen[4])
        assert len(run.history) == 1 and not run.has(CHECKPOINT)


@pytest.mark.parametrize(
    ("step", "sentence"),
    [(6, "epoch 2, step 3 of 4"), (12, "not finite in end_to_end after epoch 3")],
)
def test_weights_that_are_not_finite_are_not_saved(
    tiny_store, tiny_config, tmp_path, monkeypatch, step, sentence
):
    """A gradient can be infinite although its loss is finite, even in the last step."""
    config = tiny_config.replace(method="no_je", pair_loss="none", checkpoint_minutes=0)
    run, seen = Run.start(tmp_path, config, tiny_store), []

    def make_infinite(gradient):
        seen.append(1)
        return gradient * (torch.inf if len(seen) == step else 1)

    model = build_model(config, tiny_store.vocabulary)
    monkeypatch.setattr(train, "build_model", lambda *_: model)
    model.classifier[-1].bias.register_hook(make_infinite)
    with pytest.raises(FloatingPointError, match=sentence):
        train.train(run, tiny_store)
    saved = run.read_checkpoint()
    assert 4 * saved["progress"]["epoch"] + saved["progress"]["step"] == step - 1
    assert all(value.isfinite().all() for value in saved["model"].values())
    assert not run.has("end_to_end.safetensors") and len(run.history) == (step - 1) // 4


def test_a_checkpoint_needs_its_layers_and_history(tiny_store, tiny_config, tmp_path, monkeypatch):
    def register(*sizes, name="extra"):
        def loudness():
            module = Loudness()
            module.add_module(name, nn.Sequential(*(nn.Linear(*size) for size in sizes)))
            return module

        monkeypatch.setitem(EXTRACTORS, "loudness", loudness)

    register((2, 2))
    config = tiny_config.replace(extractor="loudness", crop_samples=16_000)
    run = Run.start(tmp_path, config, tiny_store)
    with pytest.raises(Interrupted):
        train.train(run, tiny_store, on_epoch=interrupt_after(2))
    for others in ([], [(2, 2)] * 2, [(3, 2)]):
        register(*others)
        with pytest.raises(ValueError, match="has other layers than the model"):
            train.train(run, tiny_store)
    register((2, 2), name="renamed")
    with pytest.raises(ValueError, match="register the former extractor"):
        train.train(run, tiny_store)
    register((2, 2))
    history = (run.folder / "history.csv").read_text()
    for content, sentence in (("", "is damaged"), ("stage,epoch\n", "lacks epochs of stage1")):
        (run.folder / "history.csv").write_text(content)
        with pytest.raises(ValueError, match=sentence):
            train.train(run, tiny_store)
    (run.folder / "history.csv").write_text(history)
    train.train(run, tiny_store, until="stage1")


def test_weights_that_layers_share_can_be_kept(tiny_store, tiny_config, tmp_path, monkeypatch):
    def tied():
        module = Loudness()
        module.one, module.other = nn.Linear(2, 2), nn.Linear(2, 2)
        module.other.weight = module.one.weight
        return module

    monkeypatch.setitem(EXTRACTORS, "tied", tied)
    config = tiny_config.replace(extractor="tied", crop_samples=16_000, checkpoint_minutes=0)
    run = Run.start(tmp_path, config, tiny_store)
    train.train(run, tiny_store)
    assert run.has("stage2.safetensors")


def test_a_damaged_or_foreign_checkpoint_is_refused(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    path, executed = run.folder / CHECKPOINT, tmp_path / "executed"
    whole = io.BytesIO()
    torch.save({"run": run.identity, "a": torch.zeros(9)}, whole)
    for content, sentence in (
        (b"damaged", "is damaged"),
        (whole.getvalue()[:-100], "is damaged"),
        (pickle.dumps({"run": Malicious(executed)}), "is damaged"),
        (saved({"run": Malicious(executed)}), "is damaged"),
        (saved({"a": torch.zeros(1)}), "was written with other"),
        (saved([1, 2]), "was written with other"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=sentence) as refusal:
            train.train(run, tiny_store)
        assert "\n" not in str(refusal.value)
    assert not executed.exists()

    path.unlink()
    every_step = tiny_config.replace(checkpoint_minutes=0)  # how often it is written may change
    other = Run.start(tmp_path, every_step.replace(seed=1), tiny_store)
    for one in (Run(run.folder, every_step), other):
        with pytest.raises(Interrupted):
            train.train(one, tiny_store, on_epoch=interrupt_after(1))
    shutil.copy(other.folder / CHECKPOINT, run.folder)
    with pytest.raises(ValueError, match="was written with other settings or data: delete it"):
        train.train(run, tiny_store)


class Malicious:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def test_a_checkpoint_survives_a_new_setting(tiny_store, tiny_config, tmp_path, monkeypatch):
    """Only settings that differ from their defaults identify a run."""
    run = Run.start(tmp_path, tiny_config, tiny_store)
    with pytest.raises(Interrupted):
        train.train(run, tiny_store, on_epoch=interrupt_after(2))

    class NewConfig(RunConfig):
        momentum: float = 0.9
        """A setting of a later version."""

    values = json.loads((run.folder / "config.json").read_text())
    later = Run(run.folder, NewConfig(**values))
    assert later.identity == run.identity and later.read_checkpoint()["stage"] == "stage1"
    for changes in ({"momentum": 0.8}, {"width": 8}, {"batch_size": 16}):
        assert Run(run.folder, later.config.replace(**changes)).identity != run.identity
    elsewhere = later.config.replace(device="auto", tensorboard=True)
    assert Run(run.folder, elsewhere).identity == run.identity


def test_tensors_keep_their_strides_in_a_checkpoint(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    inside_out = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    run.write_checkpoint({"w": inside_out})
    assert run.read_checkpoint()["w"].stride() == inside_out.stride()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("optimizer", "form"),
    [(name, "as_published") for name in ("adam", "adamw", "sgd")]
    + [(name, "as_coded") for name in ("adam", "sgd")],
)
def test_resumed_moments_have_the_layout_of_their_weights(
    tiny_store, tiny_config, tmp_path, optimizer, form, layout
):
    """Channels-last weights continue alike, also from a checkpoint of another layout."""
    phases = (Phase(optimizer, 1e-2, 1),)
    config = tiny_config.replace(extractor="harmonic_cnn", crop_samples=73_728, stage1=phases)
    config = config.replace(optimizer_form=form)
    run = Run.start(tmp_path, config, tiny_store)

    def begun():
        model = build_model(config, tiny_store.vocabulary).to(memory_format=torch.channels_last)
        weights = [p for part in methods.JOINT for p in getattr(model, part).parameters()]
        return model, weights, partial(build_optimizer, config, parameters=weights)

    def step(weights, optimizer, seed):
        generator = torch.Generator().manual_seed(seed)
        for p in weights:
            p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator))
        optimizer.step()

    model, weights, build = begun()
    whole = build(phases[0])
    step(weights, whole, seed=1)
    progress.Progress(step=1, optimizer=whole).save(run, methods.STAGE1, model)
    state = run.read_checkpoint()
    for moments in state["optimizer"]["state"].values():
        for name, value in moments.items():
            if value.ndim == 4:
                moments[name] = value.contiguous(memory_format=layout)
    run.write_checkpoint(state)
    other, resumed_weights, build = begun()
    resumed = progress.Progress.resume(run, methods.STAGE1, other, build).optimizer
    step(weights, whole, seed=2)
    step(resumed_weights, resumed, seed=2)
    assert same(model.state_dict(), other.state_dict())
    moments = [(p, v) for p in resumed_weights for v in resumed.state[p].values() if v.ndim == 4]
    assert len(moments) >= 9 and all(p.stride() == v.stride() for p, v in moments)


def test_a_run_is_trained_by_one_process_at_a_time(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    with run.lock(), pytest.raises(ValueError, match="another process is at work on"):
        train.train(run, tiny_store)


def test_tensorboard_gets_the_history(tiny_store, tiny_config, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny_config.replace(tensorboard=True)
    run = Run.start(tmp_path, config, tiny_store)
    train.train(run, tiny_store)
    for stage, names in {"stage1": ["valid_gap"], "stage2": [methods.SELECTION_METRIC]}.items():
        events = EventAccumulator(str(run.folder / "tensorboard" / stage)).Reload()
        history = run.history[run.history.stage == stage]
        for name in (*names, "loss", "learning_rate"):
            scalars = events.Scalars(name)
            assert [event.step for event in scalars] == history.epoch.tolist()
            values = [event.value for event in scalars]
            np.testing.assert_allclose(values, history[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("gap", "unmatched", "state"),
    [(1.5, 0.1, None), (-0.8, 0.3, "mirrored"), (0.1, 0.3, "collapsed"), (0.5, 0.995, "collapsed")],
)
def test_a_collapsed_or_mirrored_space_is_warned_of(gap, unmatched, state):
    scores = {"valid_gap": gap, "valid_matched_cosine": 0.5, "valid_unmatched_cosine": unmatched}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        methods.warn_about_space(scores, "a run")
        methods.warn_about_space({"valid_average_precision": 0.3}, "a run without a shared space")
    assert [state in str(warning.message) for warning in caught] == ([True] if state else [])


def test_training_warns_when_the_state_of_the_space_changes(tiny_store, tiny_config, tmp_path):
    phases = (Phase("adam", 1e-5, 7),)  # rates at which nothing is learned
    run = Run.start(tmp_path, tiny_config.replace(stage1=phases), tiny_store)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train.train(run, tiny_store, until="stage1")
    messages = [str(w.message) for w in caught if issubclass(w.category, methods.SpaceWarning)]
    states = run.history.apply(lambda row: methods.space_status(row), axis=1).tolist()[4:]
    changes = [now for now, before in zip(states, ["", *states], strict=False) if now != before]
    expected = [state for state in changes if state]
    assert len(messages) == len(expected) >= 1 and "epoch 5:" in messages[0]
    assert all(state in text for state, text in zip(expected, messages, strict=True))


def test_the_command_trains_what_the_yaml_says(tiny_store, tiny_config, tmp_path, capsys):
    path = tmp_path / "run.yaml"
    settings = {k: v for k, v in tiny_config.to_dict().items() if k not in ("method", "seed")}
    settings |= {"stage1": list(settings["stage1"]), "stage2": list(settings["stage2"])}
    places = {"store": str(tiny_store.folder), "runs": str(tmp_path / "runs")}
    path.write_text(yaml.safe_dump({**places, "method": "je", "settings": settings}))
    assert cli.main(["train", "--config", str(path), "--set", "seed=3"]) == 0
    shown = capsys.readouterr()
    assert "macro_clip" in shown.out and "clip/s" in shown.err and "valid_gap" in shown.err
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
        ("settings=null", "settings must be of type dict"),
        ("store=5", "store must be"),
        ("runs=[a]", "runs must be"),
        ("checkpoint_minutes=.nan", "must be a finite number"),
    ):
        assert cli.main(["train", "--config", str(path), "--set", change]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("situation", "sentence"),
    [
        ("no test clips", "has no test clips with different tags to score: check the split"),
        ("one tag for all test clips", "has no test clips with different tags to score: check"),
        ("one tag for all training clips", "has no training clips with different tags to learn"),
        ("one training clip", "has no training clips with different tags to learn"),
    ],
)
def test_the_command_refuses_before_training_what_cannot_be_scored(
    tiny_store, tiny_config, tmp_path, capsys, monkeypatch, situation, sentence
):
    own = (tiny_store.table.split == ("train" if "training" in situation else "test")).to_numpy()
    labels, table = tiny_store.labels.copy(), tiny_store.table.copy()
    if "one tag" in situation:
        labels[own] = [1, 0, 0, 0]
    else:
        table.loc[own & (situation.startswith("no") | (np.cumsum(own) > 1)), "split"] = "valid"
    changed = replace(tiny_store, labels=labels, table=table)
    monkeypatch.setattr(AudioStore, "open", lambda folder: changed)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"store": "any", "runs": str(tmp_path), "preset": "smoke"}))
    assert cli.main(["train", "--config", str(path), "--set", "device=cpu"]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1 and not list(tmp_path.rglob("history.csv"))


def test_without_validation_clips_the_command_trains_and_scores(
    tiny_store, tiny_config, tmp_path, monkeypatch, capsys
):
    """It has no thresholds then, and no validation scores."""
    table = tiny_store.table.replace({"split": {"valid": "train"}})
    monkeypatch.setattr(AudioStore, "open", lambda folder: replace(tiny_store, table=table))
    phases = (Phase("adam", 1e-3, 1),)
    config = tiny_config.replace(stage1=phases, stage2=phases)
    settings = json.loads(json.dumps(config.to_dict()))
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"store": "any", "runs": str(tmp_path), **settings}))
    assert cli.main(["train", "--config", str(path)]) == 0
    shown, run = capsys.readouterr().out, Run.open(tmp_path / config.name)
    assert "macro_clip" in shown and "f1_instance" not in shown
    assert run.has("scores.npz") and not run.has("scores.valid.npz")
    assert not any(column.startswith("valid_") for column in run.history)


@pytest.mark.parametrize("method", ["je", "no_je"])
def test_a_tag_only_in_test_trains_and_is_evaluated_as_far_as_it_goes(
    tiny_store, tiny_config, tmp_path, monkeypatch, method
):
    """Its clips can be ranked like those of any other tag, also by a search of the space."""
    labels, phases = tiny_store.labels.copy(), (Phase("adam", 1e-3, 1),)
    test, (rare,) = tiny_store.rows("test"), tiny_store.vocabulary.columns(["never"])
    labels[test[:3], rare] = 1
    changed = replace(tiny_store, labels=labels, checksum="a tag only in test")
    monkeypatch.setattr(AudioStore, "open", lambda folder: changed)
    pair_loss = "subset_query" if method == "je" else "none"
    config = tiny_config.replace(method=method, pair_loss=pair_loss, stage1=phases, stage2=phases)
    settings = json.loads(json.dumps(config.to_dict()))
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"store": "any", "runs": str(tmp_path), **settings}))
    assert cli.main(["train", "--config", str(path)]) == 0
    run = Run.open(tmp_path / config.name)
    scores = run.read_arrays("scores.npz")
    assert scores["labels"][:, rare].sum() == 3 and np.isfinite(scores["probs"]).all()
    table = results.results([run], n_resamples=20)
    rows = results.select(table, "tag", seed="0")
    area = rows[(rows.tag == "never") & (rows.metric == "roc_auc")].value.item()
    clip_probs = scores["probs"].mean(axis=1)[:, rare]
    assert area == pytest.approx(roc_auc_score(labels[test, rare], clip_probs))
    assert (table.n_tags == 4).all()  # without it, three
    if method == "je":
        found = spaces([run], n_resamples=20)
        assert found[found.kind == "one tag"].value.notna().all()


def test_the_loss_falls(tiny_store, tiny_config, tmp_path):
    phases = (Phase("adam", 3e-3, 12),)
    config = tiny_config.replace(method="no_je_linear", pair_loss="none", stage2=phases)
    run = Run.start(tmp_path, config, tiny_store)
    train.train(run, tiny_store)
    loss = run.history.loss
    assert loss.iloc[-1] < 0.6 * loss.iloc[0]


@pytest.mark.parametrize("form", ["as_published", "as_coded"])
def test_an_interruption_changes_no_byte(tiny_store, tiny_config, tmp_path, form):
    config = tiny_config
    if form == "as_coded":
        phases = (Phase("adam", 1e-3, 1), Phase("sgd", 1e-2, 2), Phase("sgd", 1e-3, 1))
        settings = {"optimizer_form": form, "pair_loss": "margin_as_coded"}
        config = config.replace(**settings, stage1=phases, stage2=phases)
        assert methods.adam_epochs_before(methods.STAGE2, config) == 1
    whole = Run.start(tmp_path / "whole", config, tiny_store)
    train.train(whole, tiny_store)
    broken = Run.start(tmp_path / "broken", config, tiny_store)
    for n_epochs in range(1, len(whole.history) + 1):
        with pytest.raises(Interrupted):
            train.train(broken, tiny_store, on_epoch=interrupt_after(n_epochs))
        broken = Run.start(tmp_path / "broken", config, tiny_store)
    train.train(broken, tiny_store)
    for stage in ("stage1", "stage2"):
        assert same(state_of(whole, stage), state_of(broken, stage))
    pd.testing.assert_frame_equal(whole.history, broken.history)


def test_the_record_names_every_precision_of_a_resumed_stage(tiny_store, tiny_config, tmp_path):
    config = tiny_config.replace(checkpoint_minutes=0)
    run = Run.start(tmp_path, config, tiny_store)
    with pytest.raises(Interrupted):
        train.train(run, tiny_store, on_epoch=interrupt_after(1))
    run = Run.start(tmp_path, config.replace(precision="bf16-mixed"), tiny_store)
    train.train(run, tiny_store)
    recorded = {name: facts["precision"] for name, facts in run.record["stages"].items()}
    assert recorded == {"stage1": "32-true + bf16-mixed", "stage2": "bf16-mixed"}
    assert runs.listed(run)["precision"] == "32-true + bf16-mixed"


def test_training_stage_1_again_deletes_what_depends_on_it(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    predict(run, train.train(run, tiny_store), tiny_store)
    before = state_of(run, "stage2")
    (run.folder / "stage1.safetensors").unlink()
    train.train(run, tiny_store, until="stage1")
    assert not run.has("stage2.safetensors") and list(run.record["stages"]) == ["stage1"]
    assert not any(run.has(file) for file in PREDICTIONS)
    train.train(run, tiny_store)
    assert same(before, state_of(run, "stage2"))
    assert run.history.stage.tolist() == ["stage1"] * 3 + ["stage2"] * 3


def test_cached_features_equal_fresh_ones_while_the_crops_are_the_same(
    tiny_store, tiny_config, tmp_path
):
    ends = {}
    for n_crops in (0, 3):  # three epochs: with three crops nothing is reused
        config = tiny_config.replace(stage2_crops=n_crops)
        run = Run.start(tmp_path / str(n_crops), config, tiny_store)
        train.train(run, tiny_store)
        ends[n_crops] = state_of(run, "stage2")
    assert same(ends[0], ends[3])


def test_a_resumed_epoch_extracts_its_crops_in_the_same_blocks(
    tiny_store, tiny_config, monkeypatch
):
    """As on a GPU, where several batches pass the frozen extractor together."""
    config = tiny_config.replace(stage2_crops=0)
    monkeypatch.setattr(training_data, "inference_batch", lambda *_: 2 * config.batch_size)
    passed, extract = [], training_data.extract
    monkeypatch.setattr(
        training_data, "extract", lambda m, a, f: (passed.append(len(a)), extract(m, a, f))[1]
    )
    model, fabric = build_model(config, tiny_store.vocabulary), launch(config)
    audio = Audio(tiny_store, fabric.device)
    data = StageData(model, methods.STAGE2, audio, config, fabric)
    whole, later = ([h for h, *_ in data.batches(0, first)] for first in (0, 1))
    assert passed == [16, 14] * 2
    assert [len(h) for h in later] == [8, 7, 7] and len(whole) == 4
    assert all(map(torch.equal, later, whole[1:]))


def test_with_cached_features_every_crop_passes_the_extractor_once(
    tiny_store, tiny_config, tmp_path, monkeypatch
):
    config = tiny_config.replace(stage2=(Phase("adam", 1e-3, 20),), stage2_crops=16)
    run = Run.start(tmp_path, config, tiny_store)
    train.train(run, tiny_store, until="stage1")
    extracted, extract = [], training_data.extract
    monkeypatch.setattr(
        training_data, "extract", lambda m, a, f: (extracted.append(len(a)), extract(m, a, f))[1]
    )
    train.train(run, tiny_store)
    assert sum(extracted) == 16 * 30 + len(tiny_store.rows("valid"))
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
    model, fabric = build_model(config, tiny_store.vocabulary), launch(config)
    data = StageData(model, methods.STAGE1, Audio(tiny_store, fabric.device), config, fabric)
    seen = np.concatenate([rows for *_, rows in data.batches(0, 0)])
    assert sorted(seen) == half.tolist()
    with pytest.raises(ValueError, match="label_share must be above 0"):
        tiny_config.replace(label_share=0.0)


def test_a_throttled_callback_takes_its_share_of_the_time(monkeypatch):
    clock, drawn = [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])

    def draw(history):
        drawn.append(history)
        clock[0] += 1.0

    curves = progress.throttled(draw, share=0.05)
    for epoch in range(400):
        clock[0] += 0.1
        curves(epoch)
    assert drawn[0] == 0 and 2 <= len(drawn) <= 1 + 0.05 * clock[0]


def test_presets_say_how_many_crops_stage_2_takes():
    crops = {n: len(set(methods.crop_epochs(methods.STAGE2, c))) for n, c in PRESETS.items()}
    assert crops == {"smoke": 2, "demo": 8, "study": 8, "fast": 16, "paper": 200}


def test_scores_do_not_depend_on_the_batch_size(tiny_store, tiny_config, tmp_path):
    probs = []
    for batch_size in (1, 8):
        run = Run.start(tmp_path / str(batch_size), tiny_config, tiny_store)
        config = tiny_config.replace(batch_size=batch_size)
        model = build_model(config, tiny_store.vocabulary)
        predict(Run(run.folder, config), model, tiny_store)
        probs.append(run.read_arrays("scores.npz")["probs"])
    np.testing.assert_array_equal(*probs)


@pytest.mark.parametrize(
    ("extractor", "crop_samples"),  # of clips of 32,000 samples
    [("loudness", 20_000), ("loudness", 40_000), *((name, None) for name in EXTRACTORS)],
)
def test_clips_that_pass_together_score_as_alone(
    tiny_store, tiny_config, tmp_path, monkeypatch, extractor, crop_samples
):
    """What a GPU does: probabilities and vectors within 1e-6, features within that of the largest.

    The crops of `DenseLoudness` are shorter than a clip, or longer.
    """
    monkeypatch.setitem(EXTRACTORS, "loudness", DenseLoudness)
    crop_samples = crop_samples or min_samples(extractor)
    config = tiny_config.replace(extractor=extractor, crop_samples=crop_samples)
    model = build_model(config, tiny_store.vocabulary).eval()
    fabric, rows, scored = launch(config), tiny_store.rows("test"), []
    for at_once in (config.n_windows, 3 * config.n_windows, 100):
        monkeypatch.setattr(prediction.device, "inference_batch", lambda *_, n=at_once, **__: n)
        with torch.no_grad():
            scored.append(prediction.score_clips(model, tiny_store, rows, config, fabric, "test"))
    for other in scored[1:]:
        for alone, together in zip(scored[0], other, strict=True):
            largest = max(1.0, float(abs(alone).max()))
            np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6 * largest)


def test_thresholds_come_from_saved_validation_scores(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    model = build_model(tiny_config, tiny_store.vocabulary)
    predict(run, model, tiny_store)
    valid = run.read_arrays("scores.valid.npz")
    rows = tiny_store.rows("valid")
    assert valid.keys() == run.read_arrays("scores.npz").keys()
    assert valid["clip_ids"].tolist() == tiny_store.table.clip_id.iloc[rows].tolist()
    chosen = metrics.choose_thresholds(tiny_store.labels[rows], valid["probs"].mean(1))
    np.testing.assert_array_equal(results.saved_scores(run)["thresholds"], chosen)
    assert "f1_instance" in set(results.score_table(run, n_resamples=20).metric)

    predict(run, model, tiny_store, split="valid")  # thresholds need other clips
    assert results.saved_scores(run)["thresholds"] is None
    predict(run, model, tiny_store)
    table = tiny_store.table.replace({"split": {"valid": "train"}})
    predict(run, model, replace(tiny_store, table=table))
    assert not run.has("scores.valid.npz")
    assert "f1_instance" not in set(results.score_table(run, n_resamples=20).metric)


def test_score_files_without_a_task_are_multilabel(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    predict(run, build_model(tiny_config, tiny_store.vocabulary), tiny_store)
    scores = run.read_arrays("scores.npz")
    before = results.score_table(run, n_resamples=20)
    assert scores.pop("task") == "multilabel"
    run.write_arrays("scores.npz", scores)
    pd.testing.assert_frame_equal(results.score_table(run, n_resamples=20), before)


@pytest.mark.parametrize(
    ("crop_samples", "distinct"),
    [(40_000, 1), (32_000, 1), (31_999, 2), (16_000, 5)],  # of clips of 32,000 samples
)
def test_windows_that_coincide_pass_the_extractor_once(
    tiny_store, tiny_config, tmp_path, monkeypatch, crop_samples, distinct
):
    monkeypatch.setitem(EXTRACTORS, "loudness", Loudness)
    config = tiny_config.replace(extractor="loudness", crop_samples=crop_samples, n_windows=5)
    rows, extracted = tiny_store.rows("test")[:2], []
    assert (tiny_store.lengths[rows] == 32_000).all()
    extract = prediction.processes.extract

    def counted(model, audio, fabric):
        extracted.append(len(audio))
        return extract(model, audio, fabric)

    monkeypatch.setattr(prediction.processes, "extract", counted)
    model = build_model(config, tiny_store.vocabulary).eval()
    fabric = launch(config)
    with torch.no_grad():
        scored = prediction.score_clips(model, tiny_store, rows, config, fabric, "test")
        starts = prediction.window_starts(32_000, crop_samples, 5)
        for row, clip_probs, middle, z in zip(rows, *scored, strict=True):
            audio = torch.from_numpy(tiny_store.read([row] * 5, starts, crop_samples))
            every = extract(model.extractor, audio, fabric)
            torch.testing.assert_close(middle, every[2])
            mean = model.projection(every).mean(dim=0)
            torch.testing.assert_close(z, mean / mean.norm())
            expected = model.probabilities(model.classifier(every))
            torch.testing.assert_close(torch.from_numpy(clip_probs), expected)
    assert extracted == [distinct, distinct]


needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")


@needs_compiler
def test_bfloat16_runs(tiny_store, tiny_config, tmp_path):
    config = tiny_config.replace(
        precision="bf16-mixed", compile=True, extractor="harmonic_cnn", crop_samples=73_728
    )
    config = config.replace(stage1=[Phase("adam", 1e-3, 1)], stage2=[Phase("adam", 1e-3, 1)])
    run = Run.start(tmp_path, config, tiny_store)
    with torch.compiler.set_stance("force_eager"):  # compiling it takes minutes; see below
        predict(run, train.train(run, tiny_store), tiny_store)
    assert np.isfinite(run.history.loss).all()
    assert run.record["stages"]["stage2"]["precision"] == "bf16-mixed compiled"
    assert runs.listed(run)["precision"] == "bf16-mixed compiled"
    assert " cpu bf16-mixed compiled " in runs.banner(config)


def test_what_the_machine_lacks_is_refused_before_training(
    tiny_store, tiny_config, tmp_path, monkeypatch
):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for settings, sentence in (
        ({"precision": "tf32"}, "'tf32' needs an NVIDIA GPU since Ampere, and the device is cpu:"),
        ({"compile": True}, r"needs the compiler g\+\+ on a cpu device: install it, or set comp"),
        ({"device": "cuda:9"}, "device 'cuda:9' cannot be used here"),
    ):
        run = Run.start(tmp_path / sentence[:9], tiny_config.replace(**settings), tiny_store)
        with pytest.raises(ValueError, match=sentence) as refusal:
            train.train(run, tiny_store)
        assert "\n" not in str(refusal.value) and not run.has("history.csv")


def allow_by_flags():
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True


def allow_bfloat16_products():
    torch.set_float32_matmul_precision("medium")


def allow_tensorfloat_everywhere():
    torch.backends.fp32_precision = "tf32"


def allow_tensorfloat_in_cudnn():
    torch.backends.cudnn.fp32_precision = "tf32"


def allow_bfloat16_convolutions():
    torch.backends.mkldnn.conv.fp32_precision = "bf16"


WAYS = [
    allow_by_flags,
    allow_bfloat16_products,
    allow_tensorfloat_everywhere,
    allow_tensorfloat_in_cudnn,
    allow_bfloat16_convolutions,
]


@pytest.mark.parametrize("allow", WAYS)
def test_32_true_is_float32_everywhere_whatever_was_set(tiny_config, allow):
    allow()
    launch(tiny_config.replace(precision="32-true"))
    backends = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    backends += torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv
    assert [backend.fp32_precision for backend in backends] == ["ieee"] * 4
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("rank", "name", "sentence"),
    [
        ("0", "auto", "3 processes share 2 GPU(s): lower torchrun's --nproc-per-node"),
        ("2", "auto", "3 processes share 2 GPU(s): lower torchrun's --nproc-per-node"),
        ("0", "cuda:1", "device 'cuda:1' is one GPU for 3 processes: choose cuda,"),
    ],
)
def test_processes_that_cannot_each_have_a_gpu_are_refused(
    tiny_config, monkeypatch, rank, name, sentence
):
    for variable, value in {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "LOCAL_RANK": rank}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        launch(tiny_config.replace(device=name))


def test_a_gpu_needs_gcc_to_compile_and_is_told_so(tiny_config, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    config, extractor = tiny_config.replace(compile=True), build_extractor("sample_cnn", width=2)
    with pytest.raises(ValueError, match="compile: true needs the compiler gcc or clang on a cuda"):
        prepare(extractor, config, torch.device("cuda"))


def test_auto_is_what_the_gpu_of_the_process_has(monkeypatch):
    """With the answers of a machine with two GPUs; nothing is opened on either."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.pick_device("auto") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device.pick_device("cuda") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="device 'cuda:2' cannot be used here"):
        device.pick_device("cuda:2")
    for capability, found in (((7, 5), "32-true"), ((8, 0), "tf32")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert device.pick_precision("auto", torch.device("cuda:0")) == found
    assert device.pick_precision("auto", torch.device("cpu")) == "32-true"
    assert not torch.cuda.is_initialized()


class DenseLoudness(nn.Module):
    """An extractor with weights of its own."""

    n_features, min_samples = 16, 16_000

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(1, self.n_features)

    def forward(self, waveform):
        return self.dense(waveform.square().mean(1, keepdim=True)).relu()


@pytest.mark.parametrize(
    ("precision", "compiled"),
    [("32-true", False), pytest.param("bf16-mixed", True, marks=needs_compiler)],
)
def test_a_function_can_build_a_pretrained_extractor(
    tiny_store, tiny_config, tmp_path, monkeypatch, precision, compiled
):
    weights = DenseLoudness().state_dict()

    def pretrained():
        extractor = DenseLoudness()
        extractor.load_state_dict(weights)
        return extractor

    monkeypatch.setitem(EXTRACTORS, "pretrained", pretrained)
    settings = {"extractor": "pretrained", "crop_samples": 16_000, "precision": precision}
    settings["compile"] = compiled
    config = tiny_config.replace(**settings)
    assert same(build_model(config, tiny_store.vocabulary).extractor.state_dict(), weights)
    run = Run.start(tmp_path, config, tiny_store)
    predict(run, train.train(run, tiny_store), tiny_store)
    assert run.config.name == "je-subset_query-pretrained-seed0"
    assert run.read_arrays("embeddings.npz")["h"].shape == (len(tiny_store.rows("test")), 16)
    learned = train.train(run, tiny_store).extractor.dense.weight  # loads what is finished
    assert not torch.equal(learned, weights["dense.weight"])
    assert torch.equal(learned, state_of(run, "stage2")["extractor.dense.weight"])


@pytest.mark.parametrize("extractor", ["harmonic_cnn", "music_sincnet"])
def test_a_run_compiles_two_graphs(tiny_store, tiny_config, tmp_path, monkeypatch, extractor):
    """One to train on batches of both sizes, one to infer; captured, but not translated."""
    monkeypatch.setattr(sample_cnn, "BLOCK_WIDTHS", (1, 1, 4))  # each block takes seconds
    graphs = []

    def captured(module, inputs):
        if any(node.op == "call_function" for node in module.graph.nodes):
            graphs.append(module)
        return module.forward

    capture = partialmethod(nn.Module.compile, backend=captured)
    monkeypatch.setattr(nn.Module, "compile", capture)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    short, crop = (Phase("adam", 1e-3, 2),), {"batch_size": 7, "crop_samples": 73_728}
    config = tiny_config.replace(extractor=extractor, compile=True, stage1=short, stage2=short)
    run = Run.start(tmp_path, config.replace(**crop), tiny_store)
    torch._dynamo.reset()
    predict(run, train.train(run, tiny_store), tiny_store)
    assert len(graphs) == 2
    facts = run.record["stages"]["stage1"] | run.record
    assert facts["compile_s"] > 0 and facts["prediction"]["compile_s"] >= 0
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str((tmp_path / ".compiled").resolve())


@needs_compiler
def test_compiled_code_is_kept_for_other_runs_and_processes(
    tiny_store, tiny_config, tmp_path, monkeypatch
):
    monkeypatch.setitem(EXTRACTORS, "loudness", DenseLoudness)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / ".compiled"))
    config = tiny_config.replace(extractor="loudness", crop_samples=16_000, compile=True)
    found = []
    for seed in range(2):
        torch._dynamo.reset()  # as a new process, which knows only what is on disk
        counters.clear()
        train.train(Run.start(tmp_path, config.replace(seed=seed), tiny_store), tiny_store)
        found.append(dict(counters["inductor"]))
    assert found[0]["fxgraph_cache_miss"] > 0
    assert found[1]["fxgraph_cache_hit"] > 0 and "fxgraph_cache_miss" not in found[1]


def test_what_a_function_builds_must_keep_the_contract(tiny_store, tiny_config, monkeypatch):
    def build(module):
        monkeypatch.setitem(EXTRACTORS, "built", lambda: module)
        return build_model(tiny_config.replace(extractor="built"), tiny_store.vocabulary)

    for module in (nn.Linear(1, 1), nn.Linear):
        with pytest.raises(ValueError, match=r"Linear.* must be a module with integers"):
            build(module)
    other = nn.Linear(tiny_config.crop_samples, 3)
    other.n_features, other.min_samples = 4, 1
    with pytest.raises(ValueError, match=r"returned .*\[2, 3\].* for two crops.*here \(2, 4\)"):
        build(other)


def test_forms_of_the_code_fit_every_extractor(tiny_store):
    for name in EXTRACTORS:
        config = RunConfig(extractor=name, form="as_coded", width=2)
        assert config.crop_samples == (80_000 if name == "harmonic_cnn" else 59_049)
        build_model(config, tiny_store.vocabulary)


def test_runs_that_cannot_be_trained_are_refused(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    with pytest.raises(ValueError, match="unknown stage of method je 'stage3'"):
        train.train(run, tiny_store, until="stage3")
    begun = Run.start(tmp_path / "begun", tiny_config.replace(width=2), tiny_store)
    begun = Run.start(tmp_path / "begun", tiny_config, tiny_store)  # nothing was trained yet
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


@pytest.mark.parametrize("pair_loss", PAIR_LOSSES)
def test_one_stage_learns_everything_and_adds_up(tiny_store, tiny_config, tmp_path, pair_loss):
    weights = {"pair_weight": 3.0, "reconstruction_weight": 0.5}
    config = tiny_config.replace(method="joint", pair_loss=pair_loss, **weights)
    fresh = build_model(config, tiny_store.vocabulary, "linear").state_dict()
    run = Run.start(tmp_path, config, tiny_store)
    model = train.train(run, tiny_store)
    learned = changed(fresh, model.state_dict())
    assert learned | {"query_scale"} == {*methods.JOINT, "classifier"}  # not all losses have logits
    history = run.history
    total = history.classification + 0.5 * history.reconstruction + 3 * history.pair
    np.testing.assert_allclose(history.loss, total, rtol=1e-5)
    assert {"valid_average_precision", "valid_gap", "valid_loss"} - set(history) == {"valid_loss"}


def test_joint_shuffled_keeps_the_labels_of_the_classifier(tiny_store, tiny_config):
    config = tiny_config.replace(method="joint_shuffled")
    fabric, model = launch(config), build_model(config, tiny_store.vocabulary, "linear")
    (stage,) = methods.METHODS["joint_shuffled"].stages
    data = StageData(model, stage, Audio(tiny_store, fabric.device), config, fabric)
    inputs, labels, tag_sets, rows = next(data.batches(0, 0))
    np.testing.assert_array_equal(labels, tiny_store.labels[rows])
    assert (labels != tag_sets).any()
    labels, tag_sets = map(torch.from_numpy, (labels, tag_sets))
    model.eval()
    h = model.extractor(inputs)
    generators = (torch.Generator().manual_seed(3) for _ in range(3))
    found = methods.one_stage_loss(model, h, labels, config, next(generators), tag_sets)
    true = methods.classification_loss(model, h, labels, config)["loss"]
    others = methods.joint_loss(model, h, tag_sets, config, next(generators))["loss"]
    own = methods.joint_loss(model, h, labels, config, next(generators))["loss"]
    torch.testing.assert_close(found["loss"], true + others)
    assert others != own


@pytest.mark.parametrize("name", ["asymmetric", "hill"])
def test_a_classification_loss_has_its_own_folder_and_row(tiny_store, tiny_config, tmp_path, name):
    plain = tiny_config.replace(method="no_je_linear", pair_loss="none")
    made = []
    for config in (plain, plain.replace(classification_loss=name)):
        made.append(Run.start(tmp_path, config, tiny_store))
        predict(made[-1], train.train(made[-1], tiny_store), tiny_store)
    assert made[1].folder.name == f"no_je_linear-{name}-sample_cnn-seed0"
    assert made[0].identity != made[1].identity
    assert not same(*(state_of(run, "end_to_end") for run in made))
    table = results.results(made, n_resamples=10)
    assert set(table.classification_loss) == {"bce", name}
    gains = results.differences(table, minus="no_je_linear")
    assert len(gains) == 1


def test_losses_for_missing_labels_are_refused_for_a_multiclass_task(
    pitch_store, tiny_config, tmp_path
):
    config = tiny_config.replace(classification_loss="hill")
    run = Run.start(tmp_path, config, pitch_store)
    with pytest.raises(ValueError, match="'hill' is for multilabel tasks"):
        train.train(run, pitch_store)
