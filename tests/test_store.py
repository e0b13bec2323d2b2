"""Stores: every clip stored or reported, interrupted builds, damage, full disks, locks."""

import dataclasses
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from crafted import by_soundfile, damaged
from filelock import FileLock

from jetatag.data import mtat, store, workers
from jetatag.files import lock_folder

pytestmark = pytest.mark.filterwarnings("ignore::jetatag.data.DataWarning")


def build(folder, **options):
    return store.build(mtat.load(folder), folder / "store", workers=2, **options)


def test_every_clip_is_stored_or_reported(mtat_folder):
    paths = mtat.load(mtat_folder).table.path
    mp3 = mtat_folder / "mp3"
    (mp3 / paths[0]).unlink()
    (mp3 / paths[1]).write_bytes(b"")
    (mp3 / paths[2]).write_text("no music")
    soundfile.write(mp3 / paths[3], np.zeros(16_000), 16_000, format="MP3")
    soundfile.write(mp3 / paths[4], 0.1 * np.ones(800), 16_000, format="WAV")
    soundfile.write(mp3 / "0" / "stranger.mp3", 0.1 * np.ones(16_000), 16_000, format="MP3")
    audio = build(mtat_folder)
    reasons = audio.report.set_index("path").reason
    for path, words in zip(
        [*paths[:5], "0/stranger.mp3"],
        [
            "missing",
            "0 bytes",
            "unreadable",
            "silent",
            "shorter than 0.1 s",
            "without an annotation",
        ],
        strict=True,
    ):
        assert words in reasons[path]
    facts = json.loads((mtat_folder / "store" / "store.json").read_text())
    left_out = audio.report[audio.report.clip_id != ""]
    assert facts["annotated_clips"] == 48 == len(audio) + len(left_out)
    assert sum(facts["clips_by_split"].values()) == facts["stored_clips"] == len(audio)


def test_an_mp3_damaged_in_its_middle_is_stored_with_a_line_in_the_report(mtat_folder):
    """20 s with 3 KB of random bytes, about half a second at this bit rate."""
    path = mtat.load(mtat_folder).table.path[0]
    whole = by_soundfile("MP3", 22_050, seconds=20.0)
    (mtat_folder / "mp3" / path).write_bytes(damaged(whole, 3000))
    audio = build(mtat_folder)
    row = audio.table[audio.table.path == path].iloc[0]
    assert 19 < row.n_samples / 16_000 < 19.8 and row.clip_id and "reason" not in row
    (line,) = audio.report[audio.report.path == path].itertuples()
    assert re.fullmatch(r"damaged: 3,2\d\d bytes were skipped", line.reason) and not line.clip_id


def test_read_returns_the_decoded_samples(tiny_store):
    row = 5
    samples, _ = store.decode(
        tiny_store.folder.parent / "mtat" / "mp3" / tiny_store.table.path[row], 16_000, True
    )
    length = tiny_store.lengths[row]
    read = tiny_store.read([row, row], [0, length - 100], 300)
    assert read.dtype == np.float32 and read.shape == (2, 300)
    np.testing.assert_allclose(read[0], samples[:300] / 32_767, atol=1e-7)
    assert (read[1, 100:] == 0).all() and read[1, :100].any()  # zero after the end of the clip
    assert np.abs(samples).max() == 32_767  # peak-normalised


def test_a_finished_store_is_opened_and_another_is_refused(mtat_folder):
    first = build(mtat_folder)
    before = (first.folder / "audio.i16").stat().st_mtime_ns
    assert build(mtat_folder).checksum == first.checksum
    assert (first.folder / "audio.i16").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="store of other clips, labels or settings"):
        build(mtat_folder, sample_rate=8_000)


def progress(folder):
    """What an unfinished build has saved about its clips."""
    file = folder / ".store.partial" / store.PROGRESS
    lines = file.read_text().splitlines()[1:] if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def count_decoded(monkeypatch, stop_at=None):
    """The paths that `store.decode` is called with, from now on; the call `stop_at` is
    interrupted."""
    paths, original = [], store.decode

    def decode(path, **settings):
        if len(paths) == stop_at:
            raise KeyboardInterrupt
        paths.append(path)
        return original(path, **settings)

    monkeypatch.setattr(store, "decode", decode)
    return paths


