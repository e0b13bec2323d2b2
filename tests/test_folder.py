"""The reader of your own data: tables and class folders."""

import unicodedata
import warnings

import numpy as np
import pandas as pd
import pytest
from layouts import RATE, tone, write_tsv, write_wav

from jetatag import data
from jetatag.apps.search import parse_tags
from jetatag.data import DataWarning, folder, mtat, store
from jetatag.data.store import AudioStore
from jetatag.data.tables import CONTRADICTION, DUPLICATE, OUTSIDE, TWO_GROUPS
from jetatag.original.importing import read_tags

pytestmark = pytest.mark.filterwarnings("ignore::jetatag.data.DataWarning")

TAGS = ["piano,slow", "Guitar", "", " piano , piano,,slow"]
PATHS = ["a/1.mp3", "a/2.mp3", "b/3.wav", "b/4.flac"]


def write(root, text, name="tags.csv"):
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def frame(**columns):
    return pd.DataFrame({"path": PATHS, "tags": TAGS} | columns)


def write_frame(root, table, name="tags.csv"):
    if name.endswith(".parquet"):
        table.to_parquet(root / name)
    else:
        table.to_csv(root / name, index=False, sep="\t" if name.endswith(".tsv") else ",")
    return name


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def refusal(root, table="tags.csv", **options):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        folder.load(root, table, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def warned(root, table, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folder.load(root, table, **options)
    return [str(warning.message) for warning in caught if warning.category is DataWarning]


def test_separated_tags_are_stripped_merged_and_ranked_by_count(tmp_path):
    touch(tmp_path, *PATHS)
    index = folder.load(tmp_path, write_frame(tmp_path, frame()))
    assert index.vocabulary == data.Vocabulary(("piano", "slow", "Guitar"), "multilabel")
    np.testing.assert_array_equal(index.labels, [[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 0]])
    assert index.labels.dtype == np.uint8 and index.left_out.empty
    assert list(index.table) == ["clip_id", "path", "split", "group", "title"]
    assert index.table.title.tolist() == ["1", "2", "3", "4"]
    assert index.table.clip_id.tolist() == PATHS


def test_columns_and_separated_tags_give_the_same_labels_in_every_format(tmp_path):
    separated = folder.load(tmp_path, write_frame(tmp_path, frame()))
    given = pd.DataFrame(separated.labels, columns=list(separated.vocabulary.tags))
    given.insert(0, "path", PATHS)
    lists = frame(tags=[tags.split(",") for tags in TAGS])
    for index in (
        folder.load(tmp_path, write_frame(tmp_path, given, "c.tsv"), tags="*"),
        folder.load(tmp_path, write_frame(tmp_path, given, "c.parquet"), tags=list(given)[1:]),
        folder.load(tmp_path, write_frame(tmp_path, given.replace(1, True), "b.csv"), tags="*"),
        folder.load(
            tmp_path, write_frame(tmp_path, given.astype({"slow": float}), "f.parquet"), tags="*"
        ),
        folder.load(tmp_path, write_frame(tmp_path, lists, "l.parquet")),
    ):
        assert index.vocabulary == separated.vocabulary
        np.testing.assert_array_equal(index.labels, separated.labels)


@pytest.mark.parametrize(
    "cells",
    [
        ("['rock', \"drum 'n' bass\"]", "[]", "['日本']"),  # Python and pandas
        ('["rock", "drum \'n\' bass"]', "[ ]", '["\\u65e5\\u672c"]'),  # JSON
        ("['rock' \"drum 'n' bass\"]", "[]", " ['日本'] "),  # NumPy
        ("[np.str_('rock'), np.str_(\"drum 'n' bass\")]", "", "[np.str_('日本')]"),
        ("('rock', 'drum \\'n\\' bass')", "()", "('日本',)"),
        ("['rock'\n \"drum 'n' bass\"]", "{}", "日本"),
        ("'rock', \"drum 'n' bass\"", "set()", '"日本"'),
    ],
)
def test_lists_written_as_text_are_read_as_lists(tmp_path, cells):
    table = pd.DataFrame({"path": PATHS[:3], "tags": cells})
    for name in ("tags.csv", "tags.parquet"):
        index = folder.load(tmp_path, write_frame(tmp_path, table, name))
        assert index.vocabulary.tags == ("drum 'n' bass", "rock", "日本")
        np.testing.assert_array_equal(index.labels, [[1, 1, 0], [0, 0, 0], [0, 0, 1]])


def test_text_that_looks_like_a_list_and_is_none_is_refused_and_brackets_are_kept(tmp_path):
    unread = ("['rock', nan]", "['rock'", '["rock', "[rock, pop]", r"['\x']", "['rock', ['a']]")
    unread += ("{rock,pop}", "(rock, pop)", "array(['rock'], dtype=object)", "[['rock']]")
    unread += ("tensor([1,2])", "array([1, 2])", "rock, [pop, jazz]")
    unread += ("[b'rock' b'pop']", "[u'rock']", "[1 0 1]", "[1. 0. 1.]", "[nan]", "[None]")
    unread += ('"rock, pop', '[{"name": "rock"}]', "frozenset({'rock'})", "\"['rock']\"")
    for cell in unread:
        sentence = refusal(tmp_path, write_frame(tmp_path, frame(tags=["a", cell, "b", "c"])))
        assert "row 2 has the tags" in sentence and "write them separated by ','." in sentence
    kept = frame(tags=["[Deep House]", "(live), a [b], :)", "['a', 'b']", '["\\ud83c\\udfb5"]'])
    index = folder.load(tmp_path, write_frame(tmp_path, kept))
    assert index.vocabulary.tags == ("(live)", ":)", "[Deep House]", "a", "a [b]", "b", "🎵")


def test_tags_in_quotes_with_any_separator_are_read_without_them(tmp_path):
    for separator in ",;|":
        cells = [f'"Air horn, truck horn"{separator}Car', f'"Car"{separator}"Bus"']
        cells += [f"'Bus' {separator} 'Car'", f'12" mix{separator}"Weird Al" style']
        table = write_frame(tmp_path, frame(tags=cells))
        tags = folder.load(tmp_path, table, separator=separator).vocabulary.tags
        assert {*tags} == {'"Weird Al" style', '12" mix', "Air horn, truck horn", "Bus", "Car"}


def test_nan_none_null_and_na_are_tags_groups_ids_and_titles_as_they_are_written(tmp_path):
    """Never missing values: in every form of a table, class folders, MagnaTagATune and a store."""
    words = ["nan", "None", "null", "NA", "NaN", "N/A", "<NA>", "n/a"]
    paths = [f"{word.strip('<>').replace('/', '_')}/{n}.wav" for n, word in enumerate(words)]
    names = dict.fromkeys(("artist", "clip_id", "title"), words)
    table = pd.DataFrame({"path": paths, "tags": words, "split": "train", **names})
    one_hot = pd.DataFrame(np.eye(len(words), dtype=int), columns=words).assign(path=paths, **names)
    for name, given, tags in (
        ("a.csv", table, "tags"),
        ("a.tsv", table.assign(tags=[f"['{word}']" for word in words]), "tags"),
        ("a.parquet", table, "tags"),
        ("lists.parquet", table.assign(tags=[[word, None] for word in words]), "tags"),
        ("hot.csv", one_hot, words),
        ("hot.parquet", one_hot.rename(columns={"artist": "group"}), "*"),
    ):
        group = "group" if name == "hot.parquet" else "artist"
        index = folder.load(
            tmp_path, write_frame(tmp_path, given, name), tags=tags, group_column=group
        )
        carried = [index.vocabulary.tags[column] for column in index.labels.argmax(axis=1)]
        assert carried == words and index.labels.sum() == len(words), name
        for column in ("group", "clip_id", "title"):
            assert index.table[column].tolist() == words, (name, column)
    for path in paths:
        write_wav(tmp_path / path, tone(200, 0.5), RATE)
    made = store.build(folder.load(tmp_path, "a.csv", group_column="artist"), tmp_path / "store")
    for column in ("group", "clip_id", "title"):
        assert AudioStore.open(made.folder).table[column].tolist() == words
    assert {*AudioStore.open(made.folder).vocabulary.tags} == {*words}
    assert {*folder.load(tmp_path).vocabulary.tags} == {path.split("/")[0] for path in paths}
    rows = [[n, *row, f"0/{n}.mp3"] for n, row in enumerate(np.eye(4, dtype=int))]
    write_tsv(tmp_path / "annotations_final.csv", ["clip_id", *words[:4], "mp3_path"], rows)
    assert {*mtat.load(tmp_path).vocabulary.tags} == {*words[:4]}
    assert {*read_tags(tmp_path / "annotations_final.csv")} == {*words[:4]}
    assert parse_tags("nan, -None:2, NA", words) == {"nan": 1, "None": -2, "NA": 1}


def test_columns_keep_their_order_and_unused_tags(tmp_path):
    write(tmp_path, "path,b,never,a,artist\nx.mp3,1.0,FALSE,0,me\ny.mp3,0,0, true ,me\n")
    index = folder.load(tmp_path, "tags.csv", tags="*", group_column="artist")
    assert index.vocabulary.tags == ("b", "never", "a")
    np.testing.assert_array_equal(index.labels, [[1, 0, 0], [0, 0, 1]])
    messages = warned(tmp_path, "tags.csv", tags="*", group_column="artist")
    assert any("1 of 3 tags are never used: never" in warning for warning in messages)


@pytest.mark.parametrize(
    ("zero", "one"), [("0.00", "1.00"), ("0.0e+00", "1.0e+00"), ("-0", "+1"), ("false", "TRUE")]
)
def test_other_notations_of_0_and_1_are_labels(tmp_path, zero, one):
    """Those of numbers, as `0.00` and `1.0e+00`, and of true and false."""
    write(tmp_path, f"path,fast,slow\na.mp3,{one},{zero}\nb.mp3, {zero} ,{one}\n")
    assert folder.load(tmp_path, "tags.csv", tags="*").labels.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("cell", ["", "2", "yes", "NaN", "0.5"])
def test_a_label_that_is_not_0_or_1_is_named_with_row_and_column(tmp_path, cell):
    write(tmp_path, f"path,fast\na.mp3,1\nb.mp3,{cell}\n")
    assert f"row 2 has {cell!r} in column 'fast'" in refusal(tmp_path, tags=["fast"])


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("path;tags\na;b\n", {}, "(columns separated by commas); it has 'path;tags'."),
        ("path\ttags\na\tb\n", {}, "(columns separated by commas); it has 'path\\ttags'."),
        ("file,label\na,b\n", {}, "no column 'path': name your columns by path_column, tags"),
        ("path,label\na,b\n", {}, "no column 'tags': name your columns by path_column, tags"),
        ("path,tags\na,b\n", {"split_column": "split"}, "no column 'split'"),
        ("path,tags\na,b\n", {"group_column": "artist"}, "no column 'artist'"),
        ("path,tags,tags\na,b,c\n", {}, "two columns 'tags'"),
        ("path,tags\na,b,c\n", {}, "row 1 has 3 fields separated by commas and not 2"),
        ('path,tags\na,"b\nc,d\n', {}, "opens a quote and never closes it"),
        ("path,tags\n", {}, "no rows"),
        ("", {}, "has no column 'path'"),
        (b"path,tags\n\xff\xfe,b\n", {}, "not UTF-8"),
        ("path,tags\na,\n", {}, "has 0 tags, and a multilabel task needs 1"),
        (
            "path,tags\n../a,b\n/b,c\n",
            {},
            "tags.csv: none of 2 rows can be used, the first ('../a') because its path",
        ),
        ("path,tags,split\na,b,trian\n", {}, "row 1 has the split 'trian': call it one of train"),
        ("path,tags\na,b\n", {"task": "multi"}, "unknown task 'multi'"),
        ("path,tags\na,b\n", {"separator": ""}, "separator is empty"),
        ("path,tags\na,b\nb,b\n", {"task": "multiclass"}, "has 1 tags, and a multiclass task"),
        ("path\na\n", {"tags": "*"}, "has no tag columns"),
        ("path,x\na,1\n", {"tags": []}, "has no tag columns"),
    ],
)
def test_malformed_tables_raise_one_sentence(tmp_path, text, options, sentence):
    assert sentence in refusal(tmp_path, write(tmp_path, text), **options)


