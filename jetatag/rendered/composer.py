"""Compose a short piece for a tag set as MIDI; `band.yaml` defines how the tags sound."""

import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pretty_midi
import yaml
from numpy.random import Generator

from jetatag.rendered import patterns
from jetatag.rendered.patterns import BAR, Note, Song

BAND = yaml.safe_load(Path(__file__).with_name("band.yaml").read_text("utf-8"))
INSTRUMENTS, VOICES, STYLES, DRUMS = map(BAND.get, ("instruments", "voices", "styles", "drums"))
PARTS = INSTRUMENTS | VOICES | BAND["others"]
MANNERS = {"drums", "beat", "fast", "slow", "loud", "quiet", "solo"}
MANNERS |= {"vocal", "male", "female", "no vocals"}
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
    """Choose the parts: one for every tag, those of the style, which are softer, and sometimes an
    extra one; the drums, the tempo and the scale. Raises `ValueError` for an unknown tag."""
    sounds = {BAND["synonyms"].get(tag, tag) for tag in tags}
    if unknown := sounds - {*STYLES, *INSTRUMENTS} - MANNERS:
        raise ValueError(f"{sorted(unknown)} have no sound: use the names of rendered.TAGS.")
    named = [STYLES[name] for name in STYLES if name in sounds]
    styles = BAND["backgrounds"]  # if possible one in which a tagged instrument is usual
    usual = [each for each in styles if sounds & {*each["parts"], *each["extras"]}] or styles
    style = named[0] if named else usual[int(rng.integers(len(usual)))]
    tagged = [each["parts"][0] for each in named]
    tagged += [name for name in INSTRUMENTS if name in sounds] + _voices(sounds, rng)
    extras = rng.permutation(style.get("extras", ()))[: rng.integers(2)].tolist()
    untagged = style["parts"] + extras
    if "no vocals" in sounds:
        untagged = [name for name in untagged if name not in VOICES]
    if "solo" in sounds:
        untagged = [] if tagged else untagged[:1]
    parts = {name: float(rng.uniform(-16, -6)) for name in untagged}
    parts |= {name: float(rng.uniform(-3, 0)) for name in tagged}
    drums, pattern = None, style.get("drums")
    if sounds & {"drums", "beat"}:
        drums = (pattern or ("toms" if "drums" in sounds else "pop"), 0.0)
    elif pattern and "solo" not in sounds:
        drums = (pattern, float(rng.uniform(-12, -3)))
    tempo = style["tempo"]
    if ("fast" in sounds) != ("slow" in sounds):
        tempo = (145, 180) if "fast" in sounds else (48, 66)
    dynamic = ("loud" in sounds) - ("quiet" in sounds)
    return Score(parts, drums, float(rng.uniform(*tempo)), style["scale"], dynamic)


def _voices(sounds: set[str], rng: Generator) -> list[str]:
    """The tagged voices; a voice without a tagged sex is chosen at random, unless a choir sings."""
    low, high = ("tenor", "soprano") if "opera" in sounds else ("man", "woman")
    voices = [voice for voice, tag in ((low, "male"), (high, "female")) if tag in sounds]
    if not voices and "choir" not in sounds and sounds & {"vocal", "opera"}:
        voices = [str(rng.choice([low, high]))]
    return voices


def choose_programs(rng: Generator) -> dict[str, int]:
    """An artist's instruments: a General-MIDI program for every part and drum pattern."""
    programs = {name: int(rng.choice(part["programs"])) for name, part in PARTS.items()}
    return programs | {name: int(rng.choice(BAND["kits"].get(name, [0, 8, 32]))) for name in DRUMS}


def compose(score: Score, programs: dict[str, int], duration_s: float, rng: Generator) -> bytes:
    """Write `score` as a MIDI file of `duration_s` seconds in a random key over random chords."""
    n_bars = int(np.ceil(duration_s * score.beats_per_minute / 60 / BAR))
    scale = BAND["scales"][score.scale]
    turn = [0, *rng.integers(1, len(scale), size=3)]  # four bars that repeat
    chords = tuple(int(turn[bar % 4]) for bar in range(n_bars))
    song = Song(int(rng.integers(12)), scale, chords)
    midi = pretty_midi.PrettyMIDI()
    for name, level_db in score.parts.items():
        part = PARTS[name]
        instrument = _instrument(name, programs[name], part["level"], level_db)
        instrument.control_changes.append(pretty_midi.ControlChange(1, part.get("vibrato", 0), 0.0))
        pattern = part["patterns"][int(rng.integers(len(part["patterns"])))]
        notes = getattr(patterns, pattern)(song, part["centre"], rng)
        instrument.notes = _performed(notes, score, rng)
        if "slide" in part:
            instrument.pitch_bends = _slides(instrument.notes, part["slide"])
        midi.instruments.append(instrument)
    if score.drums:
        name, level_db = score.drums
        kit = _instrument(name, programs[name], 127, level_db, is_drum=True)
        notes = [
            Note(bar * BAR + step / 4, 0.25, pitch, 1.0 if mark == "X" else 0.7)
            for bar in range(n_bars)
            for pitch, rhythm in DRUMS[name].items()
            for step, mark in enumerate(rhythm)
            if mark != "."
        ]
        kit.notes = _performed(notes, score, rng)
        midi.instruments.append(kit)
    for instrument in midi.instruments:
        instrument.notes = [note for note in instrument.notes if note.start < duration_s]
        instrument.control_changes.append(pretty_midi.ControlChange(64, 0, duration_s))
    buffer = io.BytesIO()
    midi.write(buffer)
    return buffer.getvalue()


def _instrument(
    name: str, program: int, level: int, level_db: float, is_drum: bool = False
) -> pretty_midi.Instrument:
    """One without notes; `level_db` changes its `level`. Amplitude goes with the volume squared."""
    volume = int(np.clip(round(level * 10 ** (level_db / 40)), 1, 127))
    instrument = pretty_midi.Instrument(program, is_drum, name)
    instrument.control_changes.append(pretty_midi.ControlChange(7, volume, 0.0))
    return instrument


def _performed(notes: list[Note], score: Score, rng: Generator) -> list[pretty_midi.Note]:
    """Beats to seconds and strength to velocity, varied a little like a human player."""
    beat_s, velocity = 60 / score.beats_per_minute, VELOCITY[score.dynamic]
    performed = []
    for note in notes:
        varied = int(np.clip(velocity * note.strength + rng.integers(-8, 9), 1, 127))
        start, length = note.start * beat_s, note.length * beat_s
        performed.append(pretty_midi.Note(varied, note.pitch, start, start + length))
    return performed


def _slides(notes: list[pretty_midi.Note], semitones: float) -> list[pretty_midi.PitchBend]:
    """Bends from `semitones` away to each note's pitch during its first 120 ms."""
    steps = np.linspace(1, 0, 7)
    bends = np.clip(steps * semitones / 2 * 8192, -8192, 8191).astype(int).tolist()
    delays = (0.12 * (1 - steps)).tolist()
    return [
        pretty_midi.PitchBend(bend, note.start + delay)
        for note in notes
        for bend, delay in zip(bends, delays, strict=True)
    ]
