"""A tiny data set in MagnaTagATune's layout, and what is made from it, for every room's tests."""

from pathlib import Path

import numpy as np
import pytest
from layouts import write_mtat

from jetatag import config
from jetatag.data import mtat, store


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def mtat_folder(tmp_path: Path) -> Path:
    """A fresh folder that a test may damage."""
    return write_mtat(tmp_path / "mtat")


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> store.AudioStore:
    """The tiny data set, prepared once; tests must not write into it."""
    folder = tmp_path_factory.mktemp("tiny")
    return store.build(mtat.load(write_mtat(folder / "mtat")), folder / "store", workers=2)


@pytest.fixture(scope="session")
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
