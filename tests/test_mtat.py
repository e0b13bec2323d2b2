"""MagnaTagATune's reader, and the registry of data sets."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jetatag import data, figures, metrics
from jetatag.data import DataWarning, mtat
from jetatag.data.tables import CONTRADICTION, DUPLICATE, OUTSIDE
from jetatag.rendered import writer

pytestmark = pytest.mark.filterwarnings("ignore::jetatag.data.DataWarning")
REAL = Path(__file__).parents[2] / "shared" / "mtat" / "labels.npz"


def test_the_official_layout_becomes_an_index(mtat_folder):
    index = mtat.load(mtat_folder)
    assert len(index) == 40 and len(index.left_out) == 8
    assert index.left_out.reason.str.contains("none of the chosen tags").all()
    assert index.labels.shape == (40, 4) and index.labels.dtype == np.uint8
    assert index.vocabulary.tags[-1] == "never"  # the least frequent tag comes last
    folders = index.table.path.str[0]
    assert (index.table.split == folders.map(mtat.split_by_folder(mtat.FOLDERS))).all()
    assert index.summary().clips.sum() == 40
    assert index.summary().group_in_train["train"] == 1.0


def test_the_folders_of_each_split_can_be_chosen(mtat_folder):
    folders = {"train": "0123", "valid": "4", "test": "56789abcdef"}
    index, usual = mtat.load(mtat_folder, folders=folders), mtat.load(mtat_folder)
    of_folder = {folder: split for split, named in folders.items() for folder in named}
    assert (index.table.split == index.table.path.str[0].map(of_folder)).all()
    assert index.table.drop(columns="split").equals(usual.table.drop(columns="split"))
    some = mtat.load(mtat_folder, folders={"train": "01", "test": "2"})
    assert set(some.table.path.str[0]) == set("012")
    assert some.left_out.reason.str.contains("decides the split").any()
    for wrong, sentence in {
        ("tset", "f"): "unknown split 'tset'",
        ("test", "fg"): "unknown folder 'g'",
        ("test", "ff"): "one folder into two splits",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            mtat.load(mtat_folder, folders=dict([wrong]))
    with pytest.raises(ValueError, match="leave out folders"):
        mtat.load(mtat_folder, split="artist_disjoint", folders=folders)


def test_full_split_keeps_untagged_clips(mtat_folder):
    index = mtat.load(mtat_folder, split="full")
    assert len(index) == 48 and index.left_out.empty


def test_tags_are_matched_by_name_not_position(mtat_folder):
    by_name = mtat.load(mtat_folder, split="full", tags=["noisy", "low"])
    every = mtat.load(mtat_folder, split="full")
    columns = every.vocabulary.columns(["noisy", "low"])
    np.testing.assert_array_equal(by_name.labels, every.labels[:, columns])


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("mtat", {"seed": "a"}, "seed must be of type int, not 'a'."),
        ("mtat", {"seed": -1, "split": "artist_disjoint"}, "seed must not be negative"),
        ("mtat", {"split": 3}, "str, not 3 (to give text, quote it: 'split=\"…\"')."),
        ("mtat", {"tags": 5}, "tags must be of type str or list, not 5"),
        ("mtat", {"tags": ["high", 5]}, "tags must be of type str, not 5"),
        ("dcase2017", {"seed": 1.5}, "seed must be of type int, not 1.5."),
        ("speech_commands", {"root": 3}, "root must be of type Path or str, not 3"),
        ("folder", {"n_tags": "x"}, "n_tags must be of type int or None, not 'x'."),
        ("folder", {"n_tags": True}, "n_tags must be of type int or None, not True."),
        ("folder", {"peak_normalise": "no"}, "peak_normalise must be of type bool, not 'no'."),
        ("folder", {"table": 3}, "table must be of type Path or str or None, not 3"),
    ],
)
def test_options_of_another_type_are_refused(mtat_folder, name, options, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        data.load(name, **({"root": mtat_folder} | options))


def test_unknown_names_are_refused(mtat_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="give the folder that holds"):
        mtat.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"unknown split 'clean' .did you mean 'cleaned'"):
        mtat.load(mtat_folder, split="clean")
    with pytest.raises(ValueError, match="unknown tag 'lou'"):
        mtat.load(mtat_folder, tags=["lou"])
    with pytest.raises(ValueError, match="at least one tag, each once"):
        mtat.load(mtat_folder, tags=["low", "low"])
    with pytest.raises(ValueError, match=r"unknown tag 'hihg' .did you mean 'high'"):
        mtat.load(mtat_folder).vocabulary.columns(["hihg"])


def test_data_sets_are_loaded_by_name(mtat_folder):
    assert data.load("rendered", mtat_folder).name == "rendered"
    assert data.DATASETS["mtat"].options == ["split", "tags", "seed", "folders"]
    assert data.DATASETS["speech_commands"].options == []
    with pytest.raises(ValueError, match="speech_commands takes no options: leave out 'seed'"):
        data.load("speech_commands", mtat_folder, seed=1)
    with pytest.raises(
        ValueError, match=r"unknown option of mtat 'tgas' \(did you mean 'tags'\?\)"
    ):
        data.load("mtat", mtat_folder, tgas="merged")
    with pytest.raises(ValueError, match=r"unknown data set 'mtta' \(did you mean 'mtat'\?\)"):
        data.load("mtta", mtat_folder)


def test_without_clip_info_artists_come_from_the_file_names(mtat_folder):
    with_info = mtat.load(mtat_folder)
    (mtat_folder / "clip_info_final.csv").unlink()
    with pytest.warns(DataWarning, match="5 artists of 48 clips are taken from the file names"):
        index = mtat.load(mtat_folder)
    assert (index.table.title == "").all()
    np.testing.assert_array_equal(index.table.group, with_info.table.group.str.replace(" ", ""))


def test_clips_missing_from_clip_info_have_an_artist(mtat_folder):
    path = mtat_folder / "clip_info_final.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:20]) + "\n")
    with pytest.warns(DataWarning, match="lacks clips: 5 artists of 29 clips are taken from the"):
        index = mtat.load(mtat_folder, split="full")
    assert (index.table.group != "").all()


def file_artists(index):
    return index.table.path.str.rpartition("/")[2].str.partition("-")[0]


def assert_artists_are_in_one_split(index):
    """By the file names, whatever the groups say."""
    splits = index.table.split.groupby(file_artists(index)).nunique()
    assert (splits == 1).all(), splits[splits > 1]


def test_an_artist_has_one_name_if_clip_info_lacks_some_clips(tmp_path):
    writer.write_tables(tmp_path, writer.plan(1200, 10.0, seed=0))
    path = tmp_path / "clip_info_final.csv"
    header, *rows = path.read_text().replace('"artist_', '"The Artist ').splitlines()
    unknown = [row for row in rows if "The Artist 007" in row]
    kept = [row for i, row in enumerate(rows) if i % 9 and row not in unknown]
    path.write_text("\n".join([header, *kept]) + "\n")
    index = mtat.load(tmp_path, "artist_disjoint", name="rendered")
    assert_artists_are_in_one_split(index)
    one_each = index.table.group.groupby(file_artists(index)).agg(set).map(list)
    assert one_each["artist_001"] == ["The Artist 001"] and one_each["artist_007"] == ["artist_007"]
    assert (one_each.map(len) == 1).all()


@pytest.mark.parametrize("again", ['"0/../c/', '"./c/', '"c\\\\'])
def test_one_file_under_two_names_is_in_one_split(mtat_folder, again):
    path = mtat_folder / "annotations_final.csv"
    text = path.read_text()
    row = next(line for line in text.splitlines() if '"c/' in line)
    row = row.replace('"c/', again).replace(row.split("\t")[0], '"900"')
    path.write_text(text + row + "\n")
    index = mtat.load(mtat_folder, split="full")
    assert len(index) == 48 and index.left_out.clip_id.tolist() == ["900"]


def test_annotations_alone_make_an_index(mtat_folder):
    whole = mtat.load(mtat_folder)
    shutil.rmtree(mtat_folder / "mp3")
    with pytest.warns(DataWarning, match="40 of 40 audio files are not under"):
        index = mtat.load(mtat_folder)
    pd.testing.assert_frame_equal(index.table, whole.table)


def test_rows_that_cannot_be_used_are_reported_one_by_one(mtat_folder):
    path = mtat_folder / "annotations_final.csv"
    lines = path.read_text().splitlines()
    row = lines[1].split("\t")
    stray, outside, other, again = (list(row) for _ in range(4))
    stray[0], stray[-1] = '"100"', '"x/a-b-01-c-0-2.mp3"'
    outside[0], outside[-1] = '"101"', '"../../0/a-b-01-c-0-2.mp3"'
    other[0], other[1:5] = '"102"', ['"1"'] * 4  # the file of row 1 with other labels
    again = lines[2].split("\t")
    added = ["\t".join(fields) for fields in (stray, outside, other, again)]
    path.write_text("\n".join([*lines, *added]) + "\n")
    index = mtat.load(mtat_folder, split="full")
    reasons = index.left_out.groupby("reason").clip_id.apply(list).to_dict()
    assert len(index) + len(index.left_out) == 48 + 4
    assert sum(map(len, reasons.values())) == 5
    assert reasons[mtat.NO_SPLIT] == ["100"] and reasons[OUTSIDE] == ["101"]
    assert len(reasons[CONTRADICTION]) == 2 and reasons[DUPLICATE] == ["3"]


def test_synonyms_are_merged_by_name():
    names = ["classical", "classic", "vocal", "no vocals", "no voice", "rock"]
    given = pd.DataFrame([[0, 1, 0, 0, 0, 0], [1, 0, 1, 0, 1, 1]], columns=names, dtype=np.uint8)
    merged = mtat.merge_synonyms(given)
    assert merged.to_dict("list") == {
        "classical": [1, 1],
        "vocals": [0, 1],
        "no vocals": [0, 1],
        "rock": [0, 1],
    }
    others = [other for group in mtat.SYNONYMS.values() for other in group]
    assert len(set(others)) == len(others) and not set(others) & set(mtat.SYNONYMS)


def test_an_artist_disjoint_split_depends_on_the_seed(tmp_path):
    writer.write_tables(tmp_path, writer.plan(1200, 10.0, seed=0))  # no audio is needed
    index = mtat.load(tmp_path, "artist_disjoint", name="rendered")
    assert (index.group_overlap().to_numpy() == np.eye(3)).all()
    again, other = (mtat.load(tmp_path, "artist_disjoint", seed=s, name="rendered") for s in (0, 1))
    pd.testing.assert_frame_equal(index.table, again.table)
    assert (index.table.split != other.table.split).any()
    assert len(index) == len(mtat.load(tmp_path, name="rendered"))


@pytest.fixture(scope="module")
def real():
    """The official paths, and the labels that are known; those of train are incomplete."""
    if not REAL.is_file():
        pytest.skip("the official labels are not beside the repository")
    return np.load(REAL)


@pytest.fixture(scope="module")
def real_folder(real, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    table = pd.DataFrame((real["labels"] == 1).astype(np.uint8), columns=list(real["tags"]))
    table.insert(0, "clip_id", real["clip_id"])
    table["mp3_path"] = real["path"]
    table.to_csv(folder / "annotations_final.csv", sep="\t", index=False)
    return folder


def test_real_labels_give_the_known_counts(real_folder):
    full, cleaned = mtat.load(real_folder, split="full"), mtat.load(real_folder)
    assert full.summary().clips.to_dict() == mtat.KNOWN_CLIPS["full"]
    counts = cleaned.summary()
    assert counts.clips["valid"] == 1_529 and counts.clips["test"] == 4_332
    assert counts.clips["train"] == 14_517  # 14,518 of the labels known here, less an empty file
    assert counts.known["train"] == 15_247
    assert len(cleaned) + len(cleaned.left_out) == len(full) == 25_863
    left_out = cleaned.left_out.set_index("clip_id").reason
    assert (left_out[["35644", "55753", "57881"]] == mtat.EMPTY).all()
    assert counts.group_in_train["test"] == pytest.approx(0.616, abs=0.003)  # by artist


def test_counts_are_compared_with_the_official_ones(real_folder):
    with pytest.warns(DataWarning, match=r"train 14,517 \(-730\)\. Usual reasons: .*15,244"):
        mtat.load(real_folder)


def test_real_artists_can_be_kept_in_one_split_near_12_1_3(real_folder):
    index = mtat.load(real_folder, split="artist_disjoint")
    assert (index.group_overlap().to_numpy() == np.eye(3)).all()
    shares = index.summary().clips / len(index)
    for split, share in mtat.SHARES.items():
        assert shares[split] == pytest.approx(share, abs=0.01)
        carried = index.labels[index.table.split == split].sum(0) / index.labels.sum(0)
        assert np.abs(carried - share).mean() < 0.04  # tag by tag


def test_real_artists_are_in_one_split_if_clip_info_lacks_a_hundredth(real, real_folder, tmp_path):
    (tmp_path / "annotations_final.csv").symlink_to(real_folder / "annotations_final.csv")
    info = pd.DataFrame({"clip_id": real["clip_id"], "path": real["path"], "title": ""})
    artists = info.path.str.rpartition("/")[2].str.partition("-")[0]
    info["artist"] = artists.str.replace("_", " ").str.title()
    info = info.sample(frac=0.99, random_state=0)
    info.to_csv(tmp_path / "clip_info_final.csv", sep="\t", index=False)
    assert_artists_are_in_one_split(mtat.load(tmp_path, "artist_disjoint"))


def test_merged_real_tags(real_folder):
    index = mtat.load(real_folder, tags="merged")
    assert {"classical", "vocals", "female", "male"} <= set(index.vocabulary.tags)
    assert not {"classic", "vocal", "woman", "man"} & set(index.vocabulary.tags)
    plain = mtat.load(real_folder)
    both = plain.labels[:, plain.vocabulary.columns(["classical", "classic"])].any(1).sum()
    assert index.labels[:, index.vocabulary.columns(["classical"])].sum() == both


def test_real_tags_correlate_as_published(real):
    """Figure 3 of Lee & Cho 2021, over the rows whose tags are all known."""
    labels, tags = real["labels"][real["fully_known"]], [str(tag) for tag in real["tags"]]
    figure = figures.tag_correlation(labels, tags, "classical")
    axes = figure.axes[0]
    names = [text.get_text() for text in axes.get_xticklabels()]
    cells = {
        (names[round(y)], names[round(x)]): text.get_text()
        for text in axes.texts
        for x, y in [text.get_position()]
    }
    assert names[0] == "classical" and len(names) == 11
    assert cells["classical", "strings"] == ".36" and cells["classical", "violin"] == ".35"
    assert cells["strings", "violin"] == ".42" and cells["classical", "harpsichord"] == ".30"
    correlation = metrics.tag_correlation(labels)
    assert correlation[tags.index("violin"), tags.index("cello")] == pytest.approx(0.34, abs=0.005)
