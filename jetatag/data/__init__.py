"""Data sets as an `Index`: `DATASETS` lists them; each is read from its folder by one module."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from jetatag.data import dcase2017, folder, mtat, speech_commands
from jetatag.data.index import SPLITS, DataWarning, Index, Vocabulary
from jetatag.files import check_arguments, check_known

__all__ = ["DATASETS", "SPLITS", "DataSet", "DataWarning", "Index", "Vocabulary", "load"]


@dataclass(frozen=True)
class DataSet:
    """One data set: how to read it, and what users of a model trained on it should know."""

    load: Callable[..., Index]
    title: str
    licence: str
    licence_link: str = ""

    @property
    def options(self) -> list[str]:
        """The names of the options that `load` takes."""
        return [name for name in signature(self.load).parameters if name not in ("root", "name")]


DATASETS = {
    "rendered": DataSet(
        load=mtat.load,  # it has MagnaTagATune's layout
        title="jetatag's built-in rendered music",
        licence="made by jetatag (MIT) from rendered MIDI, no recordings; its tag statistics are "
        "from MagnaTagATune (CC BY-NC-SA 3.0)",
    ),
    "mtat": DataSet(
        load=mtat.load,
        title="MagnaTagATune",
        licence="CC BY-NC-SA 3.0 (MagnaTagATune, Law et al., ISMIR 2009; music by Magnatune)",
        licence_link="https://creativecommons.org/licenses/by-nc-sa/3.0/",
    ),
    "dcase2017": DataSet(
        load=dcase2017.load,
        title="DCASE 2017 task 4",
        licence="labels CC BY 4.0 (AudioSet, Google); the audio is from YouTube videos and belongs "
        "to their owners",
        licence_link="https://creativecommons.org/licenses/by/4.0/",
    ),
    "speech_commands": DataSet(
        load=speech_commands.load,
        title="Speech Commands",
        licence="CC BY 4.0 (Warden, 2018; Google)",
        licence_link="https://creativecommons.org/licenses/by/4.0/",
    ),
    "folder": DataSet(load=folder.load, title="the user's own data", licence="that of the files"),
}
"""All data sets by name."""


def load(name: str, root: Path | str, **options: Any) -> Index:
    """Read the data set `name` from its folder `root`; `options` are those of its loader. Raises
    `ValueError` for an unknown name or option; see the loaders for other errors."""
    check_options(name, options)
    check_arguments(load, {"root": root})
    return DATASETS[name].load(root, name=name, **options)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for an unknown data set, and for options of unknown name or wrong type."""
    check_known([name], DATASETS, "data set")
    data_set = DATASETS[name]
    if options and not data_set.options:
        raise ValueError(f"{name} takes no options: leave out {', '.join(map(repr, options))}.")
    check_known(options, data_set.options, f"option of {name}")
    check_arguments(data_set.load, options)
