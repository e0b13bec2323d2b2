"""Property-based tests: any annotation file gives a valid index or one sentence."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jetatag import data
from jetatag.data import SPLITS, DataWarning, Index, dcase2017, folder, mtat, speech_commands
from jetatag.data.splits import grouped_split
from jetatag.data.tables import DUPLICATE, drop_unusable, leaves_folder, read_text_table

pytestmark = pytest.mark.filterwarnings("ignore::jetatag.data.DataWarning")
settings.register_profile("readers", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("readers")

RESERVED = ("path", "clip_id", "split", "group", "title")
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NAME = st.text(st.characters(codec="utf-8", exclude_characters='\0\r\n/\\:."', min_codepoint=33))
NAMES = NAME.map(str.strip).filter(bool)
TAG = NAMES.filter(lambda tag: "," not in tag and tag not in RESERVED)
PATH = st.one_of(
    st.lists(st.sampled_from(["a", "b", "..", ".", "", "~", "C:", "\\", "/", "ü"]), max_size=6).map(
        "/".join
    ),
    TEXT,
)
CELLS = ["a.mp3", "0/a.mp3", "d/b.mp3", "0", "1", "1.0", "x", "train", "x,y", "../a", '"', "", " "]
CELL = st.one_of(st.sampled_from(CELLS), st.sampled_from(["0", "1"]), TEXT)


@st.composite
def files(draw, header: str, delimiter: str, headed: bool = True) -> bytes:
    """Random bytes, or a table with few mistakes: with a header, of the columns of `header` in any
    order, some missing; without, of all of them in order."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.binary(max_size=60))
    columns = header.split(",")
    if headed:
        columns = draw(st.permutations(columns))[draw(st.sampled_from([0, 0, 0, 1, 2])) :]
    usual = {"path": ["a.mp3", "b/b.mp3", "../c"], "tags": ["x", "y,x"], "split": ["train", "Val"]}
    usual |= {"a": ["0", "1"], "b": ["0", "1"], "mp3_path": ["0/a.mp3", "d/b.mp3"]}
    usual |= {"clip_id": ["1", "2"], "artist": ["me"], "title": ["it"]}
    usual |= {"file": ["-a_0.000_9.500.wav", "b_30.000_40.000.wav"], "second": ["30.000"]}
    usual |= {"class": ["Car", "Bus", "Air horn, truck horn"]}
    usual |= {"word": ["yes/a_nohash_0.wav", "no/a_nohash_1.wav", "yes/b_nohash_0.wav"]}
    strange = draw(st.sampled_from([0, 0, 0, 1, 3]))
    rows = [
        [
            draw(CELL if draw(st.integers(1, 9)) <= strange else st.sampled_from(usual[c]))
            for c in columns
        ]
        for _ in range(draw(st.integers(0, 4)))
    ]
    delimiter = draw(st.sampled_from([*[delimiter] * 5, ";"]))
    quote = draw(st.sampled_from(['"', '"', ""]))
    rows = [columns, *rows] if headed else rows
    lines = [delimiter.join(quote + cell + quote for cell in row) for row in rows]
    mark, end = draw(st.sampled_from(["", "\ufeff"])), draw(st.sampled_from(["\n", "\r\n"]))
    return (mark + end.join(lines)).encode()


@pytest.fixture(scope="module")
def root():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def index_or_refusal(load, *arguments, **options) -> Index | None:
    """The reader's index, or None if it raised one sentence."""
    try:
        return load(*arguments, **options)
    except (ValueError, FileNotFoundError) as error:
        assert type(error) in (ValueError, FileNotFoundError)
        assert "\n" not in str(error) and str(error).endswith(".")
        return None


def assert_valid(index: Index) -> None:
    """Of an index that may be empty."""
    assert index.labels.shape == (len(index), len(index.vocabulary.tags))
    assert index.table.split.isin(SPLITS).all() and index.table.path.is_unique
    assert not index.table.path.map(leaves_folder).any()
    home = index.audio_root.resolve()
    for path in index.table.path:
        assert (index.audio_root / path).resolve().is_relative_to(home)
    assert index.left_out.reason.ne("").all()


