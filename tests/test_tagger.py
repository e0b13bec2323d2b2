"""A finished run on files: what it hears, how it counts, and what becomes of bad ones."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from scored import finished_run

import jetatag
from jetatag import cli, figures
from jetatag.apps import listening, tagger, tagging
from jetatag.apps.listening import cut, rechunk
from jetatag.apps.tagger import Reading
from jetatag.data.audio import load, resample, resample_blocks, stated_s, stream
from jetatag.data.store import as_heard, build
from jetatag.files import NOT_UTF8, check_writable, write_json
from jetatag.training.runs import Run

RATE = 16_000


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_config, tiny_store):
    return finished_run(tmp_path_factory.mktemp("runs"), tiny_config, tiny_store)


@pytest.fixture(scope="module")
def model(run):
    return jetatag.load(run.folder, device="cpu")


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


# Streams


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_resampling_by_blocks_is_resampling_the_whole(rate):
    audio = noise(3.1, rate)[:, 0].astype(np.float32)
    cuts = np.sort(np.random.default_rng(rate).integers(0, len(audio), 9))
    blocks = list(resample_blocks(np.split(audio, cuts), rate, RATE))
    whole = resample(audio, rate, RATE)
    assert len(blocks) > 1
    np.testing.assert_allclose(np.concatenate(blocks), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [("a.wav", 16_000, 1), ("a.flac", 44_100, 2), ("a.mp3", 22_050, 1), ("a.ogg", 48_000, 6)],
)
def test_a_file_by_blocks_is_the_whole_file(tmp_path, monkeypatch, name, rate, channels):
    path = write(tmp_path / name, noise(2.7, rate, channels), rate)
    whole = load(path, RATE)
    monkeypatch.setattr("jetatag.data.audio.BLOCK", 5_000)
    blocks = list(stream(path, RATE))
    assert len(blocks) > 3
    np.testing.assert_allclose(np.concatenate(blocks), whole, rtol=0, atol=1e-6)


def test_what_is_wrong_late_in_a_file_is_said_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("jetatag.data.audio.BLOCK", 5_000)
    audio = noise(3.0, RATE)[:, 0]
    audio[-1] = np.nan
    write(tmp_path / "nan.wav", audio, RATE, subtype="FLOAT")
    write(tmp_path / "silent.wav", np.zeros(40_000), RATE)
    for name, reason in (("nan.wav", "not numbers"), ("silent.wav", r"silent \(mixed to mono\)")):
        with pytest.raises(ValueError, match=reason):
            list(stream(tmp_path / name, RATE))


def test_a_long_file_is_not_held_in_memory(tmp_path):
    """Half an hour at 16 kHz would be 115 MB; what a process of its own grows by while it reads."""
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 8_000, 1) as file:
        minute = noise(60.0, 8_000)
        for _ in range(30):
            file.write(minute)
    program = f"""
import resource
from pathlib import Path
from jetatag.apps import listening
listening.HELD_S = 60
def read(n_blocks):
    blocks = listening.stored_blocks(Path({str(tmp_path / "long.wav")!r}), {RATE}, True)
    return sum(len(block) for _, block in zip(range(n_blocks), blocks))
