"""Decoding: every second that a file contains, or the reason why not; and no other file."""

import ctypes
import errno
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import warnings
from contextlib import contextmanager
from io import FileIO

import numpy as np
import pytest
import soundfile
from crafted import (
    ID3,
    SECONDS,
    ape_tag,
    by_ffmpeg,
    by_soundfile,
    cut,
    damaged,
    noise,
    with_chunk,
    with_field,
    with_flac_length,
    with_larger_sizes,
    with_vbri,
    without_header,
    without_size,
)

from jetatag.data.audio import AudioError, AudioWarning, Header, load, read_header, stream
from jetatag.data.ffmpeg import ASF_ENCRYPTION
from jetatag.files import AUDIO_SUFFIXES

RATE = 16_000
JUNK = np.random.default_rng(0).bytes(3000)


def mp3(**how):
    return by_soundfile("MP3", **how)


def flac(**how):
    return by_soundfile("FLAC", **how)


def vorbis(**how):
    return by_soundfile("OGG", **how)


def opus(**how):
    return by_soundfile("OGG", 48_000, subtype="OPUS", **how)


def m4a(*options):
    return by_ffmpeg("ipod", "aac", **dict(options))


def loaded(folder, content, rate=RATE):
    """The samples of a file with that content, and the warnings."""
    (folder / "file").write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return load(folder / "file", rate), [str(each.message) for each in caught]


# Formats

FASTSTART = ("movflags", "faststart")
FRAGMENTED = ("movflags", "frag_keyframe+empty_moov")
BY_SUFFIX = {
    ".mp3": mp3,
    ".mpga": lambda: mp3(rate=22_050),
    ".mp2": lambda: by_ffmpeg("mp2", "mp2"),
    ".wav": lambda: by_soundfile("WAV"),
    ".wave": lambda: by_soundfile("WAVEX"),
    ".rf64": lambda: by_soundfile("RF64"),
    ".w64": lambda: by_soundfile("W64"),
    ".voc": lambda: by_ffmpeg("voc", "pcm_u8", 25_000),
    ".flac": flac,
    ".ogg": vorbis,
    ".oga": lambda: by_ffmpeg("ogg", "flac"),
    ".opus": opus,
    ".aif": lambda: by_soundfile("AIFF"),
    ".aiff": lambda: by_soundfile("AIFF", endian="LITTLE"),
    ".aifc": lambda: by_soundfile("AIFF", subtype="FLOAT"),
    ".au": lambda: by_soundfile("AU"),
    ".snd": lambda: by_soundfile("AU", subtype="ULAW"),
    ".caf": lambda: by_soundfile("CAF"),
    ".aac": lambda: by_ffmpeg("adts", "aac"),
    ".ac3": lambda: by_ffmpeg("ac3", "ac3"),
    ".eac3": lambda: by_ffmpeg("eac3", "eac3", layout="5.1"),
    ".m4a": m4a,
    ".m4b": lambda: by_ffmpeg("ipod", "alac"),
    ".mp4": lambda: by_ffmpeg("mp4", "aac", video=True),
    ".mka": lambda: by_ffmpeg("matroska", "flac"),
    ".mkv": lambda: by_ffmpeg("matroska", "libmp3lame", video=True),
    ".webm": lambda: by_ffmpeg("webm", "libopus", 48_000, "stereo"),
    ".wma": lambda: by_ffmpeg("asf", "wmav2"),
    ".asf": lambda: by_ffmpeg("asf", "wmav1"),
    ".wmv": lambda: by_ffmpeg("asf", "wmav2", video=True),
    ".m4r": m4a,
    ".m4v": lambda: by_ffmpeg("mp4", "aac", video=True),
    ".mov": lambda: by_ffmpeg("mov", "pcm_s16le", video=True),
    ".3gp": lambda: by_ffmpeg("3gp", "aac"),
    ".ogv": vorbis,
}


@pytest.mark.parametrize("suffix", sorted(AUDIO_SUFFIXES))
def test_every_suffix_of_audio_is_decoded(tmp_path, suffix):
    audio, messages = loaded(tmp_path, BY_SUFFIX[suffix]())
    assert audio.dtype == np.float32 and len(audio) / RATE == pytest.approx(SECONDS, abs=0.07)
    assert not messages
    middle = audio[4_000:20_000]
    spectrum = np.abs(np.fft.rfft(middle)) / len(middle) * 2
    assert spectrum.argmax() == 440 and spectrum.max() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("make", [mp3, lambda: mp3(rate=RATE), flac, vorbis, opus])