TAGS_OR_COLUMNS = st.one_of(
    st.tuples(files("path,tags,split", ","), st.just("tags")),
    st.tuples(files("path,split,a,b", ","), st.just("*")),
)


@given(TAGS_OR_COLUMNS)
@example((b"path,tags\n\0,a\n", "tags"))
@example((b"path,tags\na,b\n" + b"a" * 200_000, "tags"))
def test_any_user_table_gives_an_index_or_one_sentence(root, file):
    content, tags = file
    (root / "tags.csv").write_bytes(content)
    index = index_or_refusal(folder.load, root, "tags.csv", tags=tags)
    if index is not None:
        assert_valid(index)
        assert len(index)


@given(st.binary(max_size=80), st.integers(0, 5000))
def test_damaged_parquet_gives_an_index_or_one_sentence(root, content, place):
    path = root / "damaged.parquet"
    pd.DataFrame({"path": ["a", "b"], "tags": ["x", "x,y"]}).to_parquet(path)
    whole = path.read_bytes()
    place %= len(whole)
    path.write_bytes(whole[:place] + content + whole[place + len(content) :])
    index = index_or_refusal(folder.load, root, path.name)
    if index is not None:
        assert_valid(index)
        assert len(index)


@given(files("clip_id,a,b,mp3_path", "\t"))
def test_any_annotations_give_an_index_or_one_sentence(root, content):
    (root / "annotations_final.csv").write_bytes(content)
    (root / "clip_info_final.csv").unlink(missing_ok=True)
    index = index_or_refusal(mtat.load, root, split="full")
    if index is not None:
        assert_valid(index)


@given(files("clip_id,artist,title", "\t"))
def test_any_clip_info_gives_an_index_or_one_sentence(root, content):
    (root / "annotations_final.csv").write_text("clip_id\ta\tmp3_path\n1\t1\t0/a.mp3\n")
    (root / "clip_info_final.csv").write_bytes(content)
    index = index_or_refusal(mtat.load, root)
    assert index is None or len(index) == 1


DCASE_LIST = files("file,second,second,class", "\t", headed=False)


@given(st.tuples(DCASE_LIST, st.one_of(st.none(), DCASE_LIST), DCASE_LIST))
def test_any_lists_of_dcase_give_an_index_or_one_sentence(root, lists):
    for which, content in zip(dcase2017.FOLDERS, lists, strict=True):
        path = root / f"groundtruth_weak_label_{which}_set.csv"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
    index = index_or_refusal(dcase2017.load, root)
    if index is not None:
        assert_valid(index)
        assert index.labels.any(axis=1).all()
        videos = index.table[index.table.split != "test"].groupby("group").split
        assert (videos.nunique() == 1).all()


SPEECH_LIST = files("word", "\t", headed=False)


@given(st.tuples(SPEECH_LIST, SPEECH_LIST))
def test_any_lists_of_speech_commands_give_an_index_or_one_sentence(root, lists):
    home = root / "speech"
    for path in ("yes/a_nohash_0.wav", "no/c_nohash_0.wav", "_background_noise_/a.wav"):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).touch()
    for name, content in zip(speech_commands.LISTS.values(), lists, strict=True):
        (home / name).write_bytes(content)
    index = index_or_refusal(speech_commands.load, home)
    if index is not None:
        assert_valid(index)
        assert (index.labels.sum(axis=1) == 1).all()
        assert index.table.split[index.table.path == "no/c_nohash_0.wav"].tolist() == ["train"]


@given(files("path,tags,split", ","), st.sampled_from([",", "\t"]))
def test_a_text_table_keeps_every_cell_or_is_refused(root, content, delimiter):
    path = root / "text.csv"
    path.write_bytes(content)
    table = index_or_refusal(read_text_table, path, delimiter)
    if table is not None:
        assert table.columns.is_unique and len(table) and table.notna().all(axis=None)


