"""An index of music: exact, whole after every kill, and of one run."""

import dataclasses
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
import pytest
import soundfile
from scored import finished_run

import jetatag
from jetatag import cli
from jetatag.apps import commands, search
from jetatag.apps.search import Index, best, build, nearest, parse_tags, write_hits, write_m3u
from jetatag.files import NOT_UTF8
from jetatag.metrics.queries import classifier_scores, weighted_query

RATE = 16_000
ODD = ["a b/ä – 音.wav", "a b/100%;'\".wav", "a b/#1 line\nbreak.wav", "a b/ blanks .wav"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_config, tiny_store):
    return finished_run(tmp_path_factory.mktemp("runs"), tiny_config, tiny_store)


@pytest.fixture(scope="module")
def model(run):
    return jetatag.load(run.folder, device="cpu")


@pytest.fixture(scope="module")
def other_run(tmp_path_factory, tiny_config, tiny_store):
    """The same settings and data, other weights, and no joint embedding."""
    config = tiny_config.replace(method="no_je_linear", pair_loss="none")
    return finished_run(tmp_path_factory.mktemp("runs"), config, tiny_store, seed=1)


@pytest.fixture
def music(tmp_path):
    """Eight files, one of them bad, of which two hold the same sound."""
    root = tmp_path / "music"
    for number, name in enumerate(["b.wav", "a/x.flac", *ODD]):
        write(root / name, number)
    shutil.copy(root / "b.wav", root / "a" / "copy of b.wav")
    (root / "bad.mp3").write_text("no music")
    return root


def write(path, seed, duration_s=1.0):
    """Noise that a tagger can tell from that of another seed."""
    rng = np.random.default_rng(seed)
    audio = rng.standard_normal(round(duration_s * RATE))
    audio = np.convolve(audio, rng.standard_normal(1 + 5 * seed), "same")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.5 * audio / np.abs(audio).max(), RATE)
    return path


def paths_of(index):
    return index.rows.files.path.to_list()


def contents(index):
    folder = index.folder / str(index.facts["generation"])
    return [(folder / f"{name}.npy").read_bytes() for name in ("vectors", "probs")]


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
    """Also where all cosines differ by less than float32 can tell."""
    vectors = unit(1 + spread * rng.standard_normal((3_001, 24)))
    query = 3 * vectors[7] + spread * rng.standard_normal(24).astype(np.float32)
    for top in (1, 20, 4_000):
        rows, cosines = nearest(vectors, query, top)
        order, expected = brute_force(vectors, query, top)
        assert rows.tolist() == order
        np.testing.assert_allclose(cosines, expected, rtol=0, atol=1e-14)


def test_equal_vectors_come_in_the_order_of_their_rows(rng):
    vectors = np.tile(unit(rng.standard_normal((3, 7))), (501, 1))  # rows of every alignment
    rows, cosines = nearest(vectors, vectors[1], 1_000)
    assert rows[:501].tolist() == list(range(1, 1503, 3)) and len(set(cosines[:501])) == 1
    assert (np.diff(rows[501:]) > 0).all()


def test_a_row_may_be_left_out_and_more_be_asked_than_there_are(rng):
    vectors = unit(rng.standard_normal((5, 3)))
    assert sorted(nearest(vectors, vectors[2], 9, without=2)[0]) == [0, 1, 3, 4]
    assert len(nearest(vectors[:1], vectors[0], 9, without=0)[0]) == 0
    assert best(np.array([1.0, 3.0, 2.0, 3.0]), 3).tolist() == [1, 3, 2]
    assert len(best(np.empty(0), 3)) == 0


# Building


def test_an_index_holds_what_the_tagger_says_in_the_order_of_paths(model, music):
    index = build(model, music)
    assert index.folder == music.with_name("music.index") and len(index) == 7
    assert paths_of(index) == sorted(["b.wav", "a/x.flac", "a/copy of b.wav", *ODD])
    _, z_centre = model.space()
    for row, path in enumerate(paths_of(index)):
        reading = model.read(music / path)
        z = np.average(reading.z_audio, axis=0, weights=np.diff(reading.edges_s)) - z_centre
        np.testing.assert_allclose(index.rows.vectors[row], z / np.linalg.norm(z), atol=1e-6)
        np.testing.assert_array_equal(index.rows.probs[row], reading.clip_probs)
        assert index.rows.files.duration_s[row] == pytest.approx(reading.duration_s)
    assert index.report.to_dict("records") == [
        {
            "path": "bad.mp3",
            "reason": "unreadable: it is text, such as a playlist or a web page, not audio",
        }
    ]
    assert index.facts["last"] == {"read": 7, "kept": 0, "gone": 0, "left out": 1}