def test_the_samples_are_those_of_soundfile(tmp_path, make):
    (tmp_path / "a").write_bytes(make())
    theirs, rate = soundfile.read(tmp_path / "a", dtype="float32")
    ours = load(tmp_path / "a", rate)
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("channels", [2, 6, 8])
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_channels_are_averaged_and_the_rate_is_kept(tmp_path, kind, channels):
    """PyAV crashes on planar frames of eight channels, which Vorbis has, unless they are packed."""
    sound = noise(channels=channels) * np.linspace(1, -0.5, channels)
    soundfile.write(tmp_path / "a", sound, 44_100, format=kind)
    theirs, _ = soundfile.read(tmp_path / "a", dtype="float32")
    ours = load(tmp_path / "a", 44_100)
    np.testing.assert_allclose(ours, theirs.mean(axis=1), atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 192_000])
def test_resampling_keeps_the_band_and_removes_the_rest(tmp_path, rate):
    """Level (dB) of the error of a tone in the band, and of what remains of a tone beyond it."""
    limit = min(rate, RATE) / 2
    for frequency in (0.4 * limit, 0.8 * limit, *([1.1 * limit] if rate > RATE else [])):
        tone = np.sin(2 * np.pi * frequency * np.arange(2 * rate) / rate)
        soundfile.write(tmp_path / "a.wav", tone, rate, subtype="FLOAT")
        audio = load(tmp_path / "a.wav", RATE)
        assert len(audio) == 2 * RATE
        ideal = np.sin(2 * np.pi * frequency * np.arange(2 * RATE) / RATE)
        is_in_band = frequency < limit
        rest = (audio - is_in_band * ideal)[4_000:-4_000]
        assert 20 * np.log10(np.sqrt(np.mean(rest**2))) < (-60 if is_in_band else -100)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg", ".m4a", ".webm"])
def test_samples_do_not_depend_on_the_block_size(tmp_path, monkeypatch, suffix):
    content = BY_SUFFIX[suffix]()
    whole, _ = loaded(tmp_path, content)
    for block in (5_000, 12_345):
        monkeypatch.setattr("jetatag.data.audio.BLOCK", block)
        blocks = list(stream(tmp_path / "file", RATE))
        assert len(blocks) > 3
        np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_headers_state_duration_artist_and_title(tmp_path):
    path = tmp_path / "a.flac"
    with soundfile.SoundFile(path, "w", 44_100, 1) as file:
        file.artist, file.title = "Ann", "Song"
        file.write(noise())
    assert read_header(path) == Header(SECONDS, "Ann", "Song")
    for suffix, make in BY_SUFFIX.items():
        path.write_bytes(make())
        assert read_header(path).duration_s == pytest.approx(SECONDS, abs=0.1), suffix
    for path in (tmp_path, tmp_path / "gone", tmp_path / "text"):
        (tmp_path / "text").write_text("la la")
        assert read_header(path) == Header()


# Complete files


