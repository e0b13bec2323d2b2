"""The authors' SavedModels as runs, on SavedModels made by the test."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from jetatag import cli, rendered
from jetatag.apps import tagger
from jetatag.config import RunConfig
from jetatag.data import Vocabulary
from jetatag.data.index import DataWarning
from jetatag.evaluation import results
from jetatag.evaluation.predict import predict
from jetatag.files import checksum
from jetatag.grid import report
from jetatag.joint.heads import build_model
from jetatag.joint.methods import METHODS
from jetatag.original import importing as original
from jetatag.original import savedmodels
from jetatag.training import runs
from jetatag.training.run import Run
from jetatag.training.train import train

HEADS = ["classifier", "projector", "tag_encoder", "tag_decoder"]
MADE_TOGETHER = [
    ["sample_cnn_res", "classifier", "tag_decoder"],
    ["harmonic_cnn", "sample_cnn", "projector", "tag_encoder"],
]
TAGS = ["never", "low", "noisy", "high"]  # not in the store's order
REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
TOLERANCE = 1e-4  # of the largest value


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_store) -> Path:
    """A folder with all SavedModels and their outputs for two clips of the store."""
    for package in ("tensorflow", "tf_keras"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed, which SavedModels need")
    folder = tmp_path_factory.mktemp("saved_models")
    rows = tiny_store.rows("test")[:2]
    labels = tiny_store.labels[rows][:, tiny_store.vocabulary.columns(TAGS)]
    waveform = tiny_store.read(rows, [0, 0], 80_000)
    np.savez(folder / "given.npz", waveform=waveform, labels=labels.astype(np.float32))
    script = [sys.executable, str(Path(__file__).with_name("saved_models.py")), str(folder)]
    environment = {**os.environ, **savedmodels.QUIET_CPU}
    makers = [subprocess.Popen([*script, *names], env=environment) for names in MADE_TOGETHER]
    assert [maker.wait() for maker in makers] == [0, 0]
    return folder


@pytest.fixture(scope="module")
def all_read(made) -> dict[str, savedmodels.SavedModel]:
    """All of them, read at once, because starting TensorFlow takes longest."""
    return savedmodels.read(made, [name for names in MADE_TOGETHER for name in names])


@pytest.fixture
def release(made, all_read, tmp_path, monkeypatch):
    """Makes a folder like the authors' from some of the SavedModels."""

    def read(folder: Path, parts: list[str]) -> dict[str, savedmodels.SavedModel]:
        return {part: all_read[(folder / part).resolve().name] for part in parts}

    def lay_out(encoder: str, *heads: str) -> Path:
        folder = tmp_path / "release"
        folder.mkdir()
        for part, name in {"encoder": encoder, **dict(zip(heads, heads, strict=True))}.items():
            (folder / part).symlink_to(made / name)
        return folder

    monkeypatch.setattr(original, "read", read)
    return lay_out


def assert_close(ours, theirs):
    ours = ours.numpy() if isinstance(ours, torch.Tensor) else ours
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()


CASES = [("sample_cnn", HEADS), ("sample_cnn_res", HEADS[:1]), ("harmonic_cnn", HEADS)]


@torch.no_grad()
@pytest.mark.parametrize(("encoder", "heads"), CASES)
def test_the_run_has_the_outputs_of_the_saved_models(made, release, tmp_path, encoder, heads):
    run = original.import_original(release(encoder, *heads), tmp_path / "runs", TAGS)
    config = Run.open(run.folder).config
    assert config.extractor == encoder and config.width == 4
    assert config.form == config.windows == config.optimizer_form == "as_coded"
    assert config.crop_samples == (80_000 if encoder == "harmonic_cnn" else 59_049)
    assert run.vocabulary == Vocabulary(tuple(TAGS), "multilabel")

    model = build_model(config, run.vocabulary).eval()
    run.load_weights(METHODS[config.method].stages[-1].name, model)
    given, answers = np.load(made / "given.npz"), np.load(made / f"{encoder}-answers.npz")
    h = model.extractor(torch.from_numpy(given["waveform"][:, : config.crop_samples]))
    assert_close(h, answers["h"])
    assert_close(model.probabilities(model.classifier(h)), answers["probs"])
    assert (config.method == "je") == ("projector" in heads)
    if config.method == "je":
        z_tag = model.tag_encoder(torch.from_numpy(given["labels"]))
        assert_close(model.projection(h), answers["z_audio"])
        assert_close(z_tag, answers["z_tag"])
        assert_close(model.reconstruct(z_tag), answers["decoded"])


