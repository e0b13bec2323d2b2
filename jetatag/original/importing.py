"""Import the authors' published weights: from folders of SavedModels to a run folder.

Their code (Lee & Cho 2021; ATOSE, Applied Sciences 13(15) 9002) saved every network with Keras 2;
reading them needs TensorFlow, an optional extra.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from jetatag import rendered
from jetatag.config import RunConfig
from jetatag.data import Vocabulary
from jetatag.data.index import warn
from jetatag.data.mtat import N_TOP_TAGS, read_annotations
from jetatag.data.store import AudioStore
from jetatag.extractors import EXTRACTORS
from jetatag.files import checksum
from jetatag.joint.heads import JointModel, build_model
from jetatag.joint.methods import METHODS
from jetatag.original.savedmodels import SavedModel, read
from jetatag.training.progress import trained_state
from jetatag.training.run import Run, describe_data

# The original's folders and the parts of `JointModel` in them.
AUDIO_PARTS = {"encoder": "extractor", "classifier": "classifier"}
TAG_PARTS = {"projector": "projection", "tag_encoder": "tag_encoder", "tag_decoder": "tag_decoder"}
PARTS = AUDIO_PARTS | TAG_PARTS

ANNOTATIONS = "annotations_final.csv"
# In the authors' order (corr/corr.py); for equal counts, other public lists have the reverse.
MTAT = (*rendered.TAGS[:47], "metal", "female voice", "choral")
MTAT_TIES = "male voice and female vocal, and of metal and female voice"
TOLERANCE = 1e-3  # of the largest output; equal networks differ by 1e-6, different ones by 1
AS_CODED = dict.fromkeys(("form", "optimizer_form", "windows"), "as_coded") | {"shuffle": False}


def import_original(
    folder: Path | str,
    runs: Path | str,
    tags: Sequence[str],
    store: AudioStore | None = None,
    pair_loss: str = "margin_as_coded",
) -> Run:
    """Make a run under `runs` from the SavedModels in `folder`; it is trained but not yet scored.

    `tags` names the classifier's outputs in their order (`read_tags`). With a `store`, the run
    belongs to its data and uses its order of the same tags. The weights determine all but the
    `pair_loss`. Raises `ValueError` or `FileNotFoundError` for parts that are missing, do not fit
    or give other outputs than their SavedModel, `ImportError` without TensorFlow.
    """
    folder = Path(folder)
    parts = find_parts(folder)
    saved = read(folder, parts)
    probs = saved["classifier"].outputs
    multiclass = np.allclose(probs.sum(1), 1, atol=1e-5)  # a softmax
    vocabulary = Vocabulary(tuple(tags), "multiclass" if multiclass else "multilabel")
    check_tags(vocabulary, probs.shape[1], store)
    settings = {"method": "no_je", "pair_loss": "none"}
    if "projector" in saved:
        dim = saved["projector"].outputs.shape[1]
        settings = {"method": "je", "pair_loss": pair_loss, "embedding_dim": dim}
    config, model = fit_extractor(saved["encoder"], settings, vocabulary)
    for part in parts:
        load_keras_weights(getattr(model, PARTS[part]), saved[part].names, saved[part].arrays)
    files = [file for part in parts for file in sorted((folder / part).rglob("*"))]
    imported = {
        "from": folder.resolve().name,
        "checksum": checksum(*(file.read_bytes() for file in files if file.is_file())),
        "tags": list(vocabulary.tags),
        "largest_difference": compare(model, saved),
    }
    if store is not None:
        reorder_tags(model, vocabulary.columns(store.vocabulary.tags))
    return write_run(Path(runs), config, model, vocabulary, store, imported)


def find_parts(folder: Path) -> list[str]:
    """The original's parts in `folder`; raises `FileNotFoundError` for an incomplete set."""
    found = {part for part in PARTS if (folder / part / "saved_model.pb").is_file()}
    wanted = PARTS if found & TAG_PARTS.keys() else AUDIO_PARTS
    if missing := [part for part in wanted if part not in found]:
        needs = "give a folder with encoder/ and classifier/, and for joint embedding projector/, "
        needs += "tag_encoder/ and tag_decoder/ too"
        raise FileNotFoundError(f"{folder} has no SavedModel {', '.join(missing)}: {needs}.")
    return list(wanted)


