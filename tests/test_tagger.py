"""A finished run on files: windows, weighting, tables and bad files."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
import torch
from crafted import by_ffmpeg, by_soundfile, damaged
from scored import finished_run

import jetatag
from jetatag import cli, figures
from jetatag.apps import tagger, tagging
from jetatag.apps.tagger import Prediction
from jetatag.data import Vocabulary
from jetatag.data import folder as data_folder
from jetatag.data.index import skipped_sentence
from jetatag.data.store import build, to_float
from jetatag.files import NOT_UTF8, check_writable, write_json
from jetatag.training.run import Run

RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four files of different kinds, two of them bad."""
    root = tmp_path_factory.mktemp("music")
    write(root / "a.wav", noise(10.0, RATE), RATE)
    write(root / "b" / "stereo.flac", noise(23.3, 44_100, channels=2), 44_100)
    (root / "b" / "empty.mp3").touch()
    (root / "c.ogg").write_text("no music " * 100)
    (root / "notes.txt").write_text("not audio by its name")
    return root


def noise(duration_s, rate, channels=1, seed=0):
    """Noise whose colour and loudness change, so that no two windows sound alike."""
    rng, n_samples = np.random.default_rng(seed), round(duration_s * rate)
    loudness = 0.02 + 0.2 * np.sin(np.linspace(0, 7, n_samples)) ** 2
    audio = rng.standard_normal((n_samples, channels)) * loudness[:, None]
    return np.cumsum(audio, axis=0) / (1 + np.arange(n_samples)[:, None] ** 0.5) + 0.3 * audio


def write(path, audio, rate, **kind):
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, audio, rate, **kind)
    return path


# Windows


