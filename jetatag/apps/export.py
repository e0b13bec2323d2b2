"""Export a finished run as a folder to share: weights, settings, model card, ONNX.

`tagger.load` reads it like a run: `config.json`, `record.json` and `embeddings.npz` are named as in
a run. Of the embeddings, only arrays of tags and queries are kept, none of clips.
"""

import json
import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jinja2 import Environment

from jetatag.apps import hub
from jetatag.apps.tagger import QUERY_ARRAYS, WEIGHTS, Tagger, load
from jetatag.data import DATASETS, SPLITS
from jetatag.evaluation import results
from jetatag.files import atomic, check_writable, write_arrays, write_json
from jetatag.training.run import Run

OPSET = 20
TOLERANCE = 1e-4  # largest difference of a probability between ONNX and torch
KEPT_ARRAYS = ("tags", "queries", "z_single", *QUERY_ARRAYS)


def export(run: Path | str, out: Path | str, onnx: bool = True) -> Path:
    """Write the finished run `run` to the folder `out`, which must be new or empty.

    It holds `model.safetensors`, `config.json`, `record.json`, README.md (the model card),
    `embeddings.npz` if there is joint embedding, and `model.onnx` if `onnx`. Raises `ValueError`
    for an unfinished run and if ONNX and torch differ, `ImportError` without the ONNX libraries.
    """
    out = Path(out)
    # torch's exporter needs the last, and would fail late and with a long traceback.
    if onnx and not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))):
        remedy = "pip install 'jetatag[onnx]', or export with --no-onnx"
        raise ImportError(f"ONNX needs its libraries: {remedy}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty: choose a new folder.")
    check_writable(out / "config.json")
    tagger = load(run, "cpu", folded=False)
    source, target = Run(tagger.folder, tagger.config), Run(out, tagger.config)
    if source.has(WEIGHTS):  # its card has scores that cannot be computed again from it
        raise ValueError(f"{source.folder} is already an exported model: copy it as it is.")
    target.write_tensors(WEIGHTS, tagger.model.state_dict())
    if tagger.config.is_joint and source.has("embeddings.npz"):
        arrays = source.read_arrays("embeddings.npz")
        arrays = {name: arrays[name] for name in KEPT_ARRAYS if name in arrays}
        write_arrays(out / "embeddings.npz", arrays)
    if onnx:
        write_onnx(tagger, out / "model.onnx")
    write_json(out / "record.json", source.record)
    scores = results.score_table(source).to_dict("records") if source.has("scores.npz") else None
    with atomic(out / "README.md") as temporary:
        temporary.write_text(card(tagger, scores, onnx), "utf-8")
    write_json(out / "config.json", tagger.config.to_dict())  # last: it makes the folder a model
    return out


def push(folder: Path | str, name: str, private: bool = False) -> str:
    """Upload an exported model as the model owner/name on the Hugging Face Hub, which is created if
    it does not exist; returns its address for `tagger.load`. Raises `FileNotFoundError` for any
    other folder, and as `hub.fetch`."""
    if not Run.open(folder).has(WEIGHTS):
        raise FileNotFoundError(f"{folder} is not an exported model: run `jetatag export` first.")
    with hub.library(f"{folder} cannot be pushed to {name}") as library:
        api = library.HfApi()
        name = api.create_repo(name, private=private, exist_ok=True).repo_id  # with its owner
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="jetatag push")
    return f"{hub.ADDRESS}{name}"


def write_onnx(tagger: Tagger, path: Path) -> None:
    """Write extractor and classifier as ONNX, windows `audio` (batch, crop_samples) float32 in
    [-1, 1] → `probs` (batch, tag), and compare it with torch on noise of two batch sizes.

    The metadata hold the tags in order, the task, the sample rate (Hz) and whether the audio is
    peak-normalised. Raises `ValueError` if a probability differs by more than 1e-4.
    """
    import onnx
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
    model, generator = tagger.model, torch.Generator().manual_seed(0)
    audio = torch.rand(3, tagger.config.crop_samples, generator=generator) * 2 - 1
    exported = torch.onnx.export(
        model.eval(),
        (audio[:2],),
        input_names=["audio"],
        output_names=["probs"],
        opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        verbose=False,
    ).model_proto
    metadata = {"tags": json.dumps(tagger.vocabulary.tags), "task": tagger.vocabulary.task}
    metadata["sample_rate"] = str(tagger.config.sample_rate)
    metadata["peak_normalise"] = json.dumps(tagger.peak_normalise)
    onnx.helper.set_model_props(exported, metadata)
    with atomic(path) as temporary:
        onnx.save(exported, temporary)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        for batch in (audio, audio[:1]):
            (probs,) = session.run(["probs"], {"audio": batch.numpy()})
            expected = model(batch).numpy()
            if not (difference := np.abs(expected - probs).max()) <= TOLERANCE:
                problem = f"the ONNX model differs from torch by {difference:.1g}"
                remedy = "export without it (--no-onnx), and please report it"
                raise ValueError(f"{problem}: {remedy}.")


def card(tagger: Tagger, scores: list[dict] | None, onnx: bool) -> str:
    """The model card: what the model is, how to use it, its data, licence and `scores`, the rows
    of `results.score_table`."""
    name, counts = tagger.data["name"], tagger.data["clips_by_split"]
    text = Path(__file__).with_name("model_card.md.jinja").read_text("utf-8")
    template = Environment(trim_blocks=True, keep_trailing_newline=True).from_string(text)
    return template.render(
        tagger=tagger,
        known=DATASETS.get(name, {}),
        clips=", ".join(f"{counts[split]:,} {split}" for split in SPLITS if counts.get(split)),
        scores=scores,
        made_by=Run(tagger.folder, tagger.config).record.get("made_by", {}),
        onnx=onnx,
        opset=OPSET,
    )