def read_tags(path: Path | str) -> list[str]:
    """Tags in the order of a model's outputs: from a text file, one per line, the original's
    `tags.npy`, or MagnaTagATune's `annotations_final.csv`, whose 50 most frequent are taken;
    "mtat": the same, as the authors list them. Warns (`DataWarning`) about an uncertain order.
    Raises `FileNotFoundError` or `ValueError` for another file."""
    path = Path(path)
    if str(path) == "mtat" and not path.is_file():  # a folder of data often has this name
        warn(f"public lists differ in the order of {MTAT_TIES}: to be sure, give {ANNOTATIONS}.")
        return list(MTAT)
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False).ravel().astype(str).tolist()
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: give the list of the tags.") from None
    except (ValueError, OSError):
        remedy = f"give a text file, one tag per line, tags.npy or {ANNOTATIONS}"
        raise ValueError(f"{path} is not a list of tags: {remedy}.") from None
    if not (lines and "\t" in lines[0]):
        return [line.strip() for line in lines if line.strip()]
    # As the original code: an ascending argsort, reversed; the order of equal counts is arbitrary.
    _, labels = read_annotations(path, path.parent)
    ranked = labels.sum().sort_values(kind="stable")[::-1][: N_TOP_TAGS + 1]
    if len(tied := ranked.index[ranked.duplicated(keep=False)]):
        warn(f"equal counts in {path}, so that their order is uncertain: {', '.join(tied)}.")
    return list(ranked.index[:N_TOP_TAGS])


def check_tags(theirs: Vocabulary, n_outputs: int, store: AudioStore | None) -> None:
    """Raise `ValueError` unless there is one tag per output and the store has the same tags."""
    names, n_tags = set(theirs.tags), len(theirs.tags)
    if not len(names) == n_tags == n_outputs:
        problem = f"the classifier has {n_outputs} outputs and the list {n_tags} tags"
        raise ValueError(f"{problem}, {len(names)} of them different: name each output once.")
    ours = theirs if store is None else store.vocabulary
    if differing := sorted(names ^ {*ours.tags}):
        some = ", ".join(map(repr, differing[:3]))
        problem = f"model and store differ in {len(differing)} tags, such as {some}"
        raise ValueError(f"{problem}: prepare a store of the model's own tags.")
    if ours.task != theirs.task:
        raise ValueError(f"the model is {theirs.task}, the store {ours.task}: take another store.")


def fit_extractor(
    encoder: SavedModel, settings: Mapping[str, Any], vocabulary: Vocabulary
) -> tuple[RunConfig, JointModel]:
    """Settings and model of the extractor that fits the encoder's weights, which are loaded."""
    n_features = encoder.outputs.shape[1]
    sizes = {"width": n_features // 8, "crop_samples": encoder.inputs.shape[1]}
    for name in EXTRACTORS:
        with suppress(ValueError):
            config = RunConfig(**settings, **AS_CODED, extractor=name, **sizes)
            model = build_model(config, vocabulary)
            load_keras_weights(model.extractor, encoder.names, encoder.arrays)
            return config, model
    known = f"{', '.join(EXTRACTORS)} with {n_features} features"
    raise ValueError(f"the encoder is none of {known}: import networks of the original's code.")


@torch.no_grad()
def compare(model: JointModel, saved: Mapping[str, SavedModel]) -> dict[str, float]:
    """Largest difference of each part's outputs from its SavedModel's, relative to the largest."""
    model.eval()
    ours = {part: getattr(model, PARTS[part]) for part in saved}
    ours["classifier"] = lambda h: model.probabilities(model.classifier(h))
    ours["tag_decoder"] = model.reconstruct
    differences = {}
    for part, theirs in saved.items():
        outputs = ours[part](torch.from_numpy(theirs.inputs)).numpy()
        difference = np.abs(outputs - theirs.outputs).max()
        differences[part] = float(difference / np.abs(theirs.outputs).max())
        if not differences[part] <= TOLERANCE:
            problem = f"the weights of the {part} fit, but its SavedModel has other outputs"
            raise ValueError(f"{problem} (by {differences[part]:.1g}): import another folder.")
    return differences


@torch.no_grad()
def reorder_tags(model: JointModel, order: Sequence[int]) -> None:
    """Make the tag at `order[i]` tag i of the classifier, the tag encoder and the tag decoder."""
    for last in (model.classifier[-1], model.tag_decoder[-1]):
        last.weight.copy_(last.weight[order])
        last.bias.copy_(last.bias[order])
    model.tag_encoder[0].weight.copy_(model.tag_encoder[0].weight[:, order])


def write_run(
    runs: Path,
    config: RunConfig,
    model: JointModel,
    vocabulary: Vocabulary,
    store: AudioStore | None,
    imported: Mapping[str, Any],
) -> Run:
    """Write the files that training would write, stage by stage, without time and memory."""
    run = Run(runs / config.name, config)
    if run.has("config.json"):
        raise ValueError(f"{run.folder} is already a run: delete it or choose another folder.")
    stages = METHODS[config.method].stages
    state = build_model(config, vocabulary).state_dict()  # of parts that learn in a later stage
    for stage in stages:
        state |= trained_state(model, stage)
        run.write_tensors(f"{stage.name}.safetensors", state)
    if store is not None:
        data = describe_data(store, config)
    else:
        name = "mtat" if {*vocabulary.tags} == {*MTAT} else "unknown"
        data = {"name": name, "checksum": "unknown", "clips_by_split": {}, "padded_clips": {}}
        data |= asdict(vocabulary)
    costs = {"wall_time_s": None, "peak_memory_mib": None, "device": "imported"}
    run.begin(data, stages={stage.name: costs for stage in stages}, imported=imported)
    return run


# Weights of Keras in torch modules

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
