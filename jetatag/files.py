"""Atomic files, locks, checksums, and checks of names and types with one-sentence errors."""

import atexit
import difflib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import numpy as np
from filelock import FileLock, Timeout
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

NOT_TEXT = "\N{REPLACEMENT CHARACTER}"
NOT_UTF8 = "its name is not UTF-8: rename it"
AUDIO_SUFFIXES = {
    *(".mp3", ".mp2", ".mpga", ".wav", ".wave", ".rf64", ".w64", ".voc", ".flac", ".wma"),
    *(".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf"),
    *(".aac", ".ac3", ".eac3", ".m4a", ".m4b", ".m4r", ".mp4", ".m4v", ".mov", ".3gp"),
    *(".mka", ".mkv", ".webm", ".ogv", ".wmv", ".asf"),
}
"""Suffixes of audio files, and of videos with a sound track."""
CACHES = {"XDG_CACHE_HOME": ".cache", "MPLCONFIGDIR": ".config", "IPYTHONDIR": ".ipython"}
"""Variables that tell libraries where to keep files, and their default in the home folder."""
PARTIAL = ".{path.stem}.partial{path.suffix}"  # the name of a file that is being written
Count = Annotated[int, Field(ge=1)]
STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
ADAPTER = lru_cache(partial(TypeAdapter, config=STRICT))
TYPES = {"string": "str", "tuple": "list", "Sequence": "list", "sequence_str": "list"}
TYPES |= {"model": "dict"}
BOUNDS = {"greater_than": "above", "greater_than_equal": "at least"}
BOUNDS |= {"less_than": "below", "less_than_equal": "at most"}


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path of the same suffix; rename it to `path` if the block succeeds, so that
    readers never see a partial file. If `path` is a link, its target is replaced. (The library for
    this, atomicwrites, is no longer maintained.)"""
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(PARTIAL.format(path=path))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(*paths: Path, read: Iterable[Path] = (), remedy: str = "name another") -> None:
    """Raise `ValueError` before any work if one of the output `paths` is used twice, is an input
    (`read`) or audio, or cannot be written (`remedy`). The check leaves no files behind."""
    taken = dict.fromkeys(map(os.path.realpath, read), "is also an input: name another output file")
    for path in paths:
        target = Path(os.path.realpath(path))
        if problem := taken.get(str(target)):
            raise ValueError(f"{path} {problem}.")
        if has_audio_suffix(target):
            raise ValueError(f"{path} is named like audio: name a file of another kind to write.")
        taken[str(target)] = "is given for two outputs: name a file for each"
        try:
            if target.exists() and not target.is_file():
                raise ValueError(f"{path} is a folder, pipe or device: name a file to write.")
            home = next(folder for folder in target.parents if folder.exists())
            probe = home / PARTIAL.format(path=target)
            probe.touch()
            probe.unlink()
        except NotADirectoryError:
            raise ValueError(f"{path} cannot be written ({home} is a file): {remedy}.") from None
        except OSError as error:
            raise ValueError(f"{path} cannot be written ({error.strerror}): {remedy}.") from None


SYSTEM_ERRORS = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT}
"""Errors of the machine, which do not mean that a file is damaged."""


@contextmanager
def reading(path: Path | str, remedy: str = "delete it and run its step again") -> Iterator[None]:
    """Raise errors of the block, which reads `path`, as one sentence: `FileNotFoundError`, or
    `ValueError` with the `remedy` for damage of any type; errors of the machine pass unchanged."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: run the step that writes it.") from None
    except Exception as error:
        is_of_machine = getattr(error, "errno", None) in SYSTEM_ERRORS
        if is_of_machine or isinstance(error, MemoryError | PermissionError):
            raise
        problem = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(f"{path} is damaged ({problem}): {remedy}.") from None


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON with a final newline, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path | str) -> Any:
    """Read JSON; raises `FileNotFoundError` or, for a damaged file, `ValueError`."""
    with reading(path):
        return json.loads(Path(path).read_text("utf-8"))


