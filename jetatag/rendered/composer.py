"""Tag sets as short pieces: styles, instruments, voices and drums, composed as MIDI."""

import io
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pretty_midi
from numpy.random import Generator

from jetatag.rendered import patterns
from jetatag.rendered.patterns import SCALES, Note, Pattern, Song

SYNONYMS = {
    **dict.fromkeys(["vocals", "singing", "voice"], "vocal"),
    **dict.fromkeys(["woman", "female vocal", "female voice"], "female"),
    **dict.fromkeys(["man", "male vocal", "male voice"], "male"),
    **dict.fromkeys(["no vocal", "no voice"], "no vocals"),
    "beats": "beat",
    "classic": "classical",
    "choral": "choir",
    "soft": "quiet",
}


@dataclass(frozen=True)
class Part:
    """One line of the score: General-MIDI programs to choose from, patterns, register, manner."""

    programs: tuple[int, ...]
    patterns: tuple[Pattern, ...]
    centre: int  # MIDI pitch about which the part moves
    level: int  # MIDI volume at which all parts are about equally loud
    vibrato: int = 0  # MIDI modulation
    slide: float = 0.0  # semitones from which every note is bent into place


PARTS = {
    # one for each instrument tag
    "guitar": Part((24, 25, 26), (patterns.strummed, patterns.picked), 52, 90),
    "strings": Part((48, 44, 50, 51), (patterns.held, patterns.sung_chords), 60, 101),
    "piano": Part((0, 1, 2), (patterns.alberti, patterns.strummed, patterns.rolled), 57, 123),
    "violin": Part((40, 110), (patterns.bowed, patterns.melody), 76, 90, vibrato=50),
    "synth": Part((80, 81, 90, 62), (patterns.sequenced, patterns.melody), 67, 87),
    "harpsichord": Part((6,), (patterns.running, patterns.sequenced), 67, 124),
    "flute": Part((73, 72, 74), (patterns.melody, patterns.phrase), 79, 87, vibrato=20),
    "sitar": Part((104,), (patterns.melody, patterns.phrase), 60, 122, slide=-2.0),
    "harp": Part((46,), (patterns.rolled,), 55, 70),
    "cello": Part((42,), (patterns.bowed,), 48, 97, vibrato=40),
    # voices
    "woman": Part((53, 85, 54), (patterns.phrase,), 70, 116, vibrato=35),
    "man": Part((53, 85, 54), (patterns.phrase,), 50, 127, vibrato=35),
    "soprano": Part((85, 53), (patterns.aria,), 77, 116, vibrato=127),
    "tenor": Part((85, 53), (patterns.aria,), 57, 116, vibrato=127),
    "choir": Part((52,), (patterns.sung_chords,), 62, 107),
    # one for each style: what makes it recognisable
    "distorted guitar": Part((30,), (patterns.chugged,), 40, 105),
    "overdriven guitar": Part((29, 30), (patterns.chugged, patterns.strummed), 47, 110),
    "banjo": Part((105, 25), (patterns.sequenced,), 62, 98),
    "fiddle": Part((110, 22), (patterns.melody,), 72, 100, slide=-1.0),
    "electric piano": Part((4, 5, 27), (patterns.strummed, patterns.alberti), 60, 105),
    "acid": Part((81, 87, 38), (patterns.sequenced,), 48, 72),
    "stabs": Part((81, 63, 90), (patterns.stabbed,), 62, 105),
    "bleeps": Part((80, 82, 98), (patterns.sequenced,), 79, 73),
    "pad": Part((89, 95, 94, 92), (patterns.held,), 57, 97),
    "bells": Part((10, 8, 11), (patterns.alberti,), 72, 105),
    "tanpura": Part((104, 15), (patterns.drone,), 45, 127),
    "shenai": Part((111, 77), (patterns.phrase,), 69, 89, slide=-2.0),
    "tremolo strings": Part((44,), (patterns.held,), 57, 95),
    "chamber group": Part((45, 71, 68), (patterns.sung_chords, patterns.alberti), 62, 93),
    "effects": Part((103, 96, 99), (patterns.scattered,), 64, 110, slide=-2.0),
    "electric bass": Part((33, 34, 36), (patterns.rock_bass, patterns.bass), 33, 87),
    "acoustic bass": Part((32,), (patterns.country_bass,), 33, 113),
    "synth bass": Part((38, 39), (patterns.offbeat_bass, patterns.rock_bass), 33, 104),
}

