"""Load weights of the original's Keras models into torch modules."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# torch's attributes by Keras' names.
KERNEL_LAYER = {"kernel": "weight", "bias": "bias"}
NORM_LAYER = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
NORM_LAYER |= {"moving_variance": "running_var"}
NUMBER = re.compile(r"(?:_(\d+))?$")
KINDS = {2: "dense", 3: "1-D convolution", 4: "2-D convolution"}  # by the dimensions of a kernel


@dataclass
class Layer:
    """A layer of Keras or torch: its path, its kind, and its weights by Keras' names."""

    path: str
    kind: str = "variable"
    weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple]:
        """The shape of every weight."""
        return {name: tuple(values.shape) for name, values in self.weights.items()}


def load_keras_weights(
    module: nn.Module, names: Sequence[str], arrays: Sequence[np.ndarray]
) -> None:
    """Copy Keras weights into `module`, in place, converted to its dtype and device.

    `names` and `arrays` are in the order of the Keras model's `weights`. The layers of each kind
    (dense, convolution, normalisation, plain variables) are paired in the order of creation, which
    Keras' layer numbers give. Kernels (…, in, out) become (out, in, …). Raises `ValueError` and
    leaves `module` unchanged if count, kind or shape differ.
    """
    if len(names) != len(arrays):
        problem = f"There are {len(names)} names but {len(arrays)} arrays"
        raise ValueError(f"{problem}: give one name per array.")
    theirs, ours = list(_keras_layers(names, arrays)), list(_module_layers(module))
    pairs = []
    for kind in sorted({layer.kind for layer in theirs + ours}):
        their, our = ([layer for layer in side if layer.kind == kind] for side in (theirs, ours))
        if len(their) != len(our):
            problem = f"{type(module).__name__} takes {len(our)} {kind} layers, the Keras model has"
            raise ValueError(f"{problem} {len(their)}: build the module these weights are from.")
        pairs += zip(their, our, strict=True)
    for their, our in pairs:
        if their.shapes != our.shapes:
            problem = f"Keras layer {their.path} has {their.shapes}, but {our.path} {our.shapes}"
            raise ValueError(f"{problem}: build the module with the same options.")
    with torch.no_grad():
        for their, our in pairs:
            for name, values in our.weights.items():
                values.copy_(their.weights[name])


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
        if layer.kind == "variable":  # paired by position, because each has a name of its own
            layer.weights = dict(enumerate(layer.weights.values()))
    # Keras numbers the layers of a class as they are created: conv1d, conv1d_1, conv1d_2.
    yield from sorted(layers.values(), key=lambda layer: int(NUMBER.search(layer.path)[1] or 0))


def _module_layers(module: nn.Module) -> Iterator[Layer]:
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            kind, attributes = KINDS[layer.weight.ndim], KERNEL_LAYER
        elif isinstance(layer, _BatchNorm):
            kind, attributes = "normalisation", NORM_LAYER
        else:
            variables = (name for name, _ in layer.named_parameters(recurse=False))
            kind, attributes = "variable", dict(enumerate(variables))
        weights = {name: getattr(layer, attribute) for name, attribute in attributes.items()}
        weights = {name: values for name, values in weights.items() if values is not None}
        if weights:
            yield Layer(path, kind, weights)
