"""The optimizers against the formulas of their update rules."""

import numpy as np
import pytest
import torch

from jetatag.config import Phase
from jetatag.joint.heads import build_model
from jetatag.joint.methods import JOINT, joint_loss
from jetatag.training.optimizers import KerasAdam, build_optimizer, learning_rate


class Formulas:
    """Keras 2's Adam and SGD in numpy float64; one object serves all phases, as in the original."""

    def __init__(self, weights: list[np.ndarray]):
        self.weights = weights
        self.m, self.v, self.velocity = ([np.zeros_like(w) for w in weights] for _ in range(3))
        self.t = 0

    def adam(self, gradients: list[np.ndarray], rate: float) -> None:
        self.t += 1
        rate *= np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
        for w, g, m, v in zip(self.weights, gradients, self.m, self.v, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            w -= rate * m / (np.sqrt(v) + 1e-7)

    def sgd(self, gradients: list[np.ndarray], rate: float) -> None:
        for w, g, velocity in zip(self.weights, gradients, self.velocity, strict=True):
            velocity *= 0.9
            velocity -= rate * g
            w += 0.9 * velocity - rate * g


@pytest.fixture
def stage_1(tiny_store, tiny_config):
    """The config, the parameters that stage 1 trains in float64, and their gradients on a batch."""
    config = tiny_config.replace(optimizer_form="as_coded", pair_loss="margin_as_coded")
    model = build_model(config, tiny_store.vocabulary).double()
    learning = [p for part in JOINT for p in getattr(model, part).parameters()]
    rows = tiny_store.rows("train")[:2]
    audio = torch.from_numpy(tiny_store.read(rows, [0, 0], config.crop_samples)).double()
    labels = torch.from_numpy(tiny_store.labels[rows]).double()

    def gradients() -> list[np.ndarray]:
        model.zero_grad()
        joint_loss(model, model.extractor(audio), labels, config, None)["loss"].backward()
        grads = [p.grad for p in learning]  # the query scale has none without queries
        return [
            np.zeros(p.shape) if g is None else g.numpy()
            for p, g in zip(learning, grads, strict=True)
        ]

    return config, learning, gradients


def test_as_coded_stage_1_follows_the_formulas(stage_1):
    config, learning, gradients = stage_1
    rules = Formulas([p.detach().numpy().copy() for p in learning])
    phases = [Phase("adam", 1e-4, 4), Phase("sgd", 1e-3, 3), Phase("sgd", 1e-4, 3)]
    optimizer = None
    for phase in phases:
        optimizer = build_optimizer(config, phase, learning, optimizer)
        for _ in range(phase.epochs):  # one step each
            getattr(rules, phase.optimizer)(gradients(), phase.learning_rate)
            optimizer.step()
            for ours, theirs in zip(learning, rules.weights, strict=True):
                np.testing.assert_allclose(ours.detach(), theirs, rtol=1e-9, atol=1e-12)
    assert type(optimizer) is torch.optim.SGD


def test_as_coded_adam_counts_on_into_stage_2(tiny_config):
    config = tiny_config.replace(optimizer_form="as_coded")
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = build_optimizer(config, Phase("adam", 1e-2, 1), [weight], steps_done=1000)
    weight.grad = torch.full((1,), 0.5, dtype=torch.float64)
    optimizer.step()
    rules = Formulas([np.ones(1)])
    rules.t = 1000
    rules.adam([np.full(1, 0.5)], 1e-2)
    assert weight.item() == pytest.approx(rules.weights[0][0], abs=1e-14)
    assert 1 - weight.item() > 2e-2  # an uncounted Adam's first step is its learning rate


def test_as_published_every_phase_starts_a_new_optimizer_of_torch(tiny_config):
    weight = torch.ones(1, requires_grad=True)
    adam, sgd = Phase("adam", 1e-4, 1), Phase("sgd", 1e-3, 1)
    first = build_optimizer(tiny_config, adam, [weight])
    assert type(first) is torch.optim.Adam and first.param_groups[0]["eps"] == 1e-8
    second = build_optimizer(tiny_config, sgd, [weight], first)
    assert type(second) is torch.optim.SGD and second.param_groups[0]["nesterov"]
    assert build_optimizer(tiny_config, sgd, [weight], second) is not second
    coded = tiny_config.replace(optimizer_form="as_coded")
    assert isinstance(build_optimizer(coded, adam, [weight], second), KerasAdam)


def test_one_cycle_is_torchs():
    """Within 2 %, because torch rounds its rise to whole steps and takes one more step down."""
    n_steps, phase = 50, Phase("adamw", 3e-3, 10, "one_cycle")
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    shape = {"total_steps": n_steps + 1, "pct_start": 0.32, "final_div_factor": 1e4 / 25}
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, **shape)
    ours, theirs = [], []
    for step in range(n_steps):
        theirs.append(optimizer.param_groups[0]["lr"])
        ours.append(learning_rate(phase, step / n_steps))
        optimizer.step()
        cycle.step()
    np.testing.assert_allclose(ours, theirs, atol=3e-3 * 0.02)
    assert max(ours) == pytest.approx(3e-3) and ours[0] == pytest.approx(3e-3 / 25)
    assert learning_rate(Phase("sgd", 1e-3, 10), 0.7) == 1e-3
