"""Notebook 01 on every data set, in the layouts they are published in."""

import json
from pathlib import Path

import papermill
import pytest
import yaml
from layouts import write_dcase, write_mtat, write_speech_commands
from speech import spoken

from jetatag.datasets import rendered
from jetatag.store import AudioStore

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def write_classes(root: Path) -> Path:
    """Someone's own folder: rendered clips by style, one folder a class."""
    rendered.write(root / "made", n_clips=40, duration_s=2.0, seed=0, workers=1)
    for number, path in enumerate(sorted((root / "made" / "mp3").rglob("*.mp3"))):
        place = root / "own" / ("even" if number % 2 else "odd") / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
    return root / "own"


MAKERS = {
    "mtat": (write_mtat, {"split": "full"}, "mtat: clips differ from the official data: train 36"),
    "dcase2017": (write_dcase, {}, "51,660"),
    "speech_commands": (
        lambda root: write_speech_commands(root, ("yes", "no", "up"), 10, say=spoken),
        {},
        "32 of 35 tags are never used",
    ),
    "folder": (write_classes, {}, ""),
}


@pytest.mark.parametrize("name", MAKERS)
def test_notebook_01_prepares(tmp_path, name):
    make, options, told = MAKERS[name]
    root = make(tmp_path / "data")
    places = {"data": root, "store": tmp_path / "store", "out": tmp_path / "out"}
    values = {key: str(place) for key, place in places.items()}
    executed = papermill.execute_notebook(
        NOTEBOOKS / "01_prepare_data.ipynb",
        tmp_path / "executed.ipynb",
        values | {"dataset": name, "options": options, "tag": ""},
        cwd=NOTEBOOKS,
        progress_bar=False,
    )
    said = json.dumps(executed.cells)
    assert told in said and "stored + " in said and "log_mel_logistic" in said
    audio = AudioStore.open(tmp_path / "store")
    facts = yaml.safe_load((tmp_path / "store" / "store.json").read_text())
    assert audio.vocabulary.task == (
        "multiclass" if name in ("speech_commands", "folder") else "multilabel"
    )
    assert facts["peak_normalise"] == (name in ("mtat", "folder")) and len(audio) > 20
    assert (tmp_path / "out" / "figures" / "tag_correlation.png").is_file()