def write_arrays(path: Path | str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed npz, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as file:  # keeps any suffix
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """Read the arrays of an npz; raises `FileNotFoundError` or, if damaged, `ValueError`."""
    with reading(path), np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def save_figure(figure: Any, folder: Path | str, name: str) -> Path:
    """Write a matplotlib figure as `folder/name.png` (150 dpi) and `name.pdf`, atomically; returns
    the PNG's path. The same figure gives the same bytes."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # a second computation would change the layout slightly
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {})):
        path = Path(folder) / f"{name}{suffix}"
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=150, metadata=metadata)
    return path


def checksum(*chunks: bytes | np.ndarray) -> str:
    """SHA-256 of `chunks`, first 16 hexadecimal digits."""
    return hashlib.sha256(b"".join(chunks)).hexdigest()[:16]


@contextmanager
def lock_folder(folder: Path | str, wait: bool = False) -> Iterator[None]:
    """Lock `folder` for this process; if another process holds it, `wait` or raise `ValueError`.
    The lock lasts as long as the process and, on Unix, children that inherit its handle."""
    folder, timeout = Path(folder), 0
    lock = FileLock(folder / ".lock", on_acquired=lambda handle: os.set_inheritable(handle, True))
    while not lock.is_locked:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout)
        except FileNotFoundError:
            continue  # whoever held the lock has just removed the folder
        except Timeout:
            message = f"another process is at work on {folder}"
            if not wait:
                raise ValueError(f"{message}: wait for it or stop it.") from None
            print(f"{message}: waiting for it.", file=sys.stderr)
            timeout = -1
    try:
        yield
    finally:
        lock.release()


@cache
def use_temporary_caches() -> None:
    """Give libraries a temporary folder where they cannot write their caches, or without a home."""
    home = os.path.expanduser("~")  # noqa: PTH111, as Path's fails for a user without one
    closed = ["HOME"] if home == "~" else []
    for name, own in CACHES.items():
        place = Path(os.environ.get(name) or f"{home}/{own}")
        nearest = next((folder for folder in (place, *place.parents) if folder.exists()), place)
        closed += [] if os.access(nearest, os.W_OK) else [name]
    if closed:
        folder = tempfile.mkdtemp(prefix="jetatag-caches-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ |= dict.fromkeys(closed, folder)


def has_audio_suffix(path: Path | str) -> bool:
    return Path(path).suffix.lower() in AUDIO_SUFFIXES


def as_text(path: Path | str) -> str:
    """A path as text; bytes that are not UTF-8 become `NOT_TEXT`."""
    return os.fsencode(path).decode("utf-8", "replace")


def as_path(text: str) -> str:
    """A path from `as_text` as this system names it, also where names are not in UTF-8."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def composed(text: str) -> str:
    """Text in the Unicode form NFC, in which names are compared."""
    return unicodedata.normalize("NFC", text)


def printable(text: str) -> str:
    """Text on one line; characters that would control the terminal are escaped as by `repr`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def inside(root: Path | str, relative: str) -> Path:
    """`root / relative`; raises `ValueError` if it leads out of `root` or is a broken link."""
    path = Path(root) / as_path(relative)
    if path.is_symlink() and not path.exists():
        raise ValueError(f"{relative!r} is a link that leads nowhere: correct or remove it.")
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise ValueError(f"{relative!r} points outside the data folder: move the file into it.")
    return path


def check_known(names: Iterable[Any], valid: Iterable[str], what: str) -> None:
    """Raise `ValueError` with the closest match for the first of `names` that is not `valid`."""
    valid = list(valid)
    for name in names:
        if name not in valid:
            raise ValueError(_unknown(name, valid, what))


def _unknown(name: Any, valid: list[str], what: str) -> str:
    close = difflib.get_close_matches(str(name), valid, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown {what} {name!r}{hint}: choose from {', '.join(valid)}."


def check_type(value: Any, annotation: Any, name: str) -> Any:
    """Return `value` as `annotation` declares it, or raise `ValueError` in one sentence. Text is
    not accepted as a number, nor true/false as an integer, nor NaN or infinity as a float."""
    try:
        return ADAPTER(annotation).validate_python(value)
    except ValidationError as error:
        optional = " or None" if type(None) in get_args(annotation) else ""
        raise ValueError(describe(error.errors(), name, optional)) from None


def check_arguments(function: Callable, values: Mapping[str, Any]) -> None:
    """Raise `ValueError` for the first of `values` that does not fit `function`'s annotations."""
    annotations = get_type_hints(function, include_extras=True)
    for name, value in values.items():
        check_type(value, annotations.get(name, Any), name)


def describe(problems: list[Mapping[str, Any]], name: str, optional: str = "") -> str:
    """pydantic's problems with the value called `name`, as one sentence with a remedy."""
    depth = max(len(problem["loc"]) for problem in problems)  # the closest members of a union
    problems = [problem for problem in problems if len(problem["loc"]) == depth]
    kind, value, context = (problems[0].get(key, {}) for key in ("type", "input", "ctx"))
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return f"{name} is missing: add it to {value}."
    if kind == "literal_error":
        return _unknown(value, re.findall(r"'(.*?)'", context["expected"]), name)
    if kind == "finite_number" or (kind == "float_type" and type(value) is int):
        return f"{name} must be a finite number, not {value}."
    if kind in BOUNDS:
        return f"{name} must be {BOUNDS[kind]} {min(context.values()):g}, not {value}."
    types = [p.get("ctx", {}).get("class") or p["type"].removesuffix("_type") for p in problems]
    types = " or ".join(dict.fromkeys(TYPES.get(name, name) for name in types))
    hint = " (in YAML write 1.0e-3, not 1e-3)" if kind == "float_type" else ""
    is_for_text = any(problem["type"] == "string_type" for problem in problems)
    if is_for_text and isinstance(value, bool | int | float | date | None):  # YAML's no, 80, null
        hint = f""" (to give text, quote it: '{name}="…"')"""
    return f"{name} must be of type {types}{optional}, not {value!r}{hint}."