def test_other_files_raise_one_sentence(tmp_path):
    assert "does not exist: give `table` relative to" in refusal(tmp_path, "absent.csv")
    assert "neither .csv, .tsv nor .parquet" in refusal(tmp_path, write(tmp_path, "", "t.xlsx"))
    damaged = write(tmp_path, "path", "t.parquet")
    assert "is not Parquet with text and numbers" in refusal(tmp_path, damaged)
    structs = frame(tags=[{"a": 1}] * 4)
    assert "from struct<" in refusal(tmp_path, write_frame(tmp_path, structs, "s.parquet"))
    empty = write_frame(tmp_path, frame().iloc[:0], "e.parquet")
    assert "no rows" in refusal(tmp_path, empty)


def test_byte_order_marks_line_ends_and_empty_rows_do_not_matter(tmp_path):
    text = "\ufeffpath,tags\r\nä/ü.mp3,Блюз\r\n,\r\n\r\n" + "x" * 4000 + ".mp3,slow\r\n"
    index = folder.load(tmp_path, write(tmp_path, text))
    assert index.table.path.iloc[0] == "ä/ü.mp3" and len(index.table.path.iloc[1]) == 4004
    assert index.vocabulary.tags == ("slow", "Блюз")


def test_the_table_may_lie_elsewhere_but_not_the_audio(tmp_path):
    root, elsewhere = tmp_path / "audio", tmp_path / "tables"
    root.mkdir(), elsewhere.mkdir()
    touch(tmp_path, "outside.mp3", "audio/in.mp3", "audio/deep/in.mp3")
    paths = [f"{root}//in.mp3", "deep\\in.mp3", "./deep/../new.mp3", f"{tmp_path}/outside.mp3"]
    paths += [
        "../outside.mp3",
        f"{root}/../outside.mp3",
        "C:\\x.mp3",
        "http://x.org/a.mp3",
        "",
        ".",
    ]
    table = pd.DataFrame({"path": paths, "tags": "a"})
    index = folder.load(root, elsewhere / write_frame(elsewhere, table))
    assert index.table.path.tolist() == ["in.mp3", "deep/in.mp3", "new.mp3"]
    reasons = index.left_out.reason.tolist()
    assert reasons == [OUTSIDE] * 5 + [folder.NO_PATH] * 2


