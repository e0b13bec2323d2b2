"""Weights in, from the original's Keras models."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# Our attributes under Keras' names for them, in the order in which a Keras layer lists its weights.
KERNEL_LAYER = {"kernel": "weight", "bias": "bias"}
NORM_LAYER = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
LAYER_LEAVES = {*KERNEL_LAYER, *NORM_LAYER}


class Weight(NamedTuple):
    """One weight on either side; `leaf` is Keras' word for its kind, `variable` for a bare one."""

    name: str
    leaf: str
    values: torch.Tensor


def load_keras_weights(
    module: nn.Module, names: Sequence[str], arrays: Sequence[np.ndarray]
) -> None:
    """Copy Keras weights into `module`, in place, converting them to its dtype and device.

    `names` and `arrays` stand in the order of the Keras model's `weights`. `module` consists of
    linear, convolution and batch-normalisation layers and of bare parameters, defined in that
    same order. Kernels (…, in, out) become (out, in, …): dense, 1-D and 2-D alike.
    Raises `ValueError` where count, kind or shape differ, and then leaves `module` untouched.
    """
    if len(names) != len(arrays):
        raise ValueError(
            f"There are {len(names)} names but {len(arrays)} arrays: give one name per array."
        )
    theirs = _trainable_first(_keras_weight(*pair) for pair in zip(names, arrays, strict=True))
    ours = _trainable_first(_module_weights(module))
    if len(theirs) != len(ours):
        raise ValueError(
            f"{type(module).__name__} takes {len(ours)} weights, the Keras model has "
            f"{len(theirs)}: build the module that these weights were saved from."
        )
    for their, our in zip(theirs, ours, strict=True):
        _check_match(their, our)
    with torch.no_grad():
        for their, our in zip(theirs, ours, strict=True):
            our.values.copy_(their.values)


def _trainable_first(weights: Iterable[Weight]) -> list[Weight]:
    """Moving statistics last: Keras lists them so inside a custom layer, but not outside one."""
    return sorted(weights, key=lambda weight: weight.leaf.startswith("moving_"))


def _keras_weight(name: str, array: np.ndarray) -> Weight:
    leaf = name.rsplit("/", 1)[-1].split(":")[0]
    values = torch.from_numpy(np.array(array))
    if leaf == "kernel":
        values = values.movedim((-1, -2), (0, 1))
    return Weight(name, leaf if leaf in LAYER_LEAVES else "variable", values)


def _module_weights(module: nn.Module) -> Iterator[Weight]:
    for path, layer in module.named_modules():
        for leaf, attribute in _attributes(layer):
            values = getattr(layer, attribute)
            if values is not None:
                yield Weight(f"{path}.{attribute}".lstrip("."), leaf, values)


def _attributes(layer: nn.Module) -> list[tuple[str, str]]:
    if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
        return [*KERNEL_LAYER.items()]
    if isinstance(layer, _BatchNorm):
        return [*NORM_LAYER.items()]
    return [("variable", name) for name, _ in layer.named_parameters(recurse=False)]


def _check_match(theirs: Weight, ours: Weight) -> None:
    if theirs.leaf != ours.leaf or theirs.values.shape != ours.values.shape:
        raise ValueError(
            f"Keras weight {theirs.name} is a {theirs.leaf} that fits shape "
            f"{tuple(theirs.values.shape)} here, but {ours.name} is a {ours.leaf} of shape "
            f"{tuple(ours.values.shape)}: give the weights in the order of the model's `weights`, "
            "and build the module with the same options."
        )