DRUMS = {  # General-MIDI drum -> hits in sixteenths of a bar ("X" is accented)
    "rock": {36: "X.....x.X.x.....", 38: "....X.......X...", 42: "x.x.x.x.x.x.x.x."},
    "metal": {36: "xxxxxxxxxxxxxxxx", 38: "....X.......X...", 49: "X.......X......."},
    "pop": {36: "X......xX.......", 39: "....X.......X...", 42: "x.xxx.x.x.xxx.x."},
    "train": {36: "X...X...X...X...", 38: "x.xXx.xXx.xXx.xX"},
    "techno": {36: "X...X...X...X...", 42: "..X...X...X...X.", 70: "xxxxxxxxxxxxxxxx"},
    "house": {36: "X...X...X...X...", 39: "....X.......X...", 46: "..X...X...X...X."},
    "broken": {36: "X..x......X..x..", 38: "....X..x.x..X..x", 42: "x.xxx.x.xxx.x.xx"},
    "tabla": {64: "X..x..X...x.X...", 63: "..x.x...xx...x.x", 61: "....X.....X...x."},
    "toms": {
        36: "X.......X.......",
        45: "..xx......xx..x.",
        48: "xx......x...x...",
        38: "....X.......X..X",
    },
}
KITS = {"techno": (25, 24), "house": (24, 8), "broken": (25, 24), "train": (40, 32), "metal": (16,)}


@dataclass(frozen=True)
class Style:
    """What a style sounds like: tempo range (beats a minute), scale, drums, parts, and extras."""

    tempo: tuple[float, float]
    scale: str
    drums: str | None
    parts: tuple[str, ...]
    extras: tuple[str, ...] = ()


STYLES = {  # one for each style tag; the first one present sets tempo, scale and drums
    "metal": Style((110, 150), "phrygian", "metal", ("distorted guitar", "electric bass")),
    "techno": Style((115, 140), "minor", "techno", ("acid", "synth bass"), ("pad", "bleeps")),
    "dance": Style((110, 130), "minor", "house", ("stabs", "synth bass"), ("synth", "woman")),
    "country": Style((85, 125), "major", "train", ("banjo", "acoustic bass"), ("fiddle", "man")),
    "rock": Style((95, 140), "dorian", "rock", ("overdriven guitar", "electric bass"), ("man",)),
    "pop": Style(
        (85, 120), "major", "pop", ("electric piano", "electric bass"), ("woman", "synth")
    ),
    "electronic": Style((85, 130), "minor", "broken", ("bleeps", "synth bass"), ("pad", "stabs")),
    "indian": Style((75, 115), "bhairav", "tabla", ("tanpura",), ("shenai", "flute")),
    "opera": Style((65, 100), "minor", None, ("tremolo strings",), ("piano", "cello")),
    "choir": Style((60, 90), "dorian", None, ("choir",), ("strings", "bells")),
    "weird": Style((60, 130), "chromatic", None, ("effects",), ("pad", "bleeps")),
    "ambient": Style((55, 85), "lydian", None, ("pad",), ("bells", "strings", "bleeps")),
    "new age": Style((60, 90), "major", None, ("bells", "pad"), ("flute", "harp", "piano")),
    "classical": Style((70, 120), "major", None, ("chamber group",), ("piano", "flute", "cello")),
}
BACKGROUNDS = (  # styles without a tag, for sets that name none
    Style((80, 120), "minor", None, ("cello",), ("violin", "harpsichord", "strings", "flute")),
    Style((75, 120), "dorian", None, ("guitar",), ("flute", "fiddle", "man", "woman", "harp")),
    Style((80, 125), "minor", "pop", ("electric bass",), ("electric piano", "guitar", "synth")),
    Style((85, 125), "dorian", "train", ("acoustic bass",), ("piano", "guitar", "bells", "woman")),
    Style((60, 95), "major", None, ("piano",), ("strings", "violin", "harp", "sitar", "pad")),
)
INSTRUMENTS = tuple(PARTS)[:10]
VOICES = ("woman", "man", "soprano", "tenor", "choir")
MANNERS = (
    *("drums", "beat", "fast", "slow", "loud", "quiet", "solo", "no vocals"),
    *("vocal", "male", "female"),
)
VELOCITY = {-1: 50, 0: 84, 1: 118}


