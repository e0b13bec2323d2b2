"""Music auto-tagging with joint embeddings (Lee & Cho, KSC 2021), in PyTorch."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `jetatag.load` on first use, because it loads torch."""
    if name == "load":
        from jetatag.apps.tagger import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