def test_with_a_store_it_can_be_scored_like_any_run(made, release, tiny_store, tmp_path):
    folder = release("sample_cnn", *HEADS)
    run = original.import_original(folder, tmp_path / "runs", TAGS, tiny_store, "cosine_as_coded")
    assert run.folder.name == "je-cosine_as_coded-sample_cnn-seed0"
    run = Run.start(tmp_path / "runs", run.config, tiny_store)
    predict(run, train(run, tiny_store), tiny_store)
    answers = np.load(made / "sample_cnn-answers.npz")
    scores, embeddings = run.read_arrays("scores.npz"), run.read_arrays("embeddings.npz")
    tags = scores["tags"].tolist()
    assert tags == list(tiny_store.vocabulary.tags) == list(run.vocabulary.tags) != TAGS
    by_name = [TAGS.index(tag) for tag in tags]
    assert scores["probs"].shape[1] == 16  # all the same in clips this short
    assert_close(scores["probs"][:2, 0], answers["probs"][:, by_name])
    assert_close(scores["probs"][:2, 15], answers["probs"][:, by_name])
    for name in ("h", "z_audio", "z_tag"):
        assert_close(embeddings[name][:2], answers[name])
    assert set(results.results(runs.finished(tmp_path / "runs"), 10).method) == {"je"}


def test_the_record_names_the_origin_and_no_time(release, tiny_store, tmp_path):
    folder = release("sample_cnn", *HEADS)
    run = original.import_original(folder, tmp_path / "runs", TAGS, tiny_store)
    record = run.record
    assert record["data"]["name"] == "mtat"
    assert record["data"]["checksum"] == tiny_store.checksum
    imported = record["imported"]
    assert imported["from"] == "release" and imported["tags"] == TAGS
    assert imported["checksum"] != checksum()
    assert max(imported["largest_difference"].values()) < TOLERANCE
    assert str(tmp_path) not in (run.folder / "record.json").read_text()
    costs = {(run.config.name, stage): cost for stage, cost in record["stages"].items()}
    table = pd.DataFrame(costs).T.rename_axis(["run", "stage"])  # as notebook 06 does
    assert len(table) == 2 and table.wall_time_s.isna().all()

    other = original.import_original(folder, tmp_path / "again", TAGS)
    assert other.record["imported"]["checksum"] == imported["checksum"]
    with pytest.raises(ValueError, match="is already a run: delete it or choose"):
        original.import_original(folder, tmp_path / "again", TAGS)


def test_stage_1_has_no_trained_classifier_yet(release, tmp_path):
    run = original.import_original(release("sample_cnn", *HEADS), tmp_path / "runs", TAGS)
    one, two = (run.read_tensors(f"{stage}.safetensors") for stage in ("stage1", "stage2"))
    changed = {name.split(".")[0] for name in one if not torch.equal(one[name], two[name])}
    assert changed == {"classifier"}
    assert [stage.name for stage in METHODS["je"].stages] == list(run.record["stages"])


RECORDED = {"HC": "harmonic_cnn", "SCse": "sample_cnn_se", "MSmtat": "music_sincnet"}


@pytest.mark.parametrize("file", RECORDED)
def test_the_extractor_is_recognised_by_its_weights(file):
    if not REFERENCE.is_dir():
        pytest.skip("the names and shapes of the original's weights are missing")
    recorded = np.load(REFERENCE / f"{file}.npz")
    arrays = [np.broadcast_to(np.float32(0), json.loads(shape)) for shape in recorded["shapes"]]
    inputs, outputs = np.zeros((1, 80_000)), np.zeros((1, 1024))
    encoder = savedmodels.SavedModel(recorded["names"].tolist(), arrays, inputs, outputs)
    settings = {"method": "no_je", "pair_loss": "none"}
    config, _ = original.fit_extractor(encoder, settings, Vocabulary(tuple(TAGS)))
    assert config.extractor == RECORDED[file] and config.width == 128


