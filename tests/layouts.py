"""Small data sets in their official layouts, with sounds that can be told apart."""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
import soundfile

from jetatag.data import dcase2017, speech_commands

Rows = Iterable[tuple[str, str]]
DCASE_RATE = 44_100
RATE = SPEECH_RATE = 16_000
TAGS = ("low", "high", "noisy", "never")


def dcase_rows(n_training: int = 10, n_testing: int = 2, n_evaluation: int = 2) -> dict[str, Rows]:
    """(file, label) rows of each list, with the given numbers of clips per class; every fourth clip
    has the next class, too. Names begin with a hyphen, an underscore or a Y, as video names do.
    """
    counts = {"training": n_training, "testing": n_testing, "evaluation": n_evaluation}
    lists: dict[str, list[tuple[str, str]]] = {which: [] for which in counts}
    for which, count in counts.items():
        for i in range(count * len(dcase2017.CLASSES)):
            file = f"{'-_Y'[i % 3]}{which[:2]}_{i:07d}_30.000_40.000.wav"
            carried = [i, i + 1] if i % 4 == 0 else [i]
            lists[which] += [(file, dcase2017.CLASSES[c % len(dcase2017.CLASSES)]) for c in carried]
    return lists


def write_dcase(
    root: Path, lists: Mapping[str, Rows] | None = None, seconds: float = 0.3, audio: bool = True
) -> Path:
    """DCASE 2017 task 4 under `root`: the lists, and chords with a pitch per class."""
    for which, rows in (lists or dcase_rows()).items():
        write_dcase_list(root, which, rows)
        labels: dict[str, list[int]] = {}
        for file, label in rows:
            labels.setdefault(file, []).append(dcase2017.CLASSES.index(label))
        for file, classes in labels.items() if audio else ():
            sound = sum(tone(150 * 1.25**c, seconds, DCASE_RATE) for c in classes) / len(classes)
            write_wav(root / dcase2017.FOLDERS[which] / f"Y{file}", sound, DCASE_RATE)
    return root


def write_dcase_list(root: Path, which: str, rows: Rows) -> Path:
    """One list in the official format: tabs, no header, a row per label."""
    path = root / f"groundtruth_weak_label_{which}_set.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{file}\t30.000\t40.000\t{label}\n" for file, label in rows))
    return path


def write_speech_commands(
    root: Path,
    words: Iterable[str] = speech_commands.WORDS,
    n_speakers: int = 12,
    say: Callable[[str, int], np.ndarray] | None = None,
) -> Path:
    """Speech Commands under `root`: every word by every speaker, two of them in each list; `say`
    returns one second at 16 kHz, by default a tone."""
    say = say or (lambda word, speaker: tone(200 + 20 * speech_commands.WORDS.index(word), 1.0))
    listed: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    of_speaker = {n_speakers - 4: 0, n_speakers - 3: 0, n_speakers - 2: 1, n_speakers - 1: 1}
    for word in words:
        for speaker in range(n_speakers):
            path = f"{word}/{speaker_name(speaker)}_nohash_0.wav"
            write_wav(root / path, say(word, speaker), SPEECH_RATE)
            if speaker in of_speaker:
                list(listed.values())[of_speaker[speaker]].append(path)
    for file, paths in listed.items():
        (root / file).write_text("".join(f"{path}\n" for path in paths))
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 3 * SPEECH_RATE)
    write_wav(root / "_background_noise_" / "white_noise.wav", noise, SPEECH_RATE)
    return root


def speaker_name(speaker: int) -> str:
    """Eight hexadecimal digits, as in the official names."""
    return sha256(str(speaker).encode()).hexdigest()[:8]


def tone(frequency: float, seconds: float, rate: int = SPEECH_RATE) -> np.ndarray:
    """A sine at half of full scale, (n_samples,) float64."""
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write 16-bit WAV, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")


def noisy_tone(
    frequency: float, seconds: float, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """A sine with white noise at 16 kHz."""
    time = np.arange(int(seconds * RATE)) / RATE
    return 0.4 * np.sin(2 * np.pi * frequency * time) + noise * rng.standard_normal(len(time))


def write_mtat(root: Path, n_clips: int = 48, seconds: float = 2.0) -> Path:
    """MagnaTagATune under `root`: tones, low or high, noisy or not; every sixth clip has no tag."""
    rng = np.random.default_rng(7)
    rows, infos = [], []
    for i in range(n_clips):
        folder = "0123456789abcdef"[i % 16]
        path = f"{folder}/artist{i % 5}-album{folder}-{i:02d}-song-0-2.mp3"
        untagged = i % 6 == 5
        low, noisy = int(i % 4 < 2), int(rng.random() < 0.4)
        labels = [0, 0, 0, 0] if untagged else [low, 1 - low, noisy, 0]
        audio = noisy_tone(200 if low else 2000, seconds, 0.1 if noisy else 0.001, rng)
        (root / "mp3" / folder).mkdir(parents=True, exist_ok=True)
        soundfile.write(root / "mp3" / path, audio, RATE, format="MP3")
        rows.append([i + 2, *labels, path])
        infos.append([i + 2, i, f"song {i}", f"artist {i % 5}", f"album {folder}", path])
    write_tsv(root / "annotations_final.csv", ["clip_id", *TAGS, "mp3_path"], rows)
    header = ["clip_id", "track_number", "title", "artist", "album", "mp3_path"]
    write_tsv(root / "clip_info_final.csv", header, infos)
    return root


def write_tsv(path: Path, header: list[str], rows: list[list]) -> None:
    lines = ["\t".join(f'"{value}"' for value in row) for row in [header, *rows]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
