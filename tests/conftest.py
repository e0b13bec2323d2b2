"""A tiny data set in MagnaTagATune's layout, and what is made from it, for every room's tests."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from jetatag import config, store
from jetatag.datasets import mtat

RATE = 16_000
TAGS = ("low", "high", "noisy", "never")


def tone(frequency: float, seconds: float, noise: float, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return 0.4 * np.sin(2 * np.pi * frequency * time) + noise * rng.standard_normal(len(time))


def write_mtat(root: Path, n_clips: int = 48, seconds: float = 2.0) -> Path:
    """Tones whose tags can be heard: low or high, noisy or not; every sixth clip has no tag."""
    rng = np.random.default_rng(7)
    rows, infos = [], []
    for i in range(n_clips):
        folder = "0123456789abcdef"[i % 16]
        path = f"{folder}/artist{i % 5}-album{folder}-{i:02d}-song-0-2.mp3"
        untagged = i % 6 == 5
        low, noisy = int(i % 4 < 2), int(rng.random() < 0.4)
        labels = [0, 0, 0, 0] if untagged else [low, 1 - low, noisy, 0]
        audio = tone(200 if low else 2000, seconds, 0.1 if noisy else 0.001, rng)
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


@pytest.fixture
def mtat_folder(tmp_path: Path) -> Path:
    """A fresh folder that a test may damage."""
    return write_mtat(tmp_path / "mtat")


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> store.AudioStore:
    """The tiny data set, prepared once; tests must not write into it."""
    folder = tmp_path_factory.mktemp("tiny")
    return store.build(mtat.load(write_mtat(folder / "mtat")), folder / "store", workers=2)


@pytest.fixture
def tiny_config() -> config.RunConfig:
    """A joint-embedding run of seconds."""
    phases = (config.Phase("adam", 1e-3, 2), config.Phase("sgd", 1e-2, 1))
    return config.RunConfig(
        pair_loss="subset_query",
        extractor="sample_cnn",
        width=4,
        embedding_dim=8,
        crop_samples=59_049,
        batch_size=8,
        stage1=phases,
        stage2=phases,
        stage2_crops=2,
        n_windows=3,
        device="cpu",
    )
