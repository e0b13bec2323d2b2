"""The reader of Speech Commands, and training on spoken words."""

import re

import numpy as np
import pytest
import soundfile
import speech
from layouts import speaker_name, write_speech_commands

from jetatag import data
from jetatag.config import Phase
from jetatag.data import DataWarning, speech_commands, store
from jetatag.data.tables import DUPLICATE
from jetatag.evaluation.predict import predict
from jetatag.extractors import EXTRACTORS, build_extractor
from jetatag.training import train
from jetatag.training.run import Run

pytestmark = pytest.mark.filterwarnings("ignore::jetatag.data.DataWarning")
LISTS = ("validation_list.txt", "testing_list.txt")
SPOKEN_WORDS = ("yes", "no", "seven", "marvin", "stop", "four")


@pytest.fixture
def tones(tmp_path):
    """Every word by five speakers, as tones; a test may damage the folder."""
    return write_speech_commands(tmp_path / "speech_commands", n_speakers=5)


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """Six words spoken by twelve voices, prepared once; tests must not write into it."""
    folder = tmp_path_factory.mktemp("spoken")
    root = write_speech_commands(folder / "data", SPOKEN_WORDS, say=speech.spoken)
    with pytest.warns(DataWarning, match="29 of 35 tags are never used: backward, bed"):
        index = data.load("speech_commands", root)
    return store.build(index, folder / "store", workers=1)


def add(path, line):
    path.write_text(path.read_text() + line)


def test_the_official_layout_becomes_an_index(tones):
    index = speech_commands.load(tones)
    assert len(index) == 35 * 5 and index.left_out.empty
    assert index.vocabulary == data.Vocabulary(speech_commands.WORDS, "multiclass")
    assert list(speech_commands.WORDS) == sorted(set(speech_commands.WORDS))
    assert (index.labels.sum(1) == 1).all() and not index.peak_normalise
    words = np.array(speech_commands.WORDS)[index.labels.argmax(1)]
    assert (words == index.table.path.str.partition("/")[0]).all()
    assert index.summary().clips.to_dict() == {"train": 35, "valid": 70, "test": 70}
    assert index.summary().groups.to_dict() == {"train": 1, "valid": 2, "test": 2}
    assert index.table.group[index.table.split == "train"].unique() == [speaker_name(0)]
    assert not index.table.path.str.contains("noise").any()


def test_unlisted_clips_are_train_and_each_speaker_is_in_one_split(tones):
    index = speech_commands.load(tones)
    listed = [(tones / file).read_text().split() for file in LISTS]
    split = index.table.set_index("path").split
    assert (split[listed[0]] == "valid").all() and (split[listed[1]] == "test").all()
    assert (split.drop(listed[0] + listed[1]) == "train").all()
    assert np.array_equal(index.group_overlap(), np.eye(3))


def test_counts_are_compared_with_the_official_ones(tones):
    assert sum(speech_commands.KNOWN_CLIPS.values()) == 105_829
    with pytest.warns(DataWarning, match=r"train 35 \(-84,808\), valid 70 \(-9,911\), test 70"):
        index = speech_commands.load(tones)
    assert index.summary().known.to_dict() == speech_commands.KNOWN_CLIPS


@pytest.mark.parametrize("file", LISTS)
def test_both_lists_are_needed(tones, file):
    (tones / file).unlink()
    with pytest.raises(FileNotFoundError, match="held-out clips would be trained on: give the"):
        speech_commands.load(tones)


def test_the_lists_alone_give_valid_and_test(tones, tmp_path):
    for file in LISTS:
        (tones / file).rename(tmp_path / file)
    with pytest.warns(DataWarning, match="0 of 140 clips are in train"):
        index = speech_commands.load(tmp_path)
    assert index.summary().clips.to_dict() == {"train": 0, "valid": 70, "test": 70}


def rewrite(root, change):
    for file in LISTS:
        lines = (root / file).read_text().splitlines()
        (root / file).write_bytes("".join(map(change, lines)).encode())


def test_lists_with_a_dot_slash_or_backslashes_give_the_same_splits(tones):
    plain = speech_commands.load(tones)
    for change in (
        lambda path: f"{path}\r\n\r\n",
        lambda path: f"./{path}\n",
        lambda path: path.replace("yes/", "yes\\") + "\n",
        lambda path: f"  yes/../{path}\n",
        lambda path: f"{tones}/{path}\n",
    ):
        originals = [(tones / file).read_bytes() for file in LISTS]
        rewrite(tones, change)
        (tones / LISTS[0]).write_text("\ufeff" + (tones / LISTS[0]).read_text())
        index = speech_commands.load(tones)
        assert index.table.equals(plain.table) and index.left_out.empty
        for file, content in zip(LISTS, originals, strict=True):
            (tones / file).write_bytes(content)