def test_only_new_and_changed_files_are_read_again(model, music):
    before = build(model, music)
    heard = []
    watched = Watched(model, heard)
    assert contents(build(watched, music)) == contents(before)
    assert heard == ["bad.mp3"]  # which is tried anew
    heard.clear()
    write(music / "b.wav", seed=77)
    write(music / "new.wav", seed=78)
    (music / "a" / "x.flac").unlink()
    after = build(watched, music)
    assert sorted(heard) == ["b.wav", "bad.mp3", "new.wav"]
    assert after.facts["last"] == {"read": 2, "kept": 5, "gone": 1, "left out": 1}
    assert "a/x.flac" not in paths_of(after) and "new.wav" in paths_of(after)
    assert [path.name for path in after.folder.iterdir() if path.name.isdigit()] == ["2"]
    expected = contents(after)
    shutil.rmtree(after.folder)
    assert contents(build(model, music)) == expected


class Watched:
    """A tagger that notes what it reads."""

    def __init__(self, tagger, heard):
        self.tagger, self.heard = tagger, heard

    def __getattr__(self, name):
        return getattr(self.tagger, name)

    def __str__(self):
        return str(self.tagger)

    def read_files(self, paths, workers):
        for path, reading in self.tagger.read_files(paths, workers):
            self.heard.append(path.name)
            yield path, reading