def test_duplicates_and_contradictions_are_left_out_with_their_reason(tmp_path):
    rows = [
        ("same.mp3", "a,b", "train"),
        ("./same.mp3", "b, a", "training"),
        ("tags.mp3", "a", "train"),
        ("tags.mp3", "b", "train"),
        ("split.mp3", "a", "train"),
        ("split.mp3", "a", "test"),
        ("blank.mp3", "a", ""),
        ("blank.mp3", "a", "Val"),
    ]
    write_frame(tmp_path, pd.DataFrame(rows, columns=["path", "tags", "split"]))
    index = folder.load(tmp_path, "tags.csv")
    assert index.table[["path", "split"]].to_numpy().tolist() == [
        ["same.mp3", "train"],
        ["blank.mp3", "valid"],
    ]
    different = [CONTRADICTION] * 2 + [folder.TWO_SPLITS] * 2
    assert index.left_out.reason.tolist() == [DUPLICATE, *different, folder.NO_SPLIT]


def test_rows_that_give_a_file_two_groups_are_left_out(tmp_path):
    rows = [("two.mp3", "ann"), ("two.mp3", "bob"), ("one.mp3", ""), ("one.mp3", "bob")]
    rows += [("same.mp3", "cy"), ("same.mp3", "cy"), ("none.mp3", ""), ("none.mp3", "")]
    write_frame(tmp_path, pd.DataFrame(rows, columns=["path", "group"]).assign(tags="a"))
    index = folder.load(tmp_path, "tags.csv")
    assert index.table[["path", "group"]].to_numpy().tolist() == [
        ["one.mp3", "bob"],
        ["same.mp3", "cy"],
        ["none.mp3", ""],
    ]
    reasons = index.left_out.groupby("path").reason.agg(list)
    assert reasons["two.mp3"] == [TWO_GROUPS] * 2
    assert all(reasons[path] == [DUPLICATE] for path in ("one.mp3", "same.mp3", "none.mp3"))


