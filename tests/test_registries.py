"""Names come from one table each: what is added from outside is trained like the rest."""

import numpy as np
import pytest
import torch
from torch import nn

from jetatag.config import RunConfig
from jetatag.evaluation.predict import predict
from jetatag.extractors import EXTRACTORS
from jetatag.joint.losses import PAIR_LOSSES, PairLoss
from jetatag.joint.methods import METHODS, STAGE1, STAGE2, Method
from jetatag.training.run import Run
from jetatag.training.train import train

pytestmark = pytest.mark.usefixtures("registries")


def trained(config, store, folder):
    run = Run.start(folder, config, store)
    predict(run, train(run, store), store)
    return run


def test_a_pair_loss_from_outside(tiny_store, tiny_config, tmp_path):
    def euclidean(batch):
        return (batch.z_audio - batch.z_tag).square().sum(1).mean()

    PAIR_LOSSES["euclidean"] = PairLoss(euclidean, weight=3.0, searchable_by_tags=True)

    run = trained(tiny_config.replace(pair_loss="euclidean"), tiny_store, tmp_path)
    losses = run.history[run.history.stage == "stage1"]
    np.testing.assert_allclose(losses.loss, losses.reconstruction + 3 * losses.pair, rtol=1e-5)
    assert not run.read_arrays("embeddings.npz")["z_centre"].any()  # queries are encoded tags


def test_a_method_from_outside(tiny_store, tiny_config, tmp_path):
    METHODS["je_tiny"] = Method((STAGE1, STAGE2), "je with one linear layer", head="linear")

    run = trained(tiny_config.replace(method="je_tiny"), tiny_store, tmp_path)
    assert list(run.record["stages"]) == ["stage1", "stage2"]
    assert "classifier.weight" in run.read_tensors("stage2.safetensors")
    with pytest.raises(ValueError, match="and je_tiny need a pair loss"):
        tiny_config.replace(method="je_tiny", pair_loss="none")


def test_an_extractor_from_outside(tiny_store, tiny_config, tmp_path):
    class Loudness(nn.Module):
        n_features, min_samples = 2, 1_000

        def forward(self, waveform):
            return torch.stack([waveform.abs().mean(1), waveform.std(1)], 1)

    EXTRACTORS["loudness"] = Loudness

    run = trained(tiny_config.replace(extractor="loudness"), tiny_store, tmp_path)
    assert run.folder.name == "je-subset_query-loudness-seed0"
    assert run.read_arrays("embeddings.npz")["h"].shape[1] == 2
    assert RunConfig(extractor="loudness").crop_samples == 59_049


def test_an_extractor_from_outside_must_keep_the_contract(tiny_store, tiny_config, tmp_path):
    EXTRACTORS["flat"] = nn.Flatten
    run = Run.start(tmp_path, tiny_config.replace(extractor="flat"), tiny_store)
    with pytest.raises(ValueError, match=r"Flatten.* must be a module with integers"):
        train(run, tiny_store)


def test_what_a_name_needs_is_stated_by_its_entry():
    je, joint, control = METHODS["je"], METHODS["joint"], METHODS["no_je_linear"]
    assert je.is_joint and joint.is_joint and not control.is_joint
    assert je.with_je and joint.with_je and METHODS["je_shuffled"].is_joint
    assert not METHODS["je_shuffled"].with_je and not METHODS["bce_two_stage"].with_je
    assert PAIR_LOSSES["subset_query"].searchable_by_tags
    assert not PAIR_LOSSES["cosine"].searchable_by_tags
    assert all(loss.function.__doc__ for loss in PAIR_LOSSES.values())
    assert all(extractor.__doc__ for extractor in EXTRACTORS.values())
