"""A tiny data set in MagnaTagATune's layout, and what is made from it, for every room's tests."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from layouts import write_mtat
from scored import finished_run

from jetatag import config
from jetatag.apps import tagger
from jetatag.data import mtat, store
from jetatag.extractors import EXTRACTORS
from jetatag.joint.losses import PAIR_LOSSES
from jetatag.joint.methods import METHODS
from jetatag.training.run import Run

ROOT = Path(__file__).parents[1]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data set; tests must not write into it."""
    return write_mtat(tmp_path_factory.mktemp("tiny") / "mtat")


@pytest.fixture
def mtat_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return shutil.copytree(tiny_folder, tmp_path / "mtat")


@pytest.fixture(scope="session")
def tiny_store(tiny_folder: Path) -> store.AudioStore:
    """The tiny data set, prepared once; tests must not write into it."""
    return store.build(mtat.load(tiny_folder), tiny_folder.parent / "store", workers=2)


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


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_config, tiny_store) -> Run:
    """A scored run with joint embedding in one stage; tests must not write into it."""
    config = tiny_config.replace(method="joint")
    return finished_run(tmp_path_factory.mktemp("runs"), config, tiny_store)


@pytest.fixture(scope="session")
def model(run: Run) -> tagger.Tagger:
    return tagger.load(run.folder, device="cpu")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy, because building leaves files behind."""
    source = tmp_path_factory.mktemp("source")
    for name in ("jetatag", "notebooks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns(".*"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", source, source], check=True, capture_output=True)
    return next(source.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `jetatag` of a new environment with the wheel, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    paths = sysconfig.get_paths(vars={"base": folder, "platbase": folder})
    libraries = Path(paths["purelib"]) / "libraries.pth"
    libraries.write_text(sysconfig.get_path("purelib"))  # the .pth files in there have no effect
    command = [sys.executable, "-m", "pip", "--python", folder, "install", "--no-deps"]
    command += ["--no-index", "--ignore-installed", wheel]
    subprocess.run(command, check=True, capture_output=True)
    return Path(paths["scripts"]) / "jetatag"


@pytest.fixture
def registries() -> Iterator[None]:
    """Leaves the tables of pair losses, methods and extractors as they were."""
    tables = (PAIR_LOSSES, METHODS, EXTRACTORS)
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)
