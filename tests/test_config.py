import json
import re

import pytest

from jetatag import config
from jetatag.config import Phase, RunConfig
from jetatag.extractors import EXTRACTORS
from jetatag.files import write_json


def test_the_paper_is_the_default():
    run = RunConfig()
    assert sum(phase.epochs for phase in run.stage1) == 100
    assert sum(phase.epochs for phase in run.stage2) == 200
    sizes = (run.width, run.embedding_dim, run.batch_size, run.crop_samples)
    assert sizes == (128, 128, 16, 80_000)


def test_the_papers_crop_follows_the_extractor():
    assert config.preset("paper", extractor="sample_cnn_se").crop_samples == 59_049
    assert config.preset("demo", extractor="harmonic_cnn").crop_samples == 80_000
    assert RunConfig(crop_samples=75_000).replace(extractor="sample_cnn").crop_samples == 75_000


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_only_a_crop_of_another_length_counts_as_a_change(extractor):
    run = RunConfig(extractor=extractor)
    assert run.changes().keys() <= {"extractor"}
    other = run.replace(crop_samples=run.crop_samples + 1)
    assert other.changes()["crop_samples"] == run.crop_samples + 1


def phase(**changes):
    return [{"optimizer": "adam", "learning_rate": 1e-3, "epochs": 1} | changes]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"widht": 8}, "unknown RunConfig setting 'widht' (did you mean 'width'?): choose from"),
        ({"width": "8"}, "width must be of type int, not '8'."),
        ({"width": 8.0}, "width must be of type int, not 8.0."),
        ({"width": True}, "width must be of type int"),
        ({"width": 0}, "width must be at least 1, not 0."),
        ({"shuffle": "false"}, "shuffle must be of type bool"),
        ({"device": None}, "device must be of type str"),
        ({"label_share": True}, "label_share must be of type float"),
        ({"label_share": 0}, "label_share must be above 0, not 0"),
        ({"label_share": 1.5}, "label_share must be at most 1, not 1.5."),
        ({"checkpoint_minutes": -1}, "checkpoint_minutes must be at least 0, not -1."),
        ({"checkpoint_minutes": float("nan")}, "checkpoint_minutes must be a finite number"),
        ({"checkpoint_minutes": 10**400}, "checkpoint_minutes must be a finite number"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**63}, "seed must be below"),
        ({"method": "joined"}, "unknown method 'joined'"),
        ({"pair_loss": "cosin"}, "unknown pair_loss 'cosin' (did you mean 'cosine'?)"),
        ({"extractor": "harmonic"}, "did you mean 'harmonic_cnn'?"),
        ({"windows": "evn"}, "unknown windows 'evn' (did you mean 'even'?): choose from even, as"),
        ({"method": "no_je"}, "method 'no_je' does not go with pair_loss 'cosine'"),
        ({"method": "bce_two_stage"}, "does not go with pair_loss 'cosine'"),
        ({"pair_loss": "none"}, "je_shuffled and joint_shuffled need a pair loss"),
        ({"method": "je_shuffled", "pair_loss": "none"}, "need a pair loss"),
        ({"method": "joint", "pair_loss": "none"}, "'joint' does not go with pair_loss 'none'"),
        (
            {"classification_loss": "hil"},
            "unknown classification_loss 'hil' (did you mean 'hill'?)",
        ),
        (
            {"classification_parameters": {"gamma": 1.0}},
            "bce has no parameters",
        ),
        (
            {"classification_loss": "hill", "classification_parameters": {"peak": 0.5}},
            "peak must be at least 1, not 0.5",
        ),
        ({"pair_weight": -1.0}, "pair_weight must be at least 0"),
        (
            {"extractor": "short_chunk_cnn", "crop_samples": 20_000},
            "short_chunk_cnn needs at least 32,512 samples, and crop_samples is 20,000: raise it",
        ),
        ({"stage1": []}, "at least one phase"),
        ({"stage1": 3}, "stage1 must be of type list, not 3"),
        ({"stage1": [3]}, "stage1 must be of type dict, not 3"),
        ({"stage1": phase(optimizer="adan")}, "unknown optimizer 'adan' (did you mean 'adam'?)"),
        ({"stage1": phase(epoch=1)}, "unknown Phase setting 'epoch' (did you mean 'epochs'?)"),
        ({"stage2": phase(learning_rate="1e-3")}, "of type float, not '1e-3' (in YAML write 1.0e"),
        ({"stage2": phase(learning_rate=0)}, "learning_rate must be above 0"),
        ({"stage2": phase(epochs=0)}, "epochs must be at least 1, not 0"),
        ({"stage2": [{"optimizer": "adam", "epochs": 3}]}, "learning_rate is missing"),
        (
            {"optimizer_form": "as_coded", "stage1": phase(optimizer="adamw")},
            "has adam and sgd at constant rates only",
        ),
    ],
)
def test_a_mistake_is_one_sentence(changes, sentence):
    for make in (RunConfig().replace, RunConfig):
        with pytest.raises(ValueError, match=re.escape(sentence)) as refusal:
            make(**changes)
        assert "\n" not in str(refusal.value)


def test_plain_values_and_back():
    run = config.preset("smoke", method="no_je", pair_loss="none", seed=3)
    assert RunConfig(**json.loads(json.dumps(run.to_dict()))) == run
    assert run.name == "no_je-harmonic_cnn-seed3"
    assert Phase("sgd", 1, 2).learning_rate == 1.0 and Phase("sgd", 1, 2).shape == "constant"


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().width = 3


def test_every_setting_has_a_sentence():
    for kind in (Phase, RunConfig):
        assert all(field.description for field in kind.model_fields.values())


def test_unknown_preset_is_refused():
    with pytest.raises(ValueError, match=r"unknown preset 'dmo' .did you mean 'demo'"):
        config.preset("dmo")


@pytest.mark.parametrize(
    ("content", "error", "sentence"),
    [
        (None, FileNotFoundError, "does not exist"),
        (b"a: [1", ValueError, "not valid YAML"),
        (b"- 1", ValueError, "name: value"),
        (b"a: \xff", ValueError, "not UTF-8"),
    ],
)
def test_yaml_is_a_mapping_or_a_sentence(tmp_path, content, error, sentence):
    if content is not None:
        (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(error, match=sentence) as refusal:
        config.read_yaml(tmp_path / "run.yaml")
    assert "\n" not in str(refusal.value)


def test_the_settings_of_a_run_are_read_from_its_json(tmp_path):
    """In which Python writes 1e-05, in YAML a text."""
    settings = RunConfig(stage1=(Phase("sgd", 1e-5, 1),)).to_dict()
    write_json(tmp_path / "config.json", settings)
    assert "1e-05" in (tmp_path / "config.json").read_text()
    assert RunConfig(**config.read_yaml(tmp_path / "config.json")).to_dict() == settings


def test_other_parameters_of_a_loss_give_another_name_and_its_defaults_none():
    values = (2, 1.5, 1.5000001)
    configs = [
        RunConfig(classification_loss="hill", classification_parameters={"peak": value})
        for value in values
    ]
    names = [config.classification_name for config in configs]
    assert names == ["hill-peak2", "hill", "hill-peak1.5000001"]
    assert configs[1] == RunConfig(classification_loss="hill")
    assert len({config.name for config in configs}) == 3
