"""From a tag set to a short piece: styles, instruments, voices and drums, composed as MIDI."""

import io
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pretty_midi
from numpy.random import Generator

from jetatag.rendered import patterns
from jetatag.rendered.patterns import BAR, SCALES, Note, Pattern, Song

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
    """One instrument of the score: the General-MIDI programs and patterns to choose from."""

    programs: tuple[int, ...]
    patterns: tuple[Pattern, ...]
    centre: int  # MIDI pitch around which the part plays
    level: int  # MIDI volume at which all parts sound about equally loud
    vibrato: int = 0  # MIDI modulation, 0 to 127
    slide: float = 0.0  # semitones from which each note bends to its pitch, at most 2 up or down


PARTS = {
    # the instrument tags
    "guitar": Part((24, 25, 26), (patterns.strummed, patterns.picked), 52, 90),
    "strings": Part((48, 44, 50, 51), (patterns.held, patterns.choral), 60, 101),
    "piano": Part((0, 1, 2), (patterns.picked, patterns.strummed, patterns.rolled), 57, 123),
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
    "choir": Part((52,), (patterns.choral,), 62, 107),
    # what makes a style recognisable
    "distorted guitar": Part((30,), (patterns.chugged,), 40, 105),
    "overdriven guitar": Part((29, 30), (patterns.chugged, patterns.strummed), 47, 110),
    "banjo": Part((105, 25), (patterns.sequenced,), 62, 98),
    "fiddle": Part((110, 22), (patterns.melody,), 72, 100, slide=-1.0),
    "electric piano": Part((4, 5, 27), (patterns.strummed, patterns.picked), 60, 105),
    "acid": Part((81, 87, 38), (patterns.sequenced,), 48, 72),
    "stabs": Part((81, 63, 90), (patterns.stabbed,), 62, 105),
    "bleeps": Part((80, 82, 98), (patterns.sequenced,), 79, 73),
    "pad": Part((89, 95, 94, 92), (patterns.held,), 57, 97),
    "bells": Part((10, 8, 11), (patterns.picked,), 72, 105),
    "tanpura": Part((104, 15), (patterns.drone,), 45, 127),
    "shenai": Part((111, 77), (patterns.phrase,), 69, 89, slide=-2.0),
    "tremolo strings": Part((44,), (patterns.held,), 57, 95),
    "chamber group": Part((45, 71, 68), (patterns.choral, patterns.picked), 62, 93),
    "effects": Part((103, 96, 99), (patterns.scattered,), 64, 110, slide=-2.0),
    "electric bass": Part((33, 34, 36), (patterns.rock_bass, patterns.bass), 33, 87),
    "acoustic bass": Part((32,), (patterns.country_bass,), 33, 113),
    "synth bass": Part((38, 39), (patterns.offbeat_bass, patterns.rock_bass), 33, 104),
}

