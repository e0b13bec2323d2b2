"""Folders on disk → `Index`, one file a data set."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from jetatag.data import dcase2017, folder, mtat, speech_commands
from jetatag.data.index import SPLITS, DataWarning, Index, Vocabulary
from jetatag.files import check_arguments, check_known

__all__ = [
    "DATASETS",
    "LICENCES",
    "LICENCE_LINKS",
    "SPLITS",
    "TITLES",
    "DataWarning",
    "Index",
    "Vocabulary",
    "check_options",
    "load",
]

DATASETS = {
    "rendered": mtat.load,
    "mtat": mtat.load,
    "dcase2017": dcase2017.load,
    "speech_commands": speech_commands.load,
    "folder": folder.load,
}
"""Loaders by name. The built-in set is written in MagnaTagATune's own layout and read by the
same function."""

TITLES = {
    "rendered": "jetatag's built-in rendered music",
    "mtat": "MagnaTagATune",
    "dcase2017": "DCASE 2017 task 4",
    "speech_commands": "Speech Commands",
    "folder": "a folder of the trainer's own",
}
"""What each data set is, for who meets a model and not the data."""

LICENCES = {
    "rendered": "made by jetatag (MIT) of rendered MIDI, no recordings; its tag statistics are of "
    "MagnaTagATune (CC BY-NC-SA 3.0)",
    "mtat": "CC BY-NC-SA 3.0 (MagnaTagATune, Law et al., ISMIR 2009; music by Magnatune)",
    "dcase2017": "labels CC BY 4.0 (AudioSet, Google); the sound is of YouTube videos, each its "
    "owner's",
    "speech_commands": "CC BY 4.0 (Warden, 2018; Google)",
    "folder": "that of the files, a folder of the trainer's own",
}
"""By whose leave each data set may be used, for what is passed on."""

LICENCE_LINKS = {
    "mtat": "https://creativecommons.org/licenses/by-nc-sa/3.0/",
    "dcase2017": "https://creativecommons.org/licenses/by/4.0/",
    "speech_commands": "https://creativecommons.org/licenses/by/4.0/",
}

NOT_OPTIONS = ("root", "name")


def load(name: str, root: Path | str, **options: Any) -> Index:
    """Read the folder `root` of the data set called `name`; `options` are its loader's own.

    Unknown names are refused in one sentence (`ValueError`), as the loaders refuse bad folders.
    """
    check_options(name, options)
    check_arguments(load, {"root": root})
    return DATASETS[name](root, name=name, **options)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse (`ValueError`) an unknown data set, and options of unknown name or another type."""
    check_known([name], DATASETS, "data set")
    if not isinstance(options, Mapping):
        raise ValueError(f"options must be name: value pairs, not {options!r}.")
    taken = [option for option in signature(DATASETS[name]).parameters if option not in NOT_OPTIONS]
    if options and not taken:
        raise ValueError(f"{name} takes no options: leave out {', '.join(map(repr, options))}.")
    check_known(options, taken, f"option of {name}")
    check_arguments(DATASETS[name], options)
