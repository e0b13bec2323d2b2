"""One self-contained HTML page about finished runs: notebooks 04 and 05, and clips to hear."""

import io
import shutil
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import soundfile
import yaml
from jinja2 import Template
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from sklearn.metrics import label_ranking_average_precision_score
from tqdm import tqdm

from jetatag.data.store import AudioStore
from jetatag.evaluation import results
from jetatag.files import atomic
from jetatag.grid import packaged_notebooks
from jetatag.training.run import Run
from jetatag.training.runs import finished, listed

NOTEBOOKS = ("04_evaluate.ipynb", "05_embeddings.ipynb")
EXAMPLES, EXCERPT_S, TOP_TAGS = 5, 10, 6  # best and worst clips, seconds and tags of each
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # Hz


def write(
    places: Iterable[Path | str],
    out: Path | str,
    store: Path | str | None = None,
    n_resamples: int = 1000,
) -> tuple[list[Run], list[Path]]:
    """Write the page about all scored runs in or below `places` to `out`, with a section for each
    folder of runs; returns the runs, and the places without any.

    `store` is the prepared data on which some of the runs were tested, for excerpts of its clips.
    Raises `FileNotFoundError` or `ValueError` if there is no run, for runs that are damaged or
    cannot be compared, and for a store of other clips.
    """
    places = list(map(Path, places))
    without = [place for place in places if place.exists() and not any(place.glob("**/scores.npz"))]
    named = [place for place in places if place not in without] or places
    found = [run for place in named for run in finished(place, "**")]
    runs = list({run.folder.resolve(): run for run in found}.values())
    groups = [
        list(group)
        for tested_alike in results.by_test(runs)
        for _, group in groupby(sorted(tested_alike, key=folder_of), folder_of)
    ]
    audio = AudioStore.open(Path(store).absolute()) if store else None
    rows = [store_rows(group[0], audio) for group in groups]
    if audio and all(own is None for own in rows):
        problem = f"{store} does not hold the test clips of these runs with their labels"
        raise ValueError(f"{problem}: give the store that they were tested on.")
    titles, cells = [title(group) for group in groups], []
    sections = zip(tqdm(groups, "report"), titles, rows, strict=True)
    for number, (group, name, own) in enumerate(sections, 1):
        cells.append(html_cell(f'<h1 id="section-{number}">{escape(name)}</h1>{about(group)}'))
        known = {"n_resamples": n_resamples, "store": "" if own is None else str(audio.folder)}
        cells += [cell for notebook in executed(group, known) for cell in shown_cells(notebook)]
        head = f'<h1 id="section-{number}-audio">Best and worst clips</h1>'
        cells.append(html_cell(head + listening(group, audio, own)))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # unique, although a notebook may occur several times
    exporter = HTMLExporter(template_name="basic", embed_images=True, exclude_anchor_links=True)
    exporter.exclude_input = exporter.exclude_output_prompt = True
    body, _ = exporter.from_notebook_node(nbformat.v4.new_notebook(cells=cells))
    data = ", ".join(dict.fromkeys(run.record["data"]["name"] for run in runs))
    text = Path(__file__).with_name("page.html.jinja").read_text("utf-8")
    page = Template(text, autoescape=True, keep_trailing_newline=True)
    with atomic(out) as temporary:
        temporary.write_text(page.render(data=data, titles=titles, body=body), "utf-8")
    return runs, without


def executed(runs: Sequence[Run], values: dict[str, Any]) -> Iterator[nbformat.NotebookNode]:
    """The notebooks as executed on exactly these runs, or now, with `values` as parameters."""
    folder = runs[0].folder.parent
    made = [folder / "notebooks" / name for name in NOTEBOOKS]
    newest = max((run.folder / "scores.npz").stat().st_mtime for run in runs)
    are_all = {run.folder for run in runs} == {run.folder for run in finished(folder)}
    if are_all and all(
        path.is_file()
        and path.stat().st_mtime >= newest
        and '"output_type": "error"' not in path.read_text("utf-8")
        for path in made
    ):
        yield from (nbformat.read(path, 4) for path in made)
        return
    with TemporaryDirectory() as temporary:
        for run in runs:
            weights = shutil.ignore_patterns("*.safetensors", "tensorboard")
            shutil.copytree(run.folder, Path(temporary, run.folder.name), ignore=weights)
        if (folder / "baselines.npz").is_file():
            shutil.copy(folder / "baselines.npz", temporary)
        values = {"runs": ".", "out": "out", "tag": "", **values}
        for name in NOTEBOOKS:
            notebook = load_notebook_node(str(packaged_notebooks() / name))
            client = NotebookClient(parameterize_notebook(notebook, values), allow_errors=True)
            client.extra_arguments = ["--IPKernelApp.log_level=40"]  # no warnings about transport
            client.resources = {"metadata": {"path": temporary}}
            yield client.execute()


