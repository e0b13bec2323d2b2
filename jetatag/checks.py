"""One sentence for a name or value that cannot be, with the remedy."""

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints


def check_known(names: Iterable[str], valid: Iterable[str], what: str) -> None:
    """Raise one sentence (`ValueError`) for the first of `names` that `valid` does not hold."""
    valid = list(valid)
    for name in names:
        if name not in valid:
            near = difflib.get_close_matches(str(name), valid, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"unknown {what} {name!r}{hint}: choose from {', '.join(valid)}.")


def check_type(value: Any, annotation: Any, name: str) -> Any:
    """Return `value` as `annotation` wants it, or raise one sentence (`ValueError`).

    Whole numbers pass for floats and lists for tuples; text never passes for a number (`1e-3`
    is text in YAML, `1.0e-3` a number) and true/false never for an integer.
    """
    if get_origin(annotation) is Literal:
        check_known([value], get_args(annotation), name)
        return value
    if isinstance(annotation, types.UnionType):
        kinds = get_args(annotation)
        fitting = [kind for kind in kinds if isinstance(value, get_origin(kind) or kind)]
        if not fitting:
            told = " or ".join(kind.__name__.removesuffix("Type") for kind in kinds)
            told = told.replace("Sequence", "list")
            raise ValueError(f"{name} must be of type {told}, not {value!r}.")
        return check_type(value, fitting[0], name)
    if get_origin(annotation) in (tuple, Sequence):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} must be a list, not {value!r}.")
        return tuple(check_type(item, get_args(annotation)[0], name) for item in value)
    if dataclasses.is_dataclass(annotation) and isinstance(value, Mapping):
        return annotation.from_dict(value)
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1023 else math.inf
    if annotation is float and isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value}.")
    if not isinstance(value, annotation) or (annotation is int and isinstance(value, bool)):
        hint = " (in YAML write 1.0e-3, not 1e-3)" if annotation is float else ""
        raise ValueError(f"{name} must be of type {annotation.__name__}, not {value!r}{hint}.")
    return value


def check_arguments(function: Callable, values: Mapping[str, Any]) -> None:
    """Refuse (`ValueError`) the first of `values` that is not as `function` annotates it."""
    annotations = get_type_hints(function)
    for name, value in values.items():
        check_type(value, annotations[name], name)
