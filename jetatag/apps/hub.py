"""To and from the Hugging Face Hub, by its own library, an optional extra."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

ADDRESS = "hf://"
REMEDY = "(check the name, the connection and, for what is not public, `hf auth login`)"


@contextmanager
def _library(what: str) -> Iterator[ModuleType]:
    """The Hub's library; without it, and for what goes wrong with it, one sentence."""
    try:
        import huggingface_hub
    except ImportError:
        raise ImportError(
            "the Hugging Face Hub needs its library: pip install 'jetatag[hub]'."
        ) from None
    try:
        yield huggingface_hub
    except ValueError as error:
        raise ValueError(_sentence(what, error)) from None
    except Exception as error:  # of every kind: its own, and those of whatever connects it
        raise OSError(_sentence(what, error)) from None


def _check_nameless(name: str, before: str = "") -> None:
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", name):
        raise ValueError(f"{before}{name} names no model on the Hub: write {before}owner/name.")


def _sentence(what: str, error: Exception) -> str:
    told = str(error).strip().splitlines() or [type(error).__name__]
    return f"{what}: {told[0].rstrip('.')} {REMEDY}."


def fetch(address: str, files: Sequence[str]) -> Path:
    """The local folder with `files` of a model, hf://owner/name or hf://owner/name@revision.

    Raises `ImportError` without the library, `ValueError` or `OSError` for what it says.
    """
    name, _, revision = address.removeprefix(ADDRESS).partition("@")
    _check_nameless(name, ADDRESS)
    with _library(f"{address} cannot be fetched") as hub:
        return Path(
            hub.snapshot_download(name, revision=revision or None, allow_patterns=list(files))
        )


def push(folder: Path | str, name: str, private: bool = False) -> str:
    """Upload `folder` as the model owner/name, which is made where there is none; returns its
    address. Raises as `fetch`."""
    _check_nameless(name)
    with _library(f"{folder} cannot be pushed to {name}") as hub:
        api = hub.HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="jetatag push")
    return f"{ADDRESS}{name}"