read(3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert read(10**9) == 30 * 60 * {RATE}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert int(told.stdout) < 40_000, told.stderr  # KiB


def test_windows_hold_every_sample_once_and_the_last_ends_with_the_file():
    for n_samples in (1, 7, 9, 10, 11, 19, 20, 21, 35, 40, 47, 120, 121):
        signal = np.arange(1, n_samples + 1, dtype=np.int16)
        for n_blocks, at_once in ((1, 3), (4, 1), (5, 2)):
            stretches = list(cut(np.array_split(signal, n_blocks), 10, at_once))
            read = np.concatenate([stretch.samples for stretch in stretches])
            starts = [start for stretch in stretches for start in stretch.starts]
            assert stretches[-1].end == n_samples and max(map(len, read)) == 10
            whole = [10 * i for i in range(n_samples // 10)]
            assert starts == whole + ([max(0, n_samples - 10)] if n_samples % 10 else [])
            padded = np.pad(signal, (0, max(0, 10 - n_samples)))
            np.testing.assert_array_equal(read, [padded[start : start + 10] for start in starts])


def test_chunks_are_the_signal():
    signal = np.arange(100, dtype=np.int16)
    chunks = list(rechunk(np.split(signal, [3, 4, 50]), 16))
    assert [len(chunk) for chunk in chunks] == [16] * 6 + [4]
    np.testing.assert_array_equal(np.concatenate(chunks), signal)


# Readings


@pytest.mark.parametrize("peak_normalise", [True, False])
def test_it_hears_what_the_run_heard(
    mtat_folder, tmp_path, tiny_config, tiny_store, peak_normalise
):
    """The very samples of the store, scaled or not as the run's data were."""
    from jetatag.data import mtat

    index = mtat.load(mtat_folder)
    store = build(index, tmp_path / "store", peak_normalise=peak_normalise, workers=1)
    model = jetatag.load(finished_run(tmp_path, tiny_config, store).folder, device="cpu")
    assert model.peak_normalise == peak_normalise
    row, n_samples = 5, tiny_config.crop_samples
    stored = store.read([row], [0], store.lengths[row])[0]
    blocks = listening.stored_blocks(index.audio_root / store.table.path[row], RATE, peak_normalise)
    np.testing.assert_array_equal(as_heard(np.concatenate(list(blocks))), stored)
    reading = model.read(index.audio_root / store.table.path[row])
    starts = np.round(reading.starts_s * RATE).astype(int)
    audio = torch.from_numpy(store.read([row] * len(starts), starts, n_samples))
    with torch.no_grad():
        h = model.model.extractor(audio)
        probs = model.model.classifier(h).sigmoid()
        z_audio = model.model.projection(h)
    for ours, theirs in ((reading.h, h), (reading.probs, probs), (reading.z_audio, z_audio)):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_every_second_counts_once():
    """2.5 windows: the last, which the one before half overlaps, weighs half."""
    starts, probs = np.array([0.0, 4.0, 6.0]), np.array([[0.0, 1], [0.5, 0], [1, 1]], np.float32)
    reading = Reading(starts, probs, probs, None, 10.0)
    np.testing.assert_allclose(reading.edges_s, [0, 4, 8, 10])
    np.testing.assert_allclose(reading.clip_probs, [0.4, 0.6])
    short = Reading(starts[:1], probs[:1], probs[:1], None, 1.5)
    np.testing.assert_allclose(short.edges_s, [0, 1.5])
    np.testing.assert_allclose(short.clip_probs, [0, 1])


def test_the_table_is_sorted_and_of_the_mean(model, folder):
    table, reading = model.tag(folder / "a.wav"), model.read(folder / "a.wav")
    assert sorted(table.tag) == sorted(model.vocabulary.tags)
    assert table.prob.is_monotonic_decreasing and table.prob.between(0, 1).all()
    assert table.prob.max() - table.prob.min() > 0.01  # the weights tell tags apart
    column = model.vocabulary.columns([table.tag[0]])[0]
    assert table.prob[0] == pytest.approx(reading.clip_probs[column])
    assert reading.probs.shape == (3, len(table)) and reading.duration_s == 10
    assert np.ptp(reading.probs, axis=0).max() > 1e-3  # and windows


def test_rate_and_channels_make_no_difference(model, tmp_path):
    """Both rates hold the same band; the right channel alone is twice as loud as the mean."""
    plain = resample(noise(9.0, 8_000)[:, 0].astype(np.float32), 8_000, RATE)
    plain *= 0.9 / np.abs(plain).max()
    high = resample(plain, RATE, 48_000)
    write(tmp_path / "plain.wav", plain, RATE, subtype="FLOAT")
    write(tmp_path / "high.wav", high[:, None] * [0, 1], 48_000, subtype="FLOAT")
    ours, theirs = (model.read(tmp_path / f"{name}.wav") for name in ("plain", "high"))
    np.testing.assert_allclose(ours.probs, theirs.probs, atol=2e-3)


def test_a_long_file_reads_as_one_that_is_held(model, folder, monkeypatch):
    whole = model.read(folder / "b" / "stereo.flac")
    monkeypatch.setattr(listening, "HELD_S", 5)  # one window at a time, decoded twice
    again = model.read(folder / "b" / "stereo.flac")
    assert whole.duration_s == again.duration_s == pytest.approx(23.3)
    for name in ("starts_s", "probs", "h", "z_audio"):
        np.testing.assert_allclose(getattr(whole, name), getattr(again, name), atol=1e-5)


def test_a_clip_shorter_than_a_window_is_padded(model, tmp_path):
    reading = model.read(write(tmp_path / "short.wav", noise(1.5, RATE), RATE))
    assert reading.starts_s.tolist() == [0] and reading.duration_s == 1.5


@pytest.mark.parametrize("workers", [1, 3])
def test_files_come_in_order_and_a_bad_one_is_told(model, folder, workers):
    paths = [folder / "a.wav", folder / "b" / "empty.mp3", folder / "gone.wav", folder / "c.ogg"]
    paths += [folder / "b" / "stereo.flac"]
    heard = []
    told = list(model.read_files(paths, workers, heard.append))
    assert [path for path, _ in told] == paths
    alone, _, _, _, last = (reading for _, reading in told)
    np.testing.assert_array_equal(alone.probs, model.read(paths[0]).probs)
    assert last.duration_s == pytest.approx(23.3) and sum(heard) == pytest.approx(33.3)
    reasons = [reading for _, reading in told[1:4]]
    assert reasons[0] == "empty file (0 bytes)" and reasons[1] == "audio file missing"
    assert "not recognised as audio" in reasons[2]


def test_who_stops_early_is_not_kept_waiting(model, folder):
    files = model.read_files([folder / "a.wav"] * 50, workers=2)
    assert next(files)[0] == folder / "a.wav"
    files.close()


def test_the_space_is_the_runs(model, run):
    z_query, z_centre = model.space()
    np.testing.assert_array_equal(z_query, run.read_arrays("embeddings.npz")["z_query"])
    assert z_centre.shape == (8,)


def test_without_joint_embedding_there_is_no_space(tmp_path, tiny_config, tiny_store, folder):
    config = tiny_config.replace(method="no_je_linear", pair_loss="none")
    model = jetatag.load(finished_run(tmp_path, config, tiny_store).folder, device="cpu")
    assert model.read(folder / "a.wav").z_audio is None
    with pytest.raises(ValueError, match="no shared space"):
        model.space()


# Loading


def test_importing_the_package_stays_light():
    program = "import sys, jetatag; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
    assert jetatag.load is tagger.load
    with pytest.raises(AttributeError, match="lode"):
        jetatag.lode  # noqa: B018


def test_it_says_what_it_is(model, tiny_store):
    n_train = len(tiny_store.rows("train"))
    assert f"trained on MagnaTagATune ({n_train} training clips)" in str(model)
    assert f"{len(tiny_store.vocabulary.tags)} tags" in str(model)


def test_no_run_and_an_unfinished_one_are_refused(tmp_path, tiny_config, tiny_store):
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        jetatag.load(tmp_path)
    run = Run.start(tmp_path, tiny_config, tiny_store)
    with pytest.raises(ValueError, match=r"not trained to its end \(stage2"):
        jetatag.load(run.folder)


def test_a_run_that_computed_on_a_gpu_tags_without_one(tmp_path, tiny_config, tiny_store):
    run = finished_run(tmp_path, tiny_config, tiny_store)
    settings = {**run.config.to_dict(), "device": "cuda:7", "precision": "bf16-mixed"}
    (run.folder / "config.json").write_text(json.dumps(settings))
    assert jetatag.load(run.folder, device="cpu").device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "scaled", "warns"),
    [("rendered", True, False), ("speech_commands", False, False), ("folder", True, True)],
)
def test_an_old_record_does_not_tell_how_loud(
    tmp_path, tiny_config, tiny_store, name, scaled, warns, recwarn
):
    run = finished_run(tmp_path, tiny_config, dataclasses.replace(tiny_store, name=name))
    record = run.record
    assert record["data"].pop("peak_normalise") is True
    (run.folder / "record.json").write_text(json.dumps(record))
    assert jetatag.load(run.folder).peak_normalise == scaled
    assert any("how loud" in str(warning.message) for warning in recwarn) == warns


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
    assert lines[0].count("·") == 1 and lines[1].endswith(": error: empty file (0 bytes)")
    assert "2 of 4 files could not be read" in printed.err and "trained on Magna" in printed.err
    assert "tagging" not in printed.err  # there is no terminal to show how far it is

    table = pd.read_parquet(out["parquet"])
    tags = list(run.vocabulary.tags)
    assert list(table.columns) == ["path", "duration_s", "error", *tags]
    assert (table.error != "").tolist() == table[tags].isna().all(axis=1).tolist()
    read = pd.read_csv(out["csv"], keep_default_na=False, na_values={"duration_s": [""]})
    assert read.path.tolist() == table.path.tolist() and read.error.tolist() == table.error.tolist()
    told = json.loads(out["json"].read_text())
    assert [entry["path"] for entry in told] == table.path.tolist()
    assert list(told[0]["tags"])[:2] == [part.rsplit(" ", 1)[0] for part in parts(lines[0])]
    assert told[0]["tags"] == pytest.approx(table.loc[0, tags].to_dict())
    assert told[1]["tags"] == {} and told[1]["duration_s"] is None

    arrays = np.load(out["npz"])
    assert arrays["paths"].tolist() == [str(folder / names[0]), str(folder / names[2])]
    assert arrays["file_index"].tolist() == [0] * 3 + [1] * 7
    assert arrays["h"].shape == (10, 32) and arrays["z_audio"].shape == (10, 8)
    drawn = [
        str(path.relative_to(tmp_path / "pictures")) for path in tmp_path.glob("pictures/**/*.png")
    ]
    assert sorted(drawn) == ["a.wav.png", "b/stereo.flac.png"]


def parts(line):
    return line.split(": ", 1)[1].split(" · ")


def test_one_good_file_and_its_picture(run, folder, tmp_path, capsys):
    picture = tmp_path / "taggram.png"
    command = ["tag", str(run.folder), str(folder / "a.wav"), "--taggram", str(picture)]
    assert cli.main([*command, "--device", "cpu"]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_mistakes_are_one_sentence(run, folder, tmp_path, capsys):
    one, several, none = str(folder / "a.wav"), str(folder), str(tmp_path)
    for arguments, told in (
        ([str(tmp_path), one], "is not a run folder"),
        ([str(run.folder), several, "--taggram", "x.png"], "4 files make as many pictures"),
        ([str(run.folder), one, "--taggram", "x"], "x names no picture: end it in .png or"),
        ([str(run.folder), one, "--csv", none], "is a folder, pipe or device: name a file"),
        ([str(run.folder), one, "--json", f"{one}/x"], f"cannot be written: {one} is not a folder"),
        ([str(run.folder), one, "--parquet", "/proc/x"], "/proc/x cannot be written (No such"),
        ([str(run.folder), one, "--json", "x", "--csv", "./x"], "x is given for two outputs"),
        ([str(run.folder), one, "--csv", str(folder / "c.ogg")], "c.ogg is named as audio: name"),
        ([str(run.folder), one, "--embeddings", "x.txt"], "x.txt names no npz: end it in .npz"),
        ([str(run.folder), none], "holds no audio files"),
        ([str(run.folder), one, "--device", "tpu"], "device 'tpu' cannot be used"),
        ([str(run.folder), one, "--workers", "0"], "--workers must be at least 1, not 0"),
        ([str(run.folder), one, "--top", "0"], "--top must be at least 1, not 0"),
    ):
        assert cli.main(["tag", *arguments]) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1


def test_outputs_destroy_nothing(tmp_path):
    song, loop = tmp_path / "song", tmp_path / "loop"
    song.write_text("music")
    (tmp_path / "link").symlink_to(song)
    (tmp_path / "link.csv").symlink_to(tmp_path / "new.wav")
    os.mkfifo(tmp_path / "pipe")
    loop.symlink_to(loop)
    for outputs, told in (
        (["link"], "link is also an input: name another"),
        (["a/x.csv", "a/../a/x.csv"], "x.csv is given for two outputs"),
        (["out.FLAC"], "out.FLAC is named as audio"),
        (["link.csv"], "link.csv is named as audio"),
        (["pipe"], "pipe is a folder, pipe or device: name a file to write"),
        (["/dev/null"], "is a folder, pipe or device"),
        (["a/b/../" + 300 * "x"], r"cannot be written \(File name too long\)"),
    ):
        with pytest.raises(ValueError, match=told):
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
def test_what_was_tagged_before_a_stop_is_kept(
    run, folder, tmp_path, capsys, monkeypatch, end, status
):
    read_files = tagger.Tagger.read_files

    def stopping(*given):
        for number, told in enumerate(read_files(*given)):
            if number == 3:
                raise end
            yield told

    monkeypatch.setattr(tagger.Tagger, "read_files", stopping)
    csv, npz = tmp_path / "out.csv", tmp_path / "out.npz"
    command = ["tag", str(run.folder), str(folder), f"--csv={csv}", f"--embeddings={npz}"]
    assert cli.main(command) == status
    told = capsys.readouterr().err
    assert f"jetatag: stopped: 3 of 4 files were tagged and are in {csv}, {npz}.\n" in told
    assert ("the disk is gone" in told) == (status == 2)
    assert len(pd.read_csv(csv)) == 3 and len(np.load(npz)["paths"]) == 2


def test_a_stop_before_the_first_file_leaves_older_tables(run, folder, tmp_path, monkeypatch):
    def read_files(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tagger.Tagger, "read_files", read_files)
    (tmp_path / "out.csv").write_text("of yesterday")
    assert cli.main(["tag", str(run.folder), str(folder), f"--csv={tmp_path / 'out.csv'}"]) == 130
    assert (tmp_path / "out.csv").read_text() == "of yesterday"


def test_a_terminal_sees_how_far_it_is(run, folder, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    cli.main(["tag", str(run.folder), str(folder), "--device", "cpu", "--workers", "1"])
    told = capsys.readouterr().err
    last = [line for line in told.split("\r") if line.startswith("tagging: ")][-1]
    assert "100 %" in last and "33 of 33 s of audio" in last
    assert " to go" in last and " s/s" in last


def test_progress_counts_what_files_hold_and_not_what_they_state(folder, model, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    files = [folder / "a.wav", folder / "b" / "stereo.flac", folder / "c.ogg"]
    assert [stated_s(path) for path in files] == [10, pytest.approx(23.3), 0]
    with tagging.Progress(files) as bar:
        assert bar.total == pytest.approx(33.3)
        bar.update(9.0)
        bar.close_file(files[0], dataclasses.replace(model.read(files[0]), duration_s=9.0))
        assert bar.total == pytest.approx(32.3)
        bar.close_file(files[1], "unreadable")
        assert bar.total == 9
        bar.update(3)  # of a file that states nothing
        assert bar.total == 12


def test_names_print_on_one_line_and_steer_no_terminal(run, folder, tmp_path, capsys):
    odd = "a\n\x1b[31mred.wav"
    (tmp_path / odd).write_bytes((folder / "a.wav").read_bytes())
    assert cli.main(["tag", str(run.folder), str(tmp_path), "--csv", str(tmp_path / "t.csv")]) == 0
    told = capsys.readouterr().out
    assert r"a\n\x1b[31mred.wav: " in told and told.count("\n") == 1
    assert pd.read_csv(tmp_path / "t.csv").path[0].endswith(odd)


def test_links_to_folders_and_names_that_are_no_text_are_told(run, folder, tmp_path, capsys):
    (tmp_path / "linked").symlink_to(folder)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")).write_bytes(b"x")
    assert cli.main(["tag", str(run.folder), str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.out == f"{tmp_path}/caf\ufffd.wav: error: {NOT_UTF8}\n"
    assert f"links to folders are not followed, name them too: {tmp_path}/linked." in told.err
    assert len(tagging.audio_paths([tmp_path / "linked"])[0]) == 4


def test_the_mp3_decoder_says_nothing_of_its_own(run, folder, tmp_path, capfd):
    path = write(tmp_path / "a.mp3", noise(4.0, RATE)[:, 0], RATE)
    damaged = bytearray(path.read_bytes())
    damaged[3000:3200] = bytes(range(200))
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="truncated"):
        load(path, RATE)
    assert "MPEG" in capfd.readouterr().err  # as the library alone has it
    assert cli.main(["tag", str(run.folder), str(path)]) == 1
    told = capfd.readouterr()
    assert "error: truncated: " in told.out and "MPEG" not in told.err
    assert told.err.count("\n") == 2 and "1 of 1 files could not be read" in told.err


def test_python_is_heard_while_the_decoder_is_not():
    program = """if True:
        import os, sys, warnings
        from jetatag.data.audio import quiet_decoder
        with quiet_decoder():
            os.write(2, b"C")
            print("Python", file=sys.stderr)
        os.write(2, b"C again")"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.stderr == "Python\nC again"


def test_who_reads_no_further_is_not_told_of_pipes(run, folder):
    program = "import sys; from jetatag.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "tag", str(run.folder), *[str(folder / "a.wav")] * 9]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read().decode()
    assert process.returncode == 141 and "ipe" not in told and "of 9 files were tagged" in told


def test_pictures_of_files_of_one_name_do_not_overwrite_each_other():
    files = [Path("in/a/x.mp3"), Path("in/a/x.wav"), Path("in/b/../x.mp3"), Path("in/b/c/x.mp3")]
    pictures = tagging.picture_paths(files, Path("out"))
    names = [str(path.relative_to("out")) for path in pictures.values()]
    assert names == ["a/x.mp3.png", "a/x.wav.png", "x.mp3.png", "b/c/x.mp3.png"]


def test_the_taggram_shows_the_most_probable_tags_on_top():
    probs = np.array([[0.1, 0.9, 0.5], [0.3, 0.7, 0.1]])
    ax = figures.taggram(probs, np.array([0, 60, 90.0]), ["a", "b", "c"], 2).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c (0.37)", "b (0.83)"]
    np.testing.assert_allclose(ax.collections[0].get_array(), [[0.5, 0.1], [0.9, 0.7]])
    with pytest.raises(ValueError, match="probs must be"):
        figures.taggram(probs, np.array([0, 60.0]), ["a", "b", "c"])


@pytest.mark.parametrize("seconds", [0.5, 1, 2.5, 6, 10, 95, 4000])
def test_a_taggram_names_no_time_twice(seconds):
    figure = figures.taggram(np.array([[0.5]]), np.array([0, seconds]), ["a"])
    figure.draw_without_rendering()
    times = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(times) == len(set(times)) and "0:00" in times


@pytest.mark.parametrize("n_tags", [1, 2, 3, 10])
def test_a_taggram_of_few_tags_has_room_for_its_labels(n_tags):
    probs = np.linspace(0, 1, 20).reshape(2, 10)
    figure = figures.taggram(probs, np.array([0, 60, 90.0]), list("abcdefghij"), n_tags)
    figure.draw_without_rendering()
    for ax in figure.axes:
        box = ax.yaxis.label.get_window_extent()
        assert box.y0 >= 0 and box.y1 <= figure.bbox.height
