"""The reader of DCASE 2017 task 4."""

import numpy as np
import pytest
from layouts import dcase_rows, write_dcase, write_dcase_list

from jetatag import data
from jetatag.data import DataWarning, dcase2017, store

pytestmark = pytest.mark.filterwarnings("ignore::jetatag.data.DataWarning")
BUS = "Zs_zSjUykMg_400.000_410.000.wav"


@pytest.fixture
def lists(tmp_path):
    """The three lists without audio, which a test may damage."""
    return write_dcase(tmp_path / "dcase", audio=False)


def list_path(root, which):
    return root / f"groundtruth_weak_label_{which}_set.csv"


def add(root, which, line):
    path = list_path(root, which)
    path.write_text(path.read_text() + line)


def test_the_official_layout_becomes_an_index(lists):
    index = dcase2017.load(lists)
    table = index.table
    assert len(index) == 17 * (10 + 2 + 2) and index.left_out.empty
    assert index.vocabulary.tags == dcase2017.CLASSES and len(set(dcase2017.CLASSES)) == 17
    assert index.vocabulary.task == "multilabel" and not index.peak_normalise
    assert set(np.unique(index.labels.sum(1))) == {1, 2}  # a row of the file is a label, not a clip
    assert table.group[0] == "-tr_0000000" and table.clip_id[0] == "-tr_0000000_30.000_40.000"
    assert (table.path[0]) == f"{dcase2017.FOLDERS['training']}/Y-tr_0000000_30.000_40.000.wav"
    np.testing.assert_array_equal(np.flatnonzero(index.labels[0]), [0, 1])
    test = table.split == "test"
    assert (table.path[test].str.partition("/")[0] == dcase2017.FOLDERS["evaluation"]).all()
    assert index.summary().clips["test"] == 34 and index.summary().known["test"] == 1_103


def test_a_seeded_tenth_of_every_class_is_valid(tmp_path):
    root = write_dcase(tmp_path, dcase_rows(n_training=40), audio=False)
    index, again, other = (dcase2017.load(root, seed=seed) for seed in (0, 0, 1))
    valid = (index.table.split == "valid").to_numpy()
    learning = (index.table.split != "test").to_numpy()
    shares = index.labels[valid].sum(0) / index.labels[learning].sum(0)
    assert shares.min() > 0.05 and shares.max() < 0.15
    assert abs(valid.sum() / learning.sum() - 0.1) < 0.01
    assert (index.table.split == again.table.split).all()
    assert (index.table.split != other.table.split).any()
    assert (index.table.split[~learning] == other.table.split[~learning]).all()


def test_a_video_is_never_in_both_train_and_valid(tmp_path):
    parts = [(f"vid{i % 40:08d}_{10 * i}.000_{10 * i + 10}.000.wav", "Bus") for i in range(200)]
    write_dcase(tmp_path, dcase_rows() | {"training": parts}, audio=False)
    overlap = dcase2017.load(tmp_path).group_overlap()
    assert overlap.loc["valid", "train"] == 0 and overlap.loc["train", "valid"] == 0


def test_counts_are_compared_with_the_official_ones(lists):
    with pytest.warns(DataWarning) as warned:
        dcase2017.load(lists)
    messages = " ".join(str(warning.message) for warning in warned)
    assert "train and valid 204 (-51,456), test 34 (-1,069). Usual reasons" in messages
    assert "238 of 238 audio files are not under" in messages


@pytest.mark.parametrize(
    ("which", "empty"), [("training", []), ("testing", []), ("evaluation", ["test"])]
)
def test_a_missing_list_is_a_warning(lists, which, empty):
    list_path(lists, which).unlink()
    with pytest.warns(DataWarning, match=f"{which}_set.csv does not exist: the index lacks its"):
        index = dcase2017.load(lists)
    assert [s for s, n in index.summary().clips.items() if not n] == empty


def test_the_evaluation_list_alone_is_enough_and_no_list_is_not(lists):
    list_path(lists, "training").unlink()
    list_path(lists, "testing").unlink()
    assert dcase2017.load(lists).summary().clips.to_dict() == {"train": 0, "valid": 0, "test": 34}
    list_path(lists, "evaluation").unlink()
    with pytest.raises(FileNotFoundError, match=r"nor does another list .*: give the folder"):
        dcase2017.load(lists)


def test_a_clip_in_two_lists_stays_in_the_later_one(lists):
    tested, verified = (dcase_rows()[which][0][0] for which in ("evaluation", "testing"))
    add(lists, "training", f"{tested}\t30.000\t40.000\tCar\n")
    add(lists, "training", f"./x/..\\{verified}\t30.000\t40.000\tCar\n")  # in another notation
    index = dcase2017.load(lists)
    assert (index.left_out.reason == dcase2017.LATER_LIST).all()
    assert (index.left_out.path.str.split("/Y").str[1] == [tested, verified]).all()
    row = index.table.path.str.endswith(tested)
    assert index.table.split[row].tolist() == ["test"]
    assert index.labels[row].tolist() == [[1, 1] + 15 * [0]]  # without the other list's Car