def test_windows_hold_every_sample_once_and_the_last_ends_with_the_file():
    for n_samples in (1, 7, 9, 10, 11, 19, 20, 21, 35, 40, 47, 120, 121):
        signal = np.arange(1, n_samples + 1, dtype=np.int16)
        for n_blocks, at_once in ((1, 3), (4, 1), (5, 2)):
            stretches = list(tagger.cut(np.array_split(signal, n_blocks), 10, at_once))
            read = np.concatenate([samples for samples, _, _ in stretches])
            starts = [start for _, starts, _ in stretches for start in starts]
            assert stretches[-1][2] == n_samples and max(map(len, read)) == 10
            whole = [10 * i for i in range(n_samples // 10)]
            assert starts == whole + ([max(0, n_samples - 10)] if n_samples % 10 else [])
            padded = np.pad(signal, (0, max(0, 10 - n_samples)))
            np.testing.assert_array_equal(read, [padded[start : start + 10] for start in starts])


# Predictions


@pytest.mark.parametrize("peak_normalise", [True, False])
def test_a_file_is_preprocessed_as_the_training_data(
    mtat_folder, tmp_path, tiny_config, tiny_store, peak_normalise
):
    """The samples of the store, scaled or not as the run's data were."""
    from jetatag.data import mtat

    index = mtat.load(mtat_folder)
    store = build(index, tmp_path / "store", peak_normalise=peak_normalise, workers=1)
    model = jetatag.load(finished_run(tmp_path, tiny_config, store).folder, device="cpu")
    assert model.peak_normalise == peak_normalise
    row, n_samples = 5, tiny_config.crop_samples
    stored = store.read([row], [0], store.lengths[row])[0]
    blocks = tagger.stored_blocks(index.audio_root / store.table.path[row], RATE, peak_normalise)
    np.testing.assert_array_equal(to_float(np.concatenate(list(blocks))), stored)
    prediction = model.predict(index.audio_root / store.table.path[row])
    starts = np.round(prediction.starts_s * RATE).astype(int)
    audio = torch.from_numpy(store.read([row] * len(starts), starts, n_samples))
    with torch.no_grad():
        h = model.model.extractor(audio)
        probs = model.model.classifier(h).sigmoid()
        z_audio = model.model.projection(h)
    for ours, theirs in (
        (prediction.h, h),
        (prediction.probs, probs),
        (prediction.z_audio, z_audio),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_every_second_counts_once():
    """2.5 windows: the last, which the one before half overlaps, weighs half."""
    starts, probs = np.array([0.0, 4.0, 6.0]), np.array([[0.0, 1], [0.5, 0], [1, 1]], np.float32)
    prediction = Prediction(starts, probs, probs, None, 10.0)
    np.testing.assert_allclose(prediction.edges_s, [0, 4, 8, 10])
    np.testing.assert_allclose(prediction.clip_probs, [0.4, 0.6])
    short = Prediction(starts[:1], probs[:1], probs[:1], None, 1.5)
    np.testing.assert_allclose(short.edges_s, [0, 1.5])
    np.testing.assert_allclose(short.clip_probs, [0, 1])


def test_the_table_is_sorted_and_holds_the_mean(model, folder):
    table, prediction = model.tag(folder / "a.wav"), model.predict(folder / "a.wav")
    assert sorted(table.tag) == sorted(model.vocabulary.tags)
    assert table.prob.is_monotonic_decreasing and table.prob.between(0, 1).all()
    assert table.prob.max() - table.prob.min() > 0.01  # the weights distinguish tags
    column = model.vocabulary.columns([table.tag[0]])[0]
    assert table.prob[0] == pytest.approx(prediction.clip_probs[column])
    assert prediction.probs.shape == (3, len(table)) and prediction.duration_s == 10
    assert np.ptp(prediction.probs, axis=0).max() > 1e-3  # and windows


def test_sample_rate_and_channels_make_no_difference(model, tmp_path):
    """Both rates hold the same band; the right channel alone is twice as loud as the mean."""
    plain = soxr.resample(noise(9.0, 8_000)[:, 0], 8_000, RATE, "HQ")
    plain *= 0.9 / np.abs(plain).max()
    high = soxr.resample(plain, RATE, 48_000, "HQ")
    write(tmp_path / "plain.wav", plain, RATE, subtype="FLOAT")
    write(tmp_path / "high.wav", high[:, None] * [0, 1], 48_000, subtype="FLOAT")
    ours, theirs = (model.predict(tmp_path / f"{name}.wav") for name in ("plain", "high"))
    np.testing.assert_allclose(ours.probs, theirs.probs, atol=2e-3)


def test_a_long_file_gives_what_a_short_one_gives(model, folder, monkeypatch):
    whole = model.predict(folder / "b" / "stereo.flac")
    monkeypatch.setattr(tagger, "HELD_S", 5)  # one window at a time, decoded twice
    again = model.predict(folder / "b" / "stereo.flac")
    assert whole.duration_s == again.duration_s == pytest.approx(23.3)
    for name in ("starts_s", "probs", "h", "z_audio"):
        np.testing.assert_allclose(getattr(whole, name), getattr(again, name), atol=1e-5)


def test_a_clip_shorter_than_a_window_is_padded(model, tmp_path):
    prediction = model.predict(write(tmp_path / "short.wav", noise(1.5, RATE), RATE))
    assert prediction.starts_s.tolist() == [0] and prediction.duration_s == 1.5


@pytest.mark.parametrize("workers", [1, 3])
def test_files_come_in_order_with_the_reasons_of_bad_ones(model, folder, workers):
    paths = [folder / "a.wav", folder / "b" / "empty.mp3", folder / "gone.wav", folder / "c.ogg"]
    paths += [folder / "b" / "stereo.flac"]
    predictions = list(model.predict_files(paths, workers))
    assert [path for path, _ in predictions] == paths
    first, _, _, _, last = (prediction for _, prediction in predictions)
    np.testing.assert_array_equal(first.probs, model.predict(paths[0]).probs)
    assert last.duration_s == pytest.approx(23.3)
    reasons = [reason for _, reason in predictions[1:4]]
    assert reasons[0].startswith("empty file (0 bytes);") and reasons[1].startswith(
        "audio file missing;"
    )
    assert "it is text" in reasons[2]


def test_stopping_early_does_not_wait_for_the_other_files(model, folder):
    files = model.predict_files([folder / "a.wav"] * 50, workers=2)
    assert next(files)[0] == folder / "a.wav"
    files.close()


def test_the_query_vectors_are_those_of_the_run(model, run):
    vectors, saved = model.query_vectors(), run.read_arrays("embeddings.npz")
    assert {name: vector.shape for name, vector in vectors.items()} == {
        "z_query": (4, 8),
        "z_centre": (8,),
        "z_scale": (2,),
    }
    for name, vector in vectors.items():
        np.testing.assert_array_equal(vector, saved[name])


def test_without_joint_embedding_there_are_no_query_vectors(
    tmp_path, tiny_config, tiny_store, folder
):
    config = tiny_config.replace(method="no_je_linear", pair_loss="none")
    model = jetatag.load(finished_run(tmp_path, config, tiny_store).folder, device="cpu")
    assert model.predict(folder / "a.wav").z_audio is None
    with pytest.raises(ValueError, match=r"no vectors for searches.*choose a run with joint embed"):
        model.query_vectors()


# Loading


def test_importing_the_package_stays_light():
    program = "import sys, jetatag; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
    assert jetatag.load is tagger.load
    with pytest.raises(AttributeError, match="lode"):
        jetatag.lode  # noqa: B018


def test_tagging_and_baselines_load_nothing_for_training(run, folder):
    program = "import sys; from jetatag import cli; assert cli.main(sys.argv[1:]) == 0; "
    program += "import jetatag.evaluation.baselines; "
    program += "sys.exit(bool({'torch._dynamo', 'lightning_fabric'} & set(sys.modules)))"
    command = [sys.executable, "-c", program, "tag", run.folder, folder / "a.wav"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def test_its_text_describes_the_model(model, tiny_store):
    n_train = len(tiny_store.rows("train"))
    assert f"trained on MagnaTagATune ({n_train} training clips)" in str(model)
    assert f"{len(tiny_store.vocabulary.tags)} tags" in str(model)


def test_no_run_and_an_unfinished_one_are_refused(tmp_path, tiny_config, tiny_store):
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        jetatag.load(tmp_path)
    run = Run.start(tmp_path, tiny_config, tiny_store)
    with pytest.raises(ValueError, match=r"not fully trained \(stage2"):
        jetatag.load(run.folder)


def test_a_run_that_computed_on_a_gpu_tags_without_one(tmp_path, tiny_config, tiny_store):
    run = finished_run(tmp_path, tiny_config, tiny_store)
    settings = {**run.config.to_dict(), "device": "cuda:7", "precision": "bf16-mixed"}
    (run.folder / "config.json").write_text(json.dumps(settings))
    assert jetatag.load(run.folder, device="cpu").device.type == "cpu"


def test_filters_computed_once_lie_on_the_device(tmp_path, tiny_config, tiny_store, monkeypatch):
    config = tiny_config.replace(extractor="music_sincnet", crop_samples=59_049)
    run = finished_run(tmp_path, config, tiny_store)
    monkeypatch.setattr(tagger, "pick_device", torch.device)
    loaded = tagger.load(run.folder, device="meta")
    assert loaded.model.extractor.first.kernel().device.type == "meta"


# The verb


def test_tagging_a_folder_from_the_command_line(run, folder, tmp_path, capsys):
    out = {name: tmp_path / f"out.{name}" for name in ("csv", "json", "parquet", "npz")}
    written = [f"--{name}={path}" for name, path in out.items() if name != "npz"]
    command = ["tag", str(run.folder), str(folder), "--top", "2", "--device", "cpu", *written]
    command += ["--embeddings", str(out["npz"]), "--taggram", str(tmp_path / "pictures")]
    assert cli.main(command) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    names = ["a.wav", "b/empty.mp3", "b/stereo.flac", "c.ogg"]
    assert [line.split(": ")[0] for line in lines] == [str(folder / name) for name in names]
    assert lines[0].count("·") == 1 and ": error: empty file (0 bytes); copy" in lines[1]
    assert "2 of 4 files could not be read" in printed.err and "trained on Magna" in printed.err
    assert f"nor a header of audio): 1 .txt ({folder}/notes.txt)." in printed.err
    assert "tagging" not in printed.err  # there is no terminal to show how far it is

    table = pd.read_parquet(out["parquet"])
    tags = list(run.vocabulary.tags)
    assert list(table.columns) == ["path", "duration_s", "error", *tags]
    assert (table.error != "").tolist() == table[tags].isna().all(axis=1).tolist()
    read = pd.read_csv(out["csv"], keep_default_na=False, na_values={"duration_s": [""]})
    assert read.path.tolist() == table.path.tolist() and read.error.tolist() == table.error.tolist()
    entries = json.loads(out["json"].read_text())
    assert [entry["path"] for entry in entries] == table.path.tolist()
    assert list(entries[0]["tags"])[:2] == [part.rsplit(" ", 1)[0] for part in parts(lines[0])]
    assert entries[0]["tags"] == pytest.approx(table.loc[0, tags].to_dict())
    assert entries[1]["tags"] == {} and entries[1]["duration_s"] is None

    arrays = np.load(out["npz"])
    assert arrays["paths"].tolist() == [str(folder / names[0]), str(folder / names[2])]
    assert arrays["file_index"].tolist() == [0] * 3 + [1] * 7
    assert arrays["h"].shape == (10, 32) and arrays["z_audio"].shape == (10, 8)
    drawn = [
        str(path.relative_to(tmp_path / "pictures")) for path in tmp_path.glob("pictures/**/*.png")
    ]
    assert sorted(drawn) == ["a.wav.png", "b/stereo.flac.png"]


def test_tags_named_like_columns_are_kept_apart_in_every_output(tmp_path):
    tags = ("error", "path", "prob: path", "duration_s", "tags", "click")
    probs = np.array([[0.9, 0.1, 0.2, 0.3, 0.4, 0.5]], np.float32)
    good = Prediction(np.zeros(1), probs, np.zeros((1, 2)), None, 2.0)
    out = {name: tmp_path / f"out.{name}" for name in ("csv", "json", "parquet")}
    with tagging.TagWriter([Path("a"), Path("b")], Vocabulary(tags), **out) as tagged:
        errors = [
            tagged.add(Path(name), read)["error"] for name, read in (("a", good), ("b", "bad"))
        ]
        assert errors == ["", "bad"]
    columns = [*("path", "duration_s", "error", "prob: error", "prob: path"), "prob: prob: path"]
    for table in (pd.read_csv(out["csv"]), pd.read_parquet(out["parquet"])):
        assert list(table) == [*columns, "prob: duration_s", "tags", "click"]
        assert table.path.tolist() == ["a", "b"] and table.duration_s[0] == 2.0
        np.testing.assert_allclose(table.iloc[0, 3:].astype(float), probs[0])
        assert table.iloc[1, 3:].isna().all() and table.error[1] == "bad"
    first, second = json.loads(out["json"].read_text())
    assert (first["path"], first["error"], first["duration_s"]) == ("a", "", 2.0)
    assert list(first["tags"])[:2] == ["error", "click"] and len(first["tags"]) == 6
    assert second == {"path": "b", "duration_s": None, "error": "bad", "tags": {}}


def test_tags_named_error_click_path_and_nan_through_the_verb(
    tmp_path, tiny_config, tiny_store, folder, capsys
):
    """As of class folders `error/`, `click/`, `path/`; what is written is read again as it was."""
    tags = ("error", "click", "path", "duration_s", "nan", "None", "null", "NA")
    labels = np.tile(tiny_store.labels, 2)
    named = dataclasses.replace(tiny_store, vocabulary=Vocabulary(tags), labels=labels)
    run = finished_run(tmp_path, tiny_config.replace(method="joint"), named)
    out = {name: tmp_path / f"out.{name}" for name in ("csv", "json", "parquet")}
    written = [f"--{name}={path}" for name, path in out.items()]
    files = [str(folder / "a.wav"), str(folder / "c.ogg")]
    assert cli.main(["tag", str(run.folder), *files, "--top", "8", *written]) == 1
    printed = capsys.readouterr()
    good, bad = printed.out.splitlines()
    shown = dict(part.rsplit(" ", 1) for part in parts(good))
    assert {*shown} == {*tags} and ": error: unreadable" in bad and bad.startswith(files[1])
    assert "1 of 2 files could not be read" in printed.err
    first, second = json.loads(out["json"].read_text())
    assert {tag: f"{prob:.2f}" for tag, prob in first["tags"].items()} == shown
    assert (first["error"], second["tags"]) == ("", {}) and "unreadable" in second["error"]
    columns = {
        tag: f"prob: {tag}" if tag in ("error", "path", "duration_s") else tag for tag in tags
    }
    for table in (pd.read_csv(out["csv"]), pd.read_parquet(out["parquet"])):
        assert list(table) == ["path", "duration_s", "error", *columns.values()]
        assert table.path.tolist() == files and table.duration_s[0] == 10
        probs = [table[column][0] for column in columns.values()]
        np.testing.assert_allclose(probs, [first["tags"][tag] for tag in tags])
        assert table.iloc[1, 3:].isna().all() and "unreadable" in table.error[1]


def parts(line):
    return line.split(": ", 1)[1].split(" · ")


def test_one_good_file_and_its_picture(run, folder, tmp_path, capsys):
    picture = tmp_path / "taggram.png"
    command = ["tag", str(run.folder), str(folder / "a.wav"), "--taggram", str(picture)]
    assert cli.main([*command, "--device", "cpu"]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_mistakes_are_one_sentence(run, folder, tmp_path, capsys):
    one, several, none = str(folder / "a.wav"), str(folder), str(tmp_path)
    for arguments, message in (
        ([str(tmp_path), one], "is not a run folder"),
        ([str(run.folder), several, "--taggram", "x.png"], "4 files need as many images"),
        ([str(run.folder), one, "--taggram", "x"], "x is not an image: end it in .png or"),
        ([str(run.folder), one, "--csv", none], "is a folder, pipe or device: name a file"),
        ([str(run.folder), one, "--json", f"{one}/x"], f"x cannot be written ({one} is a file)"),
        ([str(run.folder), one, "--parquet", "/proc/x"], "/proc/x cannot be written (No such"),
        ([str(run.folder), one, "--json", "x", "--csv", "./x"], "name a file for each"),
        ([str(run.folder), one, "--csv", str(folder / "c.ogg")], "c.ogg is named like audio: name"),
        ([str(run.folder), one, "--embeddings", "x.txt"], "x.txt is not named like an npz file"),
        ([str(run.folder), none], "holds no audio files: name another folder, or the files them"),
        ([str(run.folder), one, "--device", "tpu"], "device 'tpu' cannot be used"),
    ):
        assert cli.main(["tag", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_outputs_overwrite_no_input(tmp_path):
    song, loop = tmp_path / "song", tmp_path / "loop"
    song.write_text("music")
    (tmp_path / "link").symlink_to(song)
    (tmp_path / "link.csv").symlink_to(tmp_path / "new.wav")
    os.mkfifo(tmp_path / "pipe")
    loop.symlink_to(loop)
    for outputs, message in (
        (["link"], "link is also an input: name another"),
        (["a/x.csv", "a/../a/x.csv"], "x.csv is given for two outputs"),
        (["out.FLAC"], "out.FLAC is named like audio"),
        (["link.csv"], "link.csv is named like audio"),
        (["pipe"], "pipe is a folder, pipe or device: name a file to write"),
        (["/dev/null"], "is a folder, pipe or device"),
        (["a/b/../" + 300 * "x"], r"cannot be written \(File name too long\)"),
    ):
        with pytest.raises(ValueError, match=message):
            check_writable(*(tmp_path / path for path in outputs), read=[song])
    check_writable(tmp_path / "a" / "b" / "x.csv", tmp_path / "y.csv", read=[song])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"song", "loop", "link", "link.csv", "pipe"} and song.read_text() == "music"


def test_a_link_that_is_written_through_stays(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.json").symlink_to("there/x.json")
    for value in (1, 2):  # to nowhere, and to a file
        write_json(tmp_path / "link.json", value)
        assert (tmp_path / "link.json").is_symlink()
        assert (tmp_path / "there" / "x.json").read_text() == f"{value}\n"
    assert len(list(tmp_path.rglob("*"))) == 3


@pytest.mark.parametrize(
    ("end", "status"), [(KeyboardInterrupt, 130), (OSError("the disk is gone"), 2)]
)
def test_what_was_tagged_before_an_interruption_is_kept(
    run, folder, tmp_path, capsys, monkeypatch, end, status
):
    predict_files = tagger.Tagger.predict_files

    def stopping(*given):
        for number, item in enumerate(predict_files(*given)):
            if number == 3:
                raise end
            yield item

    monkeypatch.setattr(tagger.Tagger, "predict_files", stopping)
    csv, npz = tmp_path / "out.csv", tmp_path / "out.npz"
    command = ["tag", str(run.folder), str(folder), f"--csv={csv}", f"--embeddings={npz}"]
    assert cli.main(command) == status
    error = capsys.readouterr().err
    assert f"jetatag: stopped: 3 of 4 files were tagged, written to {csv}, {npz}.\n" in error
    assert ("the disk is gone" in error) == (status == 2)
    assert len(pd.read_csv(csv)) == 3 and len(np.load(npz)["paths"]) == 2


def test_an_interruption_before_the_first_file_keeps_old_tables(run, folder, tmp_path, monkeypatch):
    def predict_files(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tagger.Tagger, "predict_files", predict_files)
    (tmp_path / "out.csv").write_text("of yesterday")
    assert cli.main(["tag", str(run.folder), str(folder), f"--csv={tmp_path / 'out.csv'}"]) == 130
    assert (tmp_path / "out.csv").read_text() == "of yesterday"


def test_progress_is_shown_on_a_terminal(run, folder, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    cli.main(["tag", str(run.folder), str(folder), "--device", "cpu", "--workers", "1"])
    printed = capsys.readouterr().err
    last = [line for line in printed.split("\r") if line.startswith("tagging: ")][-1]
    assert "100%" in last and " 4/4 [" in last and re.search(r"<\d\d:\d\d, .*(file/s|s/file)", last)


def test_names_print_on_one_line_without_control_characters(run, folder, tmp_path, capsys):
    odd = "a\n\x1b[31mred.wav"
    (tmp_path / odd).write_bytes((folder / "a.wav").read_bytes())
    assert cli.main(["tag", str(run.folder), str(tmp_path), "--csv", str(tmp_path / "t.csv")]) == 0
    printed = capsys.readouterr().out
    assert r"a\n\x1b[31mred.wav: " in printed and printed.count("\n") == 1
    assert pd.read_csv(tmp_path / "t.csv").path[0].endswith(odd)


def test_links_to_folders_and_names_that_are_not_utf8_are_reported(run, folder, tmp_path, capsys):
    (tmp_path / "linked").symlink_to(folder)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")).write_bytes(b"x")
    assert cli.main(["tag", str(run.folder), str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path}/caf\ufffd.wav: error: {NOT_UTF8}\n"
    assert f"links to folders are not followed, name them too: {tmp_path}/linked." in printed.err
    assert len(tagging.find_audio([tmp_path / "linked"])[0]) == 4


@pytest.fixture
def mixed(tmp_path):
    """Music of many formats, a damaged file, two that cannot be used, and one that is no audio."""
    files = {
        "a.mp3": 2 * by_soundfile("MP3"),
        "b.m4a": by_ffmpeg("ipod", "aac"),
        "c.webm": by_ffmpeg("webm", "libopus", 48_000),
        "d.wma": by_ffmpeg("asf", "wmav2"),
        "e.mkv": by_ffmpeg("matroska", "libmp3lame", video=True),
        "f.flac": damaged(by_soundfile("FLAC", seconds=4.0)),
        "g.mp4": by_ffmpeg("mp4", None, video=True),
        "h.mp3": b"#EXTM3U\na.mp3\n",
        "z.jpg": b"",
    }
    (tmp_path / "music").mkdir()
    for name, content in files.items():
        (tmp_path / "music" / name).write_bytes(content)
    return tmp_path / "music"


@pytest.mark.filterwarnings("error::jetatag.data.audio.AudioWarning")
def test_files_of_many_formats_are_tagged_together(run, mixed, tmp_path, capfd):
    """What is damaged or skipped is named; the decoders themselves print nothing."""
    assert cli.main(["tag", str(run.folder), str(mixed), f"--csv={tmp_path / 'out'}"]) == 1
    printed = capfd.readouterr()
    (line,) = [line for line in printed.out.splitlines() if "f.flac: " in line]
    assert re.search(r"f\.flac: \w+ 0\.\d\d · .* \(damaged: .* were skipped\)$", line)
    assert "2 of 8 files could not be read" in printed.err and printed.err.count("\n") == 3
    assert f"nor a header of audio): 1 .jpg ({mixed}/z.jpg)." in printed.err
    table = pd.read_csv(tmp_path / "out", keep_default_na=False, na_values={"duration_s": [""]})
    assert [Path(path).stem for path in table.path] == list("abcdefgh")
    errors = table.error.tolist()
    assert errors[:5] == [""] * 5 and errors[5].startswith("damaged: ")
    assert errors[6].startswith("holds no sound track;") and "text" in errors[7]
    assert table.iloc[:6, 3:].notna().all(axis=None) and table.iloc[6:, 3:].eq("").all(axis=None)
    lengths = [4, 2, 2, 2, 2, 3.7, np.nan, np.nan]
    np.testing.assert_allclose(table.duration_s, lengths, atol=0.25)


@pytest.mark.filterwarnings("error::jetatag.data.audio.AudioWarning")
def test_files_of_many_formats_are_indexed_together(run, mixed, tmp_path, capfd):
    """The report names what is damaged also when later calls do not read it again."""
    for counts in ("(6 read, 2 left out)", "(6 kept, 2 left out)"):
        assert cli.main(["index", str(run.folder), str(mixed), "--out", str(tmp_path / "i")]) == 0
        printed = capfd.readouterr()
        assert counts in printed.out and "of audio): 1 .jpg (z.jpg)." in printed.err
        report = pd.read_csv(tmp_path / "i" / "report.csv").set_index("path").reason
        assert (
            report["g.mp4"].startswith("holds no sound track;") and "it is text" in report["h.mp3"]
        )
        assert report["f.flac"].startswith("damaged: ") and len(report) == 4


def test_files_of_many_formats_are_one_data_set(mixed, tmp_path):
    for path in list(mixed.iterdir()):
        place = mixed / ("first" if path.stem in "abcd" else "other")
        place.mkdir(exist_ok=True)
        path.rename(place / path.name)
    with pytest.warns(UserWarning, match=r"of audio\): 1 \.jpg \(other/z\.jpg\)"):
        index = data_folder.load(mixed)
    store = build(index, tmp_path / "store", workers=2)
    assert sorted(Path(path).stem for path in store.table.path) == list("abcdef")
    told = store.report.set_index("path").reason
    assert sorted(Path(path).stem for path in told.index) == ["f", "g", "h"]
    assert "damaged" in told["other/f.flac"]


def test_audio_without_a_known_suffix_is_counted_alike_by_all_that_read_folders(tmp_path):
    names = "a/1.wav", "b/2.mp3", "a/no_suffix", "b/3.xyz", "b/4.XYZ", "b/5.xyz"
    for name in (*names, ".hidden", ".trash/6.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    audio, _, skipped = tagging.find_audio([tmp_path])  # of tag and index
    assert [path.name for path in audio] == ["1.wav", "2.mp3"]
    told = "files skipped (hidden, or with neither a suffix nor a header of audio): "
    named = "3 .xyz ({0}b/3.xyz, {0}b/4.XYZ, …), 1 .mp3 ({0}.trash/6.mp3), "
    named += "1 without suffix ({0}a/no_suffix)"
    assert skipped_sentence(skipped) == f"{told}{named.format(f'{tmp_path}/')}."
    with pytest.warns(UserWarning, match=re.escape(f"{tmp_path}: {told}{named.format('')}.")):
        assert len(data_folder.load(tmp_path)) == 2
    for path in audio:
        path.unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"no audio files \({re.escape(told)}.*\): name another"
    ):
        tagging.find_audio([tmp_path])


def test_audio_under_any_name_is_found_by_its_content_by_all_that_read_folders(tmp_path):
    content = {
        "a/wav": by_soundfile("WAV"),
        "a/b.bak": by_soundfile("MP3"),
        "b/c.m4x": by_ffmpeg("ipod", "aac"),
        "b/d.part 1": by_ffmpeg("matroska", "libmp3lame", video=True),
        "b/e": b"\xff\xfb no MP3, although it begins like one",
        "b/f.webp": b"RIFF\x00\x01\x00\x00WEBPVP8 " + bytes(300),
        "b/.hidden": by_soundfile("WAV"),
    }
    for name, bytes_ in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes_)
    os.mkfifo(tmp_path / "b" / "pipe")  # which nobody writes into
    found = [str(path.relative_to(tmp_path)) for path in tagging.find_audio([tmp_path])[0]]
    assert found == ["a/b.bak", "a/wav", "b/c.m4x", "b/d.part 1"]
    assert data_folder.load(tmp_path).table.path.tolist() == found
    (tmp_path / "few.csv").write_text("path,tags\na/wav,x\n")
    report = build(data_folder.load(tmp_path, "few.csv"), tmp_path / "store", workers=1).report
    assert report.path.tolist() == ["a/b.bak", *found[2:]]


def test_a_closed_pipe_ends_it_quietly(run, folder):
    program = "import sys; from jetatag.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "tag", str(run.folder), *[str(folder / "a.wav")] * 9]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        printed = process.stderr.read().decode()
    assert (
        process.returncode == 141 and "ipe" not in printed and "of 9 files were tagged" in printed
    )


def test_taggrams_of_files_of_one_name_do_not_overwrite_each_other():
    files = [Path("in/a/x.mp3"), Path("in/a/x.wav"), Path("in/b/../x.mp3"), Path("in/b/c/x.mp3")]
    images = tagging.image_paths(files, Path("out"))
    names = [str(path.relative_to("out")) for path in images.values()]
    assert names == ["a/x.mp3.png", "a/x.wav.png", "x.mp3.png", "b/c/x.mp3.png"]


def test_the_taggram_shows_the_most_probable_tags_on_top():
    probs = np.array([[0.1, 0.9, 0.5], [0.3, 0.7, 0.1]])
    ax = figures.taggram(probs, np.array([0, 60, 90.0]), ["a", "b", "c"], 2).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c (0.37)", "b (0.83)"]
    np.testing.assert_allclose(ax.collections[0].get_array(), [[0.5, 0.1], [0.9, 0.7]])
    with pytest.raises(ValueError, match="probs must be"):
        figures.taggram(probs, np.array([0, 60.0]), ["a", "b", "c"])


@pytest.mark.parametrize(
    ("seconds", "n_tags"), [(0.5, 1), (1, 2), (2.5, 3), (6, 10), (10, 1), (95, 1), (4000, 1)]
)
def test_a_taggram_names_no_time_twice_and_has_room_for_its_labels(seconds, n_tags):
    probs = np.linspace(0, 1, 20).reshape(2, 10)
    edges_s = np.array([0, seconds / 2, seconds])
    figure = figures.taggram(probs, edges_s, list("abcdefghij"), n_tags)
    figure.draw_without_rendering()
    times = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(times) == len(set(times)) and "0:00" in times
    for ax in figure.axes:
        box = ax.yaxis.label.get_window_extent()
        assert box.y0 >= 0 and box.y1 <= figure.bbox.height