@given(st.lists(st.tuples(NAMES, TEXT, TEXT), min_size=1, max_size=8), st.sampled_from([",", "\t"]))
def test_a_written_text_table_is_read_unchanged(root, rows, delimiter):
    wanted = pd.DataFrame(rows, columns=["path", "x", "y"])
    wanted.to_csv(root / "written.csv", index=False, sep=delimiter, quoting=1)
    found = read_text_table(root / "written.csv", delimiter, required=["y", "path"])
    same_lines = wanted.replace(["\r\n", "\r"], "\n", regex=True)
    assert found.to_numpy().tolist() == same_lines.to_numpy().tolist()


@given(PATH)
@example("a/../../b")
@example("a\\..\\..\\b")
@example("C:\\b")
@example("\\\\host\\share")
def test_a_path_that_stays_in_its_folder_resolves_inside(root, path):
    if not leaves_folder(path):
        assert (root / path).resolve().is_relative_to(root.resolve())
        assert not Path(path).is_absolute() and "\0" not in path


ROWS = st.lists(
    st.tuples(
        PATH,
        st.lists(TAG, max_size=3),
        st.sampled_from(["train", "Val", "test", ""]),
        st.sampled_from(["", "7"]),
    ),
    min_size=1,
    max_size=12,
)


@given(ROWS, st.booleans(), st.sampled_from([None, "multiclass"]))
def test_every_row_is_in_the_table_or_left_out_once(root, rows, with_split, task):
    table = pd.DataFrame(rows, columns=["path", "tags", "split", "clip_id"])
    table["title"] = [f"row {row}" for row in range(len(table))]
    table = table if with_split else table.drop(columns="split")
    table.to_parquet(root / "rows.parquet")
    index = index_or_refusal(folder.load, root, "rows.parquet", task=task)
    if index is None:
        return
    assert_valid(index)
    assert len(index) + len(index.left_out) == len(rows)
    assert index.left_out.reason.ne("").all()
    kept = index.table.title.str.removeprefix("row ").astype(int)
    tags = np.array(index.vocabulary.tags, dtype=object)
    for row, label in zip(kept, index.labels, strict=True):
        assert set(tags[label == 1]) == {tag.strip() for tag in rows[row][1]}


SOURCE = Path("data/tags.csv")
DRAWN_ROWS = st.tuples(*map(st.sampled_from, ("abc", "xyz", range(3), ("", "", "g", "h"))))


@given(st.lists(DRAWN_ROWS, max_size=12))
def test_drop_unusable_separates_rows_and_keeps_one_of_each_file(rows):
    table = pd.DataFrame(rows, columns=["path", "clip_id", "label", "group"])
    labels = table.label.to_numpy(np.uint8)[:, None]
    try:
        kept, kept_labels, left_out = drop_unusable(
            SOURCE, table.drop(columns="label"), labels, [""] * len(table)
        )
    except ValueError as error:
        assert f"{SOURCE}: none of {len(rows)} rows can be used" in str(error)
        return
    assert len(kept) == len(kept_labels) == len(rows) - len(left_out)
    assert kept.path.is_unique and left_out.reason.ne("").all()
    files = table.groupby("path")
    assert kept.clip_id.is_unique and (files.label.nunique()[kept.path] == 1).all()
    groups = files.group.agg(lambda names: set(names) - {""})
    assert all(groups[path] == ({group} - {""}) for path, group in kept[["path", "group"]].values)


def test_a_row_is_a_duplicate_only_of_a_row_that_is_kept():
    table = pd.DataFrame({"path": ["a", "a", "a"], "clip_id": ["a"] * 3})
    reasons = ["no split", "", ""]
    kept, _, left_out = drop_unusable(SOURCE, table, np.ones((3, 1), np.uint8), reasons)
    assert len(kept) == 1 and left_out.reason.tolist() == ["no split", DUPLICATE]


