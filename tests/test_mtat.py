import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jetatag import datasets
from jetatag.datasets import mtat

REAL = Path(__file__).parents[2] / "shared" / "mtat" / "labels.npz"


def test_the_official_layout_becomes_an_index(mtat_folder):
    index = mtat.load(mtat_folder)
    assert len(index) == 40 and len(index.left_out) == 8
    assert index.left_out.reason.str.contains("none of the chosen tags").all()
    assert index.labels.shape == (40, 4) and index.labels.dtype == np.uint8
    assert index.vocabulary.tags[-1] == "never"  # by count, so the tag nobody has comes last
    folders = index.table.path.str[0]
    assert (index.table.split == folders.map(mtat.SPLIT_OF_FOLDER)).all()
    assert index.summary().clips.sum() == 40
    assert index.summary().group_in_train["train"] == 1.0


def test_full_split_keeps_untagged_clips(mtat_folder):
    index = mtat.load(mtat_folder, split="full")
    assert len(index) == 48 and index.left_out.empty


def test_tags_are_matched_by_name_not_position(mtat_folder):
    by_name = mtat.load(mtat_folder, split="full", tags=["noisy", "low"])
    every = mtat.load(mtat_folder, split="full")
    columns = every.vocabulary.columns(["noisy", "low"])
    np.testing.assert_array_equal(by_name.labels, every.labels[:, columns])


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"mp3_path"', '"path"', "has no column 'mp3_path'"),
        ('\t"1"\t', '\t"2"\t', "neither 0 nor 1"),
        ('"0/', '"../../0/', "does not begin with a folder"),
        ('"3"\t', '"2"\t', "stands in two rows"),
        ("\t", ",", "has no column 'clip_id'"),
    ],
)
def test_malformed_annotations_give_one_sentence(mtat_folder, old, new, sentence):
    path = mtat_folder / "annotations_final.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=sentence) as refusal:
        mtat.load(mtat_folder)
    assert "\n" not in str(refusal.value)


def test_unknown_names_are_refused(mtat_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="give the folder that holds"):
        mtat.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"unknown split 'clean' .did you mean 'cleaned'"):
        mtat.load(mtat_folder, split="clean")
    with pytest.raises(ValueError, match="unknown tag 'lou'"):
        mtat.load(mtat_folder, tags=["lou"])
    with pytest.raises(ValueError, match=r"unknown tag 'hihg' .did you mean 'high'"):
        mtat.load(mtat_folder).vocabulary.columns(["hihg"])


def test_data_sets_go_by_name(mtat_folder):
    assert datasets.load("rendered", mtat_folder).name == "rendered"
    with pytest.raises(ValueError, match=r"unknown data set 'mtta' \(did you mean 'mtat'\?\)"):
        datasets.load("mtta", mtat_folder)


def test_missing_clip_info_is_a_warning(mtat_folder):
    (mtat_folder / "clip_info_final.csv").unlink()
    with pytest.warns(UserWarning, match="group overlap is unknown"):
        index = mtat.load(mtat_folder)
    assert (index.table.group == "").all()


@pytest.mark.skipif(not REAL.is_file(), reason="the real labels are not at hand")
def test_real_labels_give_the_known_counts(tmp_path):
    real = np.load(REAL)
    table = pd.DataFrame(np.where(real["labels"] == 1, 1, 0), columns=list(real["tags"]))
    table.insert(0, "clip_id", real["clip_id"])
    table["mp3_path"] = real["path"]
    table.to_csv(tmp_path / "annotations_final.csv", sep="\t", index=False)
    with pytest.warns(UserWarning, match="no artist"):
        full = mtat.load(tmp_path, split="full")
        cleaned = mtat.load(tmp_path)
    assert full.summary().clips.to_dict() == {"train": 18_709, "valid": 1_825, "test": 5_329}
    # The list of rows also leaves out the three 0-byte files and clips under 29.1 s.
    assert cleaned.summary().clips["valid"] == 1_529
    assert cleaned.summary().clips["test"] in (4_332, 4_333, 4_334)
    assert len(cleaned) + len(cleaned.left_out) == len(full)
    assert json.dumps(cleaned.vocabulary.tags)
