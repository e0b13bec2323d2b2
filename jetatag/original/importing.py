"""The authors' published weights as a run: SavedModel folders in, a run folder out.

Their code (Lee & Cho 2021; ATOSE, Applied Sciences 13(15) 9002) saved every network by Keras 2:
`encoder` and `classifier`, after joint embedding also `projector`, `tag_encoder`, `tag_decoder`.
Reading them takes TensorFlow, an optional extra that nothing else here needs.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jetatag.config import PairLoss, RunConfig
from jetatag.data import Vocabulary
from jetatag.data.store import AudioStore
from jetatag.extractors import EXTRACTORS
from jetatag.files import checksum, write_json
from jetatag.joint.heads import JointModel, build_model
from jetatag.joint.methods import METHODS
from jetatag.original.keras import load_keras_weights
from jetatag.original.savedmodels import SavedModel, read
from jetatag.training.runs import Run, provenance

# The original's folders, and what we call the part in each.
AUDIO_PARTS = {"encoder": "extractor", "classifier": "classifier"}
TAG_PARTS = {"projector": "projection", "tag_encoder": "tag_encoder", "tag_decoder": "tag_decoder"}
PARTS = AUDIO_PARTS | TAG_PARTS

CLOSE = 1e-3
"""Largest difference of outputs that passes for rounding, in units of the largest output. Equal
networks show about 1e-6, different ones about 1."""


def import_original(
    folder: Path | str,
    runs: Path | str,
    tags: Sequence[str],
    store: AudioStore | None = None,
    pair_loss: PairLoss = "margin_as_coded",
) -> Run:
    """Make a run under `runs` of the SavedModels in `folder`; it is trained and not yet scored.

    `tags` names the classifier's outputs in their order (`read_tags`). With a `store` the run
    belongs to its data and has its order of the same tags. `pair_loss` is what a joint embedding
    was trained with, which weights do not tell; extractor, width, dimensions and task they do.
    Every part must answer as its SavedModel does. Raises `ValueError` or `FileNotFoundError`
    for what is missing or does not fit, `ImportError` without TensorFlow.
    """
    folder = Path(folder)
    parts = find_parts(folder)
    saved = read(folder, parts)
    vocabulary = Vocabulary(tuple(tags), task_of(saved["classifier"]))
    check_other_tags(vocabulary, saved["classifier"].outputs.shape[1], store)
    settings: dict[str, Any] = {"method": "no_je", "pair_loss": "none"}
    if "projector" in saved:
        settings = {"method": "je", "pair_loss": pair_loss}
        settings["embedding_dim"] = saved["projector"].outputs.shape[1]
    config, model = fit_extractor(saved, settings, vocabulary)
    for part in parts:
        load_keras_weights(getattr(model, PARTS[part]), saved[part].names, saved[part].arrays)
    imported = {
        "from": folder.resolve().name,
        "checksum": checksum(*file_contents(folder / part for part in parts)),
        "tags": list(vocabulary.tags),
        "largest_difference": compare(model, saved),
    }
    if store is not None:
        reorder_tags(model, vocabulary.columns(store.vocabulary.tags))
    return write_run(Path(runs), config, model, vocabulary, store, imported)


def find_parts(folder: Path) -> list[str]:
    """Which of the original's parts `folder` holds; an incomplete set is refused."""
    there = {part for part in PARTS if (folder / part / "saved_model.pb").is_file()}
    wanted = PARTS if there & TAG_PARTS.keys() else AUDIO_PARTS
    missing = [part for part in wanted if part not in there]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no SavedModel {', '.join(missing)}: give a folder with encoder/ and "
            "classifier/, and of a joint embedding projector/, tag_encoder/ and tag_decoder/ too."
        )
    return list(wanted)


def read_tags(path: Path | str) -> list[str]:
    """Tag names of a text file, one a line, or of the `tags.npy` that the original wrote."""
    path = Path(path)
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False).ravel().astype(str).tolist()
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: give the list of the tags.") from None
    except (ValueError, OSError):
        raise ValueError(
            f"{path} is no list of tags: give a text file with one tag a line, or tags.npy."
        ) from None
    return [line.strip() for line in lines if line.strip()]


def task_of(classifier: SavedModel) -> str:
    """ "multiclass" where the probabilities of a clip add up to one (softmax)."""
    one = np.allclose(classifier.outputs.sum(1), 1, atol=1e-5)
    return "multiclass" if one else "multilabel"