def test_usual_split_names_are_accepted(tmp_path):
    names = [*folder.SPLIT_NAMES, " TRAIN "]
    table = pd.DataFrame({"path": [f"{i}.mp3" for i in range(len(names))], "tags": "a"})
    write_frame(tmp_path, table.assign(fold=names))
    index = folder.load(tmp_path, "tags.csv", split_column="fold")
    assert index.table.split.tolist() == [*folder.SPLIT_NAMES.values(), "train"]


def big_table(n=200):
    rng = np.random.default_rng(3)
    tags = [",".join(rng.choice(["a", "b", "c", "d"], rng.integers(0, 4))) for _ in range(n)]
    groups = np.where(rng.random(n) < 0.2, "", [f"artist {i}" for i in rng.integers(0, 40, n)])
    return pd.DataFrame({"path": [f"{i}.mp3" for i in range(n)], "tags": tags, "group": groups})


def test_without_a_split_groups_are_split_by_the_seed_in_any_row_order(tmp_path):
    table = big_table()
    index = folder.load(tmp_path, write_frame(tmp_path, table))
    overlap = index.group_overlap().to_numpy()
    assert (overlap - np.diag(np.diag(overlap)) == 0).all()
    counts = index.summary().clips
    assert abs(counts["train"] - 160) <= 6 and abs(counts["valid"] - 20) <= 6
    shuffled = table.sample(frac=1, random_state=0)
    again = folder.load(tmp_path, write_frame(tmp_path, shuffled, "again.parquet"))
    assert again.vocabulary == index.vocabulary
    assert dict(again.table[["path", "split"]].values) == dict(
        index.table[["path", "split"]].values
    )
    other = folder.load(tmp_path, "tags.csv", seed=1)
    assert (other.table.split != index.table.split).any()