STATED = 2 * 44_100
DECODED = {
    "MP3": (mp3, 2),
    "MP3 of variable bit rate": (lambda: mp3(bitrate_mode="VARIABLE"), 2),
    "MP3 without a header": (lambda: without_header(mp3()), 2),
    "MP3 of variable bit rate without a header": (
        lambda: without_header(mp3(bitrate_mode="VARIABLE")),
        2,
    ),
    "two MP3s joined": (lambda: 2 * mp3(), 4),
    "two MP3s with tags joined": (lambda: 2 * (ID3 + mp3() + ape_tag()), 4),
    "MP3s of two rates and channels joined": (lambda: mp3() + mp3(rate=22_050, channels=2), 4),
    "MP3 joined to MP2": (lambda: mp3() + BY_SUFFIX[".mp2"](), 4),
    "MP2 joined": (lambda: 3 * BY_SUFFIX[".mp2"](), 6),
    "Xing header of too few frames": (lambda: with_field(mp3(), 8, 40), 2),
    "Xing header of too many frames": (lambda: with_field(mp3(), 8, 2**31 - 1), 2),
    "Xing header of no frames": (lambda: with_field(mp3(), 8, 0), 2),
    "Xing header without a number of frames": (lambda: with_field(mp3(), 4, 0x0E), 2),
    "Xing header without a number of bytes": (lambda: with_field(mp3(), 4, 1), 2),
    "Xing header of no bytes": (lambda: with_field(mp3(), 12, 0), 2),
    "VBRI header": (lambda: with_vbri(mp3(), 78), 2),
    "VBRI header of too few frames": (lambda: with_vbri(mp3(), 30), 2),
    "several tags in front": (lambda: 3 * ID3 + mp3(), 2),
    "APE tag in front": (lambda: ape_tag() + mp3(), 2),
    "tags behind": (lambda: mp3() + ape_tag() + b"TAG" + bytes(125), 2),
    "padding in front": (lambda: bytes(5000) + mp3(), 2),
    "padding behind": (lambda: mp3() + bytes(300_000), 2),
    "rubbish in front": (lambda: JUNK + mp3(), 2),
    "rubbish behind": (lambda: mp3() + JUNK, 2),
    "FLAC": (flac, 2),
    "FLAC written into a pipe": (lambda: with_flac_length(flac(), 0), 2),
    "FLAC of too few samples by its header": (lambda: with_flac_length(flac(), 30_000), 2),
    "two FLACs joined": (lambda: 2 * flac(), 4),
    "a long and a short FLAC joined": (lambda: flac() + flac(seconds=0.5), 2.5),
    "many short FLACs joined": (lambda: 5 * flac(rate=RATE, seconds=0.3), 1.5),
    "FLACs of other rates and channels joined": (
        lambda: flac() + flac(rate=22_050, channels=2) + flac(rate=RATE),
        6,
    ),
    "FLACs written into a pipe and joined": (lambda: 2 * with_flac_length(flac(), 0), 4),
    "FLAC behind tags": (lambda: 2 * ID3 + flac(), 2),
    "FLAC before rubbish": (lambda: flac() + JUNK, 2),
    "chained Ogg Vorbis": (lambda: 2 * vorbis(), 4),
    "chained Ogg Opus": (lambda: 3 * opus(), 6),
    "chained Ogg of short links": (lambda: 4 * vorbis(rate=RATE, seconds=0.5), 2),
    "chained Ogg of other rates and channels": (
        lambda: vorbis() + vorbis(rate=RATE, channels=2),
        4,
    ),
    "chained Ogg of other codecs": (lambda: vorbis() + opus() + BY_SUFFIX[".oga"](), 6),
    "chained Ogg FLAC": (lambda: 2 * BY_SUFFIX[".oga"](), 4),
    "Ogg before rubbish": (lambda: vorbis() + JUNK, 2),
    "two AACs joined": (lambda: 2 * BY_SUFFIX[".aac"](), 4),
    "two AC-3s joined": (lambda: 2 * BY_SUFFIX[".ac3"](), 4),
    "two WMAs joined": (lambda: 2 * BY_SUFFIX[".wma"](), 4),
    "two WebMs joined": (lambda: 2 * BY_SUFFIX[".webm"](), 4),
    "Matroskas of other codecs and rates joined": (
        lambda: BY_SUFFIX[".mka"]() + by_ffmpeg("matroska", "aac", 16_000, "stereo"),
        4,
    ),
    "M4A with its index in front": (lambda: m4a(FASTSTART), 2),
    "M4A in fragments": (lambda: m4a(FRAGMENTED), 2),
    "M4A before padding": (lambda: m4a() + bytes(3000), 2),
    "WebM written into a pipe": (lambda: by_ffmpeg("webm", "libopus", 48_000, pipe=True), 2),
    "WMA": (BY_SUFFIX[".wma"], 2),
    "video longer than its sound": (lambda: by_ffmpeg("matroska", "aac", video=True), 2),
    "VOC": (BY_SUFFIX[".voc"], 2),
    "WAV sizes a few bytes too large": (lambda: with_larger_sizes(by_soundfile("WAV")), 2),
    "WAV sizes a byte too large": (lambda: with_larger_sizes(by_soundfile("WAV"), 1), 2),
    "WAV sizes 0": (lambda: without_size(by_soundfile("WAV")), 2),
    "WAV sizes 0 behind long metadata": (
        lambda: without_size(with_chunk(by_soundfile("WAV"), 30_000)),
        2,
    ),
    "float WAV sizes 0": (
        lambda: without_size(by_soundfile("WAV", 22_050, 2, subtype="FLOAT")),
        2,
    ),
    "MP3 joined to WAV": (lambda: mp3() + by_soundfile("WAV", 22_050, 2), 4),
    "MP3 joined to M4A and Ogg of the same rate": (lambda: mp3() + m4a() + vorbis(), 6),
    "AAC joined to FLAC": (lambda: BY_SUFFIX[".aac"]() + flac(), 4),
    "WAV sizes 0, joined to another": (lambda: 2 * without_size(by_soundfile("WAV")), 4),
}