@dataclass(frozen=True)
class Score:
    """Who plays what: parts and drums with their loudness in dB, tempo, scale and dynamic."""

    parts: dict[str, float]
    drums: tuple[str, float] | None
    beats_per_minute: float
    scale: str
    dynamic: int  # -1 quiet or soft, 0, 1 loud


def compose(score: Score, programs: dict[str, int], duration_s: float, rng: Generator) -> bytes:
    """Write `score` as a MIDI file of `duration_s` seconds, in a random key, over random chords.

    `programs` names the General-MIDI program of every part and the kit of every drum pattern.
    """
    n_bars = int(np.ceil(duration_s * score.beats_per_minute / 60 / patterns.BAR))
    scale = SCALES[score.scale]
    turn = [0, *rng.integers(1, len(scale), size=3)]
    chords = tuple(int(turn[bar % 4]) for bar in range(n_bars))
    song = Song(score.beats_per_minute, int(rng.integers(12)), scale, chords)
    midi = pretty_midi.PrettyMIDI()
    for name, level_db in score.parts.items():
        midi.instruments.append(_play(name, programs[name], level_db, song, score.dynamic, rng))
    if score.drums:
        name, level_db = score.drums
        midi.instruments.append(_drum(name, programs[name], level_db, song, score.dynamic, rng))
    for instrument in midi.instruments:
        instrument.notes = [note for note in instrument.notes if note.start < duration_s]
        instrument.control_changes.append(pretty_midi.ControlChange(64, 0, duration_s))
    buffer = io.BytesIO()
    midi.write(buffer)
    return buffer.getvalue()


def choose_programs(rng: Generator) -> dict[str, int]:
    """One program for every part and one kit for every drum pattern: an artist's instruments."""
    programs = {name: int(rng.choice(part.programs)) for name, part in PARTS.items()}
    return programs | {name: int(rng.choice(KITS.get(name, (0, 8, 32)))) for name in DRUMS}


def arrange(tags: Collection[str], rng: Generator) -> Score:
    """Decide who plays: every tag brings its part, the style brings its own, chance adds more.

    Parts without a tag are softer. `solo` leaves the tagged parts alone, `no vocals` keeps
    untagged voices out. Raises ValueError for an unknown tag.
    """
    sounds = {SYNONYMS.get(tag, tag) for tag in tags}
    if unknown := sounds - {*STYLES, *INSTRUMENTS, *MANNERS}:
        raise ValueError(f"{sorted(unknown)} have no sound: use the names of rendered.TAGS.")
    named = [STYLES[name] for name in STYLES if name in sounds]
    style = named[0] if named else _background(sounds, rng)
    tagged = [s.parts[0] for s in named]
    tagged += [name for name in INSTRUMENTS if name in sounds] + _voices(sounds, rng)
    untagged = [*style.parts, *rng.permutation(style.extras)[: rng.integers(2)].tolist()]
    if "no vocals" in sounds:
        untagged = [name for name in untagged if name not in VOICES]
    if "solo" in sounds:
        untagged = [] if tagged else untagged[:1]
    parts = {name: float(rng.uniform(-16, -6)) for name in untagged}
    parts |= {name: float(rng.uniform(-3, 0)) for name in tagged}
    return Score(
        parts, _drums(style, sounds, rng), _tempo(style, sounds, rng), style.scale, _dynamic(sounds)
    )


def _background(sounds: set[str], rng: Generator) -> Style:
    """A style without a tag, one in which the tagged instruments are at home where there is."""
    fitting = [style for style in BACKGROUNDS if sounds & {*style.parts, *style.extras}]
    candidates = fitting or BACKGROUNDS
    return candidates[int(rng.integers(len(candidates)))]


