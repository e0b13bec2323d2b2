"""What becomes of files and tables that are not as they should be; the documentation shows it.

Each kind is made on the spot and goes the whole way, from annotations to the store. `told` is
what the documentation says: the clip is used, left out with a reason in the report, or the whole
is refused with one sentence.
"""

import re
from collections.abc import Callable
from pathlib import Path

import crafted
import numpy as np
import pytest
import soundfile
from layouts import RATE, TAGS, noisy_tone, write_mtat, write_tsv

from jetatag.data import DataWarning, Index, mtat, store
from jetatag.data.tables import CONTRADICTION, DUPLICATE, OUTSIDE, SAME_ID

pytestmark = pytest.mark.filterwarnings("ignore::jetatag.data.DataWarning")
SOUND = noisy_tone(440, 1.0, 0.01, np.random.default_rng(0))


def written(sound=SOUND, rate=RATE, cut: float = 1.0, **how) -> Callable[[Path], object]:
    """A maker of an audio file, of which the share `cut` is kept."""

    def make(path: Path) -> None:
        soundfile.write(path, sound, rate, **({"format": "WAV"} | how))
        content = path.read_bytes()
        path.write_bytes(content[: int(cut * len(content))])

    return make


def made(content: Callable[[], bytes]) -> Callable[[Path], object]:
    """A maker of a file of that content."""
    return lambda path: path.write_bytes(content())


def mp3(seconds: float = 1.0, **how) -> bytes:
    return crafted.by_soundfile("MP3", RATE, seconds=seconds, **how)


def flac(seconds: float = 1.0) -> bytes:
    return crafted.by_soundfile("FLAC", RATE, seconds=seconds)


def m4a(**how) -> bytes:
    return crafted.by_ffmpeg("mp4", "aac", seconds=1.0, **how)


def patched(at: int | bytes, value: bytes, behind: int = 0, **how) -> Callable[[Path], object]:
    """A maker of an audio file with `value` put at an offset, or `behind` bytes behind a mark."""

    def make(path: Path) -> None:
        written(**how)(path)
        content = path.read_bytes()
        begin = behind + (at if isinstance(at, int) else content.index(at))
        path.write_bytes(content[:begin] + value + content[begin + len(value) :])

    return make


def with_value(value: float) -> np.ndarray:
    broken = SOUND.copy()
    broken[100] = value
    return broken