def with_softmax(saved: savedmodels.SavedModel) -> savedmodels.SavedModel:
    """The same network with a softmax in place of the sigmoid."""
    odds = saved.outputs / (1 - saved.outputs)
    return replace(saved, outputs=odds / odds.sum(1, keepdims=True))


def test_a_softmax_makes_it_multiclass(release, tiny_store, tmp_path, monkeypatch):
    folder, read = release("sample_cnn", *HEADS), original.read

    def read_softmax(*place):
        saved = read(*place)
        return saved | {name: with_softmax(saved[name]) for name in ("classifier", "tag_decoder")}

    monkeypatch.setattr(original, "read", read_softmax)
    run = original.import_original(folder, tmp_path / "runs", TAGS)
    assert run.vocabulary.task == "multiclass"
    with pytest.raises(ValueError, match="model is multiclass, the store multilabel"):
        original.import_original(folder, tmp_path / "other", TAGS, tiny_store)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["encoder"], "has no SavedModel classifier: give a folder"),
        (["classifier"], "has no SavedModel encoder:"),
        (["encoder", "classifier", "projector"], "has no SavedModel tag_encoder, tag_decoder:"),
        ([], "has no SavedModel encoder, classifier:"),
    ],
)
def test_an_incomplete_folder_is_refused(tmp_path, parts, message):
    for part in parts:
        (tmp_path / part).mkdir()
        (tmp_path / part / "saved_model.pb").touch()
    with pytest.raises(FileNotFoundError, match=message):
        original.import_original(tmp_path, tmp_path / "runs", TAGS)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("tags", "with_store", "message"),
    [
        (TAGS[:3], False, "has 4 outputs and the list 3 tags, 3 of them different"),
        ([*TAGS[:3], "low"], False, "4 outputs and the list 4 tags, 3 of them different"),
        (["a", "b", "c", "low"], True, "store differ in 6 tags, such as 'a', 'b', 'c': prepare"),
    ],
)
def test_other_tags_are_refused(release, tiny_store, tmp_path, tags, with_store, message):
    folder = release("sample_cnn", "classifier")
    with pytest.raises(ValueError, match=message):
        original.import_original(
            folder, tmp_path / "runs", tags, tiny_store if with_store else None
        )


def test_other_networks_are_refused(release, tmp_path, monkeypatch):
    folder, read = release("sample_cnn", "classifier"), original.read

    def read_changed(*place):
        saved = read(*place)
        return saved | {"encoder": replace(saved["encoder"], **changes)}

    monkeypatch.setattr(original, "read", read_changed)
    changes = {"names": ["dense/kernel:0"], "arrays": [np.zeros((59_049, 32))]}
    with pytest.raises(ValueError, match=r"encoder is none of harmonic_cnn, .* with 32 features"):
        original.import_original(folder, tmp_path / "runs", TAGS)
    changes = {"outputs": np.tanh(read(folder, ["encoder"])["encoder"].outputs)}
    with pytest.raises(ValueError, match="encoder fit, but its SavedModel has other outputs"):
        original.import_original(folder, tmp_path / "runs", TAGS)
    assert not (tmp_path / "runs").exists()


def test_tags_are_read_from_text_or_npy(tmp_path):
    (tmp_path / "tags.txt").write_text("guitar\nno vocals \n\nrock\n")
    np.save(tmp_path / "tags.npy", np.array(["guitar", "no vocals", "rock"]))
    for name in ("tags.txt", "tags.npy"):
        assert original.read_tags(tmp_path / name) == ["guitar", "no vocals", "rock"]
    np.save(tmp_path / "objects.npy", np.array(["guitar"], object), allow_pickle=True)
    (tmp_path / "npy.txt").write_bytes((tmp_path / "tags.npy").read_bytes())
    for name in ("objects.npy", "npy.txt"):
        with pytest.raises(ValueError, match="is not a list of tags"):
            original.read_tags(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="does not exist: give the list"):
        original.read_tags(tmp_path / "absent.txt")