def test_multiclass_needs_exactly_one_tag_per_row(tmp_path):
    index = folder.load(
        tmp_path, write_frame(tmp_path, frame(tags=["a", "b", "", "a,b"])), task="multiclass"
    )
    assert index.vocabulary.task == "multiclass" and len(index) == 2
    assert index.left_out.reason.tolist() == [
        f"it has {n} tags and not exactly one" for n in (0, 2)
    ]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_that_differ_in_unicode_normal_form_meet(tmp_path, forms):
    written, on_disk = (unicodedata.normalize(form, "Café/é.wav") for form in forms)
    touch(tmp_path, on_disk)
    write(tmp_path, f"path,tags\n{written},a\n{on_disk},a\nÉ.wav,b\n")
    index = folder.load(tmp_path, "tags.csv")
    assert index.table.path.tolist() == [on_disk, "É.wav"]
    assert index.left_out.reason.tolist() == [DUPLICATE]
    (tmp_path / on_disk).unlink()
    missing = folder.load(tmp_path, "tags.csv")  # the file looks alike wherever it is left out
    assert [missing.table.path[0], missing.left_out.path[0]] == ["Café/é.wav"] * 2


def test_each_part_of_a_path_may_have_its_own_unicode_normal_form(tmp_path):
    root, (nfc, nfd) = tmp_path, (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    root = tmp_path / nfd
    touch(root, f"{nfc}/{nfd}.wav", f"{nfd}{nfd}/{nfc}.wav")
    table = [f"{nfc}/{nfc}.wav,a", f"{tmp_path}/{nfc}/{nfc}{nfc}/{nfc}.wav,b", f"/{nfc}.wav,a"]
    write(root, "\n".join(["path,tags", *table]))
    index = folder.load(root, "tags.csv")
    assert index.table.path.tolist() == [f"{nfc}/{nfd}.wav", f"{nfd}{nfd}/{nfc}.wav"]
    assert index.left_out.reason.tolist() == [OUTSIDE]


@pytest.mark.parametrize("tag", ["split", "group", "clip_id", "title"])
def test_tags_called_like_the_optional_columns_are_tags_alone(tmp_path, tag):
    rows = [f"{n}.wav,{n % 2},{n % 3 // 2}" for n in range(20)]
    touch(tmp_path, *(f"{n}.wav" for n in range(20)))
    write(tmp_path, "\n".join([f"path,{tag},solo", *rows]))
    index, plain = folder.load(tmp_path, "tags.csv", tags=[tag, "solo"]), tmp_path / "plain.csv"
    assert (
        index.vocabulary.tags == (tag, "solo") and (index.labels[:, 0] == np.arange(20) % 2).all()
    )
    plain.write_text("\n".join(["path,other,solo", *rows]))
    assert index.table.equals(folder.load(tmp_path, plain, tags=["other", "solo"]).table)


def test_ids_and_titles_are_kept_and_parquet_need_not_hold_text(tmp_path):
    table = frame(clip_id=[7, 8, 9, None], title=["One", None, "", "4"], group=[1, 1, 2, None])
    table.loc[1, "path"] = None
    table["audio"] = [{"bytes": b"x"}] * 4  # not asked for, so not looked at
    index = folder.load(tmp_path, write_frame(tmp_path, table, "t.parquet"))
    assert index.table.clip_id.tolist() == ["7", "9", "b/4.flac"]
    assert index.table.title.tolist() == ["One", "3", "4"]
    assert index.table.group.tolist() == ["1", "2", ""]
    assert index.left_out.reason.tolist() == [folder.NO_PATH]


def test_tags_that_look_wrong_are_warned_about(tmp_path):
    composed = unicodedata.normalize("NFD", "café")
    write_frame(tmp_path, frame(tags=["Hip Hop", "hiphop", "café", composed]))
    assert any("2 tags have several spellings" in w for w in warned(tmp_path, "tags.csv"))
    write_frame(tmp_path, frame(tags=["a;b", "b", "", "a"]))
    messages = warned(tmp_path, "tags.csv")
    assert any("holds ';' but never the separator ','; if it separates tags" in w for w in messages)
    assert any("1 of 4 clips have no tag" in w for w in messages)
    assert not any("separator" in w for w in warned(tmp_path, "tags.csv", separator=";"))


def test_folders_are_classes(tmp_path):
    touch(
        tmp_path, "dog/1.wav", "dog/deep/2.wav", "cat/1.mp3", "lost.wav", "notes.txt", "cat/._1.mp3"
    )
    with pytest.warns(DataWarning, match=r"of audio\): 1 .mp3 \(cat/._1.mp3\), 1 .txt"):
        index = data.load("folder", tmp_path)
    assert index.vocabulary == data.Vocabulary(("dog", "cat"), "multiclass")
    assert index.table.path.tolist() == ["cat/1.mp3", "dog/1.wav", "dog/deep/2.wav"]
    np.testing.assert_array_equal(index.labels, [[0, 1], [1, 0], [1, 0]])
    assert index.left_out[["path", "reason"]].to_numpy().tolist() == [["lost.wav", folder.NO_CLASS]]


def test_folders_named_like_splits_hold_the_classes(tmp_path):
    touch(
        tmp_path,
        "train/dog/1.wav",
        "train/cat/1.wav",
        "Val/dog/2.wav",
        "test/cat/2.wav",
        "test/x.wav",
    )
    index = folder.load(tmp_path)
    assert index.vocabulary.tags == ("cat", "dog")
    assert dict(index.table[["path", "split"]].values)["Val/dog/2.wav"] == "valid"
    assert index.left_out.path.tolist() == ["test/x.wav"]


def test_folders_without_classes_are_refused(tmp_path):
    touch(tmp_path, "1.wav")
    assert "give a table of paths and tags, such as table='tags.csv'" in refusal(tmp_path, None)
    touch(tmp_path, "mp3/1.wav")
    assert "has 1 tags, and a multiclass task needs 2" in refusal(tmp_path, None)
    assert "does not exist" in refusal(tmp_path / "nowhere", None)
    assert "are columns of a table: give `table`" in refusal(tmp_path, None, tags="*")


def test_a_file_name_that_is_not_utf8_is_left_out(tmp_path):
    touch(tmp_path, "a/1.wav", "b/1.wav")
    (tmp_path / "a" / b"\xff.wav".decode("utf-8", "surrogateescape")).touch()
    index = folder.load(tmp_path)
    assert index.left_out.path.tolist() == ["a/\N{REPLACEMENT CHARACTER}.wav"]
    assert index.left_out.reason.tolist() == [folder.NOT_UTF8]


def test_only_the_most_frequent_tags_can_be_kept(tmp_path):
    (tmp_path / "t.csv").write_text('path,tags\na.wav,"x,y"\nb.wav,"x,z"\nc.wav,"y,x"\nd.wav,z\n')
    index = folder.load(tmp_path, "t.csv", n_tags=2)
    assert index.vocabulary.tags == ("x", "y") and len(index) == 4
    assert index.labels.tolist() == [[1, 1], [1, 0], [1, 1], [0, 0]]


def test_only_the_clips_of_the_most_frequent_classes_can_be_kept(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.wav" for i, name in enumerate("aaabbbccd")))
    write(
        tmp_path, "path,tags\n" + "".join(f"{i}.wav,{name}\n" for i, name in enumerate("aaabbbcc"))
    )
    write(tmp_path, "path,a,b,c\n1.wav,1,0,0\n2.wav,0,0,1\n3.wav,0,1,0\n4.wav,0,1,0\n", "c.csv")
    for kept, lost, index in (
        (6, 3, folder.load(tmp_path, n_tags=2)),
        (6, 2, folder.load(tmp_path, "tags.csv", n_tags=2, task="multiclass")),
        (3, 1, folder.load(tmp_path, "c.csv", tags="*", n_tags=2, task="multiclass")),
    ):
        assert set(index.vocabulary.tags) == {"a", "b"} and len(index) == kept
        assert (index.labels.sum(axis=1) == 1).all()
        assert index.left_out.reason.tolist() == [folder.RARE_CLASS] * lost


def test_files_and_links_that_are_not_used_are_warned_about(tmp_path):
    touch(tmp_path, "a/1.wav", "a/2.caf", "b/3.aifc", "b/notes.txt", "b/.hidden", "c/4.oga")
    (tmp_path / "dog").symlink_to(tmp_path.parent)
    with pytest.warns(DataWarning) as warned:
        index = folder.load(tmp_path)
    messages = " ".join(str(warning.message) for warning in warned)
    assert len(index) == 4 and "are links and not followed: dog;" in messages
    assert "nor a header of audio): 1 .txt (b/notes.txt)." in messages


def test_rows_that_are_left_out_are_counted(tmp_path):
    touch(tmp_path, "1.wav")
    (tmp_path / "t.csv").write_text("path,tags\n1.wav,a\n../2.wav,a\n/3.wav,b\n")
    with pytest.warns(DataWarning, match="2 rows are left out, each because its path leads"):
        folder.load(tmp_path, "t.csv")
    with pytest.raises(ValueError, match="n_tags must be at least 1"):
        folder.load(tmp_path, "t.csv", n_tags=0)
