"""Weights in, from the original's Keras models."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Our attributes under Keras' names for them.
KERNEL_LAYER = {"kernel": "weight", "bias": "bias"}
NORM_LAYER = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
KINDS = {2: "dense", 3: "1-D convolution", 4: "2-D convolution"}  # by the dimensions of a kernel


@dataclass
class Layer:
    """A layer on either side: its path, its kind, and its weights under Keras' names."""

    path: str
    kind: str = "variable"
    weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Keras numbers the layers of a type as they are made: conv1d, conv1d_1, conv1d_2, …"""
        found = re.search(r"_(\d+)$", self.path)
        return int(found[1]) if found else 0


def load_keras_weights(
    module: nn.Module, names: Sequence[str], arrays: Sequence[np.ndarray]
) -> None:
    """Copy Keras weights into `module`, in place, converting them to its dtype and device.

    `names` and `arrays` stand in the order of the Keras model's `weights`. The layers of each
    kind (dense, convolution, normalisation, bare variables) are paired in the order of making:
    Keras lists layers by depth, but their numbers tell; `module` defines them in that order.
    Kernels (…, in, out) become (out, in, …): dense, 1-D and 2-D alike.
    Raises `ValueError` where count, kind or shape differ, and then leaves `module` untouched.
    """
    if len(names) != len(arrays):
        raise ValueError(
            f"There are {len(names)} names but {len(arrays)} arrays: give one name per array."
        )
    theirs, ours = list(_keras_layers(names, arrays)), list(_module_layers(module))
    pairs = []
    for kind in sorted({layer.kind for layer in theirs + ours}):
        pairs += _pair(
            [layer for layer in theirs if layer.kind == kind],
            [layer for layer in ours if layer.kind == kind],
            kind,
            type(module).__name__,
        )
    with torch.no_grad():
        for their, our in pairs:
            for leaf, values in our.weights.items():
                values.copy_(their.weights[leaf])


def _keras_layers(names: Sequence[str], arrays: Sequence[np.ndarray]) -> Iterator[Layer]:
    layers: dict[str, Layer] = {}
    for name, array in zip(names, arrays, strict=True):
        path, _, leaf = name.split(":")[0].rpartition("/")
        layer = layers.setdefault(path, Layer(path))
        if leaf in layer.weights:
            raise ValueError(f"Keras weight {name} comes twice: give the names of one model.")
        values = torch.from_numpy(np.array(array))
        if leaf == "kernel":
            layer.kind = KINDS.get(values.ndim, "other kernel")
            values = values.movedim((-1, -2), (0, 1))
        elif leaf in NORM_LAYER:
            layer.kind = "normalisation"
        layer.weights[leaf] = values
    for layer in layers.values():
        if layer.kind == "variable":  # called by place: their names are each one's own
            layer.weights = dict(enumerate(layer.weights.values()))
    yield from sorted(layers.values(), key=lambda layer: layer.number)


def _module_layers(module: nn.Module) -> Iterator[Layer]:
    for path, layer in module.named_modules():
        kind, leaves = _kind_and_leaves(layer)
        found = {leaf: getattr(layer, attribute) for leaf, attribute in leaves.items()}
        weights = {leaf: values for leaf, values in found.items() if values is not None}
        if weights:
            yield Layer(path, kind, weights)


def _kind_and_leaves(layer: nn.Module) -> tuple[str, dict]:
    if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
        return KINDS[layer.weight.ndim], KERNEL_LAYER
    if isinstance(layer, _BatchNorm):
        return "normalisation", NORM_LAYER
    return "variable", dict(enumerate(name for name, _ in layer.named_parameters(recurse=False)))


def _pair(
    theirs: list[Layer], ours: list[Layer], kind: str, module: str
) -> list[tuple[Layer, Layer]]:
    if len(theirs) != len(ours):
        raise ValueError(
            f"{module} takes {len(ours)} {kind} layers, the Keras model has {len(theirs)}: "
            "build the module that these weights were saved from."
        )
    for their, our in zip(theirs, ours, strict=True):
        shapes = [{k: tuple(v.shape) for k, v in layer.weights.items()} for layer in (their, our)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"Keras layer {their.path} has {shapes[0]} in our order of dimensions, but "
                f"{our.path} has {shapes[1]}: build the module with the same options."
            )
    return list(zip(theirs, ours, strict=True))