REMEDY = re.compile("[:;] (check|convert|copy|correct|export|get|give|move|split|use) ")
NOT_NUMBERS = "left out: holds values that are not numbers"
NOT_AUDIO = "left out: unreadable: not recognised as audio"
RATE_AT = 24  # where a WAV states its sample rate, four bytes
ENCRYPTION = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": 16 * "00",
    "encryption_kid": 16 * "11",
}
NOWHERE = "left out: a link that leads nowhere"
STRAY = "left out: does not begin with a folder 0–f"
BAD_FILES = {
    "missing": (lambda path: None, "left out: audio file missing"),
    "0 bytes": (lambda path: path.touch(), "left out: empty file (0 bytes)"),
    "text named `.mp3`": (
        lambda path: path.write_text("la la " * 99),
        "left out: unreadable: it is text",
    ),
    "zeros named `.mp3`": (lambda path: path.write_bytes(bytes(5000)), NOT_AUDIO),
    "random bytes": (
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
        NOT_AUDIO,
    ),
    "headerless samples named `.raw`": (written(format="RAW", subtype="PCM_16"), NOT_AUDIO),
    "a folder": (lambda path: path.mkdir(), "left out: a folder, pipe or device: give a file"),
    "truncated WAV": (written(cut=0.6), "left out: truncated"),
    "truncated FLAC": (written(cut=0.6, format="FLAC"), "left out: truncated"),
    "truncated Ogg": (written(np.tile(SOUND, 9), cut=0.6, format="OGG"), "left out: truncated"),
    "truncated MP3": (written(np.tile(SOUND, 9), cut=0.6, format="MP3"), "left out: truncated"),
    "truncated AU": (written(cut=0.6, format="AU"), "left out: truncated"),
    "truncated W64": (written(cut=0.6, format="W64"), "left out: truncated"),
    "truncated RF64": (written(cut=0.6, format="RF64"), "left out: truncated"),
    "WAV whose header states 1 Hz": (
        patched(RATE_AT, b"\1\0\0\0"),
        "left out: states a sample rate of 1 Hz",
    ),
    "WAV whose header states 2 GHz": (
        patched(RATE_AT, b"\0\x94\x35\x77"),
        "left out: states a sample rate of 2,000,000,000 Hz",
    ),
    "truncated M4A": (made(lambda: crafted.cut(m4a())), "left out: truncated"),
    "truncated WMA": (
        made(lambda: crafted.cut(crafted.by_ffmpeg("asf", "wmav2"))),
        "left out: truncated",
    ),
    "truncated WebM": (
        made(lambda: crafted.cut(crafted.by_ffmpeg("webm", "libopus", 48_000))),
        "left out: truncated",
    ),
    "FLAC whose header states 68 billion samples": (
        made(lambda: crafted.with_flac_length(flac(), 2**36 - 1)),
        "left out: truncated",
    ),
    "encrypted M4A": (made(lambda: m4a(**ENCRYPTION)), "left out: encrypted"),
    "M4A with FairPlay encryption": (
        made(lambda: m4a().replace(b"mp4a", b"drms")),
        "left out: encrypted",
    ),
    "video without sound": (
        made(lambda: crafted.by_ffmpeg("mp4", None, video=True)),
        "left out: holds no sound track",
    ),
    "playlist named `.mp3`": (
        lambda path: path.write_text("#EXTM3U\nfirst.wav\n"),
        "left out: unreadable: it is text",
    ),
    "`ffconcat` named `.mp3`": (
        lambda path: path.write_text("ffconcat version 1.0\nfile first.wav\n"),
        "left out: unreadable: it is text",
    ),
    "picture named `.mp3`": (
        lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(999)),
        NOT_AUDIO,
    ),
    "two M4As joined": (made(lambda: 2 * m4a()), "left out: joined from several files"),
    "WAV joined to MP3": (
        made(lambda: crafted.by_soundfile("WAV", RATE, seconds=0.5) + mp3(0.5)),
        "left out: joined from several files",
    ),
    "NaN in a float WAV": (written(with_value(np.nan), subtype="FLOAT"), NOT_NUMBERS),
    "infinity in a float WAV": (written(with_value(np.inf), subtype="FLOAT"), NOT_NUMBERS),
    "1 sample": (written(SOUND[:1]), "left out: shorter than 0.1 s"),
    "0.09 s": (written(SOUND[: int(0.09 * RATE)]), "left out: shorter than 0.1 s"),
    "silence": (written(0 * SOUND), "left out: silent"),
    "DC only": (written(0 * SOUND + 0.5), "left out: silent"),
    "link to itself": (lambda path: path.symlink_to(path.name), NOWHERE),
    "link out of the folder": (
        lambda path: (outside(path), path.symlink_to(outside(path)))[1],
        "left out: points outside",
    ),
    "WAV named `.mp3`": (written(), "used: the content decides"),
    "MP3 preceded by other bytes": (made(lambda: bytes(700) + mp3()), "used"),
    "MP3 without a stated length": (
        made(lambda: crafted.without_header(mp3(bitrate_mode="VARIABLE"))),
        "used: read whole",
    ),
    "MP3 whose header states 2 billion frames": (
        made(lambda: crafted.with_field(mp3(), 8, 2**31 - 1)),
        "used: read whole",
    ),
    "two MP3s joined": (made(lambda: 2 * mp3(0.5)), "used: read whole"),
    "MP3 joined to WAV": (
        made(lambda: mp3(0.5) + crafted.by_soundfile("WAV", RATE, seconds=0.5)),
        "used: read whole",
    ),
    "WAV whose header states a few bytes too many": (
        made(lambda: crafted.with_larger_sizes(crafted.by_soundfile("WAV", RATE, seconds=1.0))),
        "used: read whole",
    ),
    "WAV whose header states 0 bytes": (
        made(lambda: crafted.without_size(crafted.by_soundfile("WAV", RATE, seconds=1.0))),
        "used: read whole",
    ),
    "MP3 damaged in the middle": (
        made(lambda: crafted.damaged(mp3(), 300)),
        "used: the rest, with a line in the report",
    ),
    "FLAC written into a pipe": (
        made(lambda: crafted.with_flac_length(flac(), 0)),
        "used: read whole",
    ),
    "two FLACs joined": (made(lambda: 2 * flac(0.5)), "used: read whole"),
    "FLACs of two sample rates joined": (
        made(lambda: flac(0.5) + crafted.by_soundfile("FLAC", 8_000, seconds=0.5)),
        "used: read whole",
    ),
    "chained Ogg": (
        made(lambda: 2 * crafted.by_soundfile("OGG", RATE, seconds=0.5)),
        "used: read whole",
    ),
    "MP4 video with sound": (made(lambda: m4a(video=True)), "used: its first sound track"),
    "8-bit WAV": (written(subtype="PCM_U8"), "used"),
    "24-bit WAV": (written(subtype="PCM_24"), "used"),
    "float WAV beyond full scale": (
        written(5 * SOUND, subtype="FLOAT"),
        "used: scaled to full scale, never clipped",
    ),
    "6 channels": (written(np.stack([SOUND] * 6, axis=1)), "used: averaged"),
    "8 kHz": (written(SOUND[: RATE // 2], 8_000), "used: resampled"),
    "192 kHz": (written(np.tile(SOUND, 12), 192_000), "used: resampled"),
    "name in any script": (written(), "used"),
    "name with quotes, commas and spaces": (written(), "used"),
    "name of 255 bytes": (written(), "used"),
    "longer name": (lambda path: None, "left out: File name too long"),
    "longer folder name": (lambda path: None, "left out: File name too long"),
    "linked folder": (
        lambda path: path.parent.symlink_to(outside(path).parent),
        "left out: points outside",
    ),
    "folder linked to its parent": (
        lambda path: path.parent.symlink_to("."),
        "left out: audio file missing",
    ),
    "folder linked to itself": (
        lambda path: path.parent.symlink_to(path.parent.name),
        "left out: Too many levels of symbolic links",
    ),
}
PATHS = {
    "name in any script": "0/ünï çødé – 音楽 – موسيقى.wav",
    "name with quotes, commas and spaces": "0/a 'b' \"c\" ,;.wav",
    "name of 255 bytes": "0/" + "n" * 251 + ".wav",
    "longer name": "0/" + "n" * 300 + ".wav",
    "longer folder name": "0/" + "n" * 300 + "/a.wav",
    "linked folder": "1/elsewhere.wav",
    "folder linked to its parent": "1/second.wav",
    "folder linked to itself": "1/second.wav",
    "headerless samples named `.raw`": "0/second.raw",
}
"""Where those lie that are bad by their place; the others lie at 0/second.mp3."""


def outside(path: Path) -> Path:
    target = path.parents[3] / "elsewhere.wav"
    written()(target)
    return target


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_row_of_the_report_or_used(tmp_path, kind):
    make, told = BAD_FILES[kind]
    index = index_of_two(tmp_path, PATHS.get(kind, "0/second.mp3"))
    make(index.audio_root / index.table.path[1])
    audio = store.build(index, tmp_path / "store", workers=1)
    reasons = dict(zip(audio.report.path, audio.report.reason, strict=True))
    assert len(audio) + sum(audio.report.clip_id != "") == 2
    verdict, _, words = told.partition(": ")
    if verdict == "left out":
        reason = reasons[index.table.path[1]]
        assert words in reason and "\n" not in reason and str(tmp_path) not in reason
        assert REMEDY.search(reason), reason
    else:
        assert audio.table.path[1] == index.table.path[1]
        seconds = audio.lengths[1] / RATE
        line = "damaged" if "line in the report" in words else ""
        told = reasons.pop(index.table.path[1], "")
        assert told.partition(": ")[0] == line and not reasons
        assert seconds == pytest.approx(1.0, abs=0.15)
        samples = audio.read([1], [0], audio.lengths[1])[0]
        assert np.abs(samples).max() == pytest.approx(1.0, abs=1e-3)
        assert (np.abs(samples) > 0.999).mean() < 0.2  # clipped it would be half of it


def test_a_linked_folder_is_told_and_never_followed(tmp_path):
    index = index_of_two(tmp_path, second="1/second.wav")
    (tmp_path / "elsewhere").mkdir()
    written()(tmp_path / "elsewhere" / "second.wav")
    (index.audio_root / "1").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(DataWarning, match="1 folders under .* are links and not followed: 1;"):
        index = mtat.load(tmp_path / "mtat", split="full")
    audio = store.build(index, tmp_path / "store", workers=1)
    assert len(audio) == 1 and "points outside" in audio.report.reason[0]


def index_of_two(folder: Path, second: str = "0/second.mp3") -> Index:
    """An index of a good clip and one that is still to be made."""
    write_tsv(
        folder / "mtat" / "annotations_final.csv",
        ["clip_id", *TAGS, "mp3_path"],
        [[1, 1, 0, 0, 0, "0/first.wav"], [2, 0, 1, 0, 0, second.replace('"', '""')]],
    )
    (folder / "mtat" / "mp3" / "0").mkdir(parents=True)
    written()(folder / "mtat" / "mp3" / "0" / "first.wav")
    return mtat.load(folder / "mtat", split="full")


def row(text: str, number: int) -> str:
    return text.splitlines()[number]


def added(text: str, *rows: str) -> str:
    return "\n".join([*text.splitlines(), *rows]) + "\n"


def with_path(text: str, path: str, clip_id: int = 900) -> str:
    """The table and a copy of its first row under another id and path."""
    fields = row(text, 1).split("\t")
    return added(text, "\t".join([f'"{clip_id}"', *fields[1:-1], f'"{path}"']))


def other_labels(text: str) -> str:
    fields = row(text, 1).split("\t")
    flipped = [{'"0"': '"1"', '"1"': '"0"'}[label] for label in fields[1:-1]]
    return added(text, "\t".join([fields[0], *flipped, fields[-1]]))


BAD_TABLES = {
    "path with `../`": (lambda t: with_path(t, "../../0/x.mp3"), f"left out: {OUTSIDE}"),
    "absolute path": (lambda t: with_path(t, "/etc/passwd"), f"left out: {OUTSIDE}"),
    "the same row twice": (lambda t: added(t, row(t, 1)), f"left out: {DUPLICATE}"),
    "the same file with other labels": (other_labels, f"left out: {CONTRADICTION}"),
    "one id for two files": (
        lambda t: with_path(t, "0/another.mp3", clip_id=2),
        f"left out: {SAME_ID}",
    ),
    "byte-order mark": (lambda t: "\ufeff" + t, "read"),
    "CR LF line endings": (lambda t: t.replace("\n", "\r\n"), "read"),
    "empty lines": (lambda t: t.replace("\n", "\n\n"), "read"),
    "a tag that no clip has": (lambda t: t, "read"),
    "empty table": (lambda t: "", "refused: has no column 'clip_id'"),
    "header only": (lambda t: row(t, 0) + "\n", "refused: has no rows"),
    "missing column": (
        lambda t: t.replace("mp3_path", "path"),
        "refused: has no column 'mp3_path'",
    ),
    "duplicate column": (lambda t: t.replace('"low"', '"high"'), "refused: two columns 'high'"),
    "commas instead of tabs": (
        lambda t: t.replace("\t", ","),
        "refused: columns separated by tabs",
    ),
    "label that is not 0 or 1": (
        lambda t: t.replace('\t"1"\t', '\t"0.5"\t', 1),
        "refused: which is neither 0 nor 1",
    ),
    "row with a missing field": (
        lambda t: added(t, row(t, 1).partition("\t")[2]),
        "refused: row 49 has 5 fields separated by tabs and not 6",
    ),
    "unclosed quote": (lambda t: t.rstrip()[:-1], "refused: opens a quote and never closes it"),
    "clip without an id": (
        lambda t: t.replace('"2"\t', '" "\t', 1),
        "refused: row 1 has no clip_id",
    ),
    "tag named like the column of paths": (lambda t: t.replace('"low"', '"path"'), "read"),
    "Latin-1 text": (
        lambda t: t.replace("song", "söng").encode("latin-1"),
        "refused: save it as UTF-8",
    ),
    "labels `0.00` and `1.0e+00`": (
        lambda t: t.replace('"0"\t', '"0.00"\t').replace('"1"\t', '"1.0e+00"\t'),
        "read",
    ),
    "paths that all begin with `mp3/`": (
        lambda t: re.sub('"([0-9a-f]/)', r'"mp3/\1', t),
        "refused: annotations_final.csv: none of 48 rows can be used",
    ),
    "no table": (lambda t: None, "refused: does not exist"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return write_mtat(tmp_path_factory.mktemp("good"), seconds=0.2)


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_a_bad_table_is_refused_or_its_rows_are_reported(tmp_path, good, kind):
    change, told = BAD_TABLES[kind]
    changed = change((good / "annotations_final.csv").read_text())
    (tmp_path / "mp3").symlink_to(good / "mp3")
    if changed is not None:
        content = changed if isinstance(changed, bytes) else changed.encode()
        (tmp_path / "annotations_final.csv").write_bytes(content)
    verdict, _, words = told.partition(": ")
    if verdict == "refused":
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(words)) as refusal:
            mtat.load(tmp_path, split="full")
        assert "\n" not in str(refusal.value)
        return
    index = mtat.load(tmp_path, split="full")
    rows = len([line for line in changed.splitlines() if line]) - 1
    assert len(index) + len(index.left_out) == rows
    assert (len(index.left_out) > 0) == (verdict == "left out")
    assert index.left_out.reason.str.contains(words, regex=False).all()


def test_audio_without_a_row_is_reported(tmp_path):
    index = index_of_two(tmp_path)
    written()(index.audio_root / "0" / "stranger.WAV")
    written()(index.audio_root / "0" / "song.m4a")
    report = store.build(index, tmp_path / "store", workers=1).report
    strangers = report[report.reason == "audio without an annotation row"]
    assert strangers.path.tolist() == ["0/song.m4a", "0/stranger.WAV"]
