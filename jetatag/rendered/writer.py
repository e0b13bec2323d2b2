"""The built-in data set: rendered music with MagnaTagATune's tags, in MagnaTagATune's layout.

Tag sets are drawn from a model of MagnaTagATune's co-occurrence (`tag_model`), composed and
arranged as MIDI (`composer`), rendered with a SoundFont and mixed (`mix`), and written here as
MP3 files and tables that any reader of MagnaTagATune reads.
"""

import csv
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from tqdm import tqdm

from jetatag.files import atomic, read_json, write_json
from jetatag.rendered import composer, mix
from jetatag.rendered.tag_model import fit_labels, sample_labels, tag_table

__all__ = ["SIZES", "TAGS", "Clip", "fit_labels", "plan", "render", "sample_labels", "write"]

TAGS = tag_table()[0]
SIZES = {  # clips, seconds
    "smoke": (96, 6.0),
    "demo": (1200, 10.0),
    "study": (2600, 6.0),
    "fast": (25_863, 29.0),
    "paper": (25_863, 29.0),
}
VERSION = 1  # of the recipe: raised whenever the same seed would sound different
FOLDERS = "0123456789abcdef"
CLIPS_AN_ARTIST = 12
RECORD, ANNOTATIONS, CLIP_INFO = "rendered.json", "annotations_final.csv", "clip_info_final.csv"


@dataclass(frozen=True)
class Clip:
    """Where one clip belongs, and what it shall sound like."""

    clip_id: int
    artist: int
    album: int  # of the artist
    track: int
    folder: str
    tags: tuple[str, ...]
    duration_s: float

    @property
    def names(self) -> tuple[str, str, str]:
        """Artist, album and title."""
        return f"artist_{self.artist:03d}", f"album_{self.album}", f"piece_{self.clip_id:05d}"

    @property
    def mp3_path(self) -> str:
        """Path relative to `mp3/`, in MagnaTagATune's pattern."""
        artist, album, title = self.names
        end = round(self.duration_s)
        return f"{self.folder}/{artist}-{album}-{self.track:02d}-{title}-0-{end}.mp3"