@pytest.mark.parametrize(
    ("samples", "saved", "n_kept"),
    [
        (lambda whole: whole, lambda whole: whole, 10),
        (lambda whole: whole + b"torn", lambda whole: whole, 10),
        (lambda whole: whole[:-4], lambda whole: whole, 9),  # the last clip was not written whole
        (lambda whole: whole, lambda whole: whole[:-3], 9),  # its line neither
        (lambda whole: whole, lambda whole: b'"other"' + whole[8:], 0),
        (lambda whole: whole, lambda whole: b"torn", 0),
    ],
)
def test_an_interrupted_build_continues_to_the_same_bytes(
    mtat_folder, monkeypatch, samples, saved, n_kept
):
    whole = build(mtat_folder)
    expected = (whole.folder / "audio.i16").read_bytes()
    whole.folder.rename(mtat_folder / "whole")
    count_decoded(monkeypatch, stop_at=10)
    with pytest.raises(KeyboardInterrupt):
        store.build(mtat.load(mtat_folder), mtat_folder / "store", workers=1)
    monkeypatch.undo()
    assert not (mtat_folder / "store").exists() and len(progress(mtat_folder)) == 10
    partial = mtat_folder / ".store.partial"
    for file, change in (
        (partial / "store" / "audio.i16", samples),
        (partial / store.PROGRESS, saved),
    ):
        file.write_bytes(change(file.read_bytes()))
    decoded = count_decoded(monkeypatch)
    again = build(mtat_folder)
    assert len(decoded) == len(again) - n_kept
    assert (again.folder / "audio.i16").read_bytes() == expected