def test_a_warning_names_the_line_of_the_users_code(root):
    (root / "few").mkdir(exist_ok=True)
    (root / "few" / "annotations_final.csv").write_text("clip_id\ta\tmp3_path\n1\t1\t0/a.mp3\n")
    (root / "few" / "tags.csv").write_text("path,tags\na.mp3,x;y\n../b.mp3,x\n")
    with pytest.warns(DataWarning) as warned:
        data.load("mtat", root / "few")
        mtat.load(root / "few", "artist_disjoint")
        folder.load(root / "few", "tags.csv")
    assert len(warned) > 6 and {warning.filename for warning in warned} == {__file__}


@settings(max_examples=25)
@given(st.lists(st.lists(TAG, unique=True, max_size=3), min_size=1, max_size=6))
def test_every_format_and_form_keeps_the_tags(root, lists):
    paths = [f"{row}.mp3" for row in range(len(lists))]
    separated = pd.DataFrame({"path": paths, "tags": [" , ".join(tags) for tags in lists]})
    names = sorted({tag for tags in lists for tag in tags})
    columns = {name: [int(name in tags) for tags in lists] for name in names}
    by_column = pd.DataFrame({"path": paths} | columns)
    found = {}
    for suffix in ("csv", "tsv", "parquet"):
        for form, table in {"tags": separated, "*": by_column}.items():
            if suffix == "parquet":
                table.to_parquet(root / "t.parquet")
            else:
                table.to_csv(
                    root / f"t.{suffix}", index=False, sep="\t" if suffix == "tsv" else ","
                )
            found[suffix, form] = index_or_refusal(folder.load, root, f"t.{suffix}", tags=form)
    if any(lists):
        for index in found.values():
            carried = [
                {tag for tag, label in zip(index.vocabulary.tags, row, strict=True) if label}
                for row in index.labels
            ]
            assert carried == [set(tags) for tags in lists]
    else:
        assert not any(found.values())


GROUPED = st.tuples(
    st.integers(0, 2**16), st.integers(30, 150), st.integers(1, 6), st.integers(1, 8)
)


@given(GROUPED)
def test_a_grouped_split_keeps_groups_together_and_sizes_near(drawn):
    seed, n_clips, n_tags, largest = drawn
    rng = np.random.default_rng(seed)
    labels = (rng.random((n_clips, n_tags)) < rng.uniform(0.05, 0.9, n_tags)).astype(np.uint8)
    groups = np.array([f"g{i // largest}" for i in range(n_clips)], dtype=object)
    groups[rng.random(n_clips) < 0.3] = ""
    split = grouped_split(groups, labels, folder.SHARES, seed)
    for group in set(groups) - {""}:
        assert len(set(split[groups == group])) == 1
    for name, share in folder.SHARES.items():
        assert abs((split == name).sum() - share * n_clips) <= largest + 0.05 * n_clips
    np.testing.assert_array_equal(split, grouped_split(groups, labels, folder.SHARES, seed))
    order = rng.permutation(n_clips)
    named = np.where(groups == "", [f"clip {i}" for i in range(n_clips)], groups)
    again = grouped_split(named[order], labels[order], folder.SHARES, seed)
    np.testing.assert_array_equal(again, grouped_split(named, labels, folder.SHARES, seed)[order])


@given(st.integers(0, 2**16), st.integers(3, 9), st.integers(1, 30))
def test_no_split_is_empty_if_there_are_enough_groups(seed, n_groups, n_tags):
    rng = np.random.default_rng(seed)
    groups = np.array([f"g{group}" for group in [*range(n_groups), *rng.integers(0, n_groups, 40)]])
    labels = (rng.random((len(groups), n_tags)) < 0.05).astype(np.uint8)  # rare tags
    assert set(grouped_split(groups, labels, folder.SHARES, seed)) == set(SPLITS)
