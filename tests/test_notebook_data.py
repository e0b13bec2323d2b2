"""Notebook 01 on every data set, in its published layout."""

import json
from pathlib import Path

import numpy as np
import papermill
import pytest
import yaml
from layouts import RATE, tone, write_dcase, write_mtat, write_speech_commands, write_wav
from nbformat import NotebookNode
from speech import spoken

from jetatag.data.store import AudioStore

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def write_classes(root: Path) -> Path:
    """Write a folder of audio files with one sub-folder per class."""
    for number in range(150):
        path = root / ("high" if number < 110 else "low") / f"{number}.wav"
        write_wav(path, tone(2000 if number < 110 else 200, 0.3), RATE)
    return root


MAKERS = {
    "mtat": (
        write_mtat,
        {"options": {"split": "full"}, "tag": "never"},
        "mtat: clip counts differ from the official data: train 36",
    ),
    "dcase2017": (write_dcase, {}, "differ from the official data: train and valid "),
    "speech_commands": (
        lambda root: write_speech_commands(root, ("yes", "no", "up"), 10, say=spoken),
        {},
        "32 of 35 tags are never used",
    ),
    "folder": (write_classes, {"settings": {"sample_rate": 8_000}, "extractor": "sample_cnn"}, ""),
}


@pytest.mark.parametrize("name", MAKERS)
def test_notebook_01_prepares(tmp_path, name):
    make, more, printed = MAKERS[name]
    root = make(tmp_path / "data")
    places = {"data": root, "store": tmp_path / "store", "out": tmp_path / "out"}
    values = {key: str(place) for key, place in places.items()}
    executed = papermill.execute_notebook(
        NOTEBOOKS / "01_prepare_data.ipynb",
        tmp_path / "executed.ipynb",
        values | {"dataset": name, "tag": "", **more},
        cwd=NOTEBOOKS,
        progress_bar=False,
    )
    text = json.dumps(executed.cells)
    assert printed in text and "stored + " in text and "log_mel_logistic" in text
    audio = AudioStore.open(tmp_path / "store")
    facts = yaml.safe_load((tmp_path / "store" / "store.json").read_text())
    task = "multiclass" if name in ("speech_commands", "folder") else "multilabel"
    assert audio.vocabulary.task == task
    assert audio.sample_rate == (8_000 if name == "folder" else 16_000)
    assert set(menu(executed)) == tags_in_use(audio)
    assert facts["peak_normalise"] == (name in ("mtat", "folder")) and len(audio) > 20
    assert (tmp_path / "out" / "figures" / "tag_correlation.png").is_file()
    assert (tmp_path / "out" / "baselines.npz").is_file()


def menu(notebook: NotebookNode) -> list[str]:
    """Return the options of the notebook's drop-down menu."""
    (widgets,) = notebook.metadata.widgets.values()
    states = [widget["state"] for widget in widgets["state"].values()]
    (options,) = [state["_options_labels"] for state in states if "_options_labels" in state]
    return options


def tags_in_use(audio: AudioStore) -> set[str]:
    return set(np.array(audio.vocabulary.tags)[audio.labels.any(axis=0)])