@pytest.mark.parametrize("kind", DECODED)
def test_every_second_is_decoded(tmp_path, kind):
    """As long as the file was made, up to encoder padding, with its tone all the time."""
    make, seconds = DECODED[kind]
    audio, messages = loaded(tmp_path, make())
    assert len(audio) / RATE == pytest.approx(seconds, abs=0.07 * seconds / SECONDS)
    assert not messages
    frames = np.abs(audio[: len(audio) // RATE * RATE].reshape(-1, RATE // 10)).max(axis=1)
    assert frames.min() > 0.25  # the tone is there all the time


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="the program ffmpeg is not installed")
@pytest.mark.parametrize("kind", DECODED)
def test_no_less_is_decoded_than_by_ffmpeg(tmp_path, kind):
    audio, _ = loaded(tmp_path, DECODED[kind][0]())
    command = ["ffmpeg", "-v", "quiet", "-i", tmp_path / "file", "-vn", "-ac", "1"]
    command += ["-ar", str(RATE), "-f", "s16le", "-"]
    theirs = subprocess.run(command, capture_output=True, check=False).stdout
    assert len(audio) >= len(theirs) // 2 - 0.07 * RATE


ASF_CODEC_LIST = bytes.fromhex("4052d1861d31d011a3a400a0c90348f6")
REFUSED = {
    "MP3": (lambda: cut(mp3()), "truncated: .* of .* bytes"),
    "MP3 with VBRI header": (lambda: cut(with_vbri(mp3(), 78)), "truncated: .* bytes"),
    "MP3 that states frames alone": (lambda: cut(with_field(mp3(), 4, 1)), "truncated: its sound"),
    "FLAC": (lambda: cut(flac()), "truncated: its sound ends after"),
    "FLAC by its last frame": (lambda: flac()[:-200], "truncated: its sound ends after"),
    "FLAC of 68 billion samples": (lambda: with_flac_length(flac(), 2**36 - 1), "truncated"),
    "Ogg Vorbis": (lambda: cut(vorbis()), "truncated: it lacks an end-of-stream page"),
    "Ogg Opus by a byte": (lambda: opus()[:-1], "truncated: it lacks an end-of-stream page"),
    "M4A": (lambda: cut(m4a()), "truncated: .* of .* bytes"),
    "M4A with its index in front": (lambda: cut(m4a(FASTSTART)), "truncated: .* bytes"),
    "M4A in fragments": (lambda: cut(m4a(FRAGMENTED), 0.9), "truncated: .* of .* bytes"),
    "M4A without its index": (lambda: m4a()[: m4a().index(b"moov") - 4], "moov box.* is missing"),
    "two M4As": (lambda: 2 * m4a(), "joined from several files: split it"),
    "M4A joined to MP3": (lambda: m4a() + ID3 + mp3(), "joined from several files"),
    "Ogg joined to MP3": (lambda: vorbis() + mp3(), "joined from several files"),
    "WAV joined to FLAC": (lambda: by_soundfile("WAV") + flac(), "joined from several files"),
    "AIFF joined to MP3": (lambda: by_soundfile("AIFF") + mp3(), "joined from several files"),
    "Matroska": (lambda: cut(BY_SUFFIX[".mka"]()), "truncated: its sound ends after"),
    "Matroska with video": (lambda: cut(BY_SUFFIX[".mkv"]()), "truncated: its sound ends"),
    "WMA": (lambda: cut(BY_SUFFIX[".wma"]()), "truncated: .* of .* bytes"),
    "WMA with DRM": (
        lambda: BY_SUFFIX[".wma"]().replace(ASF_CODEC_LIST, ASF_ENCRYPTION),
        "encrypted",
    ),
    "VOC": (lambda: cut(BY_SUFFIX[".voc"]()), "truncated: its sound ends after"),
    **{
        f"two {kind}s": (lambda kind=kind: 2 * by_soundfile(kind), "joined from several files")
        for kind in ("AU", "CAF", "RF64", "W64", "WAV", "AIFF")
    },
}


@pytest.mark.parametrize("kind", REFUSED)
def test_files_that_would_be_decoded_in_part_are_refused(tmp_path, kind):
    make, reason = REFUSED[kind]
    with pytest.raises(AudioError, match=reason) as refusal:
        loaded(tmp_path, make())
    assert "\n" not in str(refusal.value)


def test_files_without_a_stated_length_are_read_to_the_last_whole_frame(tmp_path):
    for content in (without_header(mp3()), BY_SUFFIX[".aac"](), with_flac_length(flac(), 0)):
        audio, messages = loaded(tmp_path, cut(content))
        assert len(audio) / RATE == pytest.approx(SECONDS / 2, abs=0.1) and not messages


# Damage


LONG = {
    "MP3": lambda: mp3(seconds=6.0),
    "FLAC": lambda: flac(seconds=6.0),
    "Ogg Vorbis": lambda: vorbis(seconds=6.0),
    "Ogg Opus": lambda: opus(seconds=6.0),
    "AAC": lambda: by_ffmpeg("adts", "aac", seconds=6.0),
    "AC-3": lambda: by_ffmpeg("ac3", "ac3", seconds=6.0),
    "M4A": lambda: by_ffmpeg("ipod", "aac", seconds=6.0),
    "WMA": lambda: by_ffmpeg("asf", "wmav2", seconds=6.0),
    "WebM": lambda: by_ffmpeg("webm", "libopus", 48_000, seconds=6.0),
}


@pytest.mark.parametrize("kind", LONG)
def test_damage_in_the_middle_is_skipped_with_a_warning(tmp_path, kind):
    """Ogg and WebM lose a whole page or cluster, which may last seconds."""
    audio, (message,) = loaded(tmp_path, damaged(LONG[kind]()))
    assert "file is damaged: " in message and "were skipped" in message and "\n" not in message
    assert 2 < len(audio) / RATE < 6
    assert np.abs(audio).max() < 0.7  # no burst of noise, to which the clip would be normalised


def test_an_mp3_damaged_in_its_middle_is_kept(tmp_path):
    """20 s with 3 KB of random bytes, about half a second at this bit rate."""
    whole = mp3(rate=22_050, seconds=20.0)
    audio, (message,) = loaded(tmp_path, damaged(whole, 3000))
    assert 19 < len(audio) / RATE < 19.8 and "3,2" in message
    with pytest.warns(AudioWarning):
        load(tmp_path / "file", RATE)


def test_files_that_are_mostly_damaged_are_refused(tmp_path):
    content = without_header(mp3())
    with pytest.raises(AudioError, match="most of it cannot be decoded"):
        loaded(tmp_path, content[:10_000] + 20 * JUNK + content[10_000:])


@pytest.mark.parametrize("suffix", sorted(BY_SUFFIX))
def test_random_damage_raises_nothing_else_and_does_not_crash(tmp_path, suffix):
    """Whatever bytes change, the file is read or refused with `AudioError`."""
    rng, content = random.Random(0), BY_SUFFIX[suffix]()
    for n_changes in (1, 3, 20, 200) * 4:
        changed = bytearray(content)
        for _ in range(n_changes):
            changed[rng.randrange(rng.choice([1000, len(content)]))] = rng.randrange(256)
        try:
            audio, _ = loaded(tmp_path, changed)
        except AudioError as error:
            assert "\n" not in str(error)
        else:
            assert np.isfinite(audio).all()


def test_errors_at_the_end_of_a_file_are_found_block_by_block_too(tmp_path, monkeypatch):
    monkeypatch.setattr("jetatag.data.audio.BLOCK", 5_000)
    sound = noise()
    sound[-1] = np.nan
    soundfile.write(tmp_path / "nan.wav", sound, 44_100, subtype="FLOAT")
    soundfile.write(tmp_path / "silent.wav", 0 * noise(), 44_100)
    for name, reason in (("nan.wav", "not numbers"), ("silent.wav", r"silent \(mixed to mono\)")):
        with pytest.raises(AudioError, match=reason):
            list(stream(tmp_path / name, RATE))


# Other files


PLAYLISTS = {
    "ffconcat": b"ffconcat version 1.0\nfile secret.wav\n",
    "HLS": b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.wav\n#EXT-X-ENDLIST\n",
    "M3U": b"secret.wav\n",
    "PLS": b"[playlist]\nFile1=secret.wav\nNumberOfEntries=1\n",
    "SDP": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    "XSPF": b"<?xml version='1.0'?><playlist><location>secret.wav</location></playlist>",
    "DASH": b"<?xml version='1.0'?><MPD><BaseURL>secret.wav</BaseURL></MPD>",
    "ASX": b"<asx><entry><ref href='secret.wav'/></entry></asx>",
    "protocol": b"concat:secret.wav|secret.wav",
    "image sequence": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "lavfi": b"amovie=secret.wav",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_no_other_file_is_opened(tmp_path, kind):
    (tmp_path / "secret.wav").write_bytes(by_soundfile("WAV"))
    (tmp_path / "x.mp3").write_bytes(PLAYLISTS[kind])
    reason = "not recognised as audio" if b"\0" in PLAYLISTS[kind] else "it is text, such as"
    with names_opened_in(tmp_path) as names, pytest.raises(AudioError, match=reason):
        load(tmp_path / "x.mp3", RATE)
    assert names <= {"x.mp3"}


def test_formats_that_refer_to_other_files_are_not_allowed(tmp_path, monkeypatch):
    """The list of formats refuses them too, without the check for text."""
    monkeypatch.setattr("jetatag.data.ffmpeg._check_bytes", lambda file: False)
    (tmp_path / "secret.wav").write_bytes(by_soundfile("WAV"))
    for content in PLAYLISTS.values():
        (tmp_path / "x.mp3").write_bytes(content)
        with names_opened_in(tmp_path) as names, pytest.raises(AudioError, match="not recognised"):
            load(tmp_path / "x.mp3", RATE)
        assert names <= {"x.mp3"}
    with names_opened_in(tmp_path) as names:
        load(tmp_path / "secret.wav", RATE)
    assert sys.platform != "linux" or names == {"secret.wav"}  # the control: such an event is seen


@contextmanager
def names_opened_in(folder):
    """Names of the files that any process opens in `folder` (inotify; empty without Linux)."""
    names = set()
    if sys.platform != "linux":
        yield names
        return
    libc, in_open = ctypes.CDLL(None, use_errno=True), 0x20
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert watch >= 0 and libc.inotify_add_watch(watch, os.fsencode(folder), in_open) >= 0
    try:
        yield names
        while True:
            events = os.read(watch, 1 << 16)
            while events:
                _, _, _, length = struct.unpack_from("iIII", events)
                names.add(events[16 : 16 + length].rstrip(b"\0").decode())
                events = events[16 + length :]
    except BlockingIOError:
        names.discard("")
    finally:
        os.close(watch)


# The machine


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".m4a"])
def test_a_lack_of_file_handles_is_not_blamed_on_the_file(tmp_path, suffix):
    whole, _ = loaded(tmp_path, BY_SUFFIX[suffix]())
    with handles_left(0), pytest.raises(OSError) as failure:
        load(tmp_path / "file", RATE)
    assert failure.value.errno == errno.EMFILE
    with handles_left(2):
        assert (load(tmp_path / "file", RATE) == whole).all()


