"""Files that are whole or absent, and paths that stay inside their folder."""

import fcntl
import hashlib
import json
import os
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

NOT_TEXT = "\N{REPLACEMENT CHARACTER}"
NOT_UTF8 = "its name is not UTF-8: rename it"
AUDIO_SUFFIXES = {
    *(".mp3", ".mp2", ".mpga", ".wav", ".wave", ".rf64", ".w64", ".voc", ".flac", ".wma"),
    *(".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf"),
    *(".aac", ".ac3", ".eac3", ".m4a", ".m4b", ".mp4", ".mka", ".mkv", ".webm"),
}
"""How names of audio files end; sound tracks of videos count."""


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it onto `path` once the block succeeds.

    A reader therefore sees the old file or the new one, never half of one. The temporary name
    keeps the suffix, because many writers choose the format by it. A link stays one: what it leads
    to is replaced.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.stem}.partial{path.suffix}")


def check_writable(*paths: Path, read: Iterable[Path] = ()) -> None:
    """Refuse (`ValueError`) outputs that would destroy something or be lost, before the work: two
    that are one file, a file that is `read`, audio, what is no file, and what `atomic` could not
    write, found out by trying, of which nothing is left."""
    inputs, outputs = {Path(os.path.realpath(path)) for path in read}, set()
    for path in paths:
        place = Path(os.path.realpath(path))
        if place in outputs:
            raise ValueError(f"{path} is to hold two things: name a file for each.")
        if place in inputs:
            raise ValueError(f"{path} is one of the files to read: name another to write.")
        if is_audio(place):
            raise ValueError(f"{path} is named as audio: name a file of another kind to write.")
        if place.exists() and not place.is_file():
            raise ValueError(f"{path} is a folder, pipe or device: name a file to write.")
        _try_to_write(path)
        outputs.add(place)


def _try_to_write(path: Path) -> None:
    temporary = _temporary(Path(os.path.realpath(path)))
    new = [folder for folder in temporary.parents if not folder.exists()]
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        temporary.unlink()
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{path} cannot be written: {path.parent} is no folder.") from None
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written ({error.strerror}): name another place."
        ) from None
    finally:
        for folder in filter(Path.is_dir, new):
            folder.rmdir()


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically; the file ends with a newline."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read JSON; a missing or broken file is refused in one sentence (`ValueError`)."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: run the step that writes it.") from None
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}): delete it and run its step again."
        ) from None


def write_arrays(path: Path | str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed npz, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as file:  # of any suffix
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """Read the named arrays of an npz; a missing or broken one is refused (`ValueError`)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} does not exist: run the notebook that writes it."
        ) from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
        raise ValueError(f"{path} is damaged: delete it and run its notebook again.") from None


def save_figure(figure: Any, folder: Path | str, name: str) -> Path:
    """Write a matplotlib figure as `folder/name.png` (150 dpi) and, to be scaled, `name.pdf`,
    atomically; returns the picture's path.

    Same figure, same bytes: neither file holds a date, and the figure's layout is fixed first,
    because a layout that is worked out anew at each drawing moves by a hair.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {})):
        path = Path(folder) / f"{name}{suffix}"
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=150, metadata=metadata)
    return path


def is_audio(path: Path | str) -> bool:
    """Whether a file's name ends as those of audio do."""
    return Path(path).suffix.lower() in AUDIO_SUFFIXES


def as_text(path: Path | str) -> str:
    """A path as text; what is not UTF-8 in it becomes `NOT_TEXT`, so that it names no file."""
    return os.fsencode(path).decode("utf-8", "replace")


def printable(text: str) -> str:
    """Text on one line of a terminal, what would steer it escaped as `repr` does."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def inside(root: Path | str, relative: str) -> Path:
    """Return `root / relative`, refusing any path that leaves `root` (`ValueError`), also by a
    link, and links that lead nowhere or round in a circle."""
    path = Path(root) / relative
    if path.is_symlink() and not path.exists():
        raise ValueError(f"{relative!r} is a link that leads nowhere: correct or remove it.")
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise ValueError(f"{relative!r} points outside the data folder: paths must stay in it.")
    return path


@contextmanager
def lock_folder(folder: Path | str, wait: bool = False) -> Iterator[None]:
    """Hold `folder` for this process; while another one holds it, `wait` or refuse (`ValueError`).

    The operating system lets go when the process ends, however it ends, and with it those that it
    began with `close_fds=False`.
    """
    with _lock(Path(folder)) as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = f"another process is at work on {folder}"
            if not wait:
                raise ValueError(f"{told}: wait for it or stop it.") from None
            print(f"{told}: waiting for it.", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lock(folder: Path) -> TextIO:
    """The lock file of `folder`, open; who held it before may be removing the folder just now."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            return (folder / ".lock").open("a")


def checksum(*chunks: bytes | np.ndarray) -> str:
    """SHA-256 over `chunks`, first 16 hexadecimal digits: names a data set or split in records."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()[:16]
