import numpy as np
import pytest
import torch

from jetatag.data import Vocabulary
from jetatag.joint import heads


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("n_tags", "dim", "projector", "encoder", "decoder", "classifier"),
    [
        (50, 128, 147_712, 23_040, 22_962, 341_042),
        (17, 50, 53_800, 3_450, 3_417, 332_561),
        (35, 64, 69_760, 6_464, 6_435, 337_187),
    ],
)
def test_parameter_counts_are_the_originals(n_tags, dim, projector, encoder, decoder, classifier):
    assert count(heads.encoder(1024, dim)) == projector
    assert count(heads.encoder(n_tags, dim)) == encoder
    assert count(heads.tag_decoder(dim, n_tags)) == decoder
    assert count(heads.classifier(1024, n_tags)) == classifier


def test_unit_norm_of_the_zero_vector_is_zero():
    x = torch.zeros(2, 4, requires_grad=True)
    unit = heads.UnitNorm()(torch.cat([x[:1], x[1:] + 3]))
    unit.sum().backward()
    torch.testing.assert_close(unit.norm(dim=1), torch.tensor([0.0, 1.0]))
    assert x.grad.abs().max() <= 1


def test_initial_weights_depend_only_on_the_seed(tiny_config):
    vocabulary = Vocabulary(("a", "b"))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    first = heads.build_model(tiny_config, vocabulary).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    again = heads.build_model(tiny_config, vocabulary).state_dict()
    other = heads.build_model(tiny_config.replace(seed=1), vocabulary).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_probabilities_follow_the_task(tiny_config):
    logits = torch.tensor([[3.0, 3.0]])
    for task, expected in (("multilabel", 1 / (1 + np.exp(-3))), ("multiclass", 0.5)):
        model = heads.build_model(tiny_config, Vocabulary(("a", "b"), task))
        probs = model.probabilities(logits)
        assert probs.tolist() == [[pytest.approx(expected)] * 2]


def test_filters_in_hertz_follow_the_sample_rate(tiny_config):
    vocabulary = Vocabulary(("a", "b"))
    tables = [
        heads.build_model(
            tiny_config.replace(extractor="harmonic_cnn", crop_samples=80_000, sample_rate=rate),
            vocabulary,
        ).extractor.front_end.distances
        for rate in (16_000, 22_050)
    ]
    assert tables[0].shape != tables[1].shape or not torch.equal(*tables)