def shown_cells(notebook: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
    """The text and outputs of a notebook, without progress bars, the explorer's invitation to
    JupyterLab and what is said of the committed outputs (cells with the tag `committed`). A note
    replaces what the library refuses for these runs; other errors raise `ValueError`."""
    left_out = False
    for cell in (one for one in notebook.cells if "committed" not in one.metadata.get("tags", [])):
        outputs = []
        for output in cell.get("outputs", []):
            if output.output_type != "error":
                is_plain = output.output_type == "display_data" and [*output.data] == ["text/plain"]
                outputs += [] if is_plain or output.get("name") == "stderr" else [output]
            elif output.ename in ("ValueError", "FileNotFoundError"):
                left_out = True
                note = f'<p class="note">Left out: {escape(output.evalue)}</p>'
                outputs += html_cell(note).outputs
            elif output.ename != "NameError" or not left_out:  # else it needs what was left out
                failure = f"{output.ename}: {output.evalue.rstrip('.')}"
                raise ValueError(f"a notebook fails: {failure}; run it to see where.")
        yield cell if cell.cell_type == "markdown" else nbformat.v4.new_code_cell(outputs=outputs)


def html_cell(html: str) -> nbformat.NotebookNode:
    output = nbformat.v4.new_output("display_data", {"text/html": html})
    return nbformat.v4.new_code_cell(outputs=[output])


def folder_of(run: Run) -> Path:
    return run.folder.resolve().parent


def title(runs: Sequence[Run]) -> str:
    data, folder = runs[0].record["data"]["name"], folder_of(runs[0]).name
    n_clips, several = len(runs[0].read_arrays("scores.npz")["labels"]), "s" if runs[1:] else ""
    return f"{folder}: {data}, {n_clips:,} test clips, {len(runs)} run{several}"


def about(runs: Sequence[Run]) -> str:
    """A table of the runs, and the settings with which to train the first of each method again."""
    table = pd.DataFrame([listed(run) | {"run": run.folder.name} for run in runs])
    table = table.drop(columns=["dataset", "state"])
    html = table.to_html(index=False, na_rep="–", float_format="{:.4g}".format, classes="text")
    for run in firsts(runs).values():
        text = yaml.safe_dump(run.config.to_dict(), sort_keys=False, allow_unicode=True)
        html += f"<details><summary>Settings of {escape(run.config.name)}</summary>"
        html += f"<pre>{escape(text)}</pre></details>"
    return html


def firsts(runs: Sequence[Run]) -> dict[str, Run]:
    """The first run of every method and pair loss."""
    by_method: dict[str, Run] = {}
    for cell, seeds in results.cells(runs).items():
        by_method.setdefault(cell.method_name, next(iter(seeds.values())))
    return by_method


def store_rows(run: Run, store: AudioStore | None) -> np.ndarray | None:
    """Rows in `store` of a run's scored clips, (clip,); None without them or with other labels."""
    scores = run.read_arrays("scores.npz")
    if store is None or not np.array_equal(store.vocabulary.tags, scores["tags"]):
        return None
    rows = pd.Index(store.table.clip_id).get_indexer(scores["clip_ids"].astype(str))
    same = (rows >= 0).all() and np.array_equal(store.labels[rows], scores["labels"])
    return rows if same else None


def listening(runs: Sequence[Run], store: AudioStore | None, rows: np.ndarray | None) -> str:
    """The clips that the first run of each method ranks best and worst, as HTML tables; with
    titles and audio, each clip once, if `rows` of the store are given. • marks true tags."""
    html, played = "", set()
    for name, run in firsts(runs).items():
        scores = run.read_arrays("scores.npz")
        labels, probs, tags = scores["labels"], scores["probs"].mean(1), scores["tags"]
        ranking = ranking_precision(labels, probs)
        own = (probs * labels).sum(1) / np.maximum(labels.sum(1), 1)  # decides ties
        order = [int(clip) for clip in np.lexsort((-own, -ranking)) if labels[clip].any()]
        n = min(EXAMPLES, len(order) // 2)
        for kind, clips in (("best", order[:n]), ("worst", order[::-1][:n])):
            predicted = []
            for clip in clips:
                best = np.argsort(-probs[clip], kind="stable")[:TOP_TAGS]
                named = (f"{'• ' * labels[clip, t]}{tags[t]} {probs[clip, t]:.2f}" for t in best)
                predicted.append(", ".join(named))
            columns = {
                "clip": scores["clip_ids"][clips].astype(str),
                "ranking precision": [f"{ranking[clip]:.3f}" for clip in clips],
                "tags": [", ".join(tags[labels[clip] == 1]) for clip in clips],
                "predicted": predicted,
            }
            table = pd.DataFrame(columns).map(escape)
            if rows is not None:
                table["title"] = list(map(escape, store.table.title.iloc[rows[clips]]))
                table["audio"] = [
                    "above" if clip in played else player(store, rows[clip]) for clip in clips
                ]
            played.update(clips)
            html += f"<h3>{escape(name)}, seed {run.config.seed}: {kind}</h3>"
            html += table.to_html(index=False, escape=False, classes="text")
    return html


def ranking_precision(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Label ranking average precision (Schapire & Singer 2000, "BoosTexter") of each clip, (clip,)
    in (0, 1]; NaN for clips without tags. `labels` and `probs` are (clip, tag)."""
    precision = label_ranking_average_precision_score
    pairs = zip(labels, probs, strict=True)
    return np.array([precision([own], [p]) if own.any() else np.nan for own, p in pairs])


def player(store: AudioStore, row: int) -> str:
    """An HTML player of the middle `EXCERPT_S` seconds of a clip, as FLAC if MP3 lacks its rate."""
    rate, length = store.sample_rate, int(store.lengths[row])
    n_samples = min(length, EXCERPT_S * rate)
    audio, file = store.read([row], [(length - n_samples) // 2], n_samples)[0], io.BytesIO()
    kind, mime = ("MP3", "mpeg") if rate in MP3_RATES else ("FLAC", "flac")
    soundfile.write(file, audio, rate, format=kind)
    source = f"data:audio/{mime};base64,{b64encode(file.getvalue()).decode()}"
    return f'<audio controls preload="none" src="{source}"></audio>'