def check_other_tags(theirs: Vocabulary, n_outputs: int, store: AudioStore | None) -> None:
    """Refuse (`ValueError`) tags that are not one an output, or not those of the store."""
    names = set(theirs.tags)
    if not len(names) == len(theirs.tags) == n_outputs:
        raise ValueError(
            f"the classifier has {n_outputs} outputs and the list {len(theirs.tags)} tags, "
            f"{len(names)} of them different: name each output once, in its order."
        )
    ours = theirs if store is None else store.vocabulary
    for whose, missing in [("model", {*ours.tags} - names), ("store", names - {*ours.tags})]:
        if missing:
            some = ", ".join(repr(tag) for tag in sorted(missing)[:3])
            raise ValueError(
                f"the {whose} lacks {len(missing)} tags that the other has, such as {some}: "
                "prepare a store of the model's own tags."
            )
    if ours.task != theirs.task:
        raise ValueError(f"the model is {theirs.task}, the store {ours.task}: take another store.")


def fit_extractor(
    saved: Mapping[str, SavedModel], settings: Mapping[str, Any], vocabulary: Vocabulary
) -> tuple[RunConfig, JointModel]:
    """Settings and fresh model of that extractor which the encoder's weights fit."""
    encoder, n_features = saved["encoder"], saved["encoder"].outputs.shape[1]
    for extractor in EXTRACTORS:
        config = RunConfig(
            **settings,
            extractor=extractor,
            form="as_coded",
            width=n_features // 8,
            shuffle=False,
            optimizer_form="as_coded",
            windows="as_coded",
        )
        model = build_model(config, vocabulary)
        with contextlib.suppress(ValueError):
            load_keras_weights(model.extractor, encoder.names, encoder.arrays)
            config = config.replace(crop_samples=encoder.inputs.shape[1])
            break
    else:
        raise ValueError(
            f"the encoder is none of {', '.join(EXTRACTORS)} with {n_features} features: only "
            "networks of the original's code can be imported."
        )
    return config, build_model(config, vocabulary)


@torch.no_grad()
def compare(model: JointModel, saved: Mapping[str, SavedModel]) -> dict[str, float]:
    """How far each part is from its SavedModel on noise: the largest difference of an output, in
    units of the largest output. Beyond rounding it is refused (`ValueError`)."""
    model.eval()
    ours = {part: getattr(model, PARTS[part]) for part in saved}
    ours["classifier"] = lambda h: model.probabilities(model.classifier(h))
    ours["tag_decoder"] = model.reconstruct
    differences = {}
    for part, theirs in saved.items():
        outputs = ours[part](torch.from_numpy(theirs.inputs)).numpy()
        difference = np.abs(outputs - theirs.outputs).max()
        differences[part] = float(difference / np.abs(theirs.outputs).max())
        if not differences[part] <= CLOSE:
            raise ValueError(
                f"the weights of the {part} fit, but its SavedModel answers otherwise (by "
                f"{differences[part]:.1g} of the largest output): it is another network."
            )
    return differences


@torch.no_grad()
def reorder_tags(model: JointModel, order: Sequence[int]) -> None:
    """Make the tag at `order[i]` tag i of the classifier, the tag encoder and the tag decoder."""
    for last in (model.classifier[-1], model.tag_decoder[-1]):
        last.weight.copy_(last.weight[order])
        last.bias.copy_(last.bias[order])
    first = model.tag_encoder[0]
    first.weight.copy_(first.weight[:, order])


def file_contents(folders: Iterable[Path]) -> Iterator[bytes]:
    """The bytes of every file in `folders`, by name."""
    for folder in folders:
        yield from (path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def write_run(
    runs: Path,
    config: RunConfig,
    model: JointModel,
    vocabulary: Vocabulary,
    store: AudioStore | None,
    imported: Mapping[str, Any],
) -> Run:
    """Write what training would have left, stage by stage, but claim no time or memory."""
    run = Run(runs / config.name, config)
    if run.has("config.json"):
        raise ValueError(f"{run.folder} is a run already: delete it or choose another folder.")
    stages = METHODS[config.method].stages
    state = build_model(config, vocabulary).state_dict()  # of parts that learn in a later stage
    for stage in stages:
        learnt = model.state_dict().items()
        state |= {name: v for name, v in learnt if name.split(".")[0] in stage.learns}
        run.write_tensors(f"{stage.name}.safetensors", state)
    if store is None:
        data = {"name": "unknown", "checksum": "unknown", "clips_by_split": {}, "padded_clips": {}}
        data |= {"tags": vocabulary.tags, "task": vocabulary.task}
        record = {"data": data, "made_by": provenance(), "stages": {}}
        write_json(run.folder / "record.json", record)
        write_json(run.folder / "config.json", config.to_dict())
    else:
        Run.start(runs, config, store)
    unspent = {"wall_time_s": None, "peak_memory_mib": None, "device": "imported"}
    about = {"imported": imported, "stages": {stage.name: unspent for stage in stages}}
    write_json(run.folder / "record.json", run.record | about)
    return run
