"""Patterns: how a part moves. Each turns a song's harmony into notes, in beats."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

BAR = 4.0  # beats

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "bhairav": (0, 1, 4, 5, 7, 8, 11),
    "chromatic": tuple(range(12)),
}


@dataclass(frozen=True)
class Note:
    """One note: start and length in beats, MIDI pitch, and strength (1 is the part's own)."""

    start: float
    length: float
    pitch: int
    strength: float = 1.0


@dataclass(frozen=True)
class Song:
    """What all parts of a piece share: tempo, key, scale and one chord (scale degree) a bar."""

    beats_per_minute: float
    root: int  # pitch class, 0 is C
    scale: tuple[int, ...]
    chords: tuple[int, ...]

    def pitch(self, degree: int, centre: int) -> int:
        """MIDI pitch of a scale degree, degree 0 being the root at or just below `centre`."""
        octave, step = divmod(degree, len(self.scale))
        return centre - (centre - self.root) % 12 + 12 * octave + self.scale[step]

    def bars(self, centre: int) -> Iterator[tuple[float, list[int]]]:
        """Start (beats) and triad (MIDI pitches around `centre`) of every bar."""
        for bar, chord in enumerate(self.chords):
            low = chord if chord < len(self.scale) / 2 else chord - len(self.scale)
            yield bar * BAR, [self.pitch(low + third, centre) for third in (0, 2, 4)]


Pattern = Callable[[Song, int, np.random.Generator], list[Note]]


def held(song: Song, centre: int, rng: np.random.Generator) -> list[Note]:
    """Chords held for a bar."""
    return [Note(start, BAR, p) for start, chord in song.bars(centre) for p in chord]


def sung_chords(song: Song, centre: int, rng: np.random.Generator) -> list[Note]:
    """Chords in three voices that move twice a bar over a steady bass."""
    return [
        Note(start + half, BAR / 2 - 0.1, p)
        for start, chord in song.bars(centre)
        for half, upper in ((0.0, chord[1:]), (BAR / 2, chord[:2]))
        for p in (chord[0] - 12, *upper)
    ]


def drone(song: Song, centre: int, rng: np.random.Generator) -> list[Note]:
    """Root and fifth plucked over and over, as on a tanpura."""
    root = song.pitch(0, centre)
    cycle = (root + 7, root + 12, root + 12, root)
    return [
        Note(start + k, 3, pitch) for start, _ in song.bars(centre) for k, pitch in enumerate(cycle)
    ]


def strummed(song: Song, centre: int, rng: np.random.Generator) -> list[Note]:
    """Chords struck string by string in an eighth-note pattern."""
    pattern = str(rng.choice(["x.xx.xx.", "x.x.x.xx", "x.xxx.xx", "x..x.xx."]))
    return [
        Note(start + step / 2 + 0.04 * string, 0.7, p, 1.0 if step == 0 else 0.8)
        for start, chord in song.bars(centre)
        for step in _hits(pattern)
        for string, p in enumerate((*chord, chord[0] + 12))
    ]


def picked(
    song: Song, centre: int, rng: np.random.Generator, per_beat: int = 2, octaves: int = 1
) -> list[Note]:
    """Broken chords at `per_beat` notes a beat over a number of octaves, in a fixed order."""
    order = _broken_order(octaves, rng)
    notes = []
    for start, chord in song.bars(centre):
        strings = [p + 12 * octave for octave in range(octaves) for p in chord]
        strings.append(chord[0] + 12 * octaves)
        for step in range(int(BAR) * per_beat):
            pitch = strings[order[step % len(order)]]
            notes.append(Note(start + step / per_beat, 1.6 / per_beat, pitch))
    return notes


def walked(
    song: Song, centre: int, rng: np.random.Generator, lengths: tuple[float, ...], leap: int = 2
) -> list[Note]:
    """A tune: a bounded random walk on the scale, note lengths drawn from `lengths` (beats)."""
    notes, start, degree = [], 0.0, int(rng.integers(-2, 3))
    while start < len(song.chords) * BAR:
        length = float(rng.choice(lengths))
        notes.append(Note(start, length * 0.95, song.pitch(degree, centre)))
        degree += int(rng.integers(-leap, leap + 1)) or 1
        degree = degree if abs(degree) <= 5 else degree - 3 * int(np.sign(degree))
        start += length
    return notes


def chugged(song: Song, centre: int, rng: np.random.Generator, per_beat: int = 2) -> list[Note]:
    """Power chords (root, fifth, octave) repeated, some left out, none held."""
    pattern = "".join(rng.choice(["x", "x", "x", "."], size=int(BAR) * per_beat))
    return [
        Note(start + step / per_beat, 0.8 / per_beat, chord[0] + interval)
        for start, chord in song.bars(centre)
        for step in _hits("x" + pattern[1:])
        for interval in (0, 7, 12)
    ]


def bass(
    song: Song, centre: int, rng: np.random.Generator, pattern: str = "x.x.x.x."
) -> list[Note]:
    """The chord's root in an eighth-note pattern."""
    return [
        Note(start + step / 2, 0.45, chord[0])
        for start, chord in song.bars(centre)
        for step in _hits(pattern)
    ]


def stabbed(song: Song, centre: int, rng: np.random.Generator) -> list[Note]:
    """Short chords off the beat."""
    return [
        Note(start + beat + 0.5, 0.3, p)
        for start, chord in song.bars(centre)
        for beat in range(int(BAR))
        for p in chord
    ]


def scattered(song: Song, centre: int, rng: np.random.Generator) -> list[Note]:
    """Odd leaps at odd moments, in no key."""
    starts = np.sort(rng.uniform(0, len(song.chords) * BAR, size=5 * len(song.chords)))
    return [
        Note(float(s), rng.uniform(0.2, 1.5), centre + int(rng.integers(-18, 19))) for s in starts
    ]


def _hits(pattern: str) -> list[int]:
    return [step for step, mark in enumerate(pattern) if mark != "."]


def _broken_order(octaves: int, rng: np.random.Generator) -> list[int]:
    """Up and down when the pattern spans octaves, otherwise any order of the four strings."""
    if octaves == 1:
        return [int(k) for k in rng.permutation(4)]
    top = 3 * octaves
    return [*range(top + 1), *range(top - 1, 0, -1)]


melody = partial(walked, lengths=(0.5, 0.5, 1.0, 1.5))
aria = partial(walked, lengths=(1.0, 2.0, 2.0, 3.0), leap=3)
phrase = partial(walked, lengths=(0.5, 1.0, 1.0, 2.0))
bowed = partial(walked, lengths=(1.0, 1.5, 2.0))
running = partial(walked, lengths=(0.25,))
alberti = partial(picked, per_beat=2)
rolled = partial(picked, per_beat=4, octaves=2)
sequenced = partial(picked, per_beat=4)
offbeat_bass = partial(bass, pattern=".x.x.x.x")
rock_bass = partial(bass, pattern="xxxxxxxx")
country_bass = partial(bass, pattern="x...x...")