DRUMS = {  # General-MIDI drum → hits in sixteenths of a bar ("X" is accented)
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
    """What a style sounds like."""

    tempo: tuple[float, float]  # range, beats a minute
    scale: str
    drums: str | None
    parts: tuple[str, ...]
    extras: tuple[str, ...] = ()  # parts of which at most one joins in


STYLES = {  # by tag; of several, the first in this order sets tempo, scale and drums
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
BACKGROUNDS = (  # for tag sets that name no style
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
VELOCITY = {-1: 50, 0: 84, 1: 118}  # by `Score.dynamic`


@dataclass(frozen=True)
class Score:
    """Who plays, and how."""

    parts: dict[str, float]  # name → level in dB
    drums: tuple[str, float] | None  # pattern and level in dB
    beats_per_minute: float
    scale: str
    dynamic: int  # -1 quiet or soft, 0, 1 loud


def arrange(tags: Collection[str], rng: Generator) -> Score:
    """Choose who plays: a part for every tag, the parts of the style, and sometimes an extra one.

    Parts without a tag are softer. `solo` leaves them out, `no vocals` leaves out untagged voices.
    Raises `ValueError` for an unknown tag.
    """
    sounds = {SYNONYMS.get(tag, tag) for tag in tags}
    if unknown := sounds - {*STYLES, *INSTRUMENTS, *MANNERS}:
        raise ValueError(f"{sorted(unknown)} have no sound: use the names of rendered.TAGS.")
    named = [STYLES[name] for name in STYLES if name in sounds]
    style = named[0] if named else _background(sounds, rng)
    tagged = [each.parts[0] for each in named]
    tagged += [name for name in INSTRUMENTS if name in sounds] + _voices(sounds, rng)
    untagged = [*style.parts, *rng.permutation(style.extras)[: rng.integers(2)].tolist()]
    if "no vocals" in sounds:
        untagged = [name for name in untagged if name not in VOICES]
    if "solo" in sounds:
        untagged = [] if tagged else untagged[:1]
    parts = {name: float(rng.uniform(-16, -6)) for name in untagged}
    parts |= {name: float(rng.uniform(-3, 0)) for name in tagged}
    drums = _drums(style, sounds, rng)
    tempo = style.tempo
    if ("fast" in sounds) != ("slow" in sounds):
        tempo = (145, 180) if "fast" in sounds else (48, 66)
    dynamic = ("loud" in sounds) - ("quiet" in sounds)
    return Score(parts, drums, float(rng.uniform(*tempo)), style.scale, dynamic)


def _background(sounds: set[str], rng: Generator) -> Style:
    """A style without a tag, if possible one in which a tagged instrument is usual."""
    usual = [style for style in BACKGROUNDS if sounds & {*style.parts, *style.extras}]
    candidates = usual or BACKGROUNDS
    return candidates[int(rng.integers(len(candidates)))]


def _voices(sounds: set[str], rng: Generator) -> list[str]:
    """The tagged voices; one whose sex is not tagged is chosen at random, unless a choir sings."""
    low, high = ("tenor", "soprano") if "opera" in sounds else ("man", "woman")
    voices = [voice for voice, tag in ((low, "male"), (high, "female")) if tag in sounds]
    if not voices and "choir" not in sounds and sounds & {"vocal", "opera"}:
        voices = [str(rng.choice([low, high]))]
    return voices


def _drums(style: Style, sounds: set[str], rng: Generator) -> tuple[str, float] | None:
    """The style's drums, louder if tagged; a drum tag adds drums to a style without them."""
    if sounds & {"drums", "beat"}:
        return style.drums or ("toms" if "drums" in sounds else "pop"), 0.0
    if style.drums is None or "solo" in sounds:
        return None
    return style.drums, float(rng.uniform(-12, -3))


def choose_programs(rng: Generator) -> dict[str, int]:
    """An artist's instruments: a General-MIDI program for every part, a kit for every drum
    pattern."""
    programs = {name: int(rng.choice(part.programs)) for name, part in PARTS.items()}
    return programs | {name: int(rng.choice(KITS.get(name, (0, 8, 32)))) for name in DRUMS}


def compose(score: Score, programs: dict[str, int], duration_s: float, rng: Generator) -> bytes:
    """Write `score` as a MIDI file of `duration_s` seconds in a random key over random chords;
    `programs` as `choose_programs` returns them."""
    n_bars = int(np.ceil(duration_s * score.beats_per_minute / 60 / BAR))
    scale = SCALES[score.scale]
    turn = [0, *rng.integers(1, len(scale), size=3)]  # four bars that repeat
    chords = tuple(int(turn[bar % 4]) for bar in range(n_bars))
    song = Song(score.beats_per_minute, int(rng.integers(12)), scale, chords)
    midi = pretty_midi.PrettyMIDI()
    for name, level_db in score.parts.items():
        part = PARTS[name]
        instrument = pretty_midi.Instrument(programs[name], name=name)
        instrument.control_changes += [
            pretty_midi.ControlChange(7, _volume(part.level, level_db), 0.0),
            pretty_midi.ControlChange(1, part.vibrato, 0.0),
        ]
        pattern = part.patterns[int(rng.integers(len(part.patterns)))]
        notes = pattern(song, part.centre, rng)
        instrument.notes = _performed(notes, score, rng)
        if part.slide:
            instrument.pitch_bends = [
                bend for note in instrument.notes for bend in _slide(note, part.slide)
            ]
        midi.instruments.append(instrument)
    if score.drums:
        name, level_db = score.drums
        kit = pretty_midi.Instrument(programs[name], is_drum=True, name=name)
        kit.control_changes.append(pretty_midi.ControlChange(7, _volume(127, level_db), 0.0))
        kit.notes = _performed(_drum_notes(DRUMS[name], n_bars), score, rng)
        midi.instruments.append(kit)
    for instrument in midi.instruments:
        instrument.notes = [note for note in instrument.notes if note.start < duration_s]
        instrument.control_changes.append(pretty_midi.ControlChange(64, 0, duration_s))
    buffer = io.BytesIO()
    midi.write(buffer)
    return buffer.getvalue()


def _drum_notes(rhythms: dict[int, str], n_bars: int) -> list[Note]:
    return [
        Note(bar * BAR + step / 4, 0.25, pitch, 1.0 if mark == "X" else 0.7)
        for bar in range(n_bars)
        for pitch, rhythm in rhythms.items()
        for step, mark in enumerate(rhythm)
        if mark != "."
    ]


def _performed(notes: list[Note], score: Score, rng: Generator) -> list[pretty_midi.Note]:
    """Beats to seconds and strength to velocity, varied a little as by a player."""
    beat_s, velocity = 60 / score.beats_per_minute, VELOCITY[score.dynamic]
    performed = []
    for note in notes:
        varied = int(np.clip(velocity * note.strength + rng.integers(-8, 9), 1, 127))
        start = note.start * beat_s
        end = start + note.length * beat_s
        performed.append(pretty_midi.Note(varied, note.pitch, start, end))
    return performed


def _volume(level: int, level_db: float) -> int:
    """MIDI volume `level_db` below `level`; amplitude goes with its square."""
    return int(np.clip(round(level * 10 ** (level_db / 40)), 1, 127))


def _slide(note: pretty_midi.Note, semitones: float) -> list[pretty_midi.PitchBend]:
    """Bend from `semitones` away to the note's pitch during its first 120 ms."""
    bends = []
    for step in np.linspace(1, 0, 7):
        bend = int(np.clip(step * semitones / 2 * 8192, -8192, 8191))
        bends.append(pretty_midi.PitchBend(bend, note.start + 0.12 * (1 - step)))
    return bends
