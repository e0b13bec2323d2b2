import json

import numpy as np
import pytest
import soundfile

from jetatag import store
from jetatag.datasets import mtat


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


def test_what_is_read_is_what_was_decoded(tiny_store):
    row = 5
    samples, _ = store.decode(
        tiny_store.folder.parent / "mtat" / "mp3" / tiny_store.table.path[row], 16_000, True
    )
    length = tiny_store.lengths[row]
    read = tiny_store.read([row, row], [0, length - 100], 300)
    assert read.dtype == np.float32 and read.shape == (2, 300)
    np.testing.assert_allclose(read[0], samples[:300] / 32_767, atol=1e-7)
    assert (read[1, 100:] == 0).all() and read[1, :100].any()  # silence behind the end
    assert np.abs(samples).max() == 32_767  # peak-normalised


def test_a_finished_store_is_opened_and_another_is_refused(mtat_folder):
    first = build(mtat_folder)
    before = (first.folder / "audio.i16").stat().st_mtime_ns
    assert build(mtat_folder).checksum == first.checksum
    assert (first.folder / "audio.i16").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="store of other clips, labels or settings"):
        build(mtat_folder, sample_rate=8_000)


@pytest.mark.parametrize("lost", [False, True])
def test_an_interrupted_build_goes_on_to_the_same_bytes(mtat_folder, monkeypatch, lost):
    whole = build(mtat_folder)
    expected = (whole.folder / "audio.i16").read_bytes()
    whole.folder.rename(mtat_folder / "whole")
    decoded, original = [], store.decode

    def stop_at_the_tenth(path, **settings):
        if len(decoded) == 10:
            raise KeyboardInterrupt
        decoded.append(path)
        return original(path, **settings)

    monkeypatch.setattr(store, "decode", stop_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        store.build(mtat.load(mtat_folder), mtat_folder / "store", workers=1)
    assert not (mtat_folder / "store").exists()
    partial = mtat_folder / ".store.partial"
    done = len((partial / "progress.jsonl").read_text().splitlines())
    with (partial / "progress.jsonl").open("a") as progress:
        progress.write('{"n_sam')  # the line a killed process was writing
    samples = (partial / "store" / "audio.i16").read_bytes()
    (partial / "store" / "audio.i16").write_bytes(samples[:-4] if lost else samples + b"torn")
    done -= lost  # the last clip's samples never reached the disk
    monkeypatch.setattr(store, "decode", lambda p, **s: (decoded.append(p), original(p, **s))[1])
    decoded.clear()
    again = build(mtat_folder)
    assert done > 0 and len(decoded) == len(again) - done
    assert (again.folder / "audio.i16").read_bytes() == expected


def test_missing_or_damaged_stores_give_one_sentence(mtat_folder, tmp_path):
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
    with pytest.raises(ValueError, match="something that is no store"):
        store.build(mtat.load(mtat_folder), mtat_folder / "mp3")


def test_nothing_readable_and_no_folder_are_refused(mtat_folder):
    for path in (mtat_folder / "mp3").rglob("*.mp3"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 40 clips"):
        build(mtat_folder)
    (mtat_folder / "mp3").rename(mtat_folder / "elsewhere")
    with pytest.raises(FileNotFoundError, match="put the audio there"):
        build(mtat_folder)
