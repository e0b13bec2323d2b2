import re
from typing import get_args

import pytest

from jetatag import config, extractors
from jetatag.config import Phase, RunConfig
from jetatag.joint import losses, methods


def test_the_paper_is_the_default():
    run = RunConfig()
    assert sum(phase.epochs for phase in run.stage1) == 100
    assert sum(phase.epochs for phase in run.stage2) == 200
    assert (run.width, run.embedding_dim, run.batch_size, run.crop_samples) == (
        128,
        128,
        16,
        80_000,
    )


def test_names_in_the_config_are_the_names_of_the_rooms():
    assert get_args(config.Method) == tuple(methods.METHODS)
    two_stages = {name for name, method in methods.METHODS.items() if len(method.stages) == 2}
    joint = {name for name in two_stages if "projection" in methods.METHODS[name].stages[0].learns}
    assert set(config.TWO_STAGE_METHODS) == two_stages and set(config.JOINT_METHODS) == joint
    assert set(get_args(config.PairLoss)) - {"none"} == set(losses.PAIR_LOSSES)
    assert config.preset("paper", extractor="sample_cnn_se").crop_samples == 59_049
    assert config.preset("demo", extractor="harmonic_cnn").crop_samples == 80_000
    assert get_args(config.Extractor) == (*extractors.EXTRACTORS, "own")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"widht": 8}, "unknown RunConfig setting 'widht' (did you mean 'width'?): choose from"),
        ({"width": "8"}, "width must be of type int, not '8'"),
        ({"width": True}, "width must be of type int"),
        ({"shuffle": "false"}, "shuffle must be of type bool"),
        ({"width": 0}, "width must be at least 1"),
        ({"seed": -1}, "must not be negative"),
        ({"method": "joint"}, "unknown method 'joint'"),
        ({"extractor": "harmonic"}, "did you mean 'harmonic_cnn'?"),
        ({"method": "no_je"}, "does not go with pair_loss 'cosine'"),
        ({"pair_loss": "none"}, "need a pair loss"),
        ({"method": "bce_two_stage"}, "does not go with pair_loss 'cosine'"),
        ({"method": "je_shuffled", "pair_loss": "none"}, "need a pair loss"),
        ({"checkpoint_minutes": -1}, "must not be negative"),
        (
            {
                "optimizer_form": "as_coded",
                "stage1": [{"optimizer": "adamw", "learning_rate": 1e-3, "epochs": 1}],
            },
            "knows adam and sgd at constant rates alone",
        ),
        ({"stage1": []}, "at least one phase"),
        ({"stage1": 3}, "stage1 must be a list"),
        ({"stage2": [{"optimizer": "adam", "learning_rate": "1e-3", "epochs": 1}]}, "1.0e-3"),
        ({"stage2": [{"optimizer": "adam", "learning_rate": 1e-3, "epochs": 0}]}, "one epoch"),
        ({"stage2": [{"optimizer": "adam", "epochs": 3}]}, "Phase needs 'learning_rate'"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as refusal:
        RunConfig().replace(**changes)
    assert "\n" not in str(refusal.value)


def test_plain_values_and_back():
    run = config.preset("smoke", method="no_je", pair_loss="none", seed=3)
    assert RunConfig.from_dict(run.to_dict()) == run
    assert run.name == "no_je-harmonic_cnn-seed3"
    assert (
        Phase.from_dict({"optimizer": "sgd", "learning_rate": 1, "epochs": 2}).learning_rate == 1.0
    )


def test_unknown_preset_is_refused():
    with pytest.raises(ValueError, match=r"unknown preset 'dmo' .did you mean 'demo'"):
        config.preset("dmo")


def test_yaml_is_a_mapping_or_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        config.read_yaml(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ValueError, match="not valid YAML") as refusal:
        config.read_yaml(tmp_path / "bad.yaml")
    assert "\n" not in str(refusal.value)
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ValueError, match="name: value"):
        config.read_yaml(tmp_path / "list.yaml")
