"""The report page: self-contained, with the notebooks' results and clips to listen to."""

import io
import os
import re
import shutil
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import soundfile
import yaml
from scored import scored_run
from sklearn.metrics import label_ranking_average_precision_score

from jetatag import cli
from jetatag.config import RunConfig
from jetatag.data import Vocabulary
from jetatag.evaluation import baselines, results
from jetatag.grid import report
from jetatag.training.run import Run

VOID = {"meta", "img", "br", "link", "input", "hr"}
NASTY = ("<script>alert(1)</script>", 'high" onload="x', "cash & '$\\oops$'", "{{ never }}")


class Page(HTMLParser):
    """Tags, ids, targets and tables of a page; fails for tags that do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.tables = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in VOID
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def values(self, *names):
        return [a[name] for _, a in self.tags for name in names if name in a]

    def sounds(self):
        """(samples, rate) of every player."""
        sources = [a["src"] for tag, a in self.tags if tag == "audio"]
        return [soundfile.read(io.BytesIO(b64decode(s.partition(",")[2]))) for s in sources]


@pytest.fixture(scope="module")
def made(tiny_store, tiny_config, tmp_path_factory):
    """Three methods, the first two with two seeds, and baselines; tests must not write there."""
    parent = tmp_path_factory.mktemp("report") / "runs"
    for method, pair_loss, seeds in (
        ("je", "subset_query", (0, 1)),
        ("no_je", "none", (0, 1)),
        ("no_je_linear", "none", (0,)),
    ):
        for seed in seeds:
            config = tiny_config.replace(method=method, pair_loss=pair_loss, seed=seed)
            run = scored_run(parent, config, tiny_store, seed, 1.5 if method == "je" else 0.3)
            history = "stage,epoch,loss,valid_average_precision\nstage2,1,3,.2\nstage2,2,2,.3\n"
            (run.folder / "history.csv").write_text(history)
    rows = tiny_store.rows("test")
    frequency = np.tile(tiny_store.labels.mean(0, dtype=np.float32), (len(rows), 1))
    floor = dict.fromkeys(baselines.NAMES, frequency)
    np.savez(parent / "baselines.npz", **tiny_store.describe(rows), **floor)
    return SimpleNamespace(parent=parent, store=tiny_store, runs=report.finished(parent))


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """Two notebooks with all kinds of output, in place of the packaged ones."""
    folder = tmp_path / "packaged"
    folder.mkdir()
    sources = [
        "import os, sys; print('progress', file=sys.stderr); print(sorted(os.listdir(runs)))",
        "raise ValueError('too few <runs>')",
        "print(undefined)",
        "'shown'",
    ]
    cells = [nbformat.v4.new_markdown_cell("# A heading"), nbformat.v4.new_code_cell("runs = ''")]
    cells[1].metadata.tags = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, folder / report.NOTEBOOKS[1])
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(notebook, folder / report.NOTEBOOKS[0])
    monkeypatch.setattr(report, "packaged_notebooks", lambda: folder)
    return folder


def execute_nothing(*_, **__):
    raise AssertionError("executed notebooks are not executed again")


def executed_before(parent, monkeypatch, output="as before"):
    """Notebooks as Snakemake leaves them beside the runs."""
    (parent / "notebooks").mkdir(exist_ok=True)
    text = nbformat.v4.new_output("stream", name="stdout", text=output)
    for name in report.NOTEBOOKS:
        cell = nbformat.v4.new_code_cell("x", outputs=[text])
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), parent / "notebooks" / name)
    monkeypatch.setattr(report, "NotebookClient", execute_nothing)


@pytest.fixture(scope="module")
def text(made, tmp_path_factory):
    """The page about all runs, by the real notebooks, with audio."""
    out = tmp_path_factory.mktemp("page") / "page.html"
    report.write([made.parent], out, made.store.folder, n_resamples=20)
    return out.read_text()


def test_the_page_needs_nothing_else(made, text):
    page = Page(text)
    assert ("html", {"lang": "en"}) in page.tags and "<title>jetatag: mtat</title>" in text
    ids, targets = page.values("id"), page.values("href", "src")
    inner = [target[1:] for target in targets if target.startswith("#")]
    assert inner and set(inner) <= set(ids)
    assert all(target.startswith(("#", "data:")) for target in targets)
    assert not re.search(r"https?://|//cdn|@import|url\(", re.sub(r'"data:[^"]*"', "", text))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    images = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(images) > 10 and all(image.startswith("data:image/png;base64,") for image in images)
    assert str(made.parent) not in text and str(made.store.folder) not in text


def test_the_page_holds_the_results_of_the_notebooks(made, text):
    cells = {cell.strip() for table in Page(text).tables for row in table for cell in row}
    table = results.results(made.runs, n_resamples=20, baselines=made.parent / "baselines.npz")
    for protocol, digits in (("micro_window", 3), ("macro_clip", 2)):
        shown = results.summary(table, protocol=protocol, digits=digits).to_numpy().ravel()
        assert len(shown) > 8 and set(shown) <= cells
    assert "Left out" not in text and "Traceback" not in text
    assert f"runs: mtat, {len(made.store.rows('test'))} test clips, 5 runs" in text


def test_the_page_shows_the_shared_map_and_how_far_to_trust_it():
    """What the packaged notebook, as it was executed last, shows of it."""
    notebook = nbformat.read(report.packaged_notebooks() / report.NOTEBOOKS[1], 4)
    outputs = [c.outputs for c in report.shown_cells(notebook) if c.cell_type == "code"]
    shown = [output.get("data", {}) for own in outputs for output in own]
    (table,) = [data["text/html"] for data in shown if "map_mixing" in data.get("text/html", "")]
    assert all(name in table for name in ("map_precision_at_10", "umap", "tsne"))
    (drawing,) = [cell for cell in notebook.cells if "figures.maps({" in cell.source]
    assert drawing.outputs[0].data in shown and "image/png" in drawing.outputs[0].data


def test_the_page_says_nothing_of_the_committed_outputs(text):
    for name in report.NOTEBOOKS:
        notebook = nbformat.read(report.packaged_notebooks() / name, 4)
        assert any("committed outputs" in cell.source for cell in notebook.cells)
        told = [c.source for c in report.shown_cells(notebook) if c.cell_type == "markdown"]
        assert len(told) > 10 and not re.search("committed|demo", "".join(told)), name
    assert "committed outputs" not in text


def test_the_settings_train_the_run_again(made, text):
    blocks = re.findall(r"<pre>(method: .*?)</pre>", text, flags=re.S)
    settings = [RunConfig(**yaml.safe_load(block)) for block in blocks]
    assert settings == [run.config for run in made.runs if run.config.seed == 0]


def test_the_best_and_worst_clips_of_each_method_can_be_heard(made):
    run = made.runs[0]
    rows = report.store_rows(run, made.store)
    page = Page(report.listening([run], made.store, rows))
    best, worst = page.tables
    scores = run.read_arrays("scores.npz")
    probs, tagged = scores["probs"].mean(1), scores["labels"].any(axis=1)
    ranking = np.sort(report.ranking_precision(scores["labels"], probs)[tagged])
    n = min(5, tagged.sum() // 2)
    assert [row[1] for row in best[1:]] == [f"{value:.3f}" for value in ranking[::-1][:n]]
    assert [row[1] for row in worst[1:]] == [f"{value:.3f}" for value in ranking[:n]]
    shown = best[1:] + worst[1:]
    assert len({row[0] for row in shown}) == len(shown) == len(page.sounds())
    clips = dict(zip(scores["clip_ids"], range(len(tagged)), strict=True))
    for row, (audio, rate) in zip(shown, page.sounds(), strict=True):
        clip_id, _, tags, predicted, title, _ = row
        clip = clips[clip_id]
        own = made.store.read([rows[clip]], [0], made.store.lengths[rows[clip]])[0]
        assert rate == made.store.sample_rate and abs(len(audio) - len(own)) < 0.2 * rate
        assert np.corrcoef(audio[: len(own)], own[: len(audio)])[0, 1] > 0.9
        assert tags == ", ".join(scores["tags"][scores["labels"][clip] == 1])
        likeliest = probs[clip].argmax()
        mark = "• " if scores["labels"][clip, likeliest] else ""
        first = f"{mark}{scores['tags'][likeliest]} {probs[clip, likeliest]:.2f}, "
        assert predicted.startswith(first) and title == made.store.table.title[rows[clip]]


def test_a_clip_is_embedded_once(text):
    page = Page(text)
    sources = [a["src"] for tag, a in page.tags if tag == "audio"]
    rows = [row for table in page.tables if table[0][0] == "clip" for row in table[1:]]
    repeated = [row for row in rows if row[-1] == "above"]
    assert repeated and len(rows) == len(sources) + len(repeated)
    assert len(sources) == len(set(sources))


@pytest.mark.parametrize(("sample_rate", "kind"), [(16_000, "mpeg"), (10_000, "flac")])
def test_an_excerpt_is_the_middle_of_the_clip(made, sample_rate, kind):
    seconds = 30
    time = np.arange(seconds * sample_rate) / sample_rate
    audio = np.sin(2 * np.pi * np.where(abs(time - 15) < 5, 1000, 200) * time)
    table = made.store.table.iloc[:1].assign(n_samples=len(audio))
    store = replace(made.store, sample_rate=sample_rate, table=table)
    store.__dict__["samples"] = (20_000 * audio).astype(np.int16)
    html = report.player(store, 0)
    ((excerpt, rate),) = Page(html).sounds()
    assert f"data:audio/{kind};" in html
    assert rate == sample_rate and abs(len(excerpt) / rate - 10) < 0.2
    spectrum = abs(np.fft.rfft(excerpt))
    assert np.fft.rfftfreq(len(excerpt), 1 / rate)[spectrum.argmax()] == pytest.approx(1000, abs=2)
    assert spectrum[: int(400 * len(excerpt) / rate)].max() < 0.02 * spectrum.max()


def test_ranking_precision_is_that_of_scikit_learn_and_computed_by_hand():
    rng = np.random.default_rng(0)
    labels, probs = rng.random((30, 6)) < 0.4, rng.integers(0, 4, (30, 6)) / 4  # with ties
    labels[:, 0] |= ~labels.any(axis=1)
    ours = report.ranking_precision(labels, probs)
    assert ours.mean() == pytest.approx(label_ranking_average_precision_score(labels, probs))
    hand = report.ranking_precision(np.array([[1, 0, 1], [0, 0, 0]]), np.array([[9, 5, 2]] * 2))
    assert hand == pytest.approx([(1 / 1 + 2 / 3) / 2, np.nan], nan_ok=True)


def test_names_from_the_disk_are_escaped(made, tiny_config, tmp_path, monkeypatch):
    table = made.store.table.assign(clip_id=[f"<b>{i}" for i in made.store.table.clip_id])
    store = replace(made.store, vocabulary=Vocabulary(NASTY), table=table, name="<u>set</u>")
    run = scored_run(tmp_path / "<i>runs", tiny_config, store, 0)
    executed_before(run.folder.parent, monkeypatch)
    report.write([run.folder], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert not {"script", "u", "b", "i"} & {tag for tag, _ in page.tags}
    assert not page.values("onload")
    shown = " ".join(cell for rows in page.tables for row in rows for cell in row)
    assert all(tag in shown for tag in NASTY)


def test_what_becomes_of_the_outputs_of_a_notebook(made, notebooks, tmp_path):
    out = tmp_path / "page.html"
    report.write([made.runs[0].folder, made.runs[2].folder], out, n_resamples=20)
    text = out.read_text()
    assert text.count("A heading") == 2 and "shown" in text
    assert "Left out: too few &lt;runs&gt;" in text
    assert "progress" not in text and "undefined" not in text and "sorted" not in text
    names = [run.config.name for run in (made.runs[0], made.runs[2])]
    assert str(sorted([*names, "baselines.npz"])) in text.replace("&#39;", "'")
    assert "<audio" not in text and "Best and worst clips" in text


def test_any_other_error_of_a_notebook_is_one_sentence(made, notebooks, tmp_path):
    path = notebooks / report.NOTEBOOKS[0]
    path.write_text(path.read_text().replace("raise ValueError", "raise TypeError"))
    with pytest.raises(ValueError, match="a notebook fails: TypeError: too few <runs>; run it"):
        report.write([made.parent], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_executed_notebooks_are_used_while_they_fit_the_runs(
    made, tmp_path, monkeypatch, notebooks
):
    parent, out = shutil.copytree(made.parent, tmp_path / "runs"), tmp_path / "page.html"
    with monkeypatch.context() as patch:
        executed_before(parent, patch)
        report.write([parent], out)
        first = out.read_bytes()
        assert first.count(b"as before") == 2
        report.write([parent], out)
        assert out.read_bytes() == first  # the same runs give the same bytes
        with pytest.raises(AssertionError, match="not executed again"):
            report.write([parent / made.runs[0].config.name], out)  # not all of the runs
    report.write([parent / made.runs[0].config.name], out)
    assert b"as before" not in out.read_bytes()
    newer = (parent / "notebooks" / report.NOTEBOOKS[0]).stat().st_mtime + 9
    os.utime(made_scores := parent / made.runs[0].config.name / "scores.npz", (newer, newer))
    report.write([parent], out)
    assert b"as before" not in out.read_bytes() and made_scores.is_file()


def test_each_folder_of_runs_and_each_test_set_has_a_section(
    made, tiny_config, tmp_path, monkeypatch
):
    fewer = made.store.table.copy()
    fewer.loc[made.store.rows("test")[:1], "split"] = "valid"
    other = replace(made.store, table=fewer, name="fewer", checksum="other")
    run = scored_run(tmp_path / "other", tiny_config, other, 0)
    again = scored_run(tmp_path / "again", tiny_config, made.store, 9)
    for parent in (run.folder.parent, again.folder.parent):
        executed_before(parent, monkeypatch)
    report.write([tmp_path], tmp_path / "page.html", made.store.folder)
    text = (tmp_path / "page.html").read_text()
    n_test = len(made.store.rows("test"))
    heads = re.findall(r'<h1 id="section-\d+">(.*?)</h1>', text)
    assert heads == [
        f"again: mtat, {n_test} test clips, 1 run",
        f"other: fewer, {n_test - 1} test clips, 1 run",
    ]
    assert text.count("<audio") > 10  # the store holds the clips of both
    ids = Page(text).values("id")
    assert len(ids) == len(set(ids))


def test_the_command_writes_the_page_and_finds_each_run_once(made, tmp_path, monkeypatch, capsys):
    parent, out = shutil.copytree(made.parent, tmp_path / "runs"), tmp_path / "pages" / "page.html"
    executed_before(parent, monkeypatch)
    (tmp_path / "figures").mkdir()
    without = [str(tmp_path / "figures"), str(parent / "baselines.npz")]
    places = [str(parent), *without, str(parent / made.runs[0].config.name)]
    options = ["--out", str(out), "--store", str(made.store.folder)]
    assert cli.main(["report", *places, *options]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{out}: 5 runs, ")
    assert f"left out, because they hold no finished run: {', '.join(without)}.\n" in printed.err
    assert list(out.parent.iterdir()) == [out]
    assert len(Page(out.read_text()).sounds()) > 0


def test_mistakes_are_one_sentence(made, tiny_config, tmp_path):
    out = tmp_path / "page.html"
    with pytest.raises(FileNotFoundError, match=r"no finished run under .*absent: run `jetatag"):
        report.write([made.parent, tmp_path / "absent"], out)
    with pytest.raises(FileNotFoundError, match=f"no finished run under {tmp_path}: run"):
        report.write([tmp_path], out)
    torn = Run.open(shutil.copytree(made.runs[0].folder, tmp_path / "torn"))
    (torn.folder / "scores.npz").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"scores\.npz is damaged"):
        report.write([torn.folder], out)
    torn.write_arrays("scores.npz", {"probs": np.zeros((2, 3, 4))})
    with pytest.raises(ValueError, match=r"scores\.npz lacks clip_ids, labels, tags"):
        report.write([torn.folder], out)
    parent = shutil.copytree(made.parent, tmp_path / "clash")
    scored_run(parent, tiny_config.replace(n_windows=7, seed=5), made.store, 5)
    with pytest.raises(ValueError, match="are runs of one method but differ in n_windows"):
        report.write([parent], out)
    assert not out.exists()


@pytest.mark.parametrize("change", ["labels", "clip_id"])
def test_a_store_of_other_clips_is_refused(made, tmp_path, change, monkeypatch):
    table = made.store.table.assign(clip_id=made.store.table.clip_id + "x")
    other = {"labels": {"labels": 1 - made.store.labels}, "clip_id": {"table": table}}[change]
    monkeypatch.setattr(report.AudioStore, "open", lambda _: replace(made.store, **other))
    with pytest.raises(ValueError, match="give the store that they were tested on"):
        report.write([made.parent], tmp_path / "page.html", "other.store")
