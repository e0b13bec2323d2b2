"""Exported models: weights, model card and ONNX that give the run's results. The Hub is a fake."""

import copy
import dataclasses
import json
import re
import shutil
import sys
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
import yaml
from scored import finished_run, with_spread_probabilities

import jetatag
from jetatag import cli
from jetatag.apps import export as share
from jetatag.apps import hub
from jetatag.apps.tagger import FILES, Tagger
from jetatag.config import RunConfig
from jetatag.data import DATASETS, Vocabulary
from jetatag.extractors import EXTRACTORS
from jetatag.joint.heads import build_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory, run):
    return share.export(run.folder, tmp_path_factory.mktemp("away") / "model")


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    path = tmp_path_factory.mktemp("music") / "song.wav"
    noise = 0.1 * np.random.default_rng(0).standard_normal(10 * 16_000)
    soundfile.write(path, noise * np.linspace(0.1, 1, len(noise)), 16_000)
    return path


def test_a_loaded_export_predicts_the_same(run, exported, song):
    before, after = (jetatag.load(folder, device="cpu") for folder in (run.folder, exported))
    theirs, ours = before.predict(song), after.predict(song)
    for name in ("starts_s", "probs", "h", "z_audio"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_equal(after.query_vectors(), before.query_vectors())
    assert str(after) == str(before) and after.peak_normalise == before.peak_normalise


def test_an_export_holds_nothing_of_any_clip(exported):
    names = {"README.md", "config.json", "embeddings.npz", "model.onnx", "model.safetensors"}
    assert {path.name for path in exported.iterdir()} == {*names, "record.json"}
    kept = np.load(exported / "embeddings.npz")
    assert set(kept) == {"tags", "queries", "z_query", "z_centre", "z_scale", "z_single"}


def test_the_model_card(run, exported):
    card = (exported / "README.md").read_text()
    front, body = card.split("---\n")[1:]
    facts = huggingface_hub.ModelCard(card).data.to_dict()
    assert facts == yaml.safe_load(front) and facts["pipeline_tag"] == "audio-classification"
    assert facts["license"] == "other" and facts["license_name"] == "as-the-training-data-allows"
    assert facts["license_link"].endswith("/by-nc-sa/3.0/") and facts["datasets"] == ["mtat"]
    assert "MagnaTagATune" in body and "vectors in the shared space" in body
    data = run.record["data"]
    for text in (
        run.config.name,
        data["checksum"],
        data["split_checksum"],
        DATASETS["mtat"].licence,
    ):
        assert text in body
    assert "30 train, 3 valid, 7 test" in body and "| macro_clip | average_precision | 0." in body
    assert "7 clips of 3 windows" in body and "] | [0." in body and "model.onnx" in body
    assert all(tag in body for tag in data["tags"]) and "largest sample is 1" in body


def test_every_data_set_has_a_licence():
    assert all(data_set.title and data_set.licence for data_set in DATASETS.values())
    assert not DATASETS["folder"].licence_link and DATASETS["mtat"].licence_link


@pytest.mark.parametrize("name", ["rendered", "folder", "unknown"])
def test_the_licence_of_the_weights_is_stated_if_known(run, name):
    model = jetatag.load(run.folder, device="cpu")
    card = share.card(dataclasses.replace(model, data={**model.data, "name": name}), None, True)
    front, own = yaml.safe_load(card.split("---\n")[1]), name == "rendered"
    assert front["license"] == ("mit" if own else "other") and ("datasets" in front) == own
    assert ("license_name" in front) != own and "license_link" not in front
    assert ("These weights are free" in card) == own
    assert ("trained on jetatag's built-in rendered music" in card.lower()) == own


def test_a_run_without_joint_embedding_scores_or_onnx(tmp_path, tiny_config, tiny_store, song):
    config = tiny_config.replace(method="no_je_linear", pair_loss="none")
    run = finished_run(tmp_path, config, tiny_store)
    for file in ("scores.npz", "scores.valid.npz", "embeddings.npz"):
        (run.folder / file).unlink()
    exported = share.export(run.folder, tmp_path / "away", onnx=False)
    names = {"README.md", "config.json", "model.safetensors", "record.json"}
    assert {path.name for path in exported.iterdir()} == names
    card = (exported / "README.md").read_text()
    assert "Not scored." in card and "onnx" not in card and "pair loss" not in card
    assert "every window: probabilities, features\n" in card and "shared space" not in card
    assert jetatag.load(exported).predict(song).z_audio is None


# ONNX


@pytest.mark.parametrize(
    ("name", "task"),
    [(name, "multiclass" if name == "sample_cnn" else "multilabel") for name in EXTRACTORS],
)
def test_onnx_gives_the_results_of_torch(tmp_path, name, task):
    """Every extractor and task, with other batch sizes than in the export."""
    vocabulary = Vocabulary(tuple(f"tag {i}" for i in range(5)), task)
    config = RunConfig(extractor=name, width=4, device="cpu")
    model = with_spread_probabilities(build_model(config, vocabulary)).requires_grad_(False)
    data = {"name": "folder", "clips_by_split": {}}
    share.write_onnx(Tagger(tmp_path, config, vocabulary, model, True, data), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    for n in (1, 4):
        audio = 0.3 * torch.randn(n, config.crop_samples, generator=generator)
        (probs,) = session.run(["probs"], {"audio": audio.numpy()})
        ours = model.probabilities(model.classifier(model.extractor(audio))).numpy()
        assert probs.shape == (n, 5) and probs.dtype == np.float32 and np.ptp(ours) > 0.01
        np.testing.assert_allclose(probs, ours, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("duration_s", "rate", "scaled", "close"),
    [
        (10, 16_000, True, 1e-4),
        (1.5, 16_000, True, 1e-4),
        (2 * 59_049 / 16_000, 16_000, False, 1e-4),
        (8, 44_100, True, 1e-2),
    ],
)
def test_the_code_of_the_card_gives_the_results_of_the_tagger(
    run, exported, tmp_path, monkeypatch, duration_s, rate, scaled, close
):
    """Whole and half windows, loud and quiet, and another rate, for which resamplers differ."""
    noise = np.random.default_rng(0).standard_normal((round(duration_s * rate), 2)).cumsum(axis=0)
    audio = 1.3 * noise / np.abs(noise).max() * np.linspace(0.1, 1, len(noise))[:, None]
    soundfile.write(tmp_path / "song.wav", audio, rate, subtype="FLOAT")
    model = dataclasses.replace(jetatag.load(exported, "cpu"), peak_normalise=scaled)
    code = share.card(model, None, True).split("```python\n")[2].split("```")[0]
    monkeypatch.chdir(exported)
    names = {}
    exec(code.replace("song.mp3", str(tmp_path / "song.wav")), names)
    table = model.tag(tmp_path / "song.wav")
    assert table.prob.std() > 0.01 and {type(p) for p in names["mean"].values()} == {float}
    np.testing.assert_allclose([names["mean"][tag] for tag in table.tag], table.prob, atol=close)
    assert code in (exported / "README.md").read_text() or not scaled


def test_the_files_of_an_export_are_listed_with_their_sizes(run, tmp_path, capsys):
    assert cli.main(["export", str(run.folder), str(tmp_path / "away"), "--no-onnx"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(re.search(r"/away/\S+: [1-9][\d,.]* (bytes|kB|MB)$", line) for line in lines)


def test_the_onnx_metadata(run, exported):
    props = {p.key: p.value for p in onnx.load(exported / "model.onnx").metadata_props}
    assert tuple(json.loads(props["tags"])) == run.vocabulary.tags
    assert props["sample_rate"] == "16000" and json.loads(props["peak_normalise"]) is True


def test_onnx_with_other_results_is_refused(run, tmp_path, monkeypatch):
    export = torch.onnx.export

    def export_another(model, *given, **options):
        model = copy.deepcopy(model)
        for weights in model.classifier.parameters():
            weights.neg_()
        return export(model, *given, **options)

    monkeypatch.setattr(torch.onnx, "export", export_another)
    with pytest.raises(ValueError, match="the ONNX model differs from torch by"):
        share.export(run.folder, tmp_path / "away")
    assert not list(tmp_path.rglob("*.onnx")) and not (tmp_path / "away" / "config.json").exists()


def test_missing_libraries_are_named(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert cli.main(["export", str(run.folder), str(tmp_path / "away")]) == 2
    assert "pip install 'jetatag[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "away").exists()  # so that --no-onnx can use it
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'jetatag\[hub\]'"):
        jetatag.load("hf://someone/something")


def test_all_files_have_the_same_permissions(exported):
    modes = {path.stat().st_mode & 0o777 for path in exported.iterdir()}
    assert len(modes) == 1


# The Hub


@pytest.fixture
def the_hub(monkeypatch, tmp_path):
    """A fake of the Hub that keeps models in a folder and records the calls."""
    import huggingface_hub

    calls = []

    def create_repo(name, private, exist_ok):
        calls.append((name, private, exist_ok))
        return SimpleNamespace(repo_id=name if "/" in name else f"someone/{name}")

    def upload_folder(repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, tmp_path / "hub" / repo_id)

    def snapshot_download(repo_id, revision, allow_patterns):
        calls.append((repo_id, revision, allow_patterns))
        if not (tmp_path / "hub" / repo_id).is_dir():
            raise huggingface_hub.errors.RepositoryNotFoundError(
                "404 Client Error.\nRepository Not Found",
                response=SimpleNamespace(headers={}, request=None),
            )
        return str(tmp_path / "hub" / repo_id)

    api = SimpleNamespace(create_repo=create_repo, upload_folder=upload_folder)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_push_and_load(exported, the_hub, song, capsys):
    assert cli.main(["push", str(exported), "tagger", "--private"]) == 0
    assert capsys.readouterr().out == "hf://someone/tagger\n"
    assert the_hub == [("tagger", True, True)]
    there = jetatag.load("hf://someone/tagger@v1")
    assert the_hub[1] == ("someone/tagger", "v1", list(FILES))
    np.testing.assert_array_equal(
        there.predict(song).probs, jetatag.load(exported).predict(song).probs
    )


def test_an_error_of_the_hub_is_one_sentence(the_hub, song, capsys):
    assert cli.main(["tag", "hf://someone/gone", str(song)]) == 2
    message = f"jetatag: hf://someone/gone cannot be fetched: 404 Client Error {hub.REMEDY}.\n"
    assert capsys.readouterr().err == message and "`hf auth login`" in message


def test_a_failing_connection_is_one_sentence(exported, the_hub, monkeypatch, capsys):
    import huggingface_hub

    class ConnectError(Exception):
        """As the HTTP library raises it, without a common base class."""

    def create_repo(*_, **__):
        raise ConnectError("no route to host")

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(create_repo=create_repo))
    assert cli.main(["push", str(exported), "someone/tagger"]) == 2
    message = (
        f"jetatag: {exported} cannot be pushed to someone/tagger: no route to host {hub.REMEDY}.\n"
    )
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("name", ["ann/", "ann/tagger/more", "ann/my tagger", ""])
def test_a_malformed_name_is_one_sentence(exported, song, name, capsys):
    """huggingface_hub itself, which checks names before it connects."""
    for command, failure in (
        (["tag", f"hf://{name}", song], f"hf://{name} cannot be fetched: Repo id must "),
        (["push", exported, name], f"{exported} cannot be pushed to {name}: Repo id must "),
    ):
        assert cli.main(list(map(str, command))) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"jetatag: {failure}") and line.endswith(f"{hub.REMEDY}.")


def test_mistakes_are_refused_before_anything_is_written(
    run, exported, the_hub, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("keep")
    for command, message in (
        (["export", run.folder, "mine"], "mine is not empty"),
        (["export", "no run", "/proc/x"], "/proc/x/config.json cannot be written"),
        (["export", "no run", "mine/file/x"], "mine/file/x/config.json cannot be written"),
        (["export", exported, "again"], "is already an exported model: copy it as it is"),
        (["push", run.folder, "someone/tagger"], "is not an exported model"),
    ):
        assert cli.main([str(argument) for argument in command]) == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "file"] and not the_hub
