"""Writes rendered music as MagnaTagATune is published: tag sets are sampled, composed as MIDI
(`composer`), rendered with a SoundFont and mixed (`mix`).
"""

import csv
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from scipy.special import ndtri
from tqdm import tqdm

from jetatag.data.workers import in_processes
from jetatag.files import atomic, read_json, write_json
from jetatag.rendered import composer, mix

TAG_MODEL = pd.read_csv(Path(__file__).with_name("tags.csv"), comment="#", index_col="tag")
"""The prevalence of each tag, and its latent correlation with every tag, a column each."""
TAGS = tuple(TAG_MODEL.index)
SIZES = {  # preset → number of clips, seconds each
    "smoke": (96, 6.0),
    "demo": (1600, 6.0),
    "study": (6200, 6.0),
    "fast": (25_863, 29.0),
    "paper": (25_863, 29.0),
}
VERSION = 1  # raise it when the same seed no longer gives the same bytes
FOLDERS = "0123456789abcdef"
CLIPS_PER_ARTIST = 12
RECORD, ANNOTATIONS, CLIP_INFO = "rendered.json", "annotations_final.csv", "clip_info_final.csv"


def write(
    root: Path | str,
    n_clips: int = 1600,
    duration_s: float = 6.0,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Write `n_clips` clips of `duration_s` seconds under `root`, and return `root`.

    Writes `annotations_final.csv`, `clip_info_final.csv` and `mp3/<0-9a-f>/*.mp3` (mono, 16 or
    22.05 kHz), and keeps existing ones. On one type of CPU, the same arguments give the same bytes
    for any number of `workers` (processes, by default one per core). Raises `ValueError` for too
    few clips or seconds, and if `root` holds other data.
    """
    root, size = Path(root), f"{n_clips} clips of {duration_s} s"
    if n_clips < 1 or duration_s < 1:
        raise ValueError(f"{size} are too few: ask for at least 1 clip of 1 second.")
    asked = {"n_clips": n_clips, "duration_s": float(duration_s), "seed": seed}
    _claim(root, asked | {"version": VERSION})
    clips = plan(n_clips, duration_s, seed)
    rows = clips.to_dict("records")
    if missing := [clip for clip in rows if not (root / "mp3" / clip["mp3_path"]).exists()]:
        write_one = partial(_write_clip, root=root, duration_s=duration_s, seed=seed)
        written = in_processes(write_one, missing, workers)
        list(tqdm(written, desc="render", total=len(missing), unit="clip"))
    if missing or not (root / ANNOTATIONS).exists():
        write_tables(root, clips)
    return root


def _claim(root: Path, arguments: dict[str, int | float]) -> None:
    """Record in `root` what it will hold; raise `ValueError` if it holds anything else."""
    if (root / RECORD).exists():
        if (held := read_json(root / RECORD)) != arguments:
            problem = f"{root} holds rendered data made with {held}, not {arguments}"
            raise ValueError(f"{problem}: choose another folder or delete this one.")
    elif (root / ANNOTATIONS).exists() or (root / "mp3").exists():
        raise ValueError(f"{root} holds a data set that is not rendered: choose another folder.")
    else:
        write_json(root / RECORD, arguments)


def plan(n_clips: int, duration_s: float, seed: int) -> pd.DataFrame:
    """One row per clip: the columns of clip_info_final.csv, where `mp3_path` is relative to the
    folder `mp3`, the clip's `tags`, and `performer`, the number of its artist.

    Few artists have many clips. An album lies in one of 16 folders of nearly equal size.
    """
    labels, names = sample_labels(n_clips, seed), np.array(TAGS, dtype=object)
    rng = np.random.default_rng([seed, n_clips])
    n_artists = max(1, round(n_clips / CLIPS_PER_ARTIST))
    weights = 1 / (np.arange(n_artists) + 3.0)
    artists = rng.choice(n_artists, size=n_clips, p=weights / weights.sum())
    largest, albums = int(np.clip(n_clips // 40, 1, 8)), []  # (artist, album, rows)
    for artist in np.unique(artists).tolist():
        rows, album = np.flatnonzero(artists == artist).tolist(), 1
        while rows:
            size = int(rng.integers(1, largest + 1))
            albums.append((artist, album, rows[:size]))
            rows, album = rows[size:], album + 1
    # The largest album first, each into the folder with fewest clips.
    clips, filled, end = [], np.zeros(len(FOLDERS), dtype=int), round(duration_s)
    shuffled = [albums[position] for position in rng.permutation(len(albums))]
    for performer, number, rows in sorted(shuffled, key=lambda album: -len(album[2])):
        emptiest = rng.choice(np.flatnonzero(filled == filled.min()))
        filled[emptiest] += len(rows)
        artist, album = f"artist_{performer:03d}", f"album_{number}"
        for track, row in enumerate(rows, start=1):
            title = f"piece_{row + 1:05d}"
            path = f"{FOLDERS[emptiest]}/{artist}-{album}-{track:02d}-{title}-0-{end}.mp3"
            clip = {"clip_id": row + 1, "track_number": track, "title": title, "artist": artist}
            clip |= {"album": album, "url": "", "segmentStart": 0, "segmentEnd": end}
            clip |= {"original_url": "", "mp3_path": path, "performer": performer}
            clips.append(clip | {"tags": tuple(names[labels[row] == 1])})
    return pd.DataFrame(clips).sort_values("clip_id", ignore_index=True)


def sample_labels(n: int, seed: int) -> np.ndarray:
    """Draw `n` tag sets that co-occur as in MagnaTagATune, by a Gaussian copula over its 50 most
    frequent tags: (n, 50) uint8 of 0 and 1, columns in the order of `TAGS`. About 18 % are empty,
    as there. The first rows do not depend on `n`."""
    correlation = TAG_MODEL[list(TAGS)].to_numpy()
    independent = np.random.default_rng(seed).standard_normal((n, len(TAGS)))
    latent = independent @ np.linalg.cholesky(correlation).T
    return (latent > -ndtri(TAG_MODEL.prevalence.to_numpy())).astype(np.uint8)


@cache
def _artist(seed: int, performer: int) -> tuple[dict[str, int], mix.Mix]:
    rng = np.random.default_rng([seed, 1, performer])
    return composer.choose_programs(rng), mix.Mix(rng)


def render(clip: Mapping[str, Any], duration_s: float, seed: int) -> tuple[np.ndarray, int]:
    """Compose, render and mix a row of `plan`: (n_samples,) float32, and its sample rate (Hz)."""
    rng = np.random.default_rng([seed, 2, clip["clip_id"]])
    programs, sound = _artist(seed, clip["performer"])
    score = composer.arrange(clip["tags"], rng)
    midi = composer.compose(score, programs, duration_s + mix.LEAD_IN_S, rng)
    return mix.record(midi, sound, duration_s, score.dynamic, rng), sound.sample_rate


def _write_clip(clip: Mapping[str, Any], root: Path, duration_s: float, seed: int) -> None:
    audio, sample_rate = render(clip, duration_s, seed)
    vbr = {"bitrate_mode": "VARIABLE", "compression_level": 0.8}  # about 32 kbit/s, as in the data
    with atomic(root / "mp3" / clip["mp3_path"]) as path:
        soundfile.write(path, audio, sample_rate, "MPEG_LAYER_III", format="MP3", **vbr)


def write_tables(root: Path, clips: pd.DataFrame) -> None:
    """Write the two tables, annotations last: if they exist, the data set is complete."""
    info = clips.drop(columns=["performer", "tags"])
    labels = pd.DataFrame([[int(tag in own) for tag in TAGS] for own in clips.tags], columns=TAGS)
    annotations = pd.concat([info.clip_id, labels, info.mp3_path], axis=1)
    for name, table in ((CLIP_INFO, info), (ANNOTATIONS, annotations)):
        with atomic(root / name) as path:
            table.to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_ALL, lineterminator="\n")