def test_a_killed_build_goes_on_and_ends_the_same(run, model, tmp_path):
    music = tmp_path / "music"
    for number in range(40):
        write(music / f"{number:02}.wav", number, duration_s=8.0)
    whole = build(model, music, tmp_path / "whole")
    out = tmp_path / "index"
    command = [sys.executable, "-c", "import sys; from jetatag.cli import main; main(sys.argv[1:])"]
    command += ["index", str(run.folder), str(music), "--out", str(out), "--device", "cpu"]
    command += ["--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    journal = out / search.JOURNAL
    while not (journal.is_file() and journal.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = journal.read_bytes().count(b"\n")
    assert 2 <= done < 40
    with pytest.raises(FileNotFoundError, match="unfinished"):
        Index.open(out)
    heard = []
    index = build(Watched(model, heard), music, out)
    assert len(heard) == 40 - done and contents(index) == contents(whole)


def test_a_torn_journal_and_half_a_generation_are_made_good(model, music):
    whole = build(model, music)
    kept = contents(whole)
    out = whole.folder
    facts = json.loads((out / "index.json").read_text())
    shutil.rmtree(out / "1")
    (out / "index.json").write_text(json.dumps(facts | {"generation": 0}))
    heard = []
    with pytest.raises(RuntimeError):
        build(Stopping(model, heard), music)
    journal = out / search.JOURNAL
    journal.write_bytes(journal.read_bytes()[:-9])  # the third line
    (out / "1").mkdir()
    (out / "1" / "vectors.npy").write_bytes(b"half")
    heard.clear()
    index = build(Watched(model, heard), music)
    assert len(heard) == 8 - 2 and contents(index) == kept and not journal.exists()


def test_a_line_of_the_journal_that_is_no_whole_entry_ends_it(model, music):
    out = music.with_name("music.index")
    with pytest.raises(RuntimeError):
        build(Stopping(model, []), music)
    first, second, _ = (out / search.JOURNAL).read_text().splitlines(keepends=True)
    entry = json.loads(second)
    for wrong in (
        [entry],
        {"path": entry["path"]},
        entry | {"size": "many"},
        entry | {"vectors": entry["vectors"][:-8]},
        entry | {"probs": entry["probs"] + entry["probs"]},
        entry | {"probs": None},
    ):
        (out / search.JOURNAL).write_text(first + json.dumps(wrong) + "\n" + second)
        rows = search._read_journal(out, json.loads((out / "index.json").read_text()))
        assert len(rows.files) == 1 and (out / search.JOURNAL).read_text() == first
    heard = []
    build(Watched(model, heard), music)
    assert len(heard) == 8 - 1


class Stopping(Watched):
    def read_files(self, paths, workers):
        for number, told in enumerate(super().read_files(paths, workers)):
            if number == 3:
                raise RuntimeError
            yield told


def test_an_index_of_another_run_is_refused(model, other_run, music):
    out = build(model, music).folder
    other = jetatag.load(other_run.folder, device="cpu")
    with pytest.raises(ValueError, match=r"made by another run \(je-subset_query.*--out") as told:
        build(other, music)
    assert "\n" not in str(told.value)
    weights = {name: w + 1 for name, w in model.model.state_dict().items()}
    retrained = jetatag.load(model.folder, device="cpu")
    retrained.model.load_state_dict(weights)
    with pytest.raises(ValueError, match="made by another run"):
        build(retrained, music)
    with pytest.raises(ValueError, match="made by another run"):
        Index.open(out).like(write(music.parent / "else.wav", 5), tagger=other)


def test_a_moved_folder_is_known_and_another_one_refused(model, music, tmp_path):
    out = build(model, music, tmp_path / "index").folder
    write(tmp_path / "elsewhere" / "c.wav", 1)
    with pytest.raises(ValueError, match=r"is the index of .*music: choose another"):
        build(model, tmp_path / "elsewhere", out)
    moved, heard = music.rename(tmp_path / "moved"), []
    index = build(Watched(model, heard), moved, out)
    assert heard == ["bad.mp3"] and index.tags({index.facts["tags"][0]: 1}).path[0].startswith(
        str(moved)
    )


def test_what_cannot_be_indexed_is_said_in_one_sentence(model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp3").write_text("no music")
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for kind, music, out, said in (
        (FileNotFoundError, "nowhere", "index", "is no folder"),
        (FileNotFoundError, "empty", "index", "holds no audio"),
        (ValueError, "bad", "index", "none of the 1 audio files .* the first, a.mp3: unreadable"),
        (ValueError, os.fsdecode(b"caf\xe9"), "index", NOT_UTF8),
        (ValueError, "bad", "full", "holds something that is no index"),
    ):
        with pytest.raises(kind, match=said) as told:
            build(model, tmp_path / music, tmp_path / out)
        assert "\n" not in str(told.value)
    assert not (tmp_path / "index").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_what_fails_leaves_no_folder_unless_there_is_something_to_go_on_with(
    model, run, music, tmp_path, monkeypatch
):
    def no_space(self):
        raise ValueError("was not scored")

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "space", no_space)
        with pytest.raises(ValueError, match="was not scored"):
            build(model, music, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    with pytest.raises(RuntimeError):
        build(Stopping(model, []), music, tmp_path / "index")
    with pytest.raises(FileNotFoundError, match="unfinished"):
        Index.open(tmp_path / "index")
    assert len(build(model, music, tmp_path / "index")) == 7


def test_no_file_is_lost_in_silence(model, music, tmp_path):
    write(tmp_path / "elsewhere" / "c.wav", 1)
    (music / "linked").symlink_to(tmp_path / "elsewhere")
    (music / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (music / "notes.txt").write_text("not audio by its name")
    Path(os.fsdecode(os.fsencode(music) + b"/caf\xe9.wav")).write_bytes(b"x")
    reasons = dict(build(model, music).report.to_numpy())
    assert reasons.keys() == {"bad.mp3", "linked", "gone.wav", "caf\ufffd.wav"}
    assert reasons["gone.wav"] == "audio file missing"
    assert reasons["caf\ufffd.wav"] == NOT_UTF8
    assert reasons["linked"] == "a link to a folder is not followed"


# Asking


def test_tags_rank_as_the_space_and_the_classifier_say(model, music, monkeypatch):
    monkeypatch.setattr(search, "BLOCK", 3)
    index = build(model, music)
    names, (z_query, z_centre) = index.facts["tags"], model.space()
    weights = np.zeros(len(names))
    weights[[0, 2]] = 1, -0.5
    asked = weighted_query(z_query, z_centre, weights)
    hits = index.tags({names[0]: 1, names[2]: -0.5}, top=3)
    order, cosines = brute_force(index.rows.vectors, asked, 3)
    assert hits.path.to_list() == [str(music / paths_of(index)[row]) for row in order]
    np.testing.assert_allclose(hits.score, cosines)
    assert hits["rank"].to_list() == [1, 2, 3]
    hits = index.tags({names[0]: 1, names[2]: -0.5}, by="classifier")
    probs = index.rows.probs.astype(float)
    expected = (probs[:, 0] * (1 - probs[:, 2]) ** 0.5) ** (1 / 1.5)
    np.testing.assert_allclose(hits.score, np.sort(expected)[::-1], rtol=1e-6)
    order = np.argsort(-classifier_scores(probs, weights[None])[:, 0], kind="stable")
    assert hits.path.to_list() == [str(music / paths_of(index)[row]) for row in order]
    first = hits.tags[0]
    assert len(first) == min(5, len(names)) and list(first.values()) == sorted(
        first.values(), reverse=True
    )


def test_more_like_this(model, run, music, tmp_path):
    index = build(model, music)
    hits = index.like(music / "b.wav")
    assert hits.path[0] == str(music / "a" / "copy of b.wav") and hits.score[0] == pytest.approx(1)
    assert str(music / "b.wav") not in set(hits.path) and len(hits) == 6
    outside = shutil.copy(music / "b.wav", tmp_path / "outside.wav")
    hits = index.like(outside, top=2)  # read by the run that the index names
    assert hits.path.to_list() == [str(music / "a" / "copy of b.wav"), str(music / "b.wav")]
    with pytest.raises(ValueError, match=r"bad\.mp3: unreadable"):
        index.like(music / "bad.mp3", tagger=model)
    write(music / "b.wav", seed=3)  # changed since: heard as it is now
    same = str(music / ODD[1])
    assert index.like(music / "b.wav", tagger=model).path[0] == same


def test_what_a_kill_left_of_the_first_file_is_no_hindrance(model, music, tmp_path):
    (tmp_path / "index").mkdir()
    for name in (".lock", "space.npz", ".index.partial.json"):
        (tmp_path / "index" / name).write_text("half")
    assert len(build(model, music, tmp_path / "index")) == 7


def test_like_a_file_whose_name_is_no_text(model, run, music, capsys):
    index = build(model, music)
    odd = Path(os.fsdecode(os.fsencode(music) + b"/caf\xe9.wav"))
    shutil.copy(music / "b.wav", odd)
    assert cli.main(["search", str(index.folder), "--like", str(odd), "--top", "1"]) == 0
    assert "copy of b.wav" in capsys.readouterr().out


def test_like_another_file_where_the_run_was_moved(tmp_path, run, music, capsys):
    moved = shutil.copytree(run.folder, tmp_path / "run")
    index = build(jetatag.load(moved, device="cpu"), music)
    outside = shutil.copy(music / "b.wav", tmp_path / "outside.wav")
    moved.rename(tmp_path / "elsewhere")
    command = ["search", str(index.folder), "--like", str(outside)]
    assert cli.main(command) == 2
    told = f"jetatag: the run that made {index.folder} is no longer at {moved}: name it with --run."
    assert capsys.readouterr().err.splitlines()[-1] == told
    assert cli.main([*command, "--run", str(tmp_path / "elsewhere")]) == 0


def test_a_run_without_a_space_ranks_by_its_classifier_and_features(other_run, music):
    index = build(jetatag.load(other_run.folder, device="cpu"), music)
    tag = index.facts["tags"][1]
    hits = index.tags({tag: 1})
    np.testing.assert_allclose(hits.score, np.sort(index.rows.probs[:, 1])[::-1], rtol=1e-6)
    assert index.like(music / "b.wav").path[0] == str(music / "a" / "copy of b.wav")
    with pytest.raises(ValueError, match=r"no shared space .* rank by the classifier"):
        index.tags({tag: 1}, by="space")


def test_mistakes_in_a_search_are_one_sentence(model, music, capsys):
    index = build(model, music)
    tag = index.facts["tags"][0]
    capsys.readouterr()
    for arguments, said in (
        (["--tags", tag[:-1] + "q"], f"unknown tag .*did you mean '{tag}'"),
        (["--tags", f"{tag}:x"], f"'x' is no number: write a tag's weight like {tag}:0.5"),
        (["--tags", f"{tag}:0"], "no tag has a weight"),
        (["--tags", f"{tag}, -{tag}"], f"'{tag}' is asked twice"),
        (["--tags", " , "], "no tag has a weight"),
        (["--tags", f"{tag}:nan"], "must be a finite number"),
        (["--tags", tag, "--top", "0"], "--top; it must be at least 1"),
        (["--tags", "-"], "'-' names no tag: write one, like piano, piano:0.5 or -piano"),
        (["--tags", f"{tag}, :2"], "':2' names no tag"),
        (["--tags", tag, "--m3u", str(music)], "is a folder, pipe or device: name a file"),
        (["--tags", tag, "--m3u", "z", "--json", "z"], "z is given for two outputs: name a file"),
        (["--tags", tag, "--json", f"{index.folder}/index.json"], "is also an input"),
        (["--like", f"{music}/b.wav", "--m3u", f"{music}/b.wav"], "is also an input"),
        (["--tags", tag, "--m3u", f"{music}/a/x.flac"], "is named as audio"),
        (["--like", str(music / "nowhere.wav")], "nowhere.wav: audio file missing"),
        (["--like", str(music / "b.wav"), "--by", "space"], "--by is for --tags"),
    ):
        assert cli.main(["search", str(index.folder), *arguments]) == 2
        told = capsys.readouterr().err
        assert told.startswith("jetatag: ") and told.count("\n") == 1
        assert re.search(said, told), told
    assert cli.main(["search", str(music), "--tags", tag]) == 2
    assert "is no index: make one with" in capsys.readouterr().err


def torn(path):
    path.write_bytes(path.read_bytes()[:-100])


def narrow(path):
    np.save(path, np.load(path)[:, 1:])


def other_space(path):
    with np.load(path) as arrays:
        changed = {"z_query": arrays["z_query"][1:], "z_centre": arrays["z_centre"]}
    np.savez(path, **changed)


@pytest.mark.parametrize(
    ("name", "damage", "problem"),
    [
        ("1/vectors.npy", torn, "its folder 1 is not whole"),
        ("1/vectors.npy", narrow, "its folder 1 is not whole"),
        ("1/probs.npy", narrow, "its folder 1 is not whole"),
        ("1/probs.npy", lambda path: path.write_bytes(b""), "its folder 1 is not whole"),
        ("1/files.parquet", Path.unlink, "its folder 1 is not whole"),
        ("space.npz", Path.unlink, "its space.npz is missing or not one"),
        ("space.npz", torn, "its space.npz is missing or not one"),
        ("space.npz", other_space, "its space.npz is missing or not one"),
        ("index.json", torn, "its index.json is not one"),
        ("index.json", lambda path: path.write_text("[]"), "its index.json is not one"),
        ("index.json", lambda path: path.write_text('{"dim": 8}'), "its index.json is not one"),
    ],
)
def test_a_damaged_index_is_told_with_one_remedy(model, music, name, damage, problem):
    folder = build(model, music).folder
    damage(folder / name)
    expected = (
        f"the index {folder} is damaged ({problem}): delete it and run `jetatag index` again."
    )
    for action in (lambda: Index.open(folder), lambda: build(model, music)):
        with pytest.raises(ValueError, match=re.escape(expected)) as told:
            action()
        assert str(told.value) == expected


@pytest.mark.parametrize(
    "changed",
    [{"tags": "rock"}, {"tags": [1]}, {"dim": "8"}, {"generation": None}, {"last": []}, {"run": 1}],
)
def test_facts_of_another_type_are_damage(model, music, changed):
    index = build(model, music)
    (index.folder / "index.json").write_text(json.dumps(index.facts | changed))
    with pytest.raises(ValueError, match=r"its index\.json is not one"):
        Index.open(index.folder)


def test_an_unfinished_index_without_its_space_is_damaged(model, music):
    with pytest.raises(RuntimeError):
        build(Stopping(model, []), music)
    (music.with_name("music.index") / "space.npz").unlink()
    with pytest.raises(ValueError, match=r"its space\.npz is missing .* run `jetatag index` again"):
        build(model, music)


def test_tags_are_read_with_signs_and_weights():
    known = ["piano", "slow", "female vocal", "hip-hop", "-", "key: c", "-x"]
    told = parse_tags("piano, slow:0.5 ,-female vocal, −hip-hop:2,-key: c:0.5", known)
    assert told == {"piano": 1, "slow": 0.5, "female vocal": -1, "hip-hop": -2, "key: c": -0.5}
    assert parse_tags("-x,-", known) == {"-x": 1, "-": 1}
    assert parse_tags("", known) == {}
    assert parse_tags("key: c", known) == {"key: c": 1}
    assert parse_tags("- , piano", known) == {"-": 1, "piano": 1}
    assert parse_tags("Piano, -Slow:2, KEY: C", known) == {"piano": 1, "slow": -2, "key: c": 1}
    assert parse_tags("pop, Pop:2, -rock", ["Pop", "pop"]) == {"pop": 1, "Pop": 2, "rock": -1}
    with pytest.raises(ValueError, match="'slow' is asked twice"):
        parse_tags("slow, piano, -slow", known)


@pytest.mark.parametrize("by", ["space", "classifier"])
def test_only_the_ratio_of_weights_counts(model, music, by):
    index = build(model, music)
    one, other = index.facts["tags"][:2]
    hits, huge = (index.tags({one: w, other: -w / 2}, by=by) for w in (1, 1e300))
    pd.testing.assert_frame_equal(hits, huge)


def test_playlists_say_what_was_found(model, music, tmp_path, capsys):
    index = build(model, music)
    out = {kind: tmp_path / f"out.{kind}" for kind in ("m3u", "json")}
    tag = index.facts["tags"][0]
    given = ["--tags", tag, "--m3u", str(out["m3u"]), "--json", str(out["json"])]
    assert cli.main(["search", str(index.folder), *given]) == 0
    printed = capsys.readouterr().out.splitlines()
    hits = json.loads(out["json"].read_text())
    expected = index.tags({tag: 1})
    assert [hit["path"] for hit in hits] == expected.path.to_list()
    assert all(Path(hit["path"]).is_file() for hit in hits) and len(printed) == len(hits) == 7
    assert hits[0].keys() == {"rank", "score", "path", "title", "duration_s", "tags"}
    lines = out["m3u"].read_text(encoding="utf-8").split("\n")
    assert lines[0] == "#EXTM3U" and len(lines) == 2 * 7 + 2 and lines[-1] == ""
    for info, place, hit in zip(lines[1::2], lines[2::2], hits, strict=False):
        assert info.startswith("#EXTINF:1,")
        plain = "\n" not in hit["path"]
        assert place == (hit["path"] if plain else Path(hit["path"]).as_uri())


def test_tags_may_begin_with_one_that_is_not_wanted(model, music, capsys):
    index = build(model, music)
    tag, other = index.facts["tags"][:2]
    for text in (f"-{tag}", f"-{tag}, {other}"):
        assert cli.main(["search", str(index.folder), "--tags", text, "--top", "1"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        hit = next(index.tags(parse_tags(text, index.facts["tags"]), 1).itertuples())
        assert line == commands.hit_line(hit)


def test_titles_print_on_one_line_and_steer_no_terminal(model, music):
    index = build(model, music)
    hit = next(index.tags({index.facts["tags"][0]: 1}, 1).itertuples())
    line = commands.hit_line(hit._replace(title="a\x1b[2J", path="b\nc.wav"))
    assert r"b\nc.wav (a\x1b[2J)" in line and line.isprintable()


def test_a_search_by_what_the_index_holds_needs_no_torch(model, run, music):
    index = build(model, music)
    program = "import sys; from jetatag.cli import main; sys.exit(main(sys.argv[1:])"
    program += " or 2 * ('torch' in sys.modules))"
    for asked in (["--tags", index.facts["tags"][0]], ["--like", str(music / "b.wav")]):
        for by in ([], ["--run", str(run.folder)]):
            command = [sys.executable, "-c", program, "search", str(index.folder), *asked, *by]
            told = subprocess.run(command, capture_output=True, text=True)
            assert (told.returncode, told.stderr) == (0, "") and len(told.stdout.splitlines()) > 5


def test_titles_come_from_the_file(model, tmp_path):
    path = write(tmp_path / "music" / "a.flac", 0)
    audio, rate = soundfile.read(path)
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        file.title, file.artist = "So  what", "Ann"
        file.write(audio)
    write(tmp_path / "music" / "b.wav", 1)
    index = build(model, tmp_path / "music")
    hits = index.tags({index.facts["tags"][0]: 1})
    assert set(hits.title) == {"Ann – So what", ""}
    write_m3u(hits, tmp_path / "list.m3u")
    write_hits(hits.head(0), tmp_path / "none.json")
    assert {",Ann – So what", ",b"} == {
        line[len("#EXTINF:1") :] for line in (tmp_path / "list.m3u").read_text().split("\n")[1::2]
    } - {""}
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_the_same_bytes_whatever_the_workers(model, music, tmp_path):
    one, four = (build(model, music, tmp_path / str(n), workers=n) for n in (1, 4))
    assert contents(one) == contents(four)
    assert dataclasses.asdict(one)["facts"] == four.facts