@pytest.mark.parametrize("prefix", ["speech_commands_v0.02/", "/data/", "C:\\", "../", "flac/"])
def test_a_list_that_matches_no_clip_is_refused(tones, prefix):
    rewrite(tones, lambda line: f"{prefix}{line}\n")
    sentence = r"testing_list.txt names no clip, so held-out clips would be trained on: write"
    with pytest.raises(ValueError, match=f"{sentence} lines like yes/.*, not '{re.escape(prefix)}"):
        speech_commands.load(tones)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("../yes/a_nohash_0.wav", "outside"),
        ("/etc/yes/a_nohash_0.wav", "outside"),
        ("yess/a_nohash_0.wav", "one of the 35 words"),
        ("_background_noise_/white_noise.wav", "one of the 35 words"),
        ("yes", "one of the 35 words"),
        ("yes/deeper/a_nohash_0.wav", "one of the 35 words"),
    ],
)
def test_lines_that_name_no_clip_are_left_out(tones, line, reason):
    add(tones / "testing_list.txt", f"{line}\n")
    told = "lines name no clip .*; if they mean held-out clips, these are in train"
    with pytest.warns(DataWarning, match=told):
        index = speech_commands.load(tones)
    assert len(index) == 175 and index.left_out.path.tolist() == [line]
    assert index.left_out.reason.str.contains(reason).all()


def test_a_clip_in_both_lists_is_tested_and_not_validated(tones):
    both = (tones / "testing_list.txt").read_text().split()[3]
    add(tones / "validation_list.txt", f"{both}\n{both}\n")
    index = speech_commands.load(tones)
    assert index.summary().clips.to_dict() == {"train": 35, "valid": 70, "test": 70}
    assert index.table.split[index.table.path == both].tolist() == ["test"]
    assert index.left_out.reason.tolist() == [speech_commands.IN_BOTH] * 2


def test_a_repeated_line_counts_once(tones):
    add(tones / "testing_list.txt", (tones / "testing_list.txt").read_text())
    index = speech_commands.load(tones)
    assert len(index) == 175
    assert (index.left_out.reason == DUPLICATE).all()


def test_folders_of_other_words_are_warned_about(tones):
    (tones / "yes").rename(tones / "Yes")
    with pytest.warns(DataWarning, match="5 audio files .* none of the 35 words: Yes"):
        index = speech_commands.load(tones)
    assert index.summary().clips.to_dict() == {"train": 34, "valid": 70, "test": 70}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no rows"),
        (b"\xff\xfe", "not UTF-8"),
        (b"yes/a.wav\t1\n", "2 fields .* and not 1"),
    ],
)
def test_a_malformed_list_raises_one_sentence(tones, content, sentence):
    (tones / "validation_list.txt").write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as refusal:
        speech_commands.load(tones)
    assert "\n" not in str(refusal.value)


def test_the_same_arguments_speak_the_same_bytes():
    pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed")
    for voice in ("en-us+f3", "en-us+m3"):  # one whose breath is noise, and one without
        first, again, other = (speech.speak("six", voice, seed=seed)[0] for seed in (4, 4, 5))
        assert first.tobytes() == again.tobytes() and abs(first).max() > 0.1
        assert (first.tobytes() == other.tobytes()) == (voice == "en-us+m3")
    with pytest.raises(RuntimeError, match="could not say 'six' as 'nobody'"):
        speech.speak("six", "nobody")


def test_spoken_clips_are_prepared(spoken):
    assert len(spoken) == 72 and (spoken.lengths == 16_000).all()
    assert spoken.vocabulary.task == "multiclass" and len(spoken.vocabulary.tags) == 35
    assert [len(spoken.rows(split)) for split in data.SPLITS] == [48, 12, 12]
    first = soundfile.read(spoken.folder.parent / "data" / spoken.table.path[0], dtype="float32")[0]
    np.testing.assert_allclose(spoken.read([0], [0], 16_000)[0], first, atol=1e-4)
    assert len({spoken.read([row], [0], 16_000).tobytes() for row in range(72)}) == 72


@pytest.mark.parametrize(
    ("method", "pair_loss", "extractor"),
    [
        ("no_je_linear", "none", "sample_cnn"),
        *(("je", "subset_query", name) for name in EXTRACTORS),
    ],
)
def test_a_second_of_speech_goes_through_every_extractor_at_its_shortest(
    spoken, tiny_config, tmp_path, method, pair_loss, extractor
):
    phases = (Phase("adam", 1e-3, 1),)
    settings = {"method": method, "pair_loss": pair_loss, "extractor": extractor, "n_windows": 2}
    crop_samples = build_extractor(extractor, width=4).min_samples
    settings |= {"crop_samples": crop_samples, "label_share": 0.25}  # a quarter of the time
    config = tiny_config.replace(**settings, stage1=phases, stage2=phases)
    run = Run.start(tmp_path, config, spoken)
    model = train.train(run, spoken)
    assert model.task == run.vocabulary.task == "multiclass"
    padded = run.record["data"]["padded_clips"]  # every clip, where a crop is longer than its 1 s
    every_clip = {"train": 48, "valid": 12, "test": 12}
    assert padded == (every_clip if config.crop_samples > 16_000 else {})
    predict(run, model, spoken)
    scores = run.read_arrays("scores.npz")
    assert scores["probs"].shape == (12, 2, 35) and (scores["labels"].sum(1) == 1).all()
    np.testing.assert_allclose(scores["probs"].sum(-1), 1, atol=1e-5)


def test_spoken_words_are_learned(spoken, tiny_config, tmp_path):
    config = tiny_config.replace(
        method="no_je_linear", pair_loss="none", stage2=(Phase("adam", 3e-3, 10),)
    )
    run = Run.start(tmp_path, config, spoken)
    train.train(run, spoken)
    loss = run.history.loss  # categorical: log(35) for a guess
    assert abs(loss.iloc[0] - np.log(35)) < 1 and loss.iloc[-1] < 0.8 * np.log(len(SPOKEN_WORDS))
