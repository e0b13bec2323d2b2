import errno
import os
import re
import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from jetatag.data.audio import AudioError, load, resample, unstated_samples


def test_channels_are_averaged_and_the_rate_is_kept(tmp_path):
    stereo = np.random.default_rng(0).uniform(-0.9, 0.9, (900, 2))
    soundfile.write(tmp_path / "a.wav", stereo, 8_000)
    audio = load(tmp_path / "a.wav", 8_000)
    assert audio.dtype == np.float32 and audio.shape == (900,)
    np.testing.assert_allclose(audio, stereo.mean(axis=1), atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 192_000])
def test_resampling_is_no_worse_than_soxr_hq(rate):
    """What is lost of or added to tones up to 0.9 of the lower of the two limits, and what remains
    of tones beyond that limit, in dB of the tone; float32 itself ends at about -140."""
    time, limit = np.arange(2 * rate) / rate, min(rate, 16_000) / 2
    shares = [0.01, 0.37, 0.8, 0.9] + ([1.0, 1.05, 1.1] if rate > 16_000 else [])
    for share in shares:
        given = tone(share * limit, time)
        ours, theirs = resample(given, rate, 16_000), soxr.resample(given, rate, 16_000, "HQ")
        ideal = tone(share * limit, np.arange(len(ours)) / 16_000) if share < 1 else 0 * ours
        middle = slice(4_000, -4_000)  # the edges hear the silence before and after
        assert len(ours) == len(theirs) == 32_000
        worst = max(level((theirs - ideal)[middle]), -125)
        assert level((ours - ideal)[middle]) <= worst, share


def tone(frequency, time):
    return np.sin(2 * np.pi * frequency * time).astype(np.float32)


def level(audio):
    """dB of full scale."""
    return 20 * np.log10(np.sqrt(np.mean(np.square(audio, dtype=np.float64))) + 1e-12)


def write_mp3(path, seconds=3.0):
    rng = np.random.default_rng(0)
    soundfile.write(path, 0.1 * rng.standard_normal(int(seconds * 16_000)), 16_000, format="MP3")
    return path


def test_every_bad_file_gives_one_reason(tmp_path):
    (tmp_path / "empty.mp3").touch()
    (tmp_path / "text.mp3").write_text("this is no music " * 100)
    soundfile.write(tmp_path / "nan.wav", np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    wav = tmp_path / "cut.flac"
    soundfile.write(wav, np.random.default_rng(0).standard_normal(16_000) / 9, 16_000)
    wav.write_bytes(wav.read_bytes()[:9_000])
    reasons = {
        "none.mp3": "missing",
        "empty.mp3": "empty file",
        "text.mp3": "unreadable",
        "nan.wav": "not numbers",
        "cut.flac": "unreadable|truncated",
    }
    for name, reason in reasons.items():
        with pytest.raises(AudioError, match=reason) as refusal:
            load(tmp_path / name, 16_000)
        assert "\n" not in str(refusal.value)


def test_a_truncated_mp3_is_refused_or_read_as_far_as_it_goes(tmp_path):
    path = write_mp3(tmp_path / "cut.mp3")
    whole = len(load(path, 16_000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match="truncated"):
        load(path, 16_000)
    assert whole >= 3 * 16_000 - 2_000


def bare(path):
    """Takes the frame from an MP3 that states its length."""
    content = path.read_bytes()
    path.write_bytes(content[content.index(content[:2], 2) :])


def behind_other_bytes(path):
    path.write_bytes(bytes(700) + path.read_bytes())


@contextmanager
def handles_left(n):
    probe = os.dup(0)
    os.close(probe)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + n, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("change", "n_handles"),
    [
        (lambda path: None, 0),
        (bare, 0),
        (bare, 1),
        (behind_other_bytes, 0),
        (behind_other_bytes, 1),
    ],
)
def test_too_few_file_handles_are_no_fault_of_the_file(tmp_path, change, n_handles):
    change(path := write_mp3(tmp_path / "a.mp3"))
    whole = load(path, 16_000)
    with handles_left(n_handles), pytest.raises(OSError) as failure:
        load(path, 16_000)
    assert failure.value.errno == errno.EMFILE
    with handles_left(2):
        assert (load(path, 16_000) == whole).all()


def test_a_full_disk_for_temporary_files_is_no_fault_of_the_file(tmp_path, monkeypatch):
    bare(path := write_mp3(tmp_path / "a.mp3"))
    whole = load(path, 16_000)
    monkeypatch.setattr(os, "memfd_create", raising(PermissionError()), raising=False)
    assert (load(path, 16_000) == whole).all()
    for error in (OSError(errno.ENOSPC, "full"), FileNotFoundError(errno.ENOENT, "no folder")):
        monkeypatch.setattr("tempfile.TemporaryFile", raising(error))
        with pytest.raises(OSError) as failure:
            load(path, 16_000)
        assert failure.value.errno == errno.ENOSPC


def test_a_failing_disk_is_no_fault_of_the_file(tmp_path, monkeypatch):
    """libsndfile only says that something was wrong with the system, or finds the file short."""
    file = write_mp3(tmp_path / "a.mp3").open("rb", buffering=0)
    monkeypatch.setattr("jetatag.data.audio._opened", lambda path: file)
    monkeypatch.setattr("jetatag.data.audio.ForwardFile", raising(soundfile.LibsndfileError(2)))
    monkeypatch.setattr(Path, "open", raising(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output error"):
        load(tmp_path / "a.mp3", 16_000)


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def test_long_silence_in_flac_is_read_by_pieces(tmp_path):
    audio = np.zeros(3_000_000, np.float32)
    audio[-1000:] = 0.5
    soundfile.write(tmp_path / "a.flac", audio, 16_000)
    assert 64 * (tmp_path / "a.flac").stat().st_size < len(audio)
    np.testing.assert_allclose(load(tmp_path / "a.flac", 16_000), audio, atol=1e-4)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_mp3_that_does_not_state_its_length_is_read_whole(tmp_path, mode, rate, channels):
    """Without its Xing or Info header libsndfile guesses the length from the first frame: here
    it would lose most of a variable bit rate and find a constant one truncated."""
    rng, n_samples = np.random.default_rng(0), 3 * rate
    noise = rng.standard_normal((n_samples, channels)) * np.linspace(0.001, 0.2, n_samples)[:, None]
    soundfile.write(tmp_path / "a.mp3", noise, rate, format="MP3", bitrate_mode=mode)
    stated = (tmp_path / "a.mp3").read_bytes()
    assert b"Xing" in stated[:200] or b"Info" in stated[:200]
    header, *_ = re.split(rb"(?<=.)(?=\xff[\xe2-\xfb])", stated, maxsplit=1, flags=re.S)
    bare = stated[len(header) :]
    (tmp_path / "bare.mp3").write_bytes(bare)
    (tmp_path / "tagged.mp3").write_bytes(b"ID3\x04\0\0\0\0\x01\0" + bytes(128) + bare)
    whole = load(tmp_path / "a.mp3", rate)
    for name in ("bare.mp3", "tagged.mp3"):
        audio = load(tmp_path / name, rate)
        assert 0 <= len(audio) - len(whole) < 3_000  # what the encoder put around it stays
        assert level(audio[-n_samples // 4 :]) == pytest.approx(
            level(whole[-n_samples // 4 :]), abs=1
        )
    counted = []
    for name in ("a.mp3", "bare.mp3"):
        with (tmp_path / name).open("rb", buffering=0) as file:
            counted.append(unstated_samples(file))
    assert counted[0] == 0 and n_samples <= counted[1] < 1.2 * n_samples + 5_000
