"""Markdown of the reference pages, generated from the package and its tests."""

import contextlib
import io
import os
import re
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any

from tables import ROOT, as_markdown

WIDTH = 88
"""Columns of the help texts."""


# Command line


def help_of(*verb: str) -> str:
    """What `jetatag VERB --help` prints."""
    from jetatag.cli import main

    printed = io.StringIO()
    columns, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), str(WIDTH)
    arguments, sys.argv = sys.argv, ["jetatag", *verb, "--help"]
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*verb, "--help"])
    finally:
        sys.argv = arguments
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return printed.getvalue().rstrip()


def verbs() -> list[str]:
    """The verbs that `jetatag --help` lists."""
    _, _, listed = help_of().partition("erbs")
    return re.findall(r"^ {1,6}([a-z][a-z-]+)(?: {2,}|$)", listed, re.M)


def commands() -> str:
    """A section for every verb, with its help text."""
    return "\n\n".join(f"## {verb}\n\n```text\n{help_of(verb)}\n```" for verb in verbs())


# Data sets


def clip_counts() -> str:
    """The numbers of clips of the official data, by split."""
    from jetatag.data import dcase2017, mtat, speech_commands

    known = {f"`mtat`, split `{split}`": own for split, own in mtat.KNOWN_CLIPS.items()}
    known["`dcase2017`"] = dcase2017.KNOWN_CLIPS
    known["`speech_commands`"] = speech_commands.KNOWN_CLIPS
    rows = [
        [name, ", ".join(f"{clips:,} {splits}" for splits, clips in own.items())]
        for name, own in known.items()
    ]
    return as_markdown(["data set", "clips"], rows)


# Configuration


def settings(name: str) -> str:
    """The fields of `RunConfig` or `Phase`: choices, default and description."""
    from jetatag import config
    from jetatag.extractors import EXTRACTORS
    from jetatag.joint.losses import CLASSIFICATION_LOSSES, PAIR_LOSSES
    from jetatag.joint.methods import METHODS

    tables = {"method": METHODS, "pair_loss": PAIR_LOSSES, "extractor": EXTRACTORS}
    tables |= {"classification_loss": CLASSIFICATION_LOSSES}
    others = {"pair_loss": ["none"]}
    model, entries = getattr(config, name), []
    for field, (annotation, default, description) in _fields(model).items():
        literal = typing.get_origin(annotation) is typing.Literal
        choices = typing.get_args(annotation) if literal else []
        choices = [*tables[field], *others.get(field, [])] if field in tables else choices
        told = [" or ".join(f"`{choice}`" for choice in choices)] if choices else []
        told += [f"default {_default(default)}" if default is not REQUIRED else "required"]
        entries.append(f"`{field}` ({'; '.join(told)})\n: {' '.join(description.split())}")
    return "\n\n".join(entries)


REQUIRED = object()


def _fields(model: type) -> dict[str, tuple[Any, Any, str]]:
    """Annotation, default and description of every field."""
    return {
        name: (
            field.annotation,
            REQUIRED if field.is_required() else field.default_factory or field.default,
            field.description,
        )
        for name, field in model.model_fields.items()
    }


def _default(value: Any) -> str:
    if callable(value) or isinstance(value, tuple):
        return "the paper's"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def presets() -> str:
    """What each preset changes of the paper's settings."""
    from jetatag.config import PRESETS, RunConfig

    rows = []
    for name, preset in PRESETS.items():
        paper = RunConfig(extractor=preset.extractor).to_dict() | {"extractor": "harmonic_cnn"}
        own = {k: v for k, v in preset.to_dict().items() if v != paper[k]}
        told = ", ".join(f"`{k}` {_value(v)}" for k, v in own.items())
        rows.append([f"`{name}`", told or "nothing: the paper's settings"])
    return as_markdown(["preset", "differs from the paper in"], rows)


def _value(value: Any) -> str:
    if not isinstance(value, (list, tuple)):
        return f"{value:,}" if isinstance(value, int) else str(value)
    phases = [dict(phase) for phase in value]
    return " + ".join(f"{p['epochs']} × {p['optimizer']} {p['learning_rate']:g}" for p in phases)


def extractors() -> str:
    """The registered extractors with their sizes at the paper's width."""
    from jetatag.config import RunConfig
    from jetatag.evaluation.reading import extractor_label
    from jetatag.extractors import EXTRACTORS, build_extractor

    rows = []
    for name in EXTRACTORS:
        extractor = build_extractor(name, width=128)
        n_parameters = sum(p.numel() for p in extractor.parameters() if p.requires_grad)
        crop = RunConfig(extractor=name).crop_samples
        sizes = [f"{n_parameters:,}", f"{crop:,}", f"{extractor.min_samples:,}"]
        rows.append([extractor_label(name).replace(name, f"`{name}`"), *sizes])
    return as_markdown(["extractor", "parameters", "default crop, samples", "shortest crop"], rows)


PARTS = {"extractor": "F", "projection": "P", "tag_encoder": "E", "tag_decoder": "D"}
PARTS |= {"classifier": "C", "linear_head": "one linear layer"}
"""Parts of the model → their names on the page about the method."""


def pair_losses() -> str:
    """The registered pair losses, as their docstrings describe them."""
    from jetatag.joint.losses import PAIR_LOSSES

    return _described({name: entry.function for name, entry in PAIR_LOSSES.items()})


def classification_losses() -> str:
    """The registered classification losses, as their docstrings describe them."""
    from jetatag.joint.losses import CLASSIFICATION_LOSSES

    return _described(CLASSIFICATION_LOSSES)


def _described(functions: Mapping[str, Callable]) -> str:
    told = {name: " ".join(function.__doc__.split()) for name, function in functions.items()}
    return "\n\n".join(f"`{name}`\n: {text}" for name, text in told.items())


def methods() -> str:
    """The registered methods: what each is, and what learns in its stages."""
    from jetatag.joint.methods import METHODS

    rows = []
    for name, method in METHODS.items():
        parts = PARTS | ({"classifier": PARTS["linear_head"]} if method.head == "linear" else {})
        learns = (filter(None, map(parts.get, stage.learns)) for stage in method.stages)
        shown = map(", ".join, learns)
        rows.append([f"`{name}`", method.description, "; then ".join(shown)])
    return as_markdown(["method", "what it is", "what learns"], rows)


# Bad input


def bad_files() -> str:
    """What becomes of unusual and damaged audio files, as checked by the tests."""
    return _kinds("BAD_FILES", "file")


def bad_tables() -> str:
    """What becomes of unusual and damaged tables, as checked by the tests."""
    return _kinds("BAD_TABLES", "table or row")


def _kinds(name: str, header: str) -> str:
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        import test_bad_input as tests
    finally:
        sys.path.remove(str(ROOT / "tests"))
    rows = [[kind, verdict] for kind, (_, verdict) in getattr(tests, name).items()]
    return as_markdown([header, "result"], rows)
