import librosa
import numpy as np
import pytest
import soundfile

from jetatag.audio import AudioError, load, to_rate


def test_channels_are_averaged_and_the_rate_is_kept(tmp_path):
    stereo = np.stack([np.full(800, 0.5), np.full(800, -0.25)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 8_000)
    audio = load(tmp_path / "a.wav", 8_000)
    assert audio.dtype == np.float32 and audio.shape == (800,)
    np.testing.assert_allclose(audio, 0.125, atol=1e-4)


def test_resampling_agrees_with_soxr():
    time = np.arange(44_100) / 44_100
    audio = np.sin(2 * np.pi * 997 * time).astype(np.float32)
    ours = to_rate(audio, 44_100, 16_000)
    theirs = librosa.resample(audio, orig_sr=44_100, target_sr=16_000, res_type="soxr_hq")
    assert len(ours) == len(theirs) == 16_000
    np.testing.assert_allclose(ours[200:-200], theirs[200:-200], atol=2e-3)


def write_mp3(path, seconds=3.0):
    rng = np.random.default_rng(0)
    soundfile.write(path, 0.1 * rng.standard_normal(int(seconds * 16_000)), 16_000, format="MP3")
    return path


def test_every_bad_file_gives_one_reason(tmp_path):
    (tmp_path / "empty.mp3").touch()
    (tmp_path / "text.mp3").write_text("this is no music " * 100)
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan), 16_000, subtype="FLOAT")
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