def write(
    root: Path | str,
    n_clips: int = 1200,
    duration_s: float = 10.0,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Write the data set under `root` in MagnaTagATune's layout and return `root`.

    `annotations_final.csv`, `clip_info_final.csv` and `mp3/<0-9a-f>/*.mp3` (mono, 16 or
    22.05 kHz, `duration_s` seconds each). The same arguments give the same bytes, whatever the
    number of `workers` (processes; one a core by default). What exists is kept: an interrupted
    call goes on where it stopped, the tables come last. The processes start afresh, so a script
    calls this under `if __name__ == "__main__"`. Raises ValueError for sizes below one clip or
    one second, and where `root` holds other data.
    """
    root = Path(root)
    if n_clips < 1 or duration_s < 1:
        raise ValueError(
            f"{n_clips} clips of {duration_s} s are too few: ask for at least 1 clip of 1 second."
        )
    _claim(root, {"n_clips": n_clips, "duration_s": float(duration_s), "seed": seed})
    clips = plan(n_clips, duration_s, seed)
    missing = [clip for clip in clips if not (root / "mp3" / clip.mp3_path).exists()]
    _record_all(root, missing, seed, workers or os.cpu_count() or 1)
    if missing or not (root / ANNOTATIONS).exists():
        _write_tables(root, clips)
    return root


def plan(n_clips: int, duration_s: float, seed: int) -> list[Clip]:
    """Give every clip its tags, artist, album, track and folder; a function of its arguments.

    Artists differ in size as real ones do. Albums are dealt to the sixteen folders so that all
    hold nearly the same number of clips: no album crosses folders, artists do.
    """
    labels = sample_labels(n_clips, seed)
    rng = np.random.default_rng([seed, n_clips])
    n_artists = max(1, round(n_clips / CLIPS_AN_ARTIST))
    weights = 1 / (np.arange(n_artists) + 3.0)
    artists = rng.choice(n_artists, size=n_clips, p=weights / weights.sum())
    albums = _albums(artists, max_clips=int(np.clip(n_clips // 40, 1, 8)), rng=rng)
    folders = _deal([len(rows) for _, _, rows in albums], rng)
    clips = [
        Clip(row + 1, artist, album, track, FOLDERS[folder], _names(labels[row]), duration_s)
        for (artist, album, rows), folder in zip(albums, folders, strict=True)
        for track, row in enumerate(rows, start=1)
    ]
    return sorted(clips, key=lambda clip: clip.clip_id)


def _claim(root: Path, arguments: dict[str, int | float]) -> None:
    """Write what `root` will hold into it, or refuse if it holds something else."""
    arguments = arguments | {"version": VERSION}
    if (root / RECORD).exists():
        held = read_json(root / RECORD)
        if held != arguments:
            raise ValueError(
                f"{root} holds rendered data made with {held}, not {arguments}: "
                "choose another folder or delete this one."
            )
    elif (root / ANNOTATIONS).exists() or (root / "mp3").exists():
        raise ValueError(f"{root} holds a data set that is not rendered: choose another folder.")
    else:
        write_json(root / RECORD, arguments)


def _names(row: np.ndarray) -> tuple[str, ...]:
    return tuple(tag for tag, present in zip(TAGS, row, strict=True) if present)


def _albums(
    artists: np.ndarray, max_clips: int, rng: np.random.Generator
) -> list[tuple[int, int, list[int]]]:
    """Cut every artist's rows into albums of 1 to `max_clips`: (artist, album, rows)."""
    albums = []
    for artist in np.unique(artists):
        rows, album = np.flatnonzero(artists == artist).tolist(), 1
        while rows:
            size = int(rng.integers(1, max_clips + 1))
            albums.append((int(artist), album, rows[:size]))
            rows, album = rows[size:], album + 1
    return albums


def _deal(sizes: list[int], rng: np.random.Generator) -> list[int]:
    """A folder for every album, the largest first, each to the folder with the fewest clips."""
    folders, filled = [0] * len(sizes), np.zeros(len(FOLDERS), dtype=int)
    for album in sorted(rng.permutation(len(sizes)).tolist(), key=lambda k: -sizes[k]):
        emptiest = np.flatnonzero(filled == filled.min())
        folders[album] = int(rng.choice(emptiest))
        filled[folders[album]] += sizes[album]
    return folders


@cache
def _artist(seed: int, artist: int) -> tuple[dict[str, int], mix.Mix]:
    """An artist's programs and mix."""
    rng = np.random.default_rng([seed, 1, artist])
    return composer.choose_programs(rng), mix.choose_mix(rng)


def render(clip: Clip, seed: int) -> tuple[np.ndarray, int]:
    """Compose, render and mix one clip: mono float32 (n_samples,) and its sample rate in Hz."""
    rng = np.random.default_rng([seed, 2, clip.clip_id])
    programs, sound = _artist(seed, clip.artist)
    score = composer.arrange(clip.tags, rng)
    midi = composer.compose(score, programs, clip.duration_s + mix.LEAD_IN_S, rng)
    return mix.record(midi, sound, clip.duration_s, score.dynamic, rng), sound.sample_rate


def _write_clip(clip: Clip, root: Path, seed: int) -> None:
    audio, sample_rate = render(clip, seed)
    with atomic(root / "mp3" / clip.mp3_path) as path:
        soundfile.write(
            path,
            audio,
            sample_rate,
            format="MP3",
            subtype="MPEG_LAYER_III",
            bitrate_mode="VARIABLE",
            compression_level=0.8,  # about 32 kbit/s, as MagnaTagATune has
        )


def _record_all(root: Path, clips: list[Clip], seed: int, workers: int) -> None:
    work = partial(_write_clip, root=root, seed=seed)
    done = _mapped(work, clips, min(workers, len(clips)))
    for _ in tqdm(done, desc="render", total=len(clips), unit="clip", disable=not clips):
        pass


def _mapped(work: partial, clips: list[Clip], workers: int) -> Iterator[None]:
    """Map in this process, or over fresh processes that share nothing with this one."""
    if workers <= 1:
        yield from map(work, clips)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        yield from pool.map(work, clips, chunksize=4)


def _write_tables(root: Path, clips: list[Clip]) -> None:
    """Write MagnaTagATune's two tables, clip information first: annotations mean completeness."""
    annotations = pd.DataFrame(
        [[clip.clip_id, *(int(tag in clip.tags) for tag in TAGS), clip.mp3_path] for clip in clips],
        columns=["clip_id", *TAGS, "mp3_path"],
    )
    information = pd.DataFrame(
        {
            "clip_id": clip.clip_id,
            "track_number": clip.track,
            "title": clip.names[2],
            "artist": clip.names[0],
            "album": clip.names[1],
            "url": "",
            "segmentStart": 0,
            "segmentEnd": round(clip.duration_s),
            "original_url": "",
            "mp3_path": clip.mp3_path,
        }
        for clip in clips
    )
    for name, table in ((CLIP_INFO, information), (ANNOTATIONS, annotations)):
        with atomic(root / name) as path:
            table.to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_ALL, lineterminator="\n")