def write_annotations(path: Path, counts: dict[str, int]) -> None:
    """MagnaTagATune's table, with so many clips per tag and many that carry none."""
    names = ["clip_id", *counts, "mp3_path"]
    rows = [[i, *(int(i < n) for n in counts.values()), f"0/{i}.mp3"] for i in range(200)]
    lines = ["\t".join(f'"{cell}"' for cell in row) for row in [names, *rows]]
    path.write_text("\n".join(lines) + "\n")


def test_tags_are_read_from_annotations_final_csv_by_the_rule_of_the_original(tmp_path):
    """Counts over all rows, `argsort` reversed, the first 50; equal counts are named."""
    counts = {f"tag {number}": 3 * number % 181 + 1 for number in range(60)}
    path = tmp_path / "annotations_final.csv"
    write_annotations(path, counts)
    with warnings.catch_warnings(action="error"):
        tags = original.read_tags(path)
    order = np.argsort(list(counts.values()))[::-1][:50]
    assert tags == [f"tag {number}" for number in order] and len(tags) == 50
    write_annotations(path, counts | {"tag 5": counts[tags[0]], "tag 9": 1})
    with pytest.warns(DataWarning, match=f"order is uncertain: {tags[0]}, tag 5\\.$"):
        assert {*original.read_tags(path)[:2]} == {tags[0], "tag 5"}


def test_mtat_stands_for_its_tags_by_frequency_and_names_what_public_lists_order_otherwise(
    tmp_path, monkeypatch
):
    (tmp_path / "mtat").mkdir()  # as in the repository of the original
    monkeypatch.chdir(tmp_path)
    with pytest.warns(
        DataWarning, match="male voice and female vocal, and of metal and female voice"
    ):
        tags = original.read_tags("mtat")
    assert {*tags} == {*rendered.TAGS}
    assert tags[:4] == ["guitar", "classical", "slow", "techno"] and len({*tags}) == 50
    assert tags[39:41] == ["male voice", "female vocal"]
    assert tags[46:] == ["country", "metal", "female voice", "choral"]


