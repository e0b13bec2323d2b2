"""The built-in data set: tag statistics, layout, identical bytes, resumption, refusals."""

import hashlib
import json
from pathlib import Path

import fit_tags
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from jetatag import rendered
from jetatag.data import workers
from jetatag.rendered import composer, writer

COUNTS = Path(__file__).parents[2] / "shared" / "mtat" / "tag_cooccurrence.csv"
N_COUNTED = 7154  # clips behind the counts
TINY = {"n_clips": 6, "duration_s": 2.0, "seed": 3}


@pytest.fixture(scope="module")
def counts():
    if not COUNTS.exists():
        pytest.skip("MagnaTagATune's co-occurrence counts are not beside the repository")
    table = pd.read_csv(COUNTS, index_col="tag")
    assert list(table.index) == list(rendered.TAGS)
    return table[list(rendered.TAGS)].to_numpy()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return rendered.write(tmp_path_factory.mktemp("tiny"), **TINY, workers=1)


def digests(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def phi(labels):
    labels = labels.astype(np.float64)
    return fit_tags.phi_coefficients(labels.T @ labels, len(labels))


def mean_difference(one, other):
    """Over all pairs of tags."""
    return np.abs((one - other)[np.triu_indices(len(one), k=1)]).mean()


def tag_model():
    """Prevalence and latent correlation as shipped."""
    return writer.TAG_MODEL.prevalence.to_numpy(), writer.TAG_MODEL[list(rendered.TAGS)].to_numpy()


def test_sampled_labels_have_the_shipped_prevalence_and_correlation():
    labels = writer.sample_labels(20_000, seed=0)
    prevalence, latent = tag_model()
    assert labels.shape == (20_000, 50) and labels.dtype == np.uint8
    common = prevalence > 0.02
    np.testing.assert_allclose(labels.mean(axis=0)[common], prevalence[common], rtol=0.2)
    expected = fit_tags.expected_phi(torch.from_numpy(latent), prevalence).numpy()
    assert mean_difference(phi(labels), expected) < 0.01


def test_sampled_labels_match_magnatagatune(counts):
    labels = writer.sample_labels(20_000, seed=1)
    prevalence = np.diag(counts) / N_COUNTED
    common = prevalence > 0.02
    np.testing.assert_allclose(labels.mean(axis=0)[common], prevalence[common], rtol=0.2)
    assert mean_difference(phi(labels), fit_tags.phi_coefficients(counts, N_COUNTED)) < 0.015
    assert 0.16 < (labels.sum(axis=1) == 0).mean() < 0.20  # 0.181 in MagnaTagATune


def test_the_shipped_table_is_what_fitting_gives(counts):
    prevalence, correlation = fit_tags.fit_labels(counts, N_COUNTED, 50)  # converges at 184
    shipped_prevalence, shipped_correlation = tag_model()
    np.testing.assert_allclose(prevalence, shipped_prevalence, atol=1e-4)
    assert np.abs(correlation - shipped_correlation).mean() < 0.01


def test_fitting_recovers_a_known_correlation():
    latent = np.array([[1.0, 0.6, -0.3], [0.6, 1.0, 0.0], [-0.3, 0.0, 1.0]])
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((200_000, 3)) @ np.linalg.cholesky(latent).T
    labels = (normal > [1.0, 0.5, 1.2]).astype(float)
    _, fitted = fit_tags.fit_labels(labels.T @ labels, len(labels))
    np.testing.assert_allclose(fitted, latent, atol=0.03)


def test_a_tag_without_clips_cannot_be_fitted():
    with pytest.raises(ValueError, match="leave it out"):
        fit_tags.fit_labels(np.diag([10, 0]), 100)


def test_first_label_rows_do_not_depend_on_the_number():
    few, many = writer.sample_labels(5, seed=7), writer.sample_labels(50, seed=7)
    np.testing.assert_array_equal(few, many[:5])
    assert not np.array_equal(many, writer.sample_labels(50, seed=8))


@pytest.mark.parametrize(("n_clips", "duration_s"), sorted(set(rendered.SIZES.values())))
def test_clips_are_spread_over_folders_with_artists_in_several(n_clips, duration_s):
    clips = writer.plan(n_clips, duration_s, seed=0)
    assert clips.clip_id.tolist() == list(range(1, n_clips + 1))
    folders = clips.mp3_path.str.partition("/")[0]
    in_folder = folders.value_counts().reindex([*"0123456789abcdef"], fill_value=0)
    assert in_folder.sum() == n_clips and in_folder.max() - in_folder.min() <= 1 + n_clips // 400
    assert (folders.groupby([clips.artist, clips.album]).nunique() == 1).all()
    assert (folders.groupby(clips.artist).nunique() > 1).sum() > 2
    assert (clips.performer.groupby(clips.artist).nunique() == 1).all()


def test_layout_is_magnatagatunes(tiny):
    annotations = pd.read_csv(tiny / "annotations_final.csv", sep="\t")
    information = pd.read_csv(tiny / "clip_info_final.csv", sep="\t")
    assert list(annotations) == ["clip_id", *rendered.TAGS, "mp3_path"]
    assert list(information) == [
        *("clip_id", "track_number", "title", "artist", "album", "url"),
        *("segmentStart", "segmentEnd", "original_url", "mp3_path"),
    ]
    assert (tiny / "annotations_final.csv").read_text().startswith('"clip_id"\t"guitar"\t')
    labels = writer.sample_labels(6, seed=3)
    np.testing.assert_array_equal(annotations[list(rendered.TAGS)].to_numpy(), labels)
    for row in information.itertuples():
        stem = f"{row.artist}-{row.album}-{row.track_number:02d}-{row.title}-0-2"
        folder, name = row.mp3_path.split("/")
        assert folder in set("0123456789abcdef") and name == f"{stem}.mp3"
    written = {str(path.relative_to(tiny / "mp3")) for path in tiny.rglob("*.mp3")}
    assert written == set(annotations["mp3_path"]) == set(information["mp3_path"])


def test_audio_is_mono_mp3_neither_silent_nor_clipped(tiny):
    for path in tiny.rglob("*.mp3"):
        header = soundfile.info(path)
        assert (header.format, header.channels) == ("MP3", 1)
        assert header.samplerate in (16_000, 22_050)
        audio, sample_rate = soundfile.read(path)
        assert len(audio) == 2 * sample_rate
        assert 0.03 < np.abs(audio).max() <= 1.0
        quarters = np.sqrt(np.mean(audio.reshape(4, -1) ** 2, axis=1))
        assert quarters.min() > 0.1 * quarters.max()  # music from beginning to end


def test_the_recipe_has_not_changed_without_a_new_version():
    """A few samples of two clips; other machines may round the last bits differently."""
    assert writer.VERSION == 1
    clips = writer.plan(1200, 2.0, seed=1)
    expected = {40: [0.1622, -0.1823, 0.1167, -0.0482], 512: [0.0741, -0.0325, -0.0497, 0.0308]}
    for row, samples in expected.items():
        audio, _ = writer.render(clips.iloc[row], 2.0, seed=1)
        np.testing.assert_allclose(audio[5000:25_000:5000], samples, atol=2e-4)


def test_bytes_do_not_depend_on_the_number_of_processes(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "START_S", 0)
    assert digests(rendered.write(tmp_path, **TINY, workers=2)) == digests(tiny)


def test_only_a_missing_file_is_rendered_again(tiny):
    before, paths = digests(tiny), sorted(tiny.rglob("*.mp3"))
    times = {path: path.stat().st_mtime_ns for path in paths}
    paths[2].unlink()
    rendered.write(tiny, **TINY, workers=1)
    assert digests(tiny) == before
    assert [path for path in paths if path.stat().st_mtime_ns != times[path]] == [paths[2]]


def test_a_complete_set_is_left_alone(tiny, monkeypatch):
    monkeypatch.setattr(writer, "render", lambda *_: pytest.fail("rendered again"))
    before = (tiny / "annotations_final.csv").stat().st_mtime_ns
    assert rendered.write(tiny, **TINY) == tiny
    assert (tiny / "annotations_final.csv").stat().st_mtime_ns == before


def test_an_interrupted_set_has_no_annotations(tmp_path, monkeypatch):
    def interrupted(clip, duration_s, seed):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rendered.write(tmp_path, **TINY, workers=1)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["rendered.json"]


def test_folders_that_hold_other_data_are_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="choose another folder or delete"):
        rendered.write(tiny, **TINY | {"seed": 4})
    assert json.loads((tiny / "rendered.json").read_text())["seed"] == 3
    (tmp_path / "annotations_final.csv").write_text("clip_id\n")
    with pytest.raises(ValueError, match="not rendered"):
        rendered.write(tmp_path, **TINY)