def test_missing_or_damaged_stores_raise_one_sentence(mtat_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="run notebook 01"):
        store.AudioStore.open(tmp_path)
    audio = build(mtat_folder)
    files = {name: (audio.folder / name).read_bytes() for name in ("audio.i16", "labels.npy")}
    for name, content in files.items():
        for broken in (content[: len(content) // 2], None):
            if broken is None:
                (audio.folder / name).unlink()
            else:
                (audio.folder / name).write_bytes(broken)
            with pytest.raises(ValueError, match=r"is damaged .* prepare it again") as refusal:
                store.AudioStore.open(audio.folder)
            assert "\n" not in str(refusal.value)
        (audio.folder / name).write_bytes(content)
    report = audio.folder / "report.csv"
    report.write_text("\n".join(report.read_text().splitlines()[:3]))
    with pytest.raises(ValueError, match="tables do not have the same clips"):
        store.AudioStore.open(audio.folder)
    with pytest.raises(ValueError, match="something other than a store"):
        store.build(mtat.load(mtat_folder), mtat_folder / "mp3")


def test_unreadable_clips_and_missing_folders_are_refused(mtat_folder):
    files = {path: path.read_bytes() for path in (mtat_folder / "mp3").rglob("*.mp3")}
    for path in files:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 40 clips"):
        build(mtat_folder)
    for path, content in files.items():
        path.write_bytes(content)
    assert len(build(mtat_folder)) == 40  # unreadable clips are tried again
    shutil.rmtree(mtat_folder / "store")
    (mtat_folder / "mp3").rename(mtat_folder / "elsewhere")
    with pytest.raises(FileNotFoundError, match="put the audio there"):
        build(mtat_folder)


SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
from jetatag.data import mtat, store
try:
    store.build(mtat.load(sys.argv[1]), sys.argv[1] + "/store", workers=1)
except OSError as error:
    sys.exit(f"refused: {error}")
"""


def process(folder, **options):
    """Build the folder's store in another process."""
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


UNGUARDED = """
import sys
from jetatag.data import mtat, store, workers
workers.START_S = 0
store.build(mtat.load(sys.argv[1]), sys.argv[1] + "/by_two", workers=2)
"""


def test_processes_give_the_same_bytes_and_need_no_guard_in_a_script(mtat_folder, tmp_path):
    """Neither do they run the script again, nor does it need `if __name__ == "__main__"`."""
    one = store.build(mtat.load(mtat_folder), mtat_folder / "by_one", workers=1)
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    subprocess.run([sys.executable, "-W", "ignore", script, mtat_folder], check=True)
    for file in one.folder.iterdir():
        assert file.read_bytes() == (mtat_folder / "by_two" / file.name).read_bytes()


decode_one = store._outcome


def dies_at(victim, root, path, **settings):
    """For a worker process: end as a decoder does that a file crashes."""
    return os.abort() if path == victim else decode_one(root, path, **settings)


def test_a_worker_that_dies_is_one_sentence_that_names_the_clip(mtat_folder, monkeypatch):
    monkeypatch.setattr(workers, "START_S", 0)
    index = mtat.load(mtat_folder)
    monkeypatch.setattr(store, "_outcome", partial(dies_at, index.table.path[20]))
    with pytest.raises(OSError, match=r"worker process died.* or one of the next clips: run this"):
        store.build(index, mtat_folder / "store", workers=2)


def test_a_killed_process_loses_no_saved_clip(mtat_folder, monkeypatch):
    with_many_clips(mtat_folder, 400)
    builder = process(mtat_folder)
    while len(progress(mtat_folder)) < 20:
        assert builder.poll() is None, builder.stderr.read()
        time.sleep(0.005)
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    n_saved, decoded = len(progress(mtat_folder)), count_decoded(monkeypatch)
    assert not (mtat_folder / "store").exists()
    audio = store.build(mtat.load(mtat_folder), mtat_folder / "store", workers=1)
    assert len(audio) == 400 and len(decoded) == 400 - n_saved
    assert audio.damaged() == [] and not (mtat_folder / ".store.partial").exists()


def with_many_clips(folder, n):
    """Replace the clips by many copies of the first one, for a build that takes long enough."""
    path = folder / "annotations_final.csv"
    header, first, *_ = path.read_text().splitlines()
    old = first.split("\t")
    source = folder / "mp3" / old[-1].strip('"')
    rows = []
    for i in range(n):
        name = f"{'0123456789abcdef'[i % 16]}/copy-of-{i}-it-0-2.mp3"
        os.link(source, folder / "mp3" / name)
        rows.append("\t".join([f'"{i}"', *old[1:-1], f'"{name}"']))
    path.write_text("\n".join([header, *rows]) + "\n")


def test_of_two_processes_one_builds_and_the_other_waits(mtat_folder):
    with lock_folder(mtat_folder / ".store.partial"):
        builders = [process(mtat_folder) for _ in range(2)]
        begun = [builder.stderr.readline() for builder in builders]
    messages = [builder.communicate()[1] for builder in builders]
    assert all("is at work on" in line and "waiting for it" in line for line in begun)
    assert sorted("preparing" in message for message in messages) == [False, True]
    assert [builder.returncode for builder in builders] == [0, 0], messages
    assert len(store.AudioStore.open(mtat_folder / "store")) == 40


def limited():  # in the child: no file may grow beyond 200 kB
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


def test_a_full_disk_is_one_sentence_and_the_next_call_continues(mtat_folder):
    builder = process(mtat_folder, preexec_fn=limited)
    message = builder.communicate()[1].partition("refused: ")[2]
    assert builder.returncode == 1 and message.count("\n") == 1
    assert re.search(r"preparing .*store stopped .*, about \d+ MB are needed\): free disk", message)
    assert 0 < len(progress(mtat_folder)) < 40
    assert build(mtat_folder).damaged() == []


def test_a_clip_that_is_repaired_after_an_interruption_is_decoded(mtat_folder, monkeypatch):
    path = mtat_folder / "mp3" / mtat.load(mtat_folder).table.path[3]
    content = path.read_bytes()
    path.write_bytes(b"")
    count_decoded(monkeypatch, stop_at=10)
    with pytest.raises(KeyboardInterrupt):
        store.build(mtat.load(mtat_folder), mtat_folder / "store", workers=1)
    monkeypatch.undo()
    path.write_bytes(content)
    audio = build(mtat_folder)
    assert len(audio) == 40 and audio.damaged() == []


def test_a_table_with_another_bad_row_needs_another_store(mtat_folder):
    build(mtat_folder)
    table = mtat_folder / "annotations_final.csv"
    first = table.read_text().splitlines()[1].split("\t")
    stray = "\t".join(['"900"', *first[1:-1], '"x/a.mp3"'])
    table.write_text(table.read_text() + stray + "\n")
    with pytest.raises(ValueError, match="store of other clips, labels or settings"):
        build(mtat_folder)


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        (OSError(errno.EMFILE, ""), "Too many open files: .*copy-of-9-.*mp3"),
        (OSError(errno.EIO, ""), "Input/output error: .*copy-of-9-.*mp3"),
        (OSError(errno.ENOSPC, ""), "No space left on device: .*, about 1 MB are needed"),
        (MemoryError(), "Cannot allocate memory: .*copy-of-9-.*mp3"),
    ],
)
def test_an_error_of_the_machine_loses_no_clip(mtat_folder, monkeypatch, failure, problem):
    with_many_clips(mtat_folder, 12)
    original = store.decode

    def fails_at_the_ninth(path, **settings):
        if "copy-of-9-" in path.name:
            raise failure
        return original(path, **settings)

    monkeypatch.setattr(store, "decode", fails_at_the_ninth)
    with pytest.raises(OSError, match=rf"store stopped \({problem}\): free .*, and run this again"):
        build(mtat_folder)
    assert len(progress(mtat_folder)) == 9
    monkeypatch.undo()
    assert len(build(mtat_folder)) == 12


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EBUSY])
def test_a_folder_that_cannot_be_written_is_one_sentence(mtat_folder, monkeypatch, kind):
    def fails(*_, **__):
        raise OSError(kind, "")

    monkeypatch.setattr(store.files, "lock_folder", fails)  # the superuser may write anywhere
    with pytest.raises(OSError, match=r"^preparing .*store stopped .*choose a folder"):
        build(mtat_folder)
    monkeypatch.undo()
    (mtat_folder / "store").mkdir()
    monkeypatch.setattr(type(mtat_folder), "rmdir", fails)  # such as a mount point
    with pytest.raises(OSError, match=r"^preparing .*store stopped"):
        build(mtat_folder)
    assert not (mtat_folder / ".store.partial" / store.PROGRESS).exists()