@contextmanager
def handles_left(n):
    free = [os.dup(0) for _ in range(n + 1)]  # not in a row where another test left a gap
    for handle in free:
        os.close(handle)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("make", [mp3, m4a, lambda: cut(by_soundfile("WAV"))])
def test_disk_errors_are_not_blamed_on_the_file(tmp_path, monkeypatch, make):
    """libsndfile hides them and reports a truncated file."""

    class Failing(FileIO):
        def read(self, size=-1):
            if self.tell() > 5_000:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(min(size, 4_000))

    (tmp_path / "a").write_bytes(make())
    monkeypatch.setattr("jetatag.data.audio._open", lambda path: Failing(path))
    with pytest.raises(OSError, match="Input/output error") as failure:
        load(tmp_path / "a", RATE)
    assert failure.value.errno == errno.EIO


@pytest.mark.parametrize("kind", ["WAV", "MP3"])
def test_a_long_file_is_not_held_in_memory(tmp_path, kind):
    """Twenty minutes at 16 kHz would be 77 MB; this is the growth of a process that reads it."""
    path = tmp_path / "long"
    with path.open("wb") as file:
        if kind == "MP3":
            file.write(10 * 60 * without_header(mp3(rate=22_050)))
        else:
            minute = noise(60.0, 8_000)
            soundfile.write(file, np.tile(minute, (20, 1)), 8_000, format=kind)
    program = f"""
import resource
from pathlib import Path
from jetatag.apps import tagger
tagger.HELD_S = 60
def read(n_blocks):
    blocks = tagger.stored_blocks(Path({str(path)!r}), {RATE}, True)
    return sum(len(block) for _, block in zip(range(n_blocks), blocks))
read(3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert read(10**9) >= 20 * 60 * {RATE}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert int(result.stdout) < 40_000, result.stderr  # KiB


def test_training_needs_no_decoder():
    program = "import sys, jetatag.data.store; print({'av', 'soxr', 'soundfile'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "set()\n"
