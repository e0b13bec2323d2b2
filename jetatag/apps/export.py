"""A finished run as a folder to give away: weights, settings, model card, ONNX.

`jetatag.load` reads it as it reads a run: `config.json`, `record.json` and `embeddings.npz` have a
run's names; of the last there is what the shared space is searched by, and nothing of any clip.
"""

import copy
import json
import logging
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from torch import Tensor, nn

from jetatag.apps import hub
from jetatag.apps.tagger import WEIGHTS, Tagger, load
from jetatag.data import LICENCE_LINKS, LICENCES, SPLITS, TITLES
from jetatag.evaluation import results
from jetatag.extractors.sinc import SincConv
from jetatag.files import atomic, check_writable, write_arrays, write_json
from jetatag.joint.heads import JointModel
from jetatag.training.runs import Run

ONNX, OPSET = "model.onnx", 20
CLOSE = 1e-4
"""Largest difference of a probability between ONNX and torch."""
OWN_DATA = "rendered"
WEIGHTS_MIT = "These weights are free under the same licence as jetatag (MIT)."
WEIGHTS_OTHER = (
    "What that means for these weights is not for jetatag to say: whoever trained them states "
    "their licence above."
)
SEARCHED_BY = ("tags", "queries", "z_query", "z_centre", "z_single")


def export(
    run: Path | str, out: Path | str, onnx: bool = True, extractor: nn.Module | None = None
) -> Path:
    """Write the finished run `run` to the folder `out`, which must be new or empty.

    It holds `model.safetensors`, `config.json`, `record.json`, README.md (the model card), and
    with joint embedding `embeddings.npz`; with `onnx` also `model.onnx`. `extractor` is the module
    of a run whose extractor is "own". Raises `ValueError` for an unfinished run and where ONNX
    does not answer as torch does, `ImportError` without ONNX.
    """
    out = Path(out)
    if onnx:
        _onnx_libraries()  # missed before anything is written
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty: choose a new folder.")
    check_writable(out / "config.json")
    tagger = load(run, "cpu", extractor, optimize=False)
    source, target = Run(tagger.folder, tagger.config), Run(out, tagger.config)
    if source.has(WEIGHTS):  # it has a card, with scores that are not here to be taken again
        raise ValueError(f"{source.folder} is an export itself: copy it as it is.")
    target.write_tensors(WEIGHTS, tagger.model.state_dict())
    if tagger.config.pair_loss != "none" and source.has("embeddings.npz"):
        kept = source.read_arrays("embeddings.npz")
        kept = {name: kept[name] for name in SEARCHED_BY if name in kept}
        write_arrays(out / "embeddings.npz", kept)
    if onnx:
        write_onnx(tagger, out / ONNX)
    write_json(out / "record.json", source.record)
    with atomic(out / "README.md") as temporary:
        temporary.write_text(card(tagger, scores(source), onnx))
    write_json(out / "config.json", tagger.config.to_dict())  # last: what makes it a model
    return out


def scores(run: Run) -> pd.DataFrame | None:
    """The run's score table with intervals; None for one that was not scored."""
    return results.score_table(run) if run.has("scores.npz") else None


def push(folder: Path | str, name: str, private: bool = False) -> str:
    """Upload what `export` wrote as the model owner/name on the Hugging Face Hub; returns its
    address for `jetatag.load`. Raises `FileNotFoundError` for any other folder."""
    if not Run.open(folder).has(WEIGHTS):
        raise FileNotFoundError(f"{folder} is no exported model: run `jetatag export` first.")
    return hub.push(folder, name, private)


# ONNX


