"""Accompaniment and melody patterns: functions from a song's harmony to notes, timed in beats."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator

BAR = 4  # beats


@dataclass(frozen=True)
class Note:
    """Start and length in beats, MIDI pitch, and velocity relative to the part's."""

    start: float
    length: float
    pitch: int
    strength: float = 1.0


@dataclass(frozen=True)
class Song:
    """What all parts share: key, scale, and one chord (as a scale degree) per bar."""

    root: int  # pitch class, 0 is C
    scale: tuple[int, ...]
    chords: tuple[int, ...]

    def pitch(self, degree: int, centre: int) -> int:
        """MIDI pitch of a scale degree; degree 0 is the root at or just below `centre`."""
        octave, step = divmod(degree, len(self.scale))
        return centre - (centre - self.root) % 12 + 12 * octave + self.scale[step]

    def bars(self, centre: int) -> Iterator[tuple[int, list[int]]]:
        """Start (beats) and triad (MIDI pitches around `centre`) of every bar."""
        for bar, chord in enumerate(self.chords):
            low = chord if chord < len(self.scale) / 2 else chord - len(self.scale)
            yield bar * BAR, [self.pitch(low + third, centre) for third in (0, 2, 4)]


def repeated(
    song: Song,
    centre: int,
    rng: Generator,
    rhythm: str,
    length: float,
    voicing: Callable[[list[int]], list[int]] = list,
    strum: float = 0.0,
    weak: float = 1.0,
) -> list[Note]:
    """Every bar's chord in a rhythm of eighth notes, "x" a hit. `strum`: the delay from string to
    string (beats); `weak`: the strength off the first beat."""
    return [
        Note(start + step / 2 + strum * string, length, pitch, weak if step else 1.0)
        for start, chord in song.bars(centre)
        for step, mark in enumerate(rhythm)
        if mark == "x"
        for string, pitch in enumerate(voicing(chord))
    ]


def strummed(song: Song, centre: int, rng: Generator) -> list[Note]:
    """Guitar chords strummed in one of four rhythms."""
    rhythm = str(rng.choice(["x.xx.xx.", "x.x.x.xx", "x.xxx.xx", "x..x.xx."]))
    return repeated(song, centre, rng, rhythm, 0.7, lambda c: [*c, c[0] + 12], strum=0.04, weak=0.8)


def chugged(song: Song, centre: int, rng: Generator) -> list[Note]:
    """Short power chords on most eighth notes."""
    rhythm = "x" + "".join(rng.choice(["x", "x", "x", "."], size=8))[1:]
    return repeated(song, centre, rng, rhythm, 0.4, lambda c: [c[0], c[0] + 7, c[0] + 12])


def choral(song: Song, centre: int, rng: Generator) -> list[Note]:
    """Three voices: two move twice a bar over a bass that holds the root."""
    return [
        Note(start + half, BAR / 2 - 0.1, pitch)
        for start, chord in song.bars(centre)
        for half, upper in ((0, chord[1:]), (BAR / 2, chord[:2]))
        for pitch in (chord[0] - 12, *upper)
    ]


def drone(song: Song, centre: int, rng: Generator) -> list[Note]:
    """Root and fifth plucked repeatedly, as on a tanpura."""
    tonic = song.pitch(0, centre)
    return [
        Note(start + beat, 3, tonic + interval)
        for start, _ in song.bars(centre)
        for beat, interval in enumerate((7, 12, 12, 0))
    ]


def broken(song: Song, centre: int, rng: Generator, per_beat: int, octaves: int = 1) -> list[Note]:
    """Broken chords with `per_beat` notes per beat: up and down over several octaves, or the four
    pitches of one octave in a random order that is kept."""
    top = 3 * octaves
    up_and_down = [*range(top + 1), *range(top - 1, 0, -1)]
    order = rng.permutation(4).tolist() if octaves == 1 else up_and_down
    notes = []
    for start, chord in song.bars(centre):
        pitches = [pitch + 12 * octave for octave in range(octaves) for pitch in chord]
        pitches.append(chord[0] + 12 * octaves)
        for step in range(BAR * per_beat):
            pitch = pitches[order[step % len(order)]]
            notes.append(Note(start + step / per_beat, 1.6 / per_beat, pitch))
    return notes


def walk(
    song: Song, centre: int, rng: Generator, lengths: tuple[float, ...], leap: int = 2
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


def scattered(song: Song, centre: int, rng: Generator) -> list[Note]:
    """Random pitches at random times, in no key."""
    starts = np.sort(rng.uniform(0, len(song.chords) * BAR, size=5 * len(song.chords)))
    return [
        Note(start, rng.uniform(0.2, 1.5), centre + int(rng.integers(-18, 19)))
        for start in starts.tolist()
    ]


held = partial(repeated, rhythm="x.......", length=BAR)
stabbed = partial(repeated, rhythm=".x.x.x.x", length=0.3)
roots = partial(repeated, length=0.45, voicing=lambda chord: chord[:1])
bass = partial(roots, rhythm="x.x.x.x.")
offbeat_bass = partial(roots, rhythm=".x.x.x.x")
rock_bass = partial(roots, rhythm="xxxxxxxx")
country_bass = partial(roots, rhythm="x...x...")
picked = partial(broken, per_beat=2)
rolled = partial(broken, per_beat=4, octaves=2)
sequenced = partial(broken, per_beat=4)
melody = partial(walk, lengths=(0.5, 0.5, 1.0, 1.5))
aria = partial(walk, lengths=(1.0, 2.0, 2.0, 3.0), leap=3)
phrase = partial(walk, lengths=(0.5, 1.0, 1.0, 2.0))
bowed = partial(walk, lengths=(1.0, 1.5, 2.0))
running = partial(walk, lengths=(0.25,))