def test_what_a_store_cannot_replace_is_refused(mtat_folder, monkeypatch):
    (mtat_folder / "file").touch()
    with pytest.raises(OSError, match=r"stopped \(Not a directory: .*choose a folder"):
        store.build(mtat.load(mtat_folder), mtat_folder / "file" / "store")
    (mtat_folder / "here").mkdir()
    monkeypatch.chdir(mtat_folder / "here")
    with pytest.raises(ValueError, match="here is the working folder: choose a folder in it"):
        store.build(mtat.load(mtat_folder), ".")


def test_a_store_may_be_a_link_to_an_empty_folder(mtat_folder):
    (mtat_folder / "disk" / "big").mkdir(parents=True)
    (mtat_folder / "store").symlink_to(mtat_folder / "disk" / "big")
    audio = build(mtat_folder)
    assert audio.damaged() == [] and (mtat_folder / "store").is_symlink()
    assert (mtat_folder / "disk" / "big" / "store.json").is_file()
    assert build(mtat_folder).checksum == audio.checksum


@pytest.mark.parametrize("look", ["is_file", "iterdir"])
def test_another_process_may_finish_the_store_between_two_checks(mtat_folder, monkeypatch, look):
    build(mtat_folder).folder.rename(mtat_folder / "whole")
    original = getattr(Path, look)

    def looked(path):
        try:
            found = original(path)
            return list(found) if look == "iterdir" else found
        finally:
            if path.name.startswith("store") and not (mtat_folder / "store").exists():
                (mtat_folder / "whole").rename(mtat_folder / "store")

    monkeypatch.setattr(Path, look, looked)
    assert len(build(mtat_folder)) == 40


def test_a_folder_may_vanish_before_it_is_held(tmp_path, monkeypatch):
    original, removed = FileLock.acquire, []

    def removed_before(lock, timeout):
        if not removed:
            removed.append((tmp_path / "work").rmdir())
        return original(lock, timeout)

    monkeypatch.setattr(FileLock, "acquire", removed_before)
    with lock_folder(tmp_path / "work"):
        assert (tmp_path / "work" / ".lock").is_file()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sample_rate": "16000"}, "sample_rate must be of type int, not '16000'."),
        ({"sample_rate": 0}, "sample_rate must be at least 1, not 0."),
        ({"peak_normalise": "yes"}, "peak_normalise must be of type bool or None, not 'yes'."),
        ({"workers": "2"}, "workers must be of type int or None, not '2'."),
        ({"workers": 0}, "workers must be at least 1, not 0."),
    ],
)
def test_invalid_settings_are_refused(mtat_folder, options, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        store.build(mtat.load(mtat_folder), mtat_folder / "store", **options)


def test_a_changed_sample_is_found_by_the_clips_checksum(mtat_folder):
    audio = build(mtat_folder)
    path = audio.folder / "audio.i16"
    content = bytearray(path.read_bytes())
    content[2 * int(audio.lengths[:7].sum()) + 1000] ^= 1
    path.write_bytes(content)
    assert store.AudioStore.open(audio.folder).damaged() == [audio.table.clip_id[7]]


def test_levels_are_kept_unless_the_data_set_is_peak_normalised(mtat_folder):
    index = mtat.load(mtat_folder)
    as_recorded = dataclasses.replace(index, peak_normalise=False)
    audio = store.build(as_recorded, mtat_folder / "store", workers=1)
    peaks = [np.abs(audio.read([i], [0], n)[0]).max() for i, n in enumerate(audio.lengths)]
    np.testing.assert_allclose(peaks, np.minimum(audio.table.peak, 1), atol=1e-4)
    assert max(peaks) < 0.99
    scaled = store.build(as_recorded, mtat_folder / "scaled", peak_normalise=True, workers=1)
    assert scaled.checksum != audio.checksum
