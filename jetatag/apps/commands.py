"""The verbs of the command `jetatag` that use, share or import a trained run.

`jetatag.cli` makes the parser and the help from their signatures and docstrings. Large libraries
are imported inside the verbs, so that help needs none of them.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.filesize import decimal

from jetatag.apps import By
from jetatag.files import check_writable, printable, write_json


def to_path(_: Any, tokens: Sequence[Any]) -> Path:
    if not tokens[0].value:  # which `Path` reads as "."
        raise ValueError("a path must not be empty.")
    return Path(tokens[0].value)


def check_cores(_: Any, value: str | None) -> None:
    if value not in (None, "all") and not (value.isdecimal() and int(value) > 0):
        raise ValueError("It must be all or at least 1.")


def parse_changes(texts: Iterable[str]) -> dict[str, Any]:
    """Names and values of name=value arguments; values are read as YAML."""
    changes = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r} is not a name=value pair: write for example seed=1.")
        try:
            changes[name] = read = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"{text!r}: the value is not valid YAML; quote it.") from None
        is_quoted = value.lstrip().startswith(("'", '"'))
        if isinstance(read, str) and not is_quoted and read != value.strip():  # behind a # or &
            raise ValueError(f"""{text!r}: YAML reads only {read!r}; quote it: '{name}="…"'.""")
    return changes


FilePath = Annotated[Path, Parameter(converter=to_path)]
File = FilePath | None
Count = Annotated[int, Parameter(validator=Number(gte=1))]
Trained = Annotated[str, Parameter(help="run folder, exported folder, or hf://owner/name")]
Workers = Annotated[Count | None, Parameter(help="files to decode at once (default: one per core)")]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, …")]
Tags = Annotated[str | None, Parameter(allow_leading_hyphen=True)]  # '-vocal' is not an option


def tag(
    run: Trained,
    paths: list[FilePath],
    /,
    *,
    top: Count = 5,
    csv: File = None,
    json: File = None,
    parquet: File = None,
    taggram: File = None,
    embeddings: File = None,
    workers: Workers = None,
    device: Device = "auto",
) -> int:
    """Tag audio files with a finished run.

    Prints the most probable tags of each file. Files may have any sample rate, number of channels
    and length from 0.1 s; files shorter than the run's window are padded with silence. For a file
    that cannot be read, is shorter than 0.1 s or is silent, the reason is printed instead, and the
    exit status is 1. After Ctrl-C, the files tagged so far are kept.

    ```
    jetatag tag RUN song.mp3 --top 10 --taggram song.png
    jetatag tag RUN album/ --csv album.csv
    ```

    Args:
        paths: audio files or folders
        top: tags to print for each file
        csv: write all probabilities as CSV
        json: write all probabilities as JSON
        parquet: write all probabilities as Parquet
        taggram: draw the tags over time (.png, .pdf or .svg); for several files, into a folder
        embeddings: write probabilities, features and shared-space vectors of every window (.npz)
    """
    from tqdm import tqdm

    from jetatag.apps import tagger, tagging
    from jetatag.data.index import skipped_sentence

    loaded, status = tagger.load(run, device), 0
    files, links, skipped = tagging.find_audio(paths)
    outputs = csv, json, parquet, taggram, embeddings
    tagged = tagging.TagWriter(files, loaded.vocabulary, top, *outputs)
    print(loaded, file=sys.stderr)
    if links:
        say(f"links to folders are not followed, name them too: {', '.join(map(str, links))}.")
    if skipped:
        say(skipped_sentence(skipped))
    try:
        predictions = loaded.predict_files(files, workers)
        with tagged, tqdm(predictions, "tagging", len(files), unit="file", disable=None) as bar:
            for path, reading in bar:
                row = tagged.add(path, reading)
                tags = tag_list(list(row["tags"].items())[:top])
                told = f" ({row['error']})" if row["error"] else ""
                told = f"{tags}{told}" if tags else f"error: {row['error']}"
                bar.write(printable(f"{row['path']}: {told}"))
                sys.stdout.flush()  # so that the reader of a pipe gets each line at once
    except KeyboardInterrupt:
        status = 130
    finally:
        if len(tagged.rows) < len(files):
            say(f"stopped: {tagged}.")
    if n_bad := sum(not row["tags"] for row in tagged.rows):
        say(f"{n_bad} of {len(tagged.rows)} files could not be read.")
    return status or int(n_bad > 0)


def index(
    run: Trained,
    folder: FilePath,
    /,
    *,
    out: File = None,
    workers: Workers = None,
    device: Device = "auto",
) -> None:
    """Index a folder of music with a finished run, to search it.

    Reads all audio below a folder and stores the tag probabilities and a vector of each file. Later
    calls read only new and changed files, and continue where an earlier call stopped. The index's
    report.csv lists the files that cannot be read or are damaged, with the reason, and links to
    folders, which are not followed.

    Example: `jetatag index RUN music/`

    Args:
        folder: holds the audio files
        out: folder of the index (default: FOLDER.index)
    """
    from jetatag.apps import indexing, tagger
    from jetatag.data.index import NOT_AUDIO, skipped_sentence

    made = indexing.build(tagger.load(run, device), folder, out, workers)
    if skipped := made.report.path[made.report.reason == NOT_AUDIO].to_list():
        say(skipped_sentence(skipped))
    print(f"{short_path(made.folder)}: {made}")
    if len(made.report):
        print(f"files left out or damaged: {short_path(made.folder / 'report.csv')}")


def search(
    index: FilePath,
    /,
    *,
    tags: Tags = None,
    like: File = None,
    top: Count = 20,
    by: By | None = None,
    run: str | None = None,
    m3u: File = None,
    json: File = None,
) -> None:
    """Search an index by tags or by a file.

    Lists the files of an index that match --tags best, or that sound most like --like: rank, score,
    path, title and most probable tags. The score is at most 1. For --tags it is the geometric mean
    of the probabilities p of the wanted tags and 1 - p of the unwanted tags, each with its weight.
    For --like it is the cosine between the files: 1 for the same direction, 0 for orthogonal ones.

    ```
    jetatag search music.index --tags 'piano, slow, -vocal' --top 20
    jetatag search music.index --like song.mp3 --m3u more.m3u
    ```

    Args:
        index: folder written by jetatag index
        tags: wanted tags; put - before an unwanted tag, and a weight after a colon, such as
            'piano, slow:0.5, -vocal'
        like: audio file
        top: files to list
        by: rank by the probabilities of the classifier, of the shared space of tags and music, or
            of both combined (the default if the pair loss of the run learns from single tags)
        run: the run that made the index, if it was moved; only --like needs it, for a file that is
            not in the index
        m3u: write the list as a playlist
        json: write the list as JSON
    """
    from jetatag.apps.search import Index, parse_tags, write_m3u

    if (tags is None) == (like is None):
        raise ValueError("give either --tags or --like; see jetatag search --help.")
    if like and by:
        raise ValueError("--by is for --tags: --like compares the features of files.")
    opened = Index.open(index)
    check_writable(*filter(None, (m3u, json)), read=[*filter(None, [like]), *index.rglob("*")])
    if by in ("space", "combined") and opened.facts.mirrored and opened.facts.z_query:
        problem = "the shared space of this run is mirrored by its pair loss"
        effect = f"(music lies away from its tags), so --by {by} ranks the wrong way round"
        say(f"{problem} {effect}: use --by classifier.")
    if like:
        hits = opened.like(like, top, run)
    else:
        hits = opened.tags(parse_tags(tags, opened.facts.tags), top, by)
    for hit in hits.itertuples():
        print(hit_line(hit))
    if m3u:
        write_m3u(hits, m3u)
    if json:
        write_json(json, hits.to_dict("records"))


def export(run: str, out: FilePath, /, *, onnx: bool = True) -> None:
    """Write a finished run as a folder to share: weights, model card, ONNX.

    The model card has the scores of the run. jetatag.load and all verbs that take RUN can read the
    folder.

    Example: `jetatag export RUN my-tagger`

    Args:
        run: run folder
        out: new folder
        onnx: write model.onnx too, which needs more libraries
    """
    from jetatag.apps import export

    for path in sorted(export.export(run, out, onnx).iterdir()):
        print(f"{path}: {decimal(path.stat().st_size)}")


def push(folder: FilePath, name: str, /, *, private: bool = False) -> None:
    """Upload an exported model to the Hugging Face Hub.

    You must be logged in to the Hub (hf auth login). RUN can then be hf://OWNER/NAME.

    Example: `jetatag push my-tagger ann/my-tagger --private`

    Args:
        folder: folder written by jetatag export
        name: OWNER/NAME of the model; it is created if it does not exist
        private: create a private model
    """
    from jetatag.apps import export

    print(export.push(folder, name, private))


def import_original(
    folder: FilePath,
    /,
    *,
    tags: FilePath,
    store: File = None,
    runs: FilePath = Path("runs/original"),
    pair_loss: str = "margin_as_coded",
) -> None:
    """Import the authors' SavedModels as a run.

    The run can be used like any other, also to tag and export. Reading the SavedModels of the
    original code needs TensorFlow: pip install 'jetatag[tensorflow]'.

    Example: `jetatag import-original saved_models/mtat/HarmonicCNN_withJE --tags mtat`

    Args:
        folder: folder of encoder/, classifier/ and the other parts
        tags: file of the model's tags in its order: one per line, tags.npy, or MagnaTagATune's
            annotations_final.csv; or mtat, for MagnaTagATune's 50 tags by frequency
        store: prepared data of the same tags
        runs: folder for the run
        pair_loss: pair loss used in training, if any; see jetatag list
    """
    from jetatag.data.store import AudioStore
    from jetatag.original import importing

    names, prepared = importing.read_tags(tags), AudioStore.open(store) if store else None
    run = importing.import_original(folder, runs, names, prepared, pair_loss)
    imported = run.record["imported"]
    difference = max(imported["largest_difference"].values())
    print(f"{run.folder}: {run.config.method}, {run.config.extractor}, {len(names)} tags")
    print(f"agrees with {imported['from']} to within {difference:.0e} of the largest output")


VERBS = (tag, index, search, export, push, import_original)


def say(sentence: object) -> None:
    """Print a message as one line on standard error."""
    print(f"jetatag: {printable(str(sentence))}", file=sys.stderr)


def tag_list(tags: Iterable[tuple[str, float]]) -> str:
    return " · ".join(f"{tag} {prob:.2f}" for tag, prob in tags)


def hit_line(hit: Any) -> str:
    """A file that was found, on one line: rank, score, path (title) and most probable tags."""
    path, title = short_path(Path(hit.path)), f" ({hit.title})" if hit.title else ""
    return printable(f"{hit.rank:>3}  {hit.score:.3f}  {path}{title}  {tag_list(hit.tags.items())}")


def short_path(path: Path) -> str:
    """A path as text, relative to the current folder if it is inside."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
