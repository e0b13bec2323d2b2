"""An index of music: exact, complete after every kill, and of one run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import soundfile
from scored import finished_run

import jetatag
from jetatag import cli
from jetatag.apps import commands, indexing, search
from jetatag.apps.indexing import build
from jetatag.apps.search import Index, nearest, parse_tags, write_m3u
from jetatag.data.index import NOT_AUDIO
from jetatag.files import NOT_UTF8
from jetatag.metrics.queries import directions, query_scores, space_probs

RATE = 16_000
ODD = ["a b/ä – 音.wav", "a b/100%;'\".wav", "a b/#1 line\nbreak.wav", "a b/ blanks .wav"]


@pytest.fixture(scope="module")
def other_run(tmp_path_factory, tiny_config, tiny_store):
    """The same settings and data, other weights, and no joint embedding."""
    config = tiny_config.replace(method="no_je_linear", pair_loss="none", seed=1)
    return finished_run(tmp_path_factory.mktemp("runs"), config, tiny_store, seed=1)


@pytest.fixture
def music(tmp_path):
    """Eight files; one cannot be read, two hold the same audio."""
    root = tmp_path / "music"
    for number, name in enumerate(["b.wav", "a/x.flac", *ODD]):
        write(root / name, number)
    shutil.copy(root / "b.wav", root / "a" / "copy of b.wav")
    (root / "bad.mp3").write_text("no music")
    return root


@pytest.fixture
def index(model, music):
    return build(model, music)


def write(path, seed, duration_s=1.0):
    """Noise that a tagger can distinguish from that of another seed."""
    rng = np.random.default_rng(seed)
    audio = rng.standard_normal(round(duration_s * RATE))
    audio = np.convolve(audio, rng.standard_normal(1 + 5 * seed), "same")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.5 * audio / np.abs(audio).max(), RATE)
    return path


def paths_of(index):
    return index.table["path"].to_pylist()


def probs_of(index):
    return index.table.select(search.prob_columns(index.facts.tags)).to_pandas().to_numpy()


def contents(index):
    return (index.folder / "index.arrow").read_bytes()


# Exact search


def brute_force(vectors, query, top):
    query = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    cosines = [float(np.dot(vector, query)) for vector in vectors.astype(np.float64)]
    order = sorted(range(len(cosines)), key=lambda row: (-cosines[row], row))[:top]
    return order, [cosines[row] for row in order]


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-7])
def test_the_nearest_are_those_of_brute_force(rng, spread):
    """Even if all cosines differ by less than float32 can represent."""
    vectors = unit(1 + spread * rng.standard_normal((3_001, 24)))
    query = 3 * vectors[7] + spread * rng.standard_normal(24).astype(np.float32)
    for top in (1, 20, 4_000):
        cosines = nearest(vectors, query, top)
        order, expected = brute_force(vectors, query, top)
        assert cosines.index.tolist() == order
        np.testing.assert_allclose(cosines, expected, rtol=0, atol=1e-14)


def test_equal_vectors_come_in_the_order_of_their_rows(rng):
    vectors = np.tile(unit(rng.standard_normal((3, 7))), (501, 1))  # rows of every alignment
    cosines = nearest(vectors, vectors[1], 1_000)
    rows = cosines.index.to_numpy()
    assert rows[:501].tolist() == list(range(1, 1503, 3)) and cosines.iloc[:501].nunique() == 1
    assert (np.diff(rows[501:]) > 0).all()


def test_more_may_be_wanted_than_there_are(rng):
    vectors = unit(rng.standard_normal((5, 3)))
    assert sorted(nearest(vectors, vectors[2], 9).index) == [0, 1, 2, 3, 4]


# Building


def test_an_index_holds_the_predictions_in_the_order_of_paths(model, music, index):
    assert index.folder == music.with_name("music.index") and len(index) == 7
    assert paths_of(index) == sorted(["b.wav", "a/x.flac", "a/copy of b.wav", *ODD])
    z_centre = model.query_vectors()["z_centre"]
    for row, path in enumerate(paths_of(index)):
        prediction = model.predict(music / path)
        weights = np.diff(prediction.edges_s)
        z = np.average(prediction.z_audio, axis=0, weights=weights) - z_centre
        np.testing.assert_allclose(index.vectors[row], z / np.linalg.norm(z), atol=1e-6)
        np.testing.assert_array_equal(probs_of(index)[row], prediction.clip_probs)
        assert index.table["duration_s"][row].as_py() == pytest.approx(prediction.duration_s)
    (left_out,) = index.report.to_dict("records")
    assert left_out["path"] == "bad.mp3" and "it is text" in left_out["reason"]
    assert index.counts == {"read": 7, "kept": 0, "gone": 0, "left out": 1}
    assert "7 files by joint-subset_query" in str(index) and "(7 read, 1 left out)" in str(index)


class Watched:
    """A tagger that notes what it reads, and fails after `n_files` of them."""

    def __init__(self, tagger, n_files=None):
        self.tagger, self.n_files, self.read = tagger, n_files, []

    def __getattr__(self, name):
        return getattr(self.tagger, name)

    def __str__(self):
        return str(self.tagger)

    def predict_files(self, paths, workers):
        for path, prediction in self.tagger.predict_files(paths, workers):
            if len(self.read) == self.n_files:
                raise RuntimeError
            self.read.append(path.name)
            yield path, prediction


def test_only_new_and_changed_files_are_read_again(model, music, index):
    before, watched = contents(index), Watched(model)
    assert contents(build(watched, music)) == before
    assert watched.read == ["bad.mp3"]  # it is tried again
    watched.read.clear()
    write(music / "b.wav", seed=77)
    write(music / "new.wav", seed=78)
    (music / "a" / "x.flac").unlink()
    after = build(watched, music)
    assert sorted(watched.read) == ["b.wav", "bad.mp3", "new.wav"]
    assert after.counts == {"read": 2, "kept": 5, "gone": 1, "left out": 1}
    assert "a/x.flac" not in paths_of(after) and "new.wav" in paths_of(after)
    expected = contents(after)
    shutil.rmtree(after.folder)
    assert contents(build(model, music)) == expected


def test_a_killed_build_continues_and_gives_the_same_index(run, model, tmp_path):
    music = tmp_path / "music"
    for number in range(40):
        write(music / f"{number:02}.wav", number, duration_s=8.0)
    whole = build(model, music, tmp_path / "whole")
    out = tmp_path / "index"
    program = "import sys; from jetatag.apps import indexing; indexing.PART_S = 0;"
    program += "from jetatag.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "index", str(run.folder), str(music)]
    command += ["--out", str(out), "--device", "cpu", "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while len(list(out.glob(search.PARTS))) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    n_done = len(list(out.glob(search.PARTS)))
    assert 2 <= n_done < 40
    with pytest.raises(FileNotFoundError, match="unfinished"):
        Index.open(out)
    watched = Watched(model)
    index = build(watched, music, out)
    assert len(watched.read) == 40 - n_done and contents(index) == contents(whole)
    assert {path.name for path in out.glob("[!.]*")} == {"index.arrow", "report.csv"}


def test_a_failed_build_keeps_what_it_has_read_and_the_old_index(model, music, index):
    before = contents(index)
    for name in ("b.wav", *ODD):
        write(music / name, seed=77)
    with pytest.raises(RuntimeError):
        build(Watched(model, n_files=3), music)
    assert contents(Index.open(index.folder)) == before
    watched = Watched(model)
    after = build(watched, music)
    assert len(watched.read) == 6 - 3 and after.counts["kept"] == 2
    expected = contents(after)
    shutil.rmtree(after.folder)
    assert contents(build(model, music)) == expected


def test_an_index_of_another_run_is_refused(model, other_run, music, index):
    other = jetatag.load(other_run.folder, device="cpu")
    problem = r"made by another run \(joint-subset_query.*--out"
    with pytest.raises(ValueError, match=problem) as error:
        build(other, music)
    assert "\n" not in str(error.value)
    retrained = jetatag.load(model.folder, device="cpu")
    weights = {name: w + 1 for name, w in model.model.state_dict().items()}
    retrained.model.load_state_dict(weights)
    with pytest.raises(ValueError, match="made by another run"):
        build(retrained, music)
    with pytest.raises(ValueError, match="made by another run"):
        index.like(write(music.parent / "else.wav", 5), tagger=other)


def test_a_moved_folder_is_recognised_and_another_one_refused(model, music, tmp_path, index):
    write(tmp_path / "elsewhere" / "c.wav", 1)
    with pytest.raises(ValueError, match=r"is the index of .*music: choose another"):
        build(model, tmp_path / "elsewhere", index.folder)
    moved, watched = music.rename(tmp_path / "moved"), Watched(model)
    again = build(watched, moved, index.folder)
    assert watched.read == ["bad.mp3"]
    assert again.tags({again.facts.tags[0]: 1}).path[0].startswith(str(moved))


def test_what_cannot_be_indexed_is_one_sentence(model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp3").write_text("no music")
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for kind, music, out, message in (
        (FileNotFoundError, "nowhere", "index", "is not a folder"),
        (FileNotFoundError, "empty", "index", "holds no audio"),
        (ValueError, "bad", "index", "none of the 1 audio files .* the first, a.mp3: unreadable"),
        (ValueError, os.fsdecode(b"caf\xe9"), "index", NOT_UTF8),
        (ValueError, "bad", "full", "holds something other than an index"),
    ):
        with pytest.raises(kind, match=message) as error:
            build(model, tmp_path / music, tmp_path / out)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "index").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_a_build_that_has_read_nothing_leaves_no_folder(model, music, monkeypatch):
    out = music.with_name("music.index")
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "query_vectors", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(model, music)
    assert not out.exists()
    with pytest.raises(RuntimeError):
        build(Watched(model, n_files=0), music)
    assert not out.exists()
    with pytest.raises(RuntimeError):
        build(Watched(model, n_files=1), music)
    with pytest.raises(FileNotFoundError, match="unfinished"):
        Index.open(out)
    (out / ".index.partial.arrow").write_text("half")  # as a kill leaves it
    assert len(build(model, music)) == 7


def test_no_file_is_left_out_silently(model, run, music, tmp_path, capsys):
    write(tmp_path / "elsewhere" / "c.wav", 1)
    (music / "linked").symlink_to(tmp_path / "elsewhere")
    (music / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    for name in ("notes.txt", "a/notes.TXT", "README"):
        (music / name).write_text("not audio by its name")
    (music / ".hidden").write_text("of the system")
    Path(os.fsdecode(os.fsencode(music) + b"/caf\xe9.wav")).write_bytes(b"x")
    assert cli.main(["index", str(run.folder), str(music), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    skipped = "header of audio): 2 .txt (a/notes.TXT, notes.txt), 1 without suffix (README)."
    assert skipped in printed.err
    assert "report.csv" in printed.out
    reasons = dict(Index.open(music.with_name("music.index")).report.to_numpy())
    names = {"bad.mp3", "linked", "gone.wav", "caf\ufffd.wav", "notes.txt", "a/notes.TXT", "README"}
    assert reasons.keys() == names
    assert reasons["gone.wav"] == "audio file missing; correct the path"
    assert reasons["caf\ufffd.wav"] == NOT_UTF8
    assert (reasons["linked"], reasons["notes.txt"]) == (indexing.LINK, NOT_AUDIO)


def test_the_same_bytes_for_any_number_of_workers(model, music, tmp_path):
    one, four = (build(model, music, tmp_path / str(n), workers=n) for n in (1, 4))
    assert contents(one) == contents(four)


# Searching


def test_tags_rank_as_the_space_and_the_classifier_do(model, music, index, monkeypatch):
    monkeypatch.setattr(search, "BLOCK", 3)
    names, vectors = index.facts.tags, model.query_vectors()
    weights = np.zeros(len(names))
    weights[[0, 2]] = 1, -0.5
    tags = directions(vectors["z_query"], vectors["z_centre"])
    ways = {
        "classifier": probs_of(index).astype(float),
        "space": space_probs(index.vectors, tags, vectors["z_scale"]),
    }
    scores = {by: query_scores(probs, weights[None])[:, 0] for by, probs in ways.items()}
    scores["combined"] = sum(scores.values()) / 2
    for by, expected in scores.items():
        hits = index.tags({names[0]: 1, names[2]: -0.5}, by=by)
        order = np.argsort(-expected, kind="stable")
        assert hits.path.to_list() == [str(music / paths_of(index)[row]) for row in order]
        np.testing.assert_allclose(hits.score, np.exp(expected[order] / 1.5), rtol=1e-6)
    default = index.tags({names[0]: 1, names[2]: -0.5}, top=3)
    pd.testing.assert_frame_equal(default, hits[:3])
    assert default["rank"].to_list() == [1, 2, 3]
    shown = list(hits.tags[0].values())
    assert len(shown) == min(5, len(names)) and shown == sorted(shown, reverse=True)


def test_more_like_this(model, music, tmp_path, index):
    hits = index.like(music / "b.wav")
    assert hits.path[0] == str(music / "a" / "copy of b.wav") and hits.score[0] == pytest.approx(1)
    assert str(music / "b.wav") not in set(hits.path) and len(hits) == 6
    outside = shutil.copy(music / "b.wav", tmp_path / "outside.wav")
    hits = index.like(outside, top=2)  # read by the run that the index names
    assert hits.path.to_list() == [str(music / "a" / "copy of b.wav"), str(music / "b.wav")]
    with pytest.raises(ValueError, match=r"bad\.mp3: unreadable"):
        index.like(music / "bad.mp3", tagger=model)
    write(music / "b.wav", seed=3)  # it has changed since
    assert index.like(music / "b.wav", tagger=model).path[0] == str(music / ODD[1])


def test_like_a_file_whose_name_is_not_text(music, index, capsys):
    odd = Path(os.fsdecode(os.fsencode(music) + b"/caf\xe9.wav"))
    shutil.copy(music / "b.wav", odd)
    assert cli.main(["search", str(index.folder), "--like", str(odd), "--top", "1"]) == 0
    assert "copy of b.wav" in capsys.readouterr().out


def test_like_another_file_if_the_run_was_moved(tmp_path, run, music, capsys):
    moved = shutil.copytree(run.folder, tmp_path / "run")
    index = build(jetatag.load(moved, device="cpu"), music)
    outside = shutil.copy(music / "b.wav", tmp_path / "outside.wav")
    moved.rename(tmp_path / "elsewhere")
    command = ["search", str(index.folder), "--like", str(outside)]
    assert cli.main(command) == 2
    expected = f"the run that made {index.folder} is no longer at {moved}: name it with --run."
    assert capsys.readouterr().err.splitlines()[-1] == f"jetatag: {expected}"
    assert cli.main([*command, "--run", str(tmp_path / "elsewhere")]) == 0


def test_a_run_without_a_space_ranks_by_its_classifier_and_features(other_run, music):
    index = build(jetatag.load(other_run.folder, device="cpu"), music)
    tag = index.facts.tags[1]
    hits = index.tags({tag: 1})
    np.testing.assert_allclose(hits.score, np.sort(probs_of(index)[:, 1])[::-1], rtol=1e-6)
    assert index.like(music / "b.wav").path[0] == str(music / "a" / "copy of b.wav")
    with pytest.raises(ValueError, match=r"no shared space .* rank by the classifier"):
        index.tags({tag: 1}, by="space")
    with pytest.raises(ValueError, match="no shared space"):
        index.tags({tag: 1}, by="combined")


def test_both_rank_by_default_only_if_the_pair_loss_learns_from_single_tags(
    tmp_path, tiny_config, tiny_store, music, index
):
    run = finished_run(tmp_path, tiny_config.replace(pair_loss="cosine"), tiny_store)
    of_cosine = build(jetatag.load(run.folder, device="cpu"), music, tmp_path / "index")
    tag = {index.facts.tags[0]: 1}
    for made, default in ((index, "combined"), (of_cosine, "classifier")):
        assert made.facts.by == default
        pd.testing.assert_frame_equal(made.tags(tag), made.tags(tag, by=default))
    assert (of_cosine.tags(tag, by="space").score > 0).all()


def test_mistakes_in_a_search_are_one_sentence(music, index, capsys):
    tag = index.facts.tags[0]
    for arguments, message in (
        (["--tags", tag[:-1] + "q"], f"unknown tag .*did you mean '{tag}'"),
        (["--tags", f"{tag}:x"], f"'x' is not a number: write a weight like {tag}:0.5"),
        (["--tags", f"{tag}:0"], "no tag has a weight"),
        (["--tags", f"{tag}, -{tag}"], f"'{tag}' is given twice"),
        (["--tags", " , "], "no tag has a weight"),
        (["--tags", f"{tag}:nan"], "must be a finite number"),
        (["--tags", "-"], "'-' names no tag: write one, like piano, piano:0.5 or -piano"),
        (["--tags", f"{tag}, :2"], "':2' names no tag"),
        (["--tags", tag, "--m3u", str(music)], "is a folder, pipe or device: name a file"),
        (["--tags", tag, "--m3u", "z", "--json", "z"], "name a file for each"),
        (["--tags", tag, "--json", f"{index.folder}/index.arrow"], "name another"),
        (["--like", f"{music}/b.wav", "--m3u", f"{music}/b.wav"], "name another"),
        (["--tags", tag, "--m3u", f"{music}/a/x.flac"], "is named like audio"),
        (["--like", str(music / "nowhere.wav")], "nowhere.wav: audio file missing"),
        (["--like", str(music / "b.wav"), "--by", "space"], "--by is for --tags"),
    ):
        assert cli.main(["search", str(index.folder), *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("jetatag: ") and error.count("\n") == 1
        assert re.search(message, error), error
    assert cli.main(["search", str(music), "--tags", tag]) == 2
    assert "is not an index: make one with" in capsys.readouterr().err


def change_facts(**changes):
    """Damage that changes the metadata of an index."""

    def damage(path):
        table = pa.ipc.open_file(path.read_bytes()).read_all()
        facts = json.loads(table.schema.metadata[search.METADATA]) | changes
        metadata = {search.METADATA: json.dumps(facts)}
        indexing.write_table(table.replace_schema_metadata(metadata), path)

    return damage


def drop_column(path):
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    indexing.write_table(table.drop_columns("vector"), path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("[]"),
        drop_column,
        change_facts(tags="rock"),
        change_facts(tags=["rock"]),
        change_facts(dim="many"),
        change_facts(z_query=[[1.0]]),
        change_facts(z_centre=None),
        change_facts(z_scale=None),
        change_facts(run=1),
    ],
)
def test_a_damaged_index_is_one_sentence_with_a_remedy(model, music, index, damage):
    damage(index.folder / "index.arrow")
    expected = rf"{index.folder}/index.arrow is damaged \(.+\): delete the index and run `jetatag"
    for action in (lambda: Index.open(index.folder), lambda: build(model, music)):
        with pytest.raises(ValueError, match=expected) as error:
            action()
        assert "\n" not in str(error.value)


def test_tags_are_parsed_with_signs_and_weights():
    known = ["piano", "slow", "female vocal", "hip-hop", "-", "key: c", "-x"]
    weights = parse_tags("piano, slow:0.5 ,-female vocal, −hip-hop:2,-key: c:0.5", known)
    assert weights == {"piano": 1, "slow": 0.5, "female vocal": -1, "hip-hop": -2, "key: c": -0.5}
    assert parse_tags("-x,-", known) == {"-x": 1, "-": 1}
    assert parse_tags("", known) == {}
    assert parse_tags("key: c", known) == {"key: c": 1}
    assert parse_tags("- , piano", known) == {"-": 1, "piano": 1}
    assert parse_tags("Piano, -Slow:2, KEY: C", known) == {"piano": 1, "slow": -2, "key: c": 1}
    assert parse_tags("pop, Pop:2, -rock", ["Pop", "pop"]) == {"pop": 1, "Pop": 2, "rock": -1}
    with pytest.raises(ValueError, match="'slow' is given twice"):
        parse_tags("slow, piano, -slow", known)


def test_tags_with_commas_can_be_asked_for_as_they_are_and_in_quotes():
    known = ["Air horn, truck horn", "Fire engine, fire truck (siren)", "Train", "train, horn", "b"]
    horn, siren = known[:2]
    assert parse_tags(f"{horn}, -{siren}:0.5,b", known) == {horn: 1, siren: -0.5, "b": 1}
    assert parse_tags(f'"{horn}":2, -"{siren}" , "B"', known) == {horn: 2, siren: -1, "b": 1}
    assert parse_tags("train, horn,-train", known) == {"train, horn": 1, "Train": -1}
    assert parse_tags('"train", "b"', known) == {"Train": 1, "b": 1}
    for unknown in ("air horn, truck", '"horn, air", b', "horn, b"):
        assert set(parse_tags(unknown, known)) - set(known)
    with pytest.raises(ValueError, match="'Air horn, truck horn:x': 'x' is not a number"):
        parse_tags(f"b, {horn}:x", known)


@pytest.mark.parametrize("by", ["combined", "space", "classifier"])
def test_only_the_ratio_of_weights_counts(index, by):
    one, other = index.facts.tags[:2]
    hits, huge = (index.tags({one: w, other: -w / 2}, by=by) for w in (1, 1e300))
    pd.testing.assert_frame_equal(hits, huge)


def test_playlists_hold_the_hits(index, tmp_path, capsys):
    out = {kind: tmp_path / f"out.{kind}" for kind in ("m3u", "json")}
    tag = index.facts.tags[0]
    options = ["--tags", tag, "--m3u", str(out["m3u"]), "--json", str(out["json"])]
    assert cli.main(["search", str(index.folder), *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    hits = json.loads(out["json"].read_text())
    assert [hit["path"] for hit in hits] == index.tags({tag: 1}).path.to_list()
    assert all(Path(hit["path"]).is_file() for hit in hits) and len(printed) == len(hits) == 7
    assert hits[0].keys() == {"rank", "score", "path", "title", "duration_s", "tags"}
    lines = out["m3u"].read_text(encoding="utf-8").split("\n")
    assert lines[0] == "#EXTM3U" and len(lines) == 2 * 7 + 2 and lines[-1] == ""
    for info, place, hit in zip(lines[1::2], lines[2::2], hits, strict=False):
        assert info.startswith("#EXTINF:1,")
        assert place == (Path(hit["path"]).as_uri() if "\n" in hit["path"] else hit["path"])


def test_the_first_tag_may_be_one_that_is_not_wanted(index, capsys):
    tag, other = index.facts.tags[:2]
    for text in (f"-{tag}", f"-{tag}, {other}"):
        assert cli.main(["search", str(index.folder), "--tags", text, "--top", "1"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        hit = next(index.tags(parse_tags(text, index.facts.tags), 1).itertuples())
        assert line == commands.hit_line(hit)


def test_titles_print_on_one_line_without_control_characters(index):
    hit = next(index.tags({index.facts.tags[0]: 1}, 1).itertuples())
    line = commands.hit_line(hit._replace(title="a\x1b[2J", path="b\nc.wav"))
    assert r"b\nc.wav (a\x1b[2J)" in line and line.isprintable()


def test_searching_for_what_the_index_holds_needs_no_torch(run, music, index):
    program = "import json, sys; from jetatag.cli import main; "
    program += "done = [main(command) for command in json.load(sys.stdin)]; "
    program += "sys.exit(max(done) or 2 * ('torch' in sys.modules))"
    search = ["search", str(index.folder), "--top", "6"]
    queries = ["--tags", index.facts.tags[0]], ["--like", str(music / "b.wav")]
    commands = [[*search, *q, *by] for q in queries for by in ([], ["--run", str(run.folder)])]
    options = {"input": json.dumps(commands), "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", program], **options)
    assert (done.returncode, done.stderr) == (0, "") and len(done.stdout.splitlines()) == 4 * 6


def test_titles_come_from_the_file(model, tmp_path):
    path = write(tmp_path / "music" / "a.flac", 0)
    audio, rate = soundfile.read(path)
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        file.title, file.artist = "So  what", "Ann"
        file.write(audio)
    write(tmp_path / "music" / "b.wav", 1)
    index = build(model, tmp_path / "music")
    hits = index.tags({index.facts.tags[0]: 1})
    assert set(hits.title) == {"Ann – So what", ""}
    write_m3u(hits, tmp_path / "list.m3u")
    lines = (tmp_path / "list.m3u").read_text().split("\n")[1:-1:2]
    assert {line.removeprefix("#EXTINF:1,") for line in lines} == {"Ann – So what", "b"}