def _voices(sounds: set[str], rng: Generator) -> list[str]:
    """Low and high voices as tagged; a voice of no stated sex is either, unless a choir sings."""
    low, high = ("tenor", "soprano") if "opera" in sounds else ("man", "woman")
    voices = [voice for voice, tag in ((low, "male"), (high, "female")) if tag in sounds]
    if not voices and "choir" not in sounds and sounds & {"vocal", "opera"}:
        voices = [str(rng.choice([low, high]))]
    return voices


def _drums(style: Style, sounds: set[str], rng: Generator) -> tuple[str, float] | None:
    """The style's drums, louder where tagged; a tag brings drums to a style without them."""
    if sounds & {"drums", "beat"}:
        return style.drums or ("toms" if "drums" in sounds else "pop"), 0.0
    if style.drums is None or "solo" in sounds:
        return None
    return style.drums, float(rng.uniform(-12, -3))


def _tempo(style: Style, sounds: set[str], rng: Generator) -> float:
    """Beats a minute: the style's range, or that of `fast` or `slow` where just one is tagged."""
    pace = {("fast",): (145, 180), ("slow",): (48, 66)}
    tagged = tuple(sorted(sounds & {"fast", "slow"}))
    return float(rng.uniform(*pace.get(tagged, style.tempo)))


def _dynamic(sounds: set[str]) -> int:
    return ("loud" in sounds) - ("quiet" in sounds)


def _play(
    name: str, program: int, level_db: float, song: Song, dynamic: int, rng: Generator
) -> pretty_midi.Instrument:
    part = PARTS[name]
    pattern = part.patterns[int(rng.integers(len(part.patterns)))]
    instrument = pretty_midi.Instrument(program, name=name)
    instrument.control_changes += [
        pretty_midi.ControlChange(7, _volume(part.level, level_db), 0.0),
        pretty_midi.ControlChange(1, part.vibrato, 0.0),
    ]
    for note in pattern(song, part.centre, rng):
        sounding = _timed(note, song, VELOCITY[dynamic], rng)
        instrument.notes.append(sounding)
        if part.slide:
            instrument.pitch_bends += _slide(sounding, part.slide)
    return instrument


def _drum(
    name: str, kit: int, level_db: float, song: Song, dynamic: int, rng: Generator
) -> pretty_midi.Instrument:
    drums = pretty_midi.Instrument(kit, is_drum=True, name=name)
    drums.control_changes.append(pretty_midi.ControlChange(7, _volume(127, level_db), 0.0))
    for bar in range(len(song.chords)):
        for pitch, pattern in DRUMS[name].items():
            for step, mark in enumerate(pattern):
                if mark != ".":
                    strength = 1.0 if mark == "X" else 0.7
                    note = Note(bar * patterns.BAR + step / 4, 0.25, pitch, strength)
                    drums.notes.append(_timed(note, song, VELOCITY[dynamic], rng))
    return drums


def _timed(note: Note, song: Song, velocity: int, rng: Generator) -> pretty_midi.Note:
    """Beats to seconds, strength to velocity, with a player's unevenness."""
    beat_s = 60 / song.beats_per_minute
    uneven = int(np.clip(velocity * note.strength + rng.integers(-8, 9), 1, 127))
    start = note.start * beat_s
    return pretty_midi.Note(uneven, note.pitch, start, start + note.length * beat_s)


def _volume(level: int, level_db: float) -> int:
    """MIDI volume `level_db` below `level` (volume acts as its square)."""
    return int(np.clip(round(level * 10 ** (level_db / 40)), 1, 127))


def _slide(note: pretty_midi.Note, semitones: float) -> list[pretty_midi.PitchBend]:
    """Bend into a note from `semitones` away (at most 2) during its first 120 ms."""
    steps = np.linspace(1, 0, 7)
    return [
        pretty_midi.PitchBend(
            int(np.clip(step * semitones / 2 * 8192, -8192, 8191)), note.start + 0.12 * (1 - step)
        )
        for step in steps
    ]
