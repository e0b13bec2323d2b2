"""The Hugging Face Hub, by huggingface_hub, an optional extra."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

ADDRESS = "hf://"
REMEDY = "(check the name and the connection, and for private models `hf auth login`)"


@contextmanager
def library(failure: str) -> Iterator[ModuleType]:
    """huggingface_hub; its errors become one sentence that begins with `failure`."""
    try:
        import huggingface_hub
    except ImportError:
        remedy = "pip install 'jetatag[hub]'"
        raise ImportError(f"the Hugging Face Hub needs its library: {remedy}.") from None
    try:
        yield huggingface_hub
    except Exception as error:  # its own errors and those of the HTTP library have no common class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(f"{failure}: {reason} {REMEDY}.") from None


def fetch(address: str, files: Sequence[str]) -> Path:
    """Download `files` of a model, hf://owner/name or hf://owner/name@revision; returns the local
    folder. Raises `ImportError` without the library, `ValueError` or `OSError` for its errors."""
    name, _, revision = address.removeprefix(ADDRESS).partition("@")
    with library(f"{address} cannot be fetched") as hub:
        folder = hub.snapshot_download(name, revision=revision or None, allow_patterns=list(files))
    return Path(folder)