class FromAudio(nn.Module):
    """Extractor and classifier as one: audio (batch, sample) → probabilities (batch, tag)."""

    def __init__(self, model: JointModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.eval()
        for part in list(self.model.modules()):
            for name, child in part.named_children():
                if isinstance(child, SincConv):  # ONNX has no complex numbers
                    setattr(part, name, child.as_convolution())

    def forward(self, audio: Tensor) -> Tensor:
        return self.model.probabilities(self.model.classifier(self.model.extractor(audio)))


def write_onnx(tagger: Tagger, path: Path) -> None:
    """Write extractor and classifier as ONNX, windows `audio` (batch, crop_samples) float32 in
    [-1, 1] → `probs` (batch, tag), and check it on noise of two batch sizes.

    The file also holds the tags in their order, the sample rate (Hz) and whether the audio was
    scaled to full scale. Raises `ValueError` where it differs from torch by more than 1e-4.
    """
    onnx, onnxruntime = _onnx_libraries()
    n_samples = tagger.config.crop_samples
    audio = torch.rand(3, n_samples, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = FromAudio(tagger.model)
    program = torch.onnx.export(
        model,
        (audio[:2],),
        dynamo=True,
        input_names=["audio"],
        output_names=["probs"],
        opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        verbose=False,
    )
    proto = program.model_proto
    onnx.helper.set_model_props(proto, _facts(tagger))
    with atomic(path) as temporary:
        onnx.save(proto, temporary)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        for batch in (audio, audio[:1]):
            (theirs,) = session.run(["probs"], {"audio": batch.numpy()})
            ours = tagger.model.probabilities(
                tagger.model.classifier(tagger.model.extractor(batch))
            )
            if not (difference := np.abs(ours.numpy() - theirs).max()) <= CLOSE:
                raise ValueError(
                    f"the ONNX model differs from torch by {difference:.1g}: export without it "
                    "(--no-onnx), and please report it."
                )


def _facts(tagger: Tagger) -> dict[str, str]:
    return {
        "tags": json.dumps(tagger.vocabulary.tags),
        "task": tagger.vocabulary.task,
        "sample_rate": str(tagger.config.sample_rate),
        "peak_normalise": json.dumps(tagger.peak_normalise),
    }


def _onnx_libraries() -> tuple[Any, Any]:
    try:
        # The last is for torch's exporter, which would miss it late and with a long trace.
        onnx, onnxruntime, _ = map(import_module, ("onnx", "onnxruntime", "onnxscript"))
    except ImportError:
        raise ImportError(
            "ONNX needs its libraries: pip install 'jetatag[onnx]', or export with --no-onnx."
        ) from None
    # The exporter tells that torchvision is not there, which nothing here asks for.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    return onnx, onnxruntime


# The card


def card(tagger: Tagger, table: pd.DataFrame | None, onnx: bool) -> str:
    """The model card: what the model is, what it was trained and judged on, how to load it."""
    parts = [
        front_matter(tagger),
        about(tagger),
        "## Use\n\n" + use(tagger),
        "## Use without jetatag\n\n" + use_onnx(tagger) if onnx else "",
        "## Data\n\n" + about_data(tagger),
        "## Scores\n\n" + about_scores(table, tagger.config.n_windows),
        f"## Tags\n\n{', '.join(tagger.vocabulary.tags)}",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


USE = """```python
import jetatag

model = jetatag.load("this/folder")  # or hf://owner/name
model.tag("song.mp3")  # table of tag and probability, the most probable first
model.read("song.mp3")  # every window: probabilities, features{vectors}
```

or `jetatag tag this/folder song.mp3`. Files of any sample rate, number of channels and length from
0.1 s; they are mixed to mono and resampled to {rate:,} Hz."""

USE_ONNX = """`{file}` (opset {opset}) takes `audio` (batch, {samples:,}) float32 and gives `probs`
(batch, tag). A recording is read as it was in training: mono at {rate:,} Hz, {loudness}, rounded to
16 bits. Windows follow each other; the last one ends with the recording, and one that is shorter
than a window has zeros behind it. The probabilities of the whole are the mean over windows, each
weighted by the samples that it adds to those before. This gives jetatag's own numbers to 1e-4, but
for what another resampler changes:

```python
import json

import librosa
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
tags = json.loads(session.get_modelmeta().custom_metadata_map["tags"])
audio, _ = librosa.load("song.mp3", sr={rate})
audio = np.rint(audio * np.float32(32767 / {peak})) * np.float32(1 / 32767)
n, end = {samples}, len(audio)
edges = np.minimum(np.arange(0, end + n, n), end)
starts = np.minimum(edges[:-1], max(0, end - n))
padded = np.pad(audio, (0, max(0, n - end)))
windows = np.stack([padded[start : start + n] for start in starts])
(probs,) = session.run(["probs"], {{"audio": windows}})
mean = dict(zip(tags, np.average(probs, axis=0, weights=np.diff(edges)).tolist()))
print(sorted(mean.items(), key=lambda item: -item[1])[:5])
```"""

PROTOCOLS = {
    "micro_window": "every window for itself, all tags pooled, areas by 200 thresholds",
    "macro_clip": "window scores averaged per clip, exact areas, the mean over tags",
}


def front_matter(tagger: Tagger) -> str:
    """The card's metadata, as the Hub specifies it."""
    name = tagger.data["name"]
    told = {
        "library_name": "jetatag",
        "pipeline_tag": "audio-classification",
        "tags": ["music", "audio", "auto-tagging", "music-information-retrieval"],
        "license": "mit" if name == OWN_DATA else "other",
    }
    if name != OWN_DATA:
        told["license_name"] = "as-the-training-data-allows"
    if name in LICENCE_LINKS:
        told["license_link"] = LICENCE_LINKS[name]
    if name in (OWN_DATA, *LICENCE_LINKS):  # a folder of one's own has no name that others know
        told["datasets"] = [name]
    return f"---\n{yaml.safe_dump(told, sort_keys=False)}---"


def about(tagger: Tagger) -> str:
    """Title, and what the model is."""
    config, made_by = tagger.config, Run(tagger.folder, tagger.config).record.get("made_by", {})
    joint = f", pair loss `{config.pair_loss}`" if config.pair_loss != "none" else ""
    seconds = config.crop_samples / config.sample_rate
    return (
        f"# {config.name}\n\n"
        f"A music tagger: {len(tagger.vocabulary.tags)} tags ({tagger.vocabulary.task}) from "
        f"windows of {seconds:.2f} s. Extractor `{config.extractor}` ({config.form}) of width "
        f"{config.width}, method `{config.method}`{joint}, seed {config.seed}: Music Auto-tagging "
        f"with Joint Embeddings (Lee & Cho, KSC 2021), trained by jetatag "
        f"{made_by.get('jetatag', 'of unknown version')}, commit "
        f"`{made_by.get('commit', 'unknown')}`. All settings: `config.json`; data, versions, time "
        "and memory of the training: `record.json`."
    )


def use(tagger: Tagger) -> str:
    """How the model is loaded, and what it then says."""
    vectors = ", vectors in the shared space" if tagger.config.pair_loss != "none" else ""
    return USE.format(vectors=vectors, rate=tagger.config.sample_rate)


def use_onnx(tagger: Tagger) -> str:
    """How the ONNX file is called so that it says what `Tagger.tag` says."""
    loudness, peak = "scaled so that the largest sample is 1", "np.abs(audio).max()"
    if not tagger.peak_normalise:
        loudness, peak = "scaled down where a sample is beyond 1", f"max(1, {peak})"
    return USE_ONNX.format(
        file=ONNX,
        opset=OPSET,
        samples=tagger.config.crop_samples,
        rate=tagger.config.sample_rate,
        loudness=loudness,
        peak=peak,
    )


def about_data(tagger: Tagger) -> str:
    """What the model was trained and tested on, by whose leave."""
    data, config, name = tagger.data, tagger.config, tagger.data["name"]
    counts = {split: data["clips_by_split"].get(split) for split in SPLITS}
    counts = ", ".join(f"{n:,} {split}" for split, n in counts.items() if n)
    clips = f" Clips: {counts}." if counts else ""
    share = f" {config.label_share:.0%} of the training clips were used."
    licence = LICENCES.get(name, "unknown here: ask whoever trained the model")
    return (
        f"Trained on {TITLES.get(name, name)} (`{name}`, checksum `{data['checksum']}`, split "
        f"`{data.get('split_checksum', 'unknown')}`).{clips}"
        f"{share if config.label_share < 1 else ''}\n\n"
        f"Licence of the data: {licence}. {WEIGHTS_MIT if name == OWN_DATA else WEIGHTS_OTHER}"
    )


def about_scores(table: pd.DataFrame | None, n_windows: int) -> str:
    """Scores of the test split with 95 % intervals, and what the protocols are."""
    if table is None:
        return "Not scored."
    first = table.iloc[0]
    lines = [
        f"On the test split: {first.n_clips:,} clips of {n_windows} windows each, "
        f"{first.n_tags} tags that occur there. 95 % intervals from resampling clips and, where "
        "clips are grouped (by artist), whole groups.",
        "",
        "| protocol | metric | score | 95 % by clip | 95 % by group |",
        "|---|---|---|---|---|",
    ]
    for row in table.itertuples():
        by_clip, by_group = (
            "–" if np.isnan(low) else f"[{low:.3f}, {high:.3f}]"
            for low, high in ((row.low, row.high), (row.group_low, row.group_high))
        )
        lines.append(
            f"| {row.protocol} | {row.metric} | {row.value:.3f} | {by_clip} | {by_group} |"
        )
    protocols = [f"`{name}`: {told}." for name, told in PROTOCOLS.items()]
    return "\n".join([*lines, "", *protocols])
