"""Load weights of the original's Keras models into torch modules."""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# torch's attributes by Keras' names.
KERNEL_LAYER = {"kernel": "weight", "bias": "bias"}
NORM_LAYER = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
NORM_LAYER |= {"moving_variance": "running_var"}
KINDS = {2: "dense", 3: "1-D convolution", 4: "2-D convolution"}  # by the dimensions of a kernel
NUMBER = re.compile(r"(?:_(\d+))?$")

Layers = dict[str, list[tuple[str, dict[str, Tensor]]]]  # kind → (path, weights by Keras' names)


def load_keras_weights(
    module: nn.Module, names: Sequence[str], arrays: Sequence[np.ndarray]
) -> None:
    """Copy Keras weights into `module`, in place, converted to its dtype and device.

    `names` and `arrays` are in the order of the Keras model's `weights`. The layers of each kind
    (dense, convolution, normalisation, plain variables) are paired in the order of creation, as
    Keras numbers them. Kernels (…, in, out) become (out, in, …). Raises `ValueError` and leaves
    `module` unchanged if count, kind or shape differ.
    """
    theirs, ours, pairs = _keras_layers(names, arrays), _module_layers(module), []
    for kind in sorted({*theirs, *ours}):
        if len(theirs[kind]) != len(ours[kind]):
            problem = f"{type(module).__name__} takes {len(ours[kind])} {kind} layers"
            remedy = "build the module that these weights were saved from"
            raise ValueError(f"{problem}, the Keras model has {len(theirs[kind])}: {remedy}.")
        pairs += zip(theirs[kind], ours[kind], strict=True)
    for (their_path, their), (our_path, our) in pairs:
        one, other = ({name: tuple(w.shape) for name, w in side.items()} for side in (their, our))
        if one != other:
            problem = f"Keras layer {their_path} has {one}, but {our_path} {other}"
            raise ValueError(f"{problem}: build the module with the same options.")
    with torch.no_grad():
        for (_, their), (_, our) in pairs:
            for name, values in our.items():
                values.copy_(their[name])


def _keras_layers(names: Sequence[str], arrays: Sequence[np.ndarray]) -> Layers:
    weights, layers = defaultdict(dict), defaultdict(list)
    for name, array in zip(names, arrays, strict=True):
        path, _, leaf = name.split(":")[0].rpartition("/")
        if leaf in weights[path]:
            raise ValueError(f"Keras weight {name} comes twice: give the names of one model.")
        weights[path][leaf] = torch.from_numpy(np.array(array))
    # Keras numbers the layers of a class as they are created: conv1d, conv1d_1, conv1d_2.
    for path in sorted(weights, key=lambda path: int(NUMBER.search(path)[1] or 0)):
        layer, kind = weights[path], "normalisation"
        if "kernel" in layer:
            kind = KINDS.get(layer["kernel"].ndim, "other kernel")
            layer["kernel"] = layer["kernel"].movedim((-1, -2), (0, 1))
        elif not layer.keys() & NORM_LAYER.keys():
            kind, layer = "variable", dict(enumerate(layer.values()))  # each has a name of its own
        layers[kind].append((path, layer))
    return layers


def _module_layers(module: nn.Module) -> Layers:
    layers = defaultdict(list)
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
            layers[kind].append((path, weights))
    return layers