def test_imported_weights_of_mtat_say_what_they_are_and_are_tagged_searched_and_exported(
    release, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(original, "MTAT", tuple(TAGS))
    folder = release("sample_cnn", *HEADS)
    run = original.import_original(folder, tmp_path / "runs", TAGS)
    music, index, shared = (str(tmp_path / name) for name in ("music", "index", "shared"))
    Path(music).mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    soundfile.write(f"{music}/a.wav", noise, 16_000)
    what = f"{run.config.name}, the authors' weights, MagnaTagATune, 4 tags"

    assert cli.main(["tag", str(run.folder), music]) == 0
    assert capsys.readouterr().err == f"{what}\n"
    assert cli.main(["index", str(run.folder), music, "--out", index]) == 0
    assert f"1 files by {what}" in capsys.readouterr().out
    assert cli.main(["search", index, "--tags", "low", "--by", "classifier"]) == 0
    assert "a.wav" in capsys.readouterr().out
    assert cli.main(["search", index, "--tags", "low", "--by", "space"]) == 2
    assert "a mirrored and never scored shared space" in capsys.readouterr().err
    assert cli.main(["export", str(run.folder), shared, "--no-onnx"]) == 0
    assert str(tagger.load(shared)) == what
    card = (Path(shared) / "README.md").read_text()
    assert "the authors' weights, imported by jetatag" in card and "MagnaTagATune (`mtat`" in card


def test_a_search_by_a_mirrored_space_says_so(release, tiny_store, tmp_path, capsys):
    """The import is scored with a store, so that its tags have vectors."""
    run = original.import_original(
        release("sample_cnn", *HEADS), tmp_path / "runs", TAGS, tiny_store
    )
    predict(run, train(run, tiny_store), tiny_store)
    index = str(tmp_path / "index")
    assert (
        cli.main(
            [
                "index",
                str(run.folder),
                str(tiny_store.folder.parent / "mtat" / "mp3" / "c"),
                "--out",
                index,
            ]
        )
        == 0
    )
    capsys.readouterr()
    told = {}
    for by in ("space", "classifier"):
        assert cli.main(["search", index, "--tags", "low", "--by", by]) == 0
        told[by] = capsys.readouterr().err
    assert "space of this run is mirrored" in told["space"] and not told["classifier"]


def test_imports_are_scored_by_their_config_and_have_tables_maps_and_a_report(
    tiny_store, tmp_path, monkeypatch
):
    """Both models of the authors, with and without joint embedding, as `import_original` writes
    them; from another folder, so that the store's path is relative."""
    monkeypatch.chdir(tmp_path)
    Path("store").symlink_to(tiny_store.folder)
    for method, loss in (("je", "margin_as_coded"), ("no_je", "none")):
        settings = {"method": method, "pair_loss": loss}
        config = RunConfig(**settings, **original.AS_CODED, extractor="sample_cnn", width=4)
        model, tags = build_model(config, tiny_store.vocabulary), tiny_store.vocabulary
        run = original.write_run(Path("runs"), config, model, tags, tiny_store, {"from": "release"})
        command = ["train", "--config", f"{run.folder}/config.json", "--set", "store=store"]
        assert cli.main([*command, "runs=runs"]) == 0
    shown, _ = report.write(["runs"], "page.html", "store", n_resamples=20)
    page = Path("page.html").read_text()
    (note,) = re.findall('class="note">(.*?)</p>', page)
    assert note.startswith("Left out: there are no rows to draw:")
    assert len(shown) == 2 and page.count("<img") == 12 and page.count("<audio") > 5


def arguments(folder: Path, tmp_path: Path, *more: str) -> list[str]:
    (tmp_path / "tags.txt").write_text("\n".join(TAGS))
    options = ["--tags", str(tmp_path / "tags.txt"), "--runs", str(tmp_path / "runs")]
    return ["import-original", str(folder), *options, *more]


def test_the_command_says_what_it_made(release, tiny_store, tmp_path, capsys):
    folder = release("harmonic_cnn", *HEADS)
    given = arguments(folder, tmp_path, "--store", str(tiny_store.folder))
    assert cli.main(given) == 0
    told = capsys.readouterr()
    assert "je-margin_as_coded-harmonic_cnn-seed0: je, harmonic_cnn, 4 tags" in told.out
    assert "agrees with release" in told.out and told.out.count("\n") == 2 and not told.err
    run = Run.open(tmp_path / "runs" / "je-margin_as_coded-harmonic_cnn-seed0")
    assert run.record["data"]["checksum"] == tiny_store.checksum


def test_the_command_gives_one_sentence_for_a_mistake(tmp_path, monkeypatch, capsys):
    for part in ("encoder", "classifier"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "saved_model.pb").write_bytes(b"torn")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(arguments(tmp_path, tmp_path)) == 2
    assert capsys.readouterr().err == (
        "jetatag: SavedModels need TensorFlow, which is missing: pip install "
        "'jetatag[tensorflow]'.\n"
    )
    assert cli.main(arguments(tmp_path, tmp_path, "--store", "absent")) == 2
    assert "absent holds no prepared store" in capsys.readouterr().err
    assert cli.main(["import-original", str(tmp_path)]) == 2


STAND_IN = """
class saved_model:
    def load(folder):
        raise OSError("Cannot parse file " + folder + " and\\nso on")
"""


KILLED = """
import os, signal, sys

class saved_model:
    def load(folder):
        print("I0000 a line of a log", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.{signal} if os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0" else 0)
"""


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("SIGSEGV", "try another version"), ("SIGKILL", "free memory")],
)
def test_a_reader_that_is_killed_is_told_as_such(tmp_path, monkeypatch, capsys, name, remedy):
    for part in ("encoder", "classifier"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "saved_model.pb").touch()
    (tmp_path / "tensorflow.py").write_text(KILLED.replace("{signal}", name))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert cli.main(arguments(tmp_path, tmp_path)) == 2
    killed = f"TensorFlow was killed by {name} while it read {tmp_path}: {remedy}"
    assert capsys.readouterr().err == f"jetatag: {killed}.\n"


def test_a_torn_saved_model_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "tensorflow.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ValueError, match="encoder is not a complete SavedModel") as refusal:
        savedmodels.read(tmp_path, ["encoder"])
    assert "OSError: Cannot parse file" in str(refusal.value) and "so on" not in str(refusal.value)