@pytest.mark.parametrize(
    "file", ["../../../etc/passwd", "/etc/x_0.000_10.000.wav", "a/b_0.000_10.000.wav", "song.mp3"]
)
def test_files_that_are_no_clip_are_left_out_once(lists, file):
    add(lists, "training", f"{file}\t0.000\t10.000\tCar\n{file}\t0.000\t10.000\tBus\n")
    index = dcase2017.load(lists)
    assert len(index) == 238 and index.left_out.reason.tolist() == [dcase2017.NOT_A_CLIP]
    assert index.left_out.clip_id.tolist() == [file.removesuffix(".wav")]


def test_repeated_rows_headers_and_line_ends_do_not_matter(lists):
    plain = dcase2017.load(lists)
    path = list_path(lists, "training")
    text = path.read_text()
    header = "filename\tstart_time\tend_time\tlabel\n"
    for other in (text + text, header + text, "\ufeff" + text.replace("\n", "\r\n"), text + "\n\n"):
        path.write_bytes(other.encode())
        index = dcase2017.load(lists)
        assert index.table.equals(plain.table) and index.left_out.empty
        np.testing.assert_array_equal(index.labels, plain.labels)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (f"{BUS}\t400.000\t410.000\tBuss\n", r"unknown class in .*'Buss' \(did you mean 'Bus'\?\)"),
        (f"{BUS}\t400.000\t410.000\t \n", "row 1 has no label"),
        ("\t400.000\t410.000\tBus\n", "row 1 has no file"),
        (f"{BUS},400.000,410.000,Bus\n", "row 1 has 1 fields separated by tabs and not 4"),
        (f"{BUS}\t400.000\t410.000\tBus\n{BUS}\tBus\n", "row 2 has 2 fields .* and not 4"),
        ("", "has no rows"),
        ("filename\tstart\tend\tlabel\n", "has only a header"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_malformed_list_raises_one_sentence(lists, content, sentence):
    content = content if isinstance(content, bytes) else content.encode()
    list_path(lists, "testing").write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as refusal:
        dcase2017.load(lists)
    assert "\n" not in str(refusal.value) and "testing_set.csv" in str(refusal.value)


@pytest.mark.parametrize("which", dcase2017.FOLDERS)
def test_a_list_that_names_no_clip_is_refused(lists, which):
    path = list_path(lists, which)
    path.write_text("".join(f"audio/{line}\n" for line in path.read_text().splitlines()))
    with pytest.raises(ValueError, match=rf"{which}_set.csv names no clip, .*: write names like"):
        dcase2017.load(lists)


@pytest.mark.parametrize("which", dcase2017.FOLDERS)
def test_names_as_on_disk_are_those_of_the_lists(lists, which):
    plain, path = dcase2017.load(lists), list_path(lists, which)
    path.write_text("".join(f"Y{line}\n" for line in path.read_text().splitlines()))
    assert dcase2017.load(lists).table.equals(plain.table)


def test_the_clips_are_prepared_from_44_kilohertz(tmp_path):
    rows = dcase_rows(n_training=2, n_testing=1, n_evaluation=1)
    root = write_dcase(tmp_path / "dcase", rows)
    (missing, _), *_ = rows["training"]
    (root / dcase2017.FOLDERS["training"] / f"Y{missing}").unlink()
    with pytest.warns(DataWarning, match="1 of 68 audio files are not under"):
        index = data.load("dcase2017", root)
    prepared = store.build(index, tmp_path / "store", workers=1)
    assert len(prepared) == 67 and len(prepared.report) == 1
    assert (prepared.lengths == 4_800).all() and prepared.sample_rate == 16_000
    assert prepared.table.peak.between(0.25, 0.55).all()
    loudest = abs(prepared.read([0], [0], 4_800)).max()
    assert loudest == pytest.approx(prepared.table.peak[0], abs=1e-3)  # not peak-normalised


def test_rows_with_one_label_become_one_row_per_clip(tmp_path):
    rows = [(BUS, label) for label in ("Bus", "Truck", "Bus", "Car")]
    write_dcase_list(tmp_path, "evaluation", rows)
    index = dcase2017.load(tmp_path)
    carried = [dcase2017.CLASSES[c] for c in np.flatnonzero(index.labels[0])]
    assert len(index) == 1 and carried == ["Car", "Bus", "Truck"] and index.left_out.empty