@pytest.mark.parametrize("size", [{"n_clips": 0}, {"duration_s": 0.5}])
def test_a_set_that_is_too_small_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match="at least 1 clip of 1 second"):
        rendered.write(tmp_path / "none", **TINY | size)


def score_of(*tags, seed=0):
    return composer.arrange(tags, np.random.default_rng(seed))


def test_every_tag_has_a_sound_and_others_are_refused():
    known = {*composer.STYLES, *composer.INSTRUMENTS, *composer.MANNERS}
    assert set(rendered.TAGS) <= known | composer.BAND["synonyms"].keys()
    with pytest.raises(ValueError, match="'theremin'"):
        score_of("guitar", "theremin")


@pytest.mark.parametrize(
    ("tag", "synonym"),
    [("vocal", "singing"), ("female", "woman"), ("beat", "beats"), ("classical", "classic")],
)
def test_synonyms_sound_the_same(tag, synonym):
    for seed in range(5):
        assert score_of("guitar", tag, seed=seed) == score_of("guitar", synonym, seed=seed)


def test_tagged_parts_are_the_loudest():
    score = score_of("rock", "piano", "male vocal", "flute")
    tagged = {"overdriven guitar", "piano", "man", "flute"}
    assert tagged <= set(score.parts)
    softest = min(score.parts[name] for name in tagged)
    assert all(level < softest for name, level in score.parts.items() if name not in tagged)


def test_tags_of_manner_are_respected():
    for seed in range(20):
        assert set(score_of("solo", "violin", seed=seed).parts) == {"violin"}
        assert not set(score_of("no vocals", "pop", seed=seed).parts) & set(composer.VOICES)
        assert score_of("drums", "classical", seed=seed).drums
        fast, slow = score_of("rock", "fast", seed=seed), score_of("rock", "slow", seed=seed)
        assert fast.beats_per_minute > 2 * slow.beats_per_minute
    assert (score_of("loud").dynamic, score_of("soft").dynamic, score_of().dynamic) == (1, -1, 0)
